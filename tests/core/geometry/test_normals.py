from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.geometry.normals import (
    decode_bundle_normals,
    decode_world_normals,
    encode_bundle_normals,
    encode_world_normals,
    face_normals,
    vertex_normals,
)

S, K = math.sin(math.radians(5)), math.cos(math.radians(5))
# Decoding matrices (rows) by azimuth, acting on 2 * colour - 1: conformance 3.
PUBLISHED = {
    0: [[-1, 0, 0], [0, K, S], [0, -S, K]],
    90: [[0, -S, K], [0, K, S], [1, 0, 0]],
    180: [[1, 0, 0], [0, K, S], [0, S, -K]],
    270: [[0, S, -K], [0, K, S], [-1, 0, 0]],
}


def as_views(normal: list[float]) -> torch.Tensor:
    return torch.tensor(normal).expand(4, 1, 1, 3)


@pytest.mark.parametrize(
    "normal, color", [([0.0, 0, 1], (128, 116, 255)), ([0.0, 1, 0], (128, 255, 139))]
)
def test_axis_box_at_elevation_5_has_the_published_colours(normal, color) -> None:
    encoded = encode_bundle_normals(as_views(normal), make_kiss3dgen_rig())[0, 0, 0] * 255
    torch.testing.assert_close(encoded, torch.tensor(color).float(), atol=1.0, rtol=0)


def test_decoding_is_the_published_matrix_at_every_azimuth() -> None:
    colors = torch.rand(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    decoded = decode_bundle_normals(colors, make_kiss3dgen_rig())
    for view, matrix in enumerate(PUBLISHED.values()):
        expected = (2 * colors[view] - 1) @ torch.tensor(matrix).float().T
        expected = torch.nn.functional.normalize(expected, dim=-1)
        torch.testing.assert_close(decoded[view], expected, atol=1e-4, rtol=0)


def test_encode_inverts_decode() -> None:
    normals = torch.nn.functional.normalize(torch.randn(4, 5, 5, 3), dim=-1)
    rig = make_kiss3dgen_rig()
    decoded = decode_bundle_normals(encode_bundle_normals(normals, rig), rig)
    torch.testing.assert_close(decoded, normals, atol=1e-5, rtol=0)
    torch.testing.assert_close(decode_world_normals(encode_world_normals(normals)), normals)


def test_red_is_high_where_the_surface_faces_image_left() -> None:
    # Fails if X is not negated: in the front view image-left is world -X.
    encoded = encode_bundle_normals(as_views([-1.0, 0, 0]), make_kiss3dgen_rig())
    assert float(encoded[0, 0, 0, 0]) == pytest.approx(1.0, abs=1e-6)
    assert float(encoded[2, 0, 0, 0]) == pytest.approx(0.0, abs=1e-6)


def test_view_count_must_match_the_rig(unchecked_shapes) -> None:
    with pytest.raises(ValueError, match="3 normal views for a rig of 4"):
        decode_bundle_normals(torch.rand(3, 2, 2, 3), make_kiss3dgen_rig())


def test_counter_clockwise_triangle_faces_the_viewer() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]])
    normal = face_normals(vertices, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(normal, torch.tensor([[0.0, 0, 1]]))
    area_twice = face_normals(vertices, torch.tensor([[0, 1, 2]]), unit=False)
    assert float(area_twice.norm()) == 2.0


def test_vertex_normals_are_area_weighted() -> None:
    # A big face up (+Y) and a small one towards +X share vertex 0.
    vertices = torch.tensor([[0.0, 0, 0], [0, 0, 2], [2, 0, 0], [0, -1, 0], [0, 0, -1]])
    faces = torch.tensor([[0, 1, 2], [0, 3, 4]])
    expected = face_normals(vertices, faces, unit=False).sum(dim=0)
    expected = torch.nn.functional.normalize(expected, dim=0)
    torch.testing.assert_close(vertex_normals(vertices, faces)[0], expected)


def test_unused_vertices_and_flat_faces_give_zero_and_finite_gradients() -> None:
    vertices = torch.zeros(4, 3, requires_grad=True)
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2]]))
    assert not normals.any()
    normals.sum().backward()
    assert torch.isfinite(vertices.grad).all()
