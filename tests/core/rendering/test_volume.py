"""Volume rendering: absorption laws, depth, determinism, gradients and bad fields."""

from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.camera import Camera, ViewRig, make_orbit_pose, make_orbit_rig
from lift3d.core.rendering.volume import VolumeParams, render_density
from torch import Tensor

RIG = make_orbit_rig([0.0, 70.0], 10.0, radius=4.0)


def _fog(density: float) -> object:
    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        color = points.new_tensor([0.9, 0.2, 0.1]).expand_as(points)
        return torch.full_like(points[:, 0], density), color

    return field


def _ball(points: Tensor) -> tuple[Tensor, Tensor]:
    inside = (points.norm(dim=1) < 0.5).to(points)
    return 50.0 * inside, 0.5 + 0.5 * points.clamp(-1, 1)


def test_uniform_fog_absorbs_exponentially() -> None:
    rig = make_orbit_rig([0.0], 0.0, radius=4.0, ortho_height=1.0)
    render = render_density(_fog(0.7), rig, width=5, height=5)
    expected = 1 - math.exp(-0.7 * 2.0)  # the cube is two units deep
    torch.testing.assert_close(render.alpha, torch.full((1, 5, 5), expected))
    torch.testing.assert_close(
        render.rgb[0, 2, 2], expected * torch.tensor([0.9, 0.2, 0.1]) + 1 - expected
    )


def test_expected_depth_of_fog_is_the_analytic_mean() -> None:
    rig = make_orbit_rig([0.0], 0.0, radius=4.0, ortho_height=1.0)
    render = render_density(
        _fog(1.5), rig, width=3, height=3, params=VolumeParams(num_samples=2000)
    )
    k, length = 1.5, 2.0
    mean = 1 / k - length * math.exp(-k * length) / (1 - math.exp(-k * length))
    torch.testing.assert_close(render.depth, torch.full((1, 3, 3), 3.0 + mean), atol=1e-3, rtol=0)


def test_dense_ball_is_seen_at_its_front() -> None:
    render = render_density(_ball, RIG, width=33, height=33, params=VolumeParams(num_samples=512))
    torch.testing.assert_close(render.depth[:, 16, 16], torch.full((2,), 3.52), atol=0.02, rtol=0)
    assert float(render.alpha[:, 16, 16].min()) > 0.999
    assert float(render.alpha[:, 0, 0].max()) == 0.0
    torch.testing.assert_close(render.rgb[:, 0, 0], torch.ones(2, 3))


def test_rays_beside_the_cube_show_the_background() -> None:
    rig = make_orbit_rig([0.0], 0.0, radius=4.0, ortho_height=6.0)
    render = render_density(
        _fog(5.0), rig, width=9, height=9, params=VolumeParams(background=(0.1, 0.2, 0.3))
    )
    torch.testing.assert_close(render.rgb[0, 0, 0], torch.tensor([0.1, 0.2, 0.3]))
    assert float(render.depth[0, 0, 0]) == 0.0


def test_chunks_do_not_change_the_picture() -> None:
    whole = render_density(_ball, RIG, width=16, height=12)
    pieces = render_density(_ball, RIG, width=16, height=12, params=VolumeParams(max_points=300))
    torch.testing.assert_close(whole.rgb, pieces.rgb)
    torch.testing.assert_close(whole.depth, pieces.depth)


def test_stratified_samples_repeat_with_their_seed_and_agree_on_average() -> None:
    def alpha(seed: int) -> Tensor:
        params = VolumeParams(num_samples=64, stratified=True, seed=seed)
        return render_density(_ball, RIG, width=24, height=24, params=params).alpha

    assert torch.equal(alpha(1), alpha(1))
    assert not torch.equal(alpha(1), alpha(2))
    regular = render_density(_ball, RIG, width=24, height=24).alpha
    assert float((alpha(1) - regular).mean().abs()) < 0.01


def test_gradients_reach_the_field_and_the_camera() -> None:
    strength = torch.tensor(2.0, requires_grad=True)
    pose = make_orbit_pose(20.0, 10.0, 4.0).requires_grad_()

    def blob(points: Tensor) -> tuple[Tensor, Tensor]:
        density = strength * torch.exp(-4 * ((points - 0.2) ** 2).sum(dim=1))
        return density, points.sigmoid()

    def loss(camera_pose: Tensor) -> Tensor:
        rig = ViewRig((Camera(camera_pose),), ("front",))
        render = render_density(blob, rig, width=8, height=8)
        return (
            render.rgb * torch.linspace(0, 1, 8)[None, None, :, None]
        ).sum() + render.depth.mean()

    loss(pose).backward()
    assert strength.grad is not None and bool(torch.isfinite(strength.grad))
    assert pose.grad is not None and bool(torch.isfinite(pose.grad).all())
    step = 1e-2
    shift = torch.zeros(4, 4)
    shift[0, 3] = step
    with torch.no_grad():
        slope = (loss(pose + shift) - loss(pose - shift)) / (2 * step)
    torch.testing.assert_close(pose.grad[0, 3], slope, rtol=2e-2, atol=1e-3)


def test_camera_inside_the_volume_sees_only_what_is_ahead() -> None:
    rig = ViewRig((Camera(make_orbit_pose(0.0, 0.0, 0.5), near=0.1),), ("inside",))
    render = render_density(_fog(1.0), rig, width=3, height=3, params=VolumeParams(num_samples=256))
    torch.testing.assert_close(
        render.alpha[0, 1, 1], torch.tensor(1 - math.exp(-1.4)), atol=1e-4, rtol=0
    )


def test_field_of_the_wrong_shape_is_refused(unchecked_shapes: None) -> None:
    with pytest.raises(ValueError, match="must return densities"):
        render_density(lambda points: (points, points), RIG, width=2, height=2)


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        VolumeParams(num_samples=0)
    with pytest.raises(ValueError, match="at least one pixel"):
        render_density(_ball, RIG, width=0, height=1)
