import math

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.geometry.transforms import project_points
from lift3d.core.networks.gaussian_heads import (
    HeadParams,
    gaussians_of_pixels,
    prune_cloud,
    unproject,
)

RIG = make_orbit_rig([0.0, 90.0, 200.0], [0.0, 20.0, -30.0], radius=2.7, fov_y_deg=50.0)


def random_heads(views=3, height=6, width=8):
    return torch.randn(views, 12, height, width, generator=torch.Generator().manual_seed(0))


def test_zeros_are_faint_grey_dots_in_the_plane_that_faces_the_camera():
    cloud = gaussians_of_pixels(torch.zeros(3, 12, 5, 5), RIG)
    assert cloud.num_gaussians == 75
    torch.testing.assert_close(cloud.opacities, torch.full((75,), 0.1192), atol=1e-4, rtol=0)
    torch.testing.assert_close(cloud.base_colors, torch.full((75, 3), 0.5))
    torch.testing.assert_close(cloud.quats, torch.tensor([1.0, 0, 0, 0]).expand(75, 4))
    for view, means in enumerate(cloud.means.reshape(3, 25, 3)):
        away = means @ RIG[view].camera_to_world[:3, 2]  # distance from the plane through 0
        torch.testing.assert_close(away, torch.zeros(25), atol=1e-5, rtol=0)


def test_gaussians_project_to_the_centres_of_their_pixels():
    raw = random_heads()
    cloud = gaussians_of_pixels(raw, RIG)
    ys, xs = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    centers = torch.stack([xs, ys], dim=-1).reshape(-1, 2)
    for view, means in enumerate(cloud.means.reshape(3, 48, 3)):
        pixels, depth = project_points(means, RIG[view], width=8, height=6)
        torch.testing.assert_close(pixels, centers, atol=1e-4, rtol=0)
        expected = 2.7 + raw[view, 0].reshape(-1)
        torch.testing.assert_close(depth, expected, atol=1e-4, rtol=0)


def test_distance_counts_along_the_ray():
    change = random_heads()[:, 0].clamp(min=-2)
    points = unproject(change, RIG, "distance")
    for view, camera in enumerate(RIG):
        distance = (points[view] - camera.position).norm(dim=-1)
        torch.testing.assert_close(distance, 2.7 + change[view], atol=1e-4, rtol=0)


def test_orthographic_views_unproject_straight():
    rig = make_orbit_rig([0.0], 0.0, radius=3.0, fov_y_deg=None, ortho_height=2.0)
    points = unproject(torch.full((1, 2, 2), 0.5), rig)
    torch.testing.assert_close(points[..., 2], torch.full((1, 2, 2), -0.5))
    torch.testing.assert_close(points[0, 0, 0, :2], torch.tensor([-0.5, 0.5]))


@pytest.mark.parametrize("kind", ["sigmoid", "exp", "softplus"])
def test_scales_stay_in_their_range_and_grow(kind):
    params = HeadParams(scale_kind=kind, scale_range=(0.01, 0.3))
    raw = torch.zeros(1, 12, 1, 5)
    raw[0, 5:8] = torch.tensor([-50.0, -1.0, 0.0, 1.0, 50.0])
    scales = gaussians_of_pixels(raw, RIG.select([0]), params).scales[:, 0]
    assert float(scales.min()) >= 0.01 - 1e-6 and float(scales.max()) <= 0.3 + 1e-6
    assert bool((scales.diff() >= 0).all()) and float(scales[3]) > float(scales[1])
    middle = {"sigmoid": 0.155, "exp": math.sqrt(0.003), "softplus": 0.1 * math.log(2)}[kind]
    assert float(scales[2]) == pytest.approx(middle, rel=1e-4)


def test_gradients_reach_every_channel():
    raw = random_heads().requires_grad_()
    cloud = gaussians_of_pixels(raw, RIG)
    total = sum((value * value).sum() for value in vars(cloud).values())
    (total + cloud.quats[:, 1].sum()).backward()
    assert bool((raw.grad.abs().amax(dim=(0, 2, 3)) > 0).all())


def test_pruning_keeps_what_is_solid_and_near():
    raw = torch.zeros(1, 12, 1, 3)
    raw[0, 4] = torch.tensor([-4.0, 4.0, 4.0])
    raw[0, 0, 0, 2] = 5.0  # far behind
    cloud = gaussians_of_pixels(raw, RIG.select([0]))
    assert prune_cloud(cloud).num_gaussians == 1
    assert prune_cloud(cloud, bound=10.0).num_gaussians == 2
    with pytest.raises(ValueError, match="None of the 3 Gaussians"):
        prune_cloud(cloud, min_opacity=0.99)


def test_another_number_of_cameras_is_refused():
    with pytest.raises(ValueError, match="Got 2 views for 3 cameras"):
        gaussians_of_pixels(random_heads(2), RIG)
    with pytest.raises(ValueError, match="scale_range must rise"):
        HeadParams(scale_range=(0.2, 0.1))
