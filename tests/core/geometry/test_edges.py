import torch
import trimesh
from lift3d.core.geometry.edges import (
    boundary_vertices,
    build_edges,
    edge_lengths,
    neighbour_mean,
    opposite_vertices,
    side_vertices,
    vertex_degrees,
)

TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


def _icosphere(subdivisions: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    return torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces).long()


def test_a_tetrahedron_has_six_edges_with_two_faces_each():
    table = build_edges(TETRAHEDRON)
    assert table.edges.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert table.face_count.tolist() == [2] * 6
    assert table.face_edges[0].tolist() == [1, 3, 0]


def test_edges_agree_with_trimesh():
    vertices, faces = _icosphere()
    reference = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    table = build_edges(faces)
    assert {tuple(edge) for edge in table.edges.tolist()} == {
        tuple(sorted(edge)) for edge in reference.edges_unique.tolist()
    }
    degrees = vertex_degrees(table.edges, len(vertices))
    assert degrees.tolist() == reference.vertex_degree.tolist()


def test_sides_lead_back_to_their_edge_and_opposites_complete_the_face():
    _, faces = _icosphere()
    table = build_edges(faces)
    sides = side_vertices(faces)
    for column in (0, 1):
        side = table.edge_sides[:, column]
        assert torch.equal(sides[side].sort(dim=1).values, table.edges)
        opposite = opposite_vertices(faces, table.edge_sides)[:, column]
        triple = torch.cat([table.edges, opposite[:, None]], dim=1).sort(dim=1).values
        assert torch.equal(triple, faces[side // 3].sort(dim=1).values)


def test_a_single_triangle_is_all_boundary():
    faces = torch.tensor([[0, 1, 2]])
    table = build_edges(faces)
    assert table.edge_sides[:, 1].tolist() == [-1, -1, -1]
    assert boundary_vertices(table, 4).tolist() == [True, True, True, False]
    assert opposite_vertices(faces, table.edge_sides)[:, 1].tolist() == [-1, -1, -1]


def test_three_faces_at_an_edge_are_counted():
    table = build_edges(torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]]))
    assert int(table.face_count[0]) == 3


def test_no_faces_give_an_empty_table():
    table = build_edges(torch.zeros((0, 3), dtype=torch.int64))
    assert table.edges.shape == (0, 2) and table.face_edges.shape == (0, 3)


def test_neighbour_mean_is_the_slow_mean_and_leaves_lone_vertices():
    vertices, faces = _icosphere(1)
    vertices = torch.cat([vertices, torch.tensor([[5.0, 6.0, 7.0]])])
    edges = build_edges(faces).edges
    mean = neighbour_mean(vertices, edges)
    for vertex in range(len(vertices) - 1):
        touching = edges[(edges == vertex).any(dim=1)]
        others = touching[touching != vertex]
        torch.testing.assert_close(mean[vertex], vertices[others].mean(dim=0))
    assert mean[-1].tolist() == [5.0, 6.0, 7.0]


def test_edge_lengths_of_a_cube_are_its_sides_and_diagonals():
    box = trimesh.creation.box()
    table = build_edges(torch.tensor(box.faces).long())
    lengths = edge_lengths(torch.tensor(box.vertices).float(), table.edges)
    assert sorted(round(float(length), 4) for length in lengths) == [1.0] * 12 + [1.4142] * 6
