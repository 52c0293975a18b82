"""Fusion of depth maps: a sphere comes back, and what no view knows is treated as told."""

from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.camera import ViewRig, make_orbit_rig
from lift3d.core.geometry.isosurface import extract_isosurface
from lift3d.core.geometry.repair import is_manifold, is_watertight, signed_volume
from lift3d.core.geometry.transforms import pixel_rays
from lift3d.core.geometry.tsdf import fuse_depth_maps, sample_depth

RADIUS = 0.6
AROUND = make_orbit_rig(
    [0.0, 60.0, 120.0, 180.0, 240.0, 300.0, 0.0, 0.0], [0.0] * 6 + [89.0, -89.0], radius=4.0
)


def sphere_depths(rig: ViewRig, size: int, center=(0.0, 0.0, 0.0)) -> torch.Tensor:
    """Camera z of a sphere, by solving for each ray."""
    maps = []
    for camera in rig:
        origins, directions = pixel_rays(camera, width=size, height=size)
        toward = origins - torch.tensor(center)
        b = (toward * directions).sum(-1)
        c = (toward * toward).sum(-1) - RADIUS**2
        root = b * b - c
        distance = -b - root.clamp(min=0).sqrt()
        depth = distance * (directions @ -camera.camera_to_world[:3, 2])
        maps.append(torch.where(root > 0, depth, 0.0))
    return torch.stack(maps)


def test_a_sphere_comes_back() -> None:
    center = (0.1, -0.05, 0.02)
    volume = fuse_depth_maps(
        sphere_depths(AROUND, 128, center), AROUND, [-0.8] * 3, [0.8] * 3, resolution=64
    )
    vertices, faces = extract_isosurface(volume.sdf, volume.lower, volume.upper)
    voxel = 1.6 / 63
    error = (vertices - torch.tensor(center)).norm(dim=1) - RADIUS
    assert float(error.abs().mean()) < 0.15 * voxel and float(error.abs().max()) < voxel
    assert is_watertight(faces) and is_manifold(faces)
    assert float(signed_volume(vertices, faces)) == pytest.approx(
        4 / 3 * math.pi * RADIUS**3, rel=0.03
    )


def test_distances_are_signed_and_cut_off() -> None:
    rig = AROUND.select([0])
    volume = fuse_depth_maps(
        sphere_depths(rig, 128), rig, [-0.8] * 3, [0.8] * 3, resolution=65, truncation_voxels=4
    )
    voxel, middle = 1.6 / 64, 32
    line = volume.sdf[middle, middle]  # along z, towards the camera at the end
    seen = volume.weight[middle, middle] > 0
    z = torch.linspace(-0.8, 0.8, 65)
    near = (z - RADIUS).abs() < 3 * voxel
    torch.testing.assert_close(line[near], (z - RADIUS)[near], atol=0.3 * voxel, rtol=0)
    assert bool(seen[z > RADIUS - 3.5 * voxel].all()) and not bool(seen[z < 0.4].any())
    assert float(line.max()) == pytest.approx(4 * voxel)


@pytest.mark.parametrize("inside", [True, False])
def test_what_no_view_knows_lies_where_it_is_told_to(inside: bool) -> None:
    rig = AROUND.select([0])
    volume = fuse_depth_maps(
        sphere_depths(rig, 64), rig, [-0.8] * 3, [0.8] * 3, resolution=16, unseen_is_inside=inside
    )
    unknown = volume.sdf[volume.weight == 0]
    assert len(unknown) and bool(((unknown < 0) == inside).all())


def test_boxes_may_have_unequal_sides() -> None:
    volume = fuse_depth_maps(
        sphere_depths(AROUND, 32), AROUND, [-1.0, -0.5, -0.5], [1.0, 0.5, 0.5], resolution=21
    )
    assert volume.sdf.shape == (21, 11, 11)


def test_views_are_reported_and_can_be_interrupted() -> None:
    seen = []
    fuse_depth_maps(
        sphere_depths(AROUND, 16), AROUND, [-1.0] * 3, [1.0] * 3, resolution=8, on_view=seen.append
    )
    assert seen == list(range(8))


def test_depth_is_mixed_on_slopes_but_not_across_jumps() -> None:
    ramp = torch.arange(4.0).repeat(4, 1) + 1
    values, inside = sample_depth(ramp, torch.tensor([[2.0, 1.5], [1.5, 2.2], [5.0, 1.0]]), 2.0)
    torch.testing.assert_close(values[:2], torch.tensor([2.5, 2.0]))
    assert inside.tolist() == [True, True, False]
    step = torch.tensor([[1.0, 5.0], [1.0, 0.0]])
    values, _ = sample_depth(step, torch.tensor([[0.9, 0.5], [1.1, 0.5], [1.2, 1.4]]), 2.0)
    torch.testing.assert_close(values, torch.tensor([1.0, 5.0, 0.0]))


def test_bad_input_is_refused(unchecked_shapes) -> None:
    depths = torch.ones(8, 4, 4)
    with pytest.raises(ValueError, match="must have shape"):
        fuse_depth_maps(depths[:3], AROUND, [-1.0] * 3, [1.0] * 3)
    with pytest.raises(ValueError, match="NaN"):
        fuse_depth_maps(depths * torch.nan, AROUND, [-1.0] * 3, [1.0] * 3)
    with pytest.raises(ValueError, match="must lie above"):
        fuse_depth_maps(depths, AROUND, [1.0] * 3, [-1.0] * 3)
    with pytest.raises(ValueError, match="resolution must be at least 8"):
        fuse_depth_maps(depths, AROUND, [-1.0] * 3, [1.0] * 3, resolution=4)
