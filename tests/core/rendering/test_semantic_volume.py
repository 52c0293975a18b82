"""Semantic volume rendering: published numbers, a loop of the equations, and whole pictures."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.rendering.semantic_volume import composite_classes, render_classes, transmittance
from lift3d.core.rendering.volume import VolumeParams, render_density
from torch import Tensor

OPACITIES = torch.tensor([0.5, 0.5, 0.8])
COLORS = torch.tensor([1.0, 0.5, 0.0])[:, None].expand(3, 3)
PROBABILITIES = torch.tensor([[0.9, 0.05, 0.05, 0], [0.1, 0.7, 0.1, 0.1], [0, 0.5, 0.5, 0]])
RIG = make_orbit_rig([0.0, 130.0], 10.0, radius=4.0)


def _random(seed: int = 0, samples: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    opacities = torch.rand(5, samples, generator=generator)
    colors = torch.rand(5, samples, 3, generator=generator)
    logits = torch.randn(5, samples, 4, generator=generator)
    return opacities, colors, logits.softmax(dim=-1)


@pytest.mark.parametrize(
    ("kept", "weights", "color"),
    [
        (None, [0.5, 0.25, 0.2], 0.625),
        ([1, 2, 3], [0.05, 0.4275, 0.418], 0.26375),
        ([1, 2], [0.05, 0.38, 0.456], 0.24),
    ],
)
def test_composites_have_the_published_values(kept, weights, color):
    seen = composite_classes(OPACITIES, COLORS, PROBABILITIES, kept)
    torch.testing.assert_close(seen.weights, torch.tensor(weights))
    torch.testing.assert_close(seen.rgb, torch.full((3,), color))
    torch.testing.assert_close(seen.alpha, torch.tensor(weights).sum())


@pytest.mark.parametrize("kept", [[0], [1, 3], [0, 1, 2, 3]])
def test_composites_agree_with_a_loop_of_equations_6_to_8(kept):
    opacities, colors, probabilities = _random()
    seen = composite_classes(opacities, colors, probabilities, kept)
    for ray in range(len(opacities)):
        light, rgb, semantics = 1.0, torch.zeros(3), torch.zeros(4)
        for a, c, p in zip(opacities[ray], colors[ray], probabilities[ray], strict=True):
            q = p[kept].sum()
            rgb = rgb + light * a * c * q
            semantics = semantics + light * a * p * q
            light = light * (1 - a * q)
        torch.testing.assert_close(seen.rgb[ray], rgb)
        torch.testing.assert_close(seen.semantics[ray], semantics)
        torch.testing.assert_close(seen.alpha[ray], 1 - light)


def test_the_form_of_the_released_program_differs_only_in_the_semantics():
    opacities, colors, probabilities = _random(1)
    paper, reference = (
        composite_classes(opacities, colors, probabilities, [1, 2], form=form)
        for form in ("paper", "reference")
    )
    torch.testing.assert_close(paper.rgb, reference.rgb)
    assert float(reference.semantics[:, [0, 3]].abs().max()) == 0
    torch.testing.assert_close(
        reference.semantics.sum(dim=-1), reference.alpha, atol=1e-4, rtol=0
    )  # scaled to sum 1
    assert bool((paper.semantics[:, [0, 3]] > 0).all())


def test_light_before_the_first_sample_is_whole():
    torch.testing.assert_close(transmittance(OPACITIES), torch.tensor([1.0, 0.5, 0.25]))


def test_gradients_are_finite_at_opaque_and_empty_samples():
    opacities = torch.tensor([0.0, 1.0, 1.0, 0.5], requires_grad=True)
    probabilities = torch.eye(4).requires_grad_()
    seen = composite_classes(opacities, torch.rand(4, 3), probabilities, [1, 2])
    (seen.rgb.sum() + seen.semantics.square().sum()).backward()
    assert bool(torch.isfinite(opacities.grad).all())
    assert bool(torch.isfinite(probabilities.grad).all())


def _shell_and_core(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A red ball of radius 0.6 of class 0 round a green one of radius 0.3 of class 1."""
    distance = points.norm(dim=1)
    is_core = (distance < 0.3).to(points)
    probabilities = torch.stack([1 - is_core, is_core], dim=1)
    colors = torch.stack([1 - is_core, is_core, torch.zeros_like(is_core)], dim=1)
    return 60.0 * (distance < 0.6).to(points), colors, probabilities


def test_a_dropped_shell_shows_the_core_as_if_it_were_alone():
    params = VolumeParams(num_samples=256)
    part = render_classes(_shell_and_core, RIG, [1], width=17, height=17, params=params)
    core = render_density(
        lambda points: (_shell_and_core(points)[0] * (points.norm(dim=1) < 0.3), points.new_tensor([0.0, 1.0, 0.0]).expand_as(points)),
        RIG, width=17, height=17, params=params,
    )  # fmt: skip
    torch.testing.assert_close(part.rgb, core.rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(part.alpha, core.alpha, atol=1e-5, rtol=0)
    assert float(part.semantics[..., 0].max()) == 0


def test_all_classes_give_the_picture_of_the_plain_renderer():
    params = VolumeParams(num_samples=64, stratified=True, seed=3, max_points=500)
    whole = render_classes(_shell_and_core, RIG, width=9, height=7, params=params)
    plain = render_density(
        lambda points: _shell_and_core(points)[:2], RIG, width=9, height=7, params=params
    )
    torch.testing.assert_close(whole.rgb, plain.rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.semantics.sum(dim=-1), whole.alpha, atol=1e-5, rtol=0)


def test_unknown_classes_and_forms_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="kept must name classes 0..3"):
        composite_classes(OPACITIES, COLORS, PROBABILITIES, [4])
    with pytest.raises(ValueError, match="kept must name classes"):
        composite_classes(OPACITIES, COLORS, PROBABILITIES, [])
    with pytest.raises(ValueError, match="form must be"):
        composite_classes(OPACITIES, COLORS, PROBABILITIES, [1], form="soft")
