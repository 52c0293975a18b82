"""The warm-up loss of the decoder: known errors of known pictures, and what it leads to."""

from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.gaussian_cloud import color_to_harmonic
from lift3d.core.networks.gaussian_heads import HeadParams, gaussians_of_pixels
from lift3d.core.training.orbit_sheets import OrbitViews
from lift3d.core.training.pixel_losses import pixel_losses

RIG = make_orbit_rig([0.0, 100.0], 20.0, radius=4.0)
SIDE, SIZE = 4, 8
COLOR, DEPTH = 0.7, 4.25


def plain_truth() -> OrbitViews:
    """Two views that are covered by a facing plane but for their left half."""
    alpha = torch.ones(2, SIZE, SIZE)
    alpha[:, :, : SIZE // 2] = 0.0
    rgb = alpha[..., None] * COLOR + (1 - alpha[..., None])
    return OrbitViews(rgb.expand(2, SIZE, SIZE, 3).contiguous(), alpha, alpha * DEPTH)


def cloud_of(depth: float, color: float, opacity: float, kind: str = "z"):
    raw = torch.zeros(2, 12, SIDE, SIDE)
    raw[:, 0] = depth - 4.0
    raw[:, 1:4] = math.log(color / (1 - color))
    raw[:, 4] = math.log(opacity / (1 - opacity)) + 2.0
    return gaussians_of_pixels(raw, RIG, HeadParams(depth_kind=kind))


def test_gaussians_on_the_surface_have_no_error_of_depth_and_color() -> None:
    found = pixel_losses(cloud_of(DEPTH, COLOR, 0.5), RIG, plain_truth())
    assert float(found["pixel_depth"]) < 1e-6 and float(found["pixel_color"]) < 1e-6
    assert float(found["pixel_opacity"]) == pytest.approx(math.log(2), rel=1e-5)


def test_errors_count_where_the_object_is_and_add_up() -> None:
    found = pixel_losses(cloud_of(DEPTH + 0.3, COLOR - 0.2, 0.8), RIG, plain_truth())
    assert float(found["pixel_depth"]) == pytest.approx(0.3 / 2, rel=1e-4)
    assert float(found["pixel_color"]) == pytest.approx(0.2 / 2, rel=1e-4)
    opacity = -(math.log(0.8) + math.log(0.2)) / 2
    assert float(found["pixel_opacity"]) == pytest.approx(opacity, rel=1e-4)
    assert float(found["total"]) == pytest.approx(0.25 + 0.2 * opacity, rel=1e-4)


def test_half_covered_pixels_count_half_and_have_the_color_of_the_object() -> None:
    truth = plain_truth()
    alpha = truth.alpha.roll(1, dims=2)  # the edge of the object cuts through a Gaussian's block
    alpha[:, :, 0] = 0.0
    rgb = (alpha * COLOR + 1 - alpha)[..., None].expand(2, SIZE, SIZE, 3)
    found = pixel_losses(
        cloud_of(DEPTH, COLOR - 0.2, 0.5), RIG, OrbitViews(rgb, alpha, alpha * DEPTH)
    )
    assert float(found["pixel_color"]) == pytest.approx(0.2 * float(alpha.mean()), rel=1e-4)
    assert float(found["pixel_depth"]) < 1e-6


def test_gradients_pull_depth_color_and_opacity_to_the_truth() -> None:
    truth = plain_truth()
    cloud = cloud_of(DEPTH, COLOR, 0.5)
    raw = torch.zeros(2, 12, SIDE, SIDE, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        pixel_losses(gaussians_of_pixels(raw, RIG, HeadParams()), RIG, truth)["total"].backward()
        optimizer.step()
    found = gaussians_of_pixels(raw.detach(), RIG, HeadParams())
    right = truth.alpha[:, ::2, ::2].reshape(-1) > 0
    torch.testing.assert_close(found.means[right], cloud.means[right], atol=0.03, rtol=0)
    wanted = color_to_harmonic(torch.full((int(right.sum()), 3), COLOR))
    torch.testing.assert_close(found.harmonics[right], wanted, atol=0.1, rtol=0)
    assert float(found.opacities[right].min()) > 0.9 > 0.1 > float(found.opacities[~right].max())


@pytest.mark.parametrize("views", [[0], [0, 1, 1]])
def test_gaussians_of_other_views_are_refused(views: list[int]) -> None:
    truth = plain_truth()
    some = OrbitViews(truth.rgb[views], truth.alpha[views], truth.depth[views])
    with pytest.raises(ValueError, match="32 Gaussians do not stand for"):
        pixel_losses(cloud_of(DEPTH, COLOR, 0.5), RIG.select(views), some)
