"""L_3D: known errors of known pictures, and gradients that lead to the truth."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.gaussian_cloud import GaussianCloud, color_to_harmonic
from lift3d.core.rendering.splats import render_splats
from lift3d.core.training.orbit_sheets import OrbitViews
from lift3d.core.training.splat_losses import SplatLossParams, mean_losses, splat_losses

RIG = make_orbit_rig([0.0, 120.0], 10.0, radius=4.0)
SIZE = 24


def cloud_of(shade: float = 0.3, depth: float = 0.0, opacity: float = 0.95) -> GaussianCloud:
    colors = torch.full((1, 3), shade)
    return GaussianCloud(
        torch.tensor([[0.0, 0.0, depth]]), torch.full((1, 3), 0.35),
        torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([opacity]), color_to_harmonic(colors),
    )  # fmt: skip


def views_of(cloud: GaussianCloud) -> OrbitViews:
    drawn = render_splats(cloud, RIG, width=SIZE, height=SIZE)
    return OrbitViews(drawn.rgb, drawn.alpha, drawn.depth)


def losses(cloud, truth, params=None, seed=0):
    params = params or SplatLossParams()
    return splat_losses(cloud, RIG, truth, params, torch.Generator().manual_seed(seed))


def test_the_truth_itself_costs_nothing() -> None:
    for params in (SplatLossParams(), SplatLossParams(0.2, 1.0, random_background=True)):
        found = losses(cloud_of(), views_of(cloud_of()), params)
        assert all(float(value) < 1e-9 for value in found.values())


def test_errors_are_means_of_squares_and_weights_are_honoured() -> None:
    truth, found = cloud_of(0.3, 0.0), cloud_of(0.5, 0.2)
    parts = losses(found, views_of(truth), SplatLossParams(0.2, 0.7))
    a = render_splats(found, RIG, width=SIZE, height=SIZE)
    b = render_splats(truth, RIG, width=SIZE, height=SIZE)
    rgb = ((a.rgb - b.rgb) ** 2).mean()
    distance = torch.tensor([4.0, 4.0])[:, None, None]
    depth = ((a.alpha * (a.depth - distance) - b.alpha * (b.depth - distance)) ** 2).mean()
    mask = ((a.alpha - b.alpha) ** 2).mean()
    torch.testing.assert_close(parts["rgb"], rgb)
    torch.testing.assert_close(parts["depth"], depth, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(parts["total"], rgb + 0.2 * depth + 0.7 * mask, atol=1e-6, rtol=1e-4)
    assert SplatLossParams().depth_weight == 0.2 and SplatLossParams().mask_weight == 0.0


def test_the_depth_error_does_not_depend_on_the_radius_of_the_orbit() -> None:
    errors = []
    for radius in (4.0, 40.0):
        rig = make_orbit_rig([0.0], 0.0, radius=radius, fov_y_deg=None, ortho_height=2.4)
        drawn = [render_splats(cloud_of(0.3, d), rig, width=SIZE, height=SIZE) for d in (0.0, 0.2)]
        truth = OrbitViews(drawn[0].rgb, drawn[0].alpha, drawn[0].depth)
        generator = torch.Generator().manual_seed(0)
        parts = splat_losses(cloud_of(0.3, 0.2), rig, truth, SplatLossParams(), generator)
        errors.append(float(parts["depth"]))
    assert errors[0] == pytest.approx(errors[1], rel=1e-3) and errors[0] > 1e-4


def test_random_backgrounds_tell_white_objects_from_nothing() -> None:
    truth = views_of(cloud_of(1.0))
    ghost = cloud_of(1.0, opacity=0.01)
    assert float(losses(ghost, truth)["rgb"]) < 1e-6
    assert float(losses(ghost, truth, SplatLossParams(random_background=True))["rgb"]) > 1e-3


def test_gradients_lead_to_the_truth() -> None:
    truth = views_of(cloud_of(0.3, 0.1))
    place = torch.tensor([[0.0, 0.0, -0.2]], requires_grad=True)
    optimizer = torch.optim.Adam([place], lr=0.02)
    for _ in range(60):
        start = cloud_of(0.3)
        cloud = GaussianCloud(place, start.scales, start.quats, start.opacities, start.harmonics)
        optimizer.zero_grad()
        losses(cloud, truth)["total"].backward()
        optimizer.step()
    torch.testing.assert_close(place.detach()[0, 2], torch.tensor(0.1), atol=0.02, rtol=0)


def test_invisible_gaussians_may_be_left_out() -> None:
    faint = cloud_of(opacity=0.001)
    assert float(losses(faint, views_of(cloud_of()))["rgb"]) > 0.01
    both = mean_losses([{"total": torch.tensor(1.0)}, {"total": torch.tensor(3.0)}])
    assert float(both["total"]) == 2.0
    with pytest.raises(ValueError, match="must not be negative"):
        SplatLossParams(depth_weight=-1.0)
