"""The embedded orbit model and Gaussian decoder: small, nameless, and better than nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.diffusion.embedded import EMBEDDED_FOLDER, list_embedded
from lift3d.core.diffusion.gaussian_decoder_files import load_gaussian_decoder
from lift3d.core.diffusion.orbit_files import load_orbit_model, with_orbit_lora
from lift3d.core.evaluation.image_metrics import psnr
from lift3d.core.pipelines.decode_gaussians import decode_gaussians
from lift3d.core.pipelines.image_to_orbit import OrbitParams, image_to_orbit
from lift3d.core.rendering.splats import render_splats
from lift3d.core.training.bundle_dataset import BundleDatasetParams, draw_training_object
from lift3d.core.training.embedded_bundle import EMBEDDED_CATEGORIES
from lift3d.core.training.orbit_dataset import draw_views

ELEVATION = 12.0
SEED = 9_700_000
"""No shipped configuration trains on objects from here on."""

FOLDERS = [EMBEDDED_FOLDER / name for name in ("orbit", "gaussian_decoder")]


def rig_of(azimuths: list[float]):
    return make_orbit_rig(azimuths, ELEVATION, radius=4.5, fov_y_deg=30.0)


@pytest.fixture(scope="module")
def views() -> list[torch.Tensor]:
    """For three objects: 16 even views and two from between."""
    params = BundleDatasetParams(3, EMBEDDED_CATEGORIES, seed=SEED)
    azimuths = [22.5 * view for view in range(16)] + [78.75, 236.25]
    objects = [draw_training_object(index, params).mesh for index in range(3)]
    return [draw_views(mesh, rig_of(azimuths), 64, 2).rgb for mesh in objects]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_they_are_small_and_have_a_card() -> None:
    size = sum(path.stat().st_size for folder in FOLDERS for path in files(folder))
    assert size < 40e6
    assert all((folder / "README.md").is_file() for folder in FOLDERS)


def test_they_do_not_say_where_they_lay() -> None:
    texts = [path.read_text(encoding="utf-8") for folder in FOLDERS for path in files(folder)
             if path.suffix == ".json"]  # fmt: skip
    assert len(texts) >= 4
    assert not any(part in text for text in texts for part in ("/work", "/home", "/root", "/tmp"))


def test_they_are_no_models_controls_or_loras_of_other_nodes() -> None:
    for kind in ("model", "control", "lora"):
        listed = list_embedded(kind)
        assert not any(name.startswith(("orbit", "gaussian_decoder")) for name in listed)


def test_true_latents_become_gaussians_that_look_right_from_between(views) -> None:
    decoder, vae = load_gaussian_decoder("gaussian_decoder"), load_orbit_model("orbit").vae
    gains = []
    for truth in views:
        with torch.no_grad():
            encoded = vae.encode(truth[:16].permute(0, 3, 1, 2) * 2 - 1).latent_dist.mode()
        latents = decoder.latent_format.to_network(encoded)
        cloud = decode_gaussians(decoder, latents, rig_of([22.5 * i for i in range(16)]), truth[0])
        drawn = render_splats(cloud, rig_of([78.75, 236.25]), width=64, height=64).rgb.clamp(0, 1)
        blank = torch.ones_like(drawn)
        gains.append(psnr(drawn, truth[16:]) - psnr(blank, truth[16:]))
    assert min(gains) > 2 and sum(gains) / len(gains) > 4


@pytest.mark.slow
def test_one_picture_becomes_gaussians_and_the_lora_fits(views) -> None:
    decoder = load_gaussian_decoder("gaussian_decoder")
    model = with_orbit_lora(load_orbit_model("orbit"), FOLDERS[0] / "geometric.safetensors")
    picture = views[0][0]
    made = image_to_orbit(model, picture, OrbitParams(elevations_deg=(ELEVATION,), steps=6))
    assert made.images.shape == (16, 64, 64, 3)
    cloud = decode_gaussians(decoder, made.latents, made.rig, picture)
    drawn = render_splats(cloud, rig_of([0.0]), width=64, height=64).rgb.clamp(0, 1)
    assert psnr(drawn, picture[None]) > psnr(torch.ones_like(drawn), picture[None]) + 2
