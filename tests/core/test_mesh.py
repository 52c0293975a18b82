from __future__ import annotations

import pytest
import torch
from lift3d.core.mesh import Material, Mesh, merge_meshes

TRIANGLE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]])
FACE = torch.tensor([[0, 1, 2]])


def test_normalized_centres_and_scales_the_longest_side() -> None:
    low, high = Mesh(TRIANGLE, FACE).normalized(1.8).bounds()
    torch.testing.assert_close(high - low, torch.tensor([0.9, 1.8, 0.0]))
    torch.testing.assert_close(high + low, torch.zeros(3))


def test_moved_vertices_drop_stored_normals_and_keep_the_original() -> None:
    mesh = Mesh(TRIANGLE, FACE, vertex_normals=torch.tensor([[0.0, 0, 1]] * 3))
    moved = mesh.with_vertices(mesh.vertices + 1)
    assert moved.vertex_normals is None and mesh.vertex_normals is not None
    torch.testing.assert_close(mesh.vertices, TRIANGLE)


def test_clone_shares_no_memory() -> None:
    mesh = Mesh(TRIANGLE, FACE, vertex_colors=torch.rand(3, 3))
    copy = mesh.clone()
    copy.vertices.add_(1)
    copy.vertex_colors.zero_()
    torch.testing.assert_close(mesh.vertices, TRIANGLE)
    assert float(mesh.vertex_colors.sum()) > 0


def test_merge_offsets_faces_and_fills_missing_colours_with_white() -> None:
    red = Mesh(TRIANGLE, FACE, vertex_colors=torch.tensor([[1.0, 0, 0]]).repeat(3, 1))
    merged = merge_meshes([Mesh(TRIANGLE + 5, FACE), red])
    assert merged.faces.tolist() == [[0, 1, 2], [3, 4, 5]]
    torch.testing.assert_close(merged.vertex_colors[:3], torch.ones(3, 3))
    torch.testing.assert_close(merged.vertex_colors[3:], red.vertex_colors)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"vertices": TRIANGLE * float("nan")}, "NaN"),
        ({"vertices": TRIANGLE * 1e9}, "scale the mesh down"),
        ({"faces": torch.tensor([[0, 1, 3]])}, "3 vertices"),
        ({"faces": torch.tensor([[0, 1, -1]])}, "-1"),
        ({"vertex_colors": torch.zeros(2, 3)}, "vertex_colors must have shape"),
        ({"uvs": torch.full((3, 2), float("inf"))}, "uvs holds"),
        ({"texture": torch.zeros(4, 4, 3)}, "needs uvs"),
    ],
)
def test_broken_meshes_are_refused_with_a_reason(
    change: dict, message: str, unchecked_shapes
) -> None:
    with pytest.raises(ValueError, match=message):
        Mesh(**{"vertices": TRIANGLE, "faces": FACE, **change})


def test_faces_must_be_integers(unchecked_shapes) -> None:
    with pytest.raises(ValueError, match="int64"):
        Mesh(TRIANGLE, FACE.float())


def test_empty_mesh_is_allowed_but_has_no_bounds() -> None:
    mesh = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert mesh.is_empty
    with pytest.raises(ValueError, match="no bounding box"):
        mesh.normalized()


def test_point_like_mesh_cannot_be_scaled() -> None:
    with pytest.raises(ValueError, match="one point"):
        Mesh(torch.ones(3, 3), FACE).normalized()


def test_material_scalars_stay_in_range() -> None:
    with pytest.raises(ValueError, match="roughness"):
        Material(roughness=1.5)
