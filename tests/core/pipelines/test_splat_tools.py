"""Edits of finished Gaussians: what stays, where it goes, and that pictures turn with it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lift3d.core.camera import Camera, ViewRig, make_orbit_rig
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.pipelines.splat_tools import (
    PruneParams,
    center_splats,
    crop_splats,
    merge_splats,
    move_splats,
    placement_matrix,
    prune_splats,
)
from lift3d.core.rendering.splats import render_splats


def cloud(count: int = 60, degree: int = 3, seed: int = 0) -> GaussianCloud:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return GaussianCloud.from_unnormalized(
        means=0.3 * random(count, 3),
        scales=0.05 * random(count, 3).exp(),
        quats=random(count, 4),
        opacities=random(count).sigmoid(),
        harmonics=0.3 * random(count, (degree + 1) ** 2, 3),
    )


def turned_rig(rig: ViewRig, matrix: torch.Tensor, scale: float) -> ViewRig:
    cameras = []
    for camera in rig:
        pose = matrix.float() @ camera.camera_to_world
        pose[:3, :3] = pose[:3, :3] / scale
        cameras.append(Camera(pose, fov_y_deg=camera.fov_y_deg))
    return ViewRig(tuple(cameras), rig.names)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_moved_cloud_looks_the_same_to_a_moved_camera(degree: int) -> None:
    original = cloud(degree=degree)
    matrix = placement_matrix(
        translation=(0.3, -0.2, 0.5), rotation_deg=(20.0, -70.0, 130.0), scale=1.7
    )
    rig = make_orbit_rig([0.0, 70.0], 15.0, radius=4.5)
    before = render_splats(original, rig, width=32, height=32).rgb
    moved = move_splats(original, matrix)
    after = render_splats(moved, turned_rig(rig, matrix, 1.7), width=32, height=32).rgb
    torch.testing.assert_close(after, before, atol=2e-3, rtol=0)


def test_turns_are_about_x_then_y_then_z() -> None:
    matrix = placement_matrix(rotation_deg=(90.0, 90.0, 0.0))
    # X takes +Y to +Z; Y then takes +Z to +X
    torch.testing.assert_close(
        matrix[:3, :3] @ torch.tensor([0.0, 1.0, 0.0]).double(),
        torch.tensor([1.0, 0.0, 0.0]).double(),
    )


def test_turning_about_the_centre_keeps_the_middle() -> None:
    original = cloud()
    away = replace(original, means=original.means + torch.tensor([5.0, 0.0, 0.0]))
    moved = move_splats(away, placement_matrix(rotation_deg=(0, 180.0, 0)), about_center=True)
    middles = [(c.means.amin(dim=0) + c.means.amax(dim=0)) / 2 for c in (away, moved)]
    torch.testing.assert_close(middles[1], middles[0], atol=1e-5, rtol=0)


def test_centring_gives_the_size_asked_for() -> None:
    original = cloud()
    made = center_splats(replace(original, means=3 * original.means + 7), 1.8)
    low, high = made.means.amin(dim=0), made.means.amax(dim=0)
    assert float((high - low).max()) == pytest.approx(1.8, abs=1e-4)
    torch.testing.assert_close(low + high, torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", ["box", "sphere"])
def test_a_crop_keeps_exactly_what_lies_inside(shape) -> None:
    original = cloud(300)
    center, size = (0.1, 0.0, -0.1), (0.6, 0.8, 0.4)
    place = (original.means - torch.tensor(center)) / (torch.tensor(size) / 2)
    inside = (place.abs() <= 1).all(dim=1) if shape == "box" else place.square().sum(dim=1) <= 1
    made = crop_splats(original, center, size, shape=shape)
    assert torch.equal(made.means, original.means[inside])
    rest = crop_splats(original, center, size, shape=shape, keep="outside")
    assert made.num_gaussians + rest.num_gaussians == 300


def test_each_rule_prunes_what_it_names() -> None:
    base = cloud(4)
    flat = torch.full((4, 3), 0.02)
    base = replace(base, opacities=torch.full((4,), 0.5), scales=flat)
    faint = replace(base, opacities=torch.tensor([0.5, 0.01, 0.5, 0.5]))
    assert prune_splats(faint, PruneParams()).num_gaussians == 3
    huge = replace(base, scales=flat * torch.tensor([[1.0], [1.0], [50.0], [1.0]]))
    assert prune_splats(huge, PruneParams(max_scale=0.1)).num_gaussians == 3
    needle = replace(base, scales=flat * torch.tensor([[1.0, 9.0, 1.0]] + [[1.0] * 3] * 3))
    assert prune_splats(needle, PruneParams(max_stretch=5.0)).num_gaussians == 3
    tiny = replace(base, scales=flat * torch.tensor([[1e-3], [1.0], [1.0], [1.0]]))
    assert prune_splats(tiny, PruneParams(min_scale=0.001)).num_gaussians == 3


def test_floaters_are_found_by_their_neighbours() -> None:
    original = cloud(200)
    means = original.means.clone()
    means[7] = torch.tensor([9.0, 0.0, 0.0])
    made = prune_splats(
        replace(original, means=means), PruneParams(min_opacity=0.0, neighbour_distance=4.0)
    )
    assert float(made.means.abs().max()) < 9 and made.num_gaussians >= 190


def test_a_limit_keeps_what_shows_most_in_order() -> None:
    original = replace(cloud(10), opacities=torch.linspace(0.1, 1.0, 10), scales=torch.ones(10, 3))
    made = prune_splats(original, PruneParams(max_gaussians=4))
    assert torch.equal(made.opacities, original.opacities[6:])


def test_merging_widens_the_harmonics() -> None:
    made = merge_splats([cloud(3, degree=0), cloud(5, degree=2)])
    assert made.num_gaussians == 8 and made.sh_degree == 2
    assert bool((made.harmonics[:3, 1:] == 0).all())


def test_impossible_edits_are_refused() -> None:
    with pytest.raises(ValueError, match="would remove all 60 Gaussians"):
        crop_splats(cloud(), (50.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="would remove all"):
        prune_splats(cloud(), PruneParams(min_opacity=2.0))
    with pytest.raises(ValueError, match="must be positive along each axis"):
        crop_splats(cloud(), (0.0, 0.0, 0.0), (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="scale must be positive"):
        placement_matrix(scale=-1.0)
    with pytest.raises(ValueError, match="at least one cloud"):
        merge_splats([])
    with pytest.raises(ValueError, match="on one point"):
        center_splats(replace(cloud(), means=torch.zeros(60, 3)))
    assert math.isinf(PruneParams().max_scale)
