import math

import numpy as np
import pytest
import torch
import trimesh
from lift3d.core.geometry.voxelize import voxelize_solid
from lift3d.core.mesh import Mesh, merge_meshes

LOW, HIGH = torch.full((3,), -1.1), torch.full((3,), 1.1)


def from_trimesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(
        torch.tensor(np.asarray(shape.vertices), dtype=torch.float32),
        torch.tensor(np.asarray(shape.faces), dtype=torch.int64),
    )


def centres(resolution: int) -> torch.Tensor:
    axis = -1.1 + 2.2 * (torch.arange(resolution) + 0.5) / resolution
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def test_sphere_fills_the_voxels_whose_centre_it_holds():
    shape = from_trimesh(trimesh.creation.icosphere(subdivisions=5))
    solid = voxelize_solid(shape, LOW, HIGH, 40)
    distance = centres(40).norm(dim=-1)
    assert bool(solid[distance < 0.99].all())
    assert not bool(solid[distance > 1.01].any())


def test_box_volume_is_exact_where_its_faces_run_between_voxel_centres():
    shape = from_trimesh(trimesh.creation.box(extents=(1.1, 1.54, 1.76)))
    solid = voxelize_solid(shape, LOW, HIGH, 100)
    assert float(solid.double().mean()) * 2.2**3 == pytest.approx(1.1 * 1.54 * 1.76, rel=1e-4)


def test_torus_keeps_its_hole():
    shape = from_trimesh(trimesh.creation.torus(0.8, 0.2))
    solid = voxelize_solid(shape, LOW, HIGH, 64)
    assert not bool(solid[32, 32].any())
    volume = 2 * math.pi**2 * 0.8 * 0.2**2
    assert float(solid.double().mean()) * 2.2**3 == pytest.approx(volume, rel=0.05)


def test_overlapping_parts_are_merged():
    ball = from_trimesh(trimesh.creation.icosphere(subdivisions=3, radius=0.5))
    both = merge_meshes([ball, ball.with_vertices(ball.vertices * 0.8)])
    assert torch.equal(voxelize_solid(both, LOW, HIGH, 32), voxelize_solid(ball, LOW, HIGH, 32))


def test_an_inside_out_mesh_is_still_solid():
    ball = from_trimesh(trimesh.creation.icosphere(subdivisions=2))
    flipped = Mesh(ball.vertices, ball.faces.flip(1))
    assert torch.equal(voxelize_solid(flipped, LOW, HIGH, 24), voxelize_solid(ball, LOW, HIGH, 24))


def test_empty_mesh_is_empty_and_empty_box_is_refused():
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert not bool(voxelize_solid(empty, LOW, HIGH, 8).any())
    with pytest.raises(ValueError, match="box is empty"):
        voxelize_solid(empty, HIGH, LOW, 8)
