import torch
from lift3d.core.geometry.submesh import (
    first_of_each,
    group_rows,
    select_faces,
    take_vertices,
    vertex_columns,
    with_vertex_columns,
)
from lift3d.core.mesh import Mesh


def _mesh() -> Mesh:
    generator = torch.Generator().manual_seed(0)
    return Mesh(
        torch.rand(6, 3, generator=generator),
        torch.tensor([[0, 1, 2], [2, 1, 4], [4, 5, 2]]),
        vertex_colors=torch.rand(6, 3, generator=generator),
        uvs=torch.rand(6, 2, generator=generator),
        vertex_normals=torch.nn.functional.normalize(torch.rand(6, 3, generator=generator), dim=1),
        name="part",
    )


def test_selected_faces_keep_what_their_vertices_carry_and_drop_the_rest():
    mesh = _mesh()
    part = select_faces(mesh, torch.tensor([False, True, False]))
    assert part.num_vertices == 3 and part.name == "part"
    for name in ("vertices", "vertex_colors", "uvs", "vertex_normals"):
        old, new = getattr(mesh, name), getattr(part, name)
        assert torch.equal(new[part.faces[0]], old[mesh.faces[1]])


def test_no_face_selected_gives_an_empty_mesh():
    part = select_faces(_mesh(), torch.zeros(3, dtype=torch.bool))
    assert part.is_empty and part.num_vertices == 0


def test_columns_go_out_and_come_back():
    mesh = _mesh()
    columns = vertex_columns(mesh)
    assert columns.shape == (6, 8)
    again = with_vertex_columns(mesh, columns, mesh.faces)
    assert torch.equal(again.vertices, mesh.vertices) and torch.equal(again.uvs, mesh.uvs)
    assert torch.equal(again.vertex_colors, mesh.vertex_colors)
    assert again.vertex_normals is None
    bare = Mesh(mesh.vertices, mesh.faces)
    assert torch.equal(vertex_columns(bare), mesh.vertices)


def test_taken_vertices_may_repeat():
    mesh = _mesh()
    doubled = take_vertices(mesh, torch.tensor([0, 1, 2, 2]), torch.tensor([[0, 1, 3]]))
    assert torch.equal(doubled.vertices[3], mesh.vertices[2])
    assert torch.equal(doubled.uvs[3], mesh.uvs[2])


def test_equal_rows_share_a_group_and_the_first_is_found():
    rows = torch.tensor([[1.0, 2], [3, 4], [1, 2], [1, 4], [3, 4], [-0.0, 0], [0, 0]])
    groups = group_rows(rows)
    assert groups[0] == groups[2] and groups[1] == groups[4] and groups[5] == groups[6]
    assert len(groups.unique()) == 4 and int(groups.max()) == 3
    assert sorted(first_of_each(groups).tolist()) == [0, 1, 3, 5]
    assert group_rows(torch.zeros(0, 3)).shape == (0,) and len(first_of_each(groups[:0])) == 0
