"""Drawing of Gaussian clouds: analytic pictures, cameras, gradients and bad input."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lift3d.core.backends.probe import numba_problem
from lift3d.core.camera import Camera, ViewRig, make_orbit_pose, make_orbit_rig
from lift3d.core.gaussian_cloud import GaussianCloud, color_to_harmonic
from lift3d.core.geometry.transforms import project_points
from lift3d.core.rendering.splats import SplatRender, render_splats, screen_gradient_norms

BACKENDS = ["torch", pytest.param("numba", marks=pytest.mark.skipif(bool(numba_problem()), reason="needs numba"))]  # fmt: skip

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def _ball(
    center: tuple[float, float, float] = (0.0, 0.0, 0.0),
    *,
    scale: float = 0.1,
    opacity: float = 0.9,
    color: tuple[float, float, float] = (0.8, 0.3, 0.1),
) -> GaussianCloud:
    return GaussianCloud(
        means=torch.tensor([center]),
        scales=torch.full((1, 3), scale),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        opacities=torch.tensor([opacity]),
        harmonics=color_to_harmonic(torch.tensor([color])),
    )


def _join(*clouds: GaussianCloud) -> GaussianCloud:
    return GaussianCloud(
        **{name: torch.cat([getattr(c, name) for c in clouds]) for name in vars(clouds[0])}
    )


def _random_cloud(count: int = 60, coefficients: int = 9, seed: int = 0) -> GaussianCloud:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return GaussianCloud.from_unnormalized(
        means=0.4 * random(count, 3),
        scales=0.1 * (0.6 * random(count, 3)).exp(),
        quats=random(count, 4),
        opacities=random(count).sigmoid(),
        harmonics=0.4 * random(count, coefficients, 3),
    )


RIG = make_orbit_rig([0.0, 90.0], 0.0, radius=3.0)


def _render(cloud: GaussianCloud, backend: str, rig: ViewRig = RIG, size: int = 33, **more: object) -> SplatRender:  # fmt: skip
    return render_splats(cloud, rig, width=size, height=size, backend=backend, **more)


def test_one_ball_is_the_analytic_gaussian(backend: str) -> None:
    render = _render(_ball(scale=0.1), backend, size=65)
    focal = RIG[0].focal_px(65)
    variance = (focal * 0.1 / 3.0) ** 2 + 0.3  # px^2; the middle pixel's centre is the ball's
    offset = torch.arange(65) - 32.0
    squared = offset[:, None] ** 2 + offset**2
    expected = 0.9 * torch.exp(-0.5 * squared / variance)
    expected = torch.where(expected >= 1 / 255, expected, 0.0)
    torch.testing.assert_close(render.alpha[0], expected, atol=2e-6, rtol=1e-5)
    color = torch.tensor([0.8, 0.3, 0.1])
    over_white = expected[..., None] * color + (1 - expected[..., None])
    torch.testing.assert_close(render.rgb[0], over_white, atol=2e-6, rtol=1e-5)


def test_depth_is_the_distance_along_the_viewing_direction(backend: str) -> None:
    render = _render(_ball((0.2, 0.1, 0.5)), backend)
    seen = render.alpha[0] > 0
    depth = render.depth[0][seen]  # at the rim, alpha = 1 - T has lost digits in float32
    torch.testing.assert_close(depth, torch.full_like(depth, 2.5), rtol=3e-5, atol=0)
    assert float(render.depth[0][~seen].abs().max()) == 0.0
    median = render.median_depth[0]
    torch.testing.assert_close(median[median > 0], torch.full((int((median > 0).sum()),), 2.5))
    assert bool((median > 0).any())
    torch.testing.assert_close(median > 0, render.alpha[0] > 0.5)


def test_median_depth_ignores_a_thin_veil_in_front(backend: str) -> None:
    veil = _ball((0.0, 0.0, 1.0), scale=0.5, opacity=0.3)
    wall = _ball((0.0, 0.0, -1.0), scale=0.5, opacity=0.95)
    render = _render(_join(veil, wall), backend)
    assert math.isclose(float(render.median_depth[0, 16, 16]), 4.0, abs_tol=1e-5)
    assert 2.0 < float(render.depth[0, 16, 16]) < 4.0


def test_front_gaussian_hides_the_one_behind_from_both_sides(backend: str) -> None:
    red = _ball((0.0, 0.0, 0.5), scale=0.3, opacity=1.0, color=(1.0, 0.0, 0.0))
    blue = _ball((0.0, 0.0, -0.5), scale=0.3, opacity=1.0, color=(0.0, 0.0, 1.0))
    render = _render(_join(blue, red), backend, make_orbit_rig([0.0, 180.0], 0.0, radius=3.0))
    assert float(render.rgb[0, 16, 16, 0]) > 0.99 > 0.1 > float(render.rgb[0, 16, 16, 2])
    assert float(render.rgb[1, 16, 16, 2]) > 0.99 > 0.1 > float(render.rgb[1, 16, 16, 0])


@pytest.mark.parametrize("ortho_height", [None, 2.0])
def test_gaussians_land_where_points_project(backend: str, ortho_height: float | None) -> None:
    rig = make_orbit_rig([25.0], 15.0, radius=3.0, ortho_height=ortho_height)
    cloud = _ball((0.35, -0.2, 0.1), scale=0.02)
    render = _render(cloud, backend, rig, size=64)
    pixels, _ = project_points(cloud.means, rig[0], width=64, height=64)
    torch.testing.assert_close(render.means2d[0].float(), pixels, atol=1e-4, rtol=1e-5)
    row, column = divmod(int(render.alpha[0].argmax()), 64)
    assert abs(column + 0.5 - float(pixels[0, 0])) <= 0.51
    assert abs(row + 0.5 - float(pixels[0, 1])) <= 0.51


def test_orthographic_size_does_not_depend_on_distance(backend: str) -> None:
    rig = make_orbit_rig([0.0], 0.0, radius=3.0, ortho_height=2.0)
    near, far = (_render(_ball((0.0, 0.0, z)), backend, rig) for z in (1.0, -1.0))
    torch.testing.assert_close(near.alpha, far.alpha)
    torch.testing.assert_close(far.depth - near.depth, 2.0 * (near.alpha > 0))


def test_far_orthographic_view_equals_a_narrow_perspective_one(backend: str) -> None:
    cloud = _random_cloud()
    radius = 400.0
    fov = 2 * math.degrees(math.atan(1.0 / radius))
    flat = _render(cloud, backend, make_orbit_rig([30.0], 10.0, radius=radius, ortho_height=2.0))
    narrow = _render(cloud, backend, make_orbit_rig([30.0], 10.0, radius=radius, fov_y_deg=fov))
    assert float((flat.rgb - narrow.rgb).abs().mean()) < 2e-3


def test_normals_are_the_short_axis_towards_the_camera(backend: str) -> None:
    disc = replace(_ball(scale=0.3), scales=torch.tensor([[0.3, 0.3, 0.01]]))
    render = _render(disc, backend, make_orbit_rig([0.0, 180.0], 0.0, radius=3.0))
    for view, z in ((0, 1.0), (1, -1.0)):
        torch.testing.assert_close(
            render.normals_world[view, 16, 16], torch.tensor([0.0, 0.0, z]), atol=1e-6, rtol=0
        )
    assert float(render.normals_world[0, 0, 0].abs().max()) == 0.0


def test_background_shines_through_what_is_left(backend: str) -> None:
    cloud = _random_cloud()
    black = _render(cloud, backend, background=(0.0, 0.0, 0.0))
    backdrop = torch.rand(2, 33, 33, 3)
    over = _render(cloud, backend, background=backdrop)
    torch.testing.assert_close(over.rgb, black.rgb + (1 - black.alpha[..., None]) * backdrop)
    per_view = _render(cloud, backend, background=backdrop[:, 0, 0])
    torch.testing.assert_close(
        per_view.rgb[1], black.rgb[1] + (1 - black.alpha[1, ..., None]) * backdrop[1, 0, 0]
    )


def test_lower_sh_degree_drops_view_dependence(backend: str) -> None:
    cloud = _random_cloud()
    plain = replace(cloud, harmonics=cloud.harmonics[:, :1])
    torch.testing.assert_close(
        _render(cloud, backend, sh_degree=0).rgb, _render(plain, backend).rgb
    )
    assert not torch.allclose(_render(cloud, backend).rgb, _render(plain, backend).rgb, atol=1e-2)


def test_empty_cloud_gives_the_background(backend: str) -> None:
    empty = _random_cloud(0)
    render = _render(empty, backend, background=(0.2, 0.4, 0.6))
    torch.testing.assert_close(render.rgb, torch.tensor([0.2, 0.4, 0.6]).expand(2, 33, 33, 3))
    assert float(render.alpha.abs().max()) == 0.0
    assert render.means2d.shape == (2, 0, 2)


@pytest.mark.parametrize("z", [3.0, 2.95, 10.0])
def test_gaussians_at_or_behind_the_camera_are_not_drawn(backend: str, z: float) -> None:
    render = _render(_ball((0.0, 0.0, z)), backend, RIG.select([0]))
    torch.testing.assert_close(render.rgb, torch.ones_like(render.rgb))
    assert float(render.radii_px.max()) == 0.0


def test_transparent_gaussians_are_not_drawn(backend: str) -> None:
    assert float(_render(_ball(opacity=0.003), backend).alpha.max()) == 0.0


def test_flat_and_point_gaussians_still_cover_a_pixel(backend: str) -> None:
    point = replace(_ball(), scales=torch.zeros(1, 3))
    assert float(_render(point, backend).alpha[0, 16, 16]) > 0.8


def test_gradients_reach_every_parameter_and_the_pose(backend: str) -> None:
    cloud = _random_cloud()
    values = {name: value.clone().requires_grad_() for name, value in vars(cloud).items()}
    pose = make_orbit_pose(10.0, 5.0, 3.0).requires_grad_()
    render = _render(GaussianCloud(**values), backend, ViewRig((Camera(pose),), ("front",)))
    loss = render.rgb.square().mean() + render.depth.mean() + render.normals_world[..., 0].mean()
    loss.backward()
    for name, value in values.items():
        assert value.grad is not None and float(value.grad.abs().max()) > 0, name
        assert bool(torch.isfinite(value.grad).all()), name
    assert pose.grad is not None and float(pose.grad.abs().max()) > 0
    norms = screen_gradient_norms(render)
    assert norms.shape == (1, 60) and float(norms.max()) > 0
    assert float(norms[render.radii_px == 0].sum()) == 0.0


def test_tensors_from_inference_mode_can_be_drawn(backend: str) -> None:
    with torch.inference_mode():
        cloud = _random_cloud()
        inside = _render(cloud, backend)
    outside = _render(cloud, backend)
    torch.testing.assert_close(outside.rgb, inside.rgb.clone())


def test_inputs_are_left_alone(backend: str) -> None:
    cloud = _random_cloud()
    before = cloud.clone()
    _render(cloud, backend)
    for name, value in vars(before).items():
        assert torch.equal(getattr(cloud, name), value), name


def test_wrong_background_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match="background must have shape"):
        _render(_ball(), backend, background=torch.zeros(5, 3))


def test_image_without_pixels_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        render_splats(_ball(), RIG, width=0, height=4, backend=backend)


def test_nan_parameters_are_refused_by_the_cloud(backend: str) -> None:
    cloud = _ball()
    with pytest.raises(ValueError, match="NaN"):
        _render(replace(cloud, means=cloud.means * float("nan")), backend)


def test_gradient_norms_before_backward_are_refused(backend: str) -> None:
    with pytest.raises(ValueError, match="call backward"):
        screen_gradient_norms(_render(_ball(), backend))
