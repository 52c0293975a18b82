from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.datasets import primitives
from lift3d.core.datasets.fusion import fuse_shells
from lift3d.core.datasets.procedural_objects import make_object
from lift3d.core.geometry.repair import is_manifold, is_watertight, signed_volume
from lift3d.core.mesh import Mesh, merge_meshes


def as_mesh(solid: primitives.Solid, color: tuple[float, float, float]) -> Mesh:
    vertices = torch.from_numpy(solid.vertices).float()
    return Mesh(vertices, torch.from_numpy(solid.faces), torch.tensor(color).expand_as(vertices))


def test_two_overlapping_balls_become_their_union():
    # Unit balls one radius apart: the lens they share has volume 5 pi / 12.
    first = as_mesh(primitives.ball(1.0, segments=64).moved(x=-0.5), (1.0, 0.0, 0.0))
    second = as_mesh(primitives.ball(1.0, segments=64).moved(x=0.5), (0.0, 0.0, 1.0))
    fused = fuse_shells(merge_meshes([first, second]), resolution=64)
    assert is_watertight(fused.faces)
    assert is_manifold(fused.faces)
    volume = float(signed_volume(fused.vertices, fused.faces))
    assert volume == pytest.approx(8 * math.pi / 3 - 5 * math.pi / 12, rel=0.01)
    side = fused.vertices[:, 0] > 0.1
    assert bool((fused.vertex_colors[side, 2] > 0.99).all())


@pytest.mark.parametrize("category", ["mug", "robot"])
def test_fused_objects_are_watertight_and_keep_their_place(category):
    made = make_object(category, 3)
    fused = fuse_shells(made.mesh, resolution=48)
    assert is_watertight(fused.faces)
    assert is_manifold(fused.faces)
    for ours, theirs in zip(fused.bounds(), made.mesh.bounds(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1.8 / 48, rtol=0)


def test_a_thin_layer_hides_the_colour_below_it():
    block = as_mesh(primitives.box(1.0, 1.0, 1.0, bevel=0.02), (1.0, 0.0, 0.0))
    plate = as_mesh(primitives.box(0.5, 0.5, 1.02, bevel=0.005), (0.0, 0.0, 1.0))
    fused = fuse_shells(merge_meshes([block, plate]), resolution=48)
    x, y, z = fused.vertices.unbind(dim=1)
    on_plate = (x.abs() < 0.2) & (y.abs() < 0.2) & (z > 0)
    assert int(on_plate.sum()) > 100
    assert bool((fused.vertex_colors[on_plate, 2] > 0.99).all())


def test_a_flat_sheet_is_refused():
    sheet = Mesh(torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 1]]), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="encloses no voxel"):
        fuse_shells(sheet)


def test_resolution_is_bounded():
    with pytest.raises(ValueError, match=r"16\.\.512"):
        fuse_shells(make_object("mug", 0).mesh, resolution=4)
