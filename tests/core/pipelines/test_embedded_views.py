"""The embedded view model: small, nameless, and able to turn a grey ball into a named object."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lift3d.core.camera import make_orbit_rig
from lift3d.core.diffusion.diffusers_model import load_diffusers_model
from lift3d.core.diffusion.embedded import EMBEDDED_FOLDER
from lift3d.core.pipelines.ge3d_presets import (
    SMALL_COARSE,
    choose_refine_params,
    load_ge3d_params,
)
from lift3d.core.pipelines.initial_splats import InitialSplatParams, splats_in_shape
from lift3d.core.pipelines.reconstructive_refine import refine_reconstructively
from lift3d.core.pipelines.splat_fidelity import splat_hue_shares
from lift3d.core.rendering.splats import render_splats

FOLDER = EMBEDDED_FOLDER / "views"


def test_it_is_small_and_has_a_card() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6
    assert (FOLDER / "README.md").is_file()


def test_it_does_not_say_where_it_lay() -> None:
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.json")]
    assert len(texts) >= 5
    assert not any(part in text for text in texts for part in ("/work", "/home", "/root", "/tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(("prompt", "hue"), [("a red boat", "red"), ("a pink lamp", "pink")])
def test_a_grey_ball_becomes_an_object_of_the_hue_asked_for(prompt: str, hue: str) -> None:
    ball = splats_in_shape(InitialSplatParams(1000, radius=0.6, opacity=0.3))
    choices = replace(SMALL_COARSE, views=12, steps=360, rounds=3)
    objective = replace(load_ge3d_params("small").objective, guidance_scale=5.0)
    model = load_diffusers_model(FOLDER, device="cpu")
    made = refine_reconstructively(
        prompt, model, ball, objective, choose_refine_params("small", choices)
    )
    shares = splat_hue_shares(made.cloud)
    assert max(shares, key=lambda name: shares[name]) == hue


@pytest.mark.slow
def test_a_car_is_longer_from_the_side_than_from_the_front() -> None:
    """The model heeds the words for the views: a model of 15,000 steps drew both alike."""
    ball = splats_in_shape(InitialSplatParams(1000, radius=0.6, opacity=0.3))
    choices = replace(SMALL_COARSE, views=12, steps=360, rounds=3)
    objective = load_ge3d_params("small").objective
    model = load_diffusers_model(FOLDER, device="cpu")
    made = refine_reconstructively(
        "an orange car", model, ball, objective, choose_refine_params("small", choices)
    )
    rig = make_orbit_rig([0.0, 90.0], 10.0, radius=4.5)
    seen = render_splats(made.cloud, rig, width=64, height=64, with_normals=False).alpha > 0.5
    front, side = (int(mask.any(dim=0).sum()) for mask in seen)
    assert side > 1.15 * front
