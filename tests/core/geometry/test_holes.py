import torch
import trimesh
from lift3d.core.geometry.holes import boundary_loops, fill_holes
from lift3d.core.geometry.repair import is_manifold, is_watertight, signed_volume
from lift3d.core.mesh import Mesh


def _mesh(source: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(source.vertices).float(), torch.tensor(source.faces).long())


def _sphere(subdivisions: int = 2) -> Mesh:
    return _mesh(trimesh.creation.icosphere(subdivisions=subdivisions))


def test_holes_are_closed_up_to_the_given_size():
    mesh = _sphere()
    touching = (mesh.faces == 0).any(dim=1)
    holed = Mesh(mesh.vertices, mesh.faces[~touching])
    loops = boundary_loops(holed.faces)
    assert [len(loop) for loop in loops] == [int(touching.sum())]
    assert fill_holes(holed, max_edges=4) is holed
    filled = fill_holes(holed)
    assert is_watertight(filled.faces) and is_manifold(filled.faces)
    assert float(signed_volume(filled.vertices, filled.faces)) > 0


def test_a_missing_triangle_is_put_back_and_a_lone_triangle_is_not_doubled():
    mesh = _sphere()
    filled = fill_holes(Mesh(mesh.vertices, mesh.faces[1:]))
    assert filled.num_faces == mesh.num_faces and filled.num_vertices == mesh.num_vertices
    assert is_watertight(filled.faces)
    lone = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    assert fill_holes(lone) is lone


def test_colours_of_the_new_middle_are_the_mean_of_the_rim():
    mesh = _sphere()
    touching = (mesh.faces == 0).any(dim=1)
    colors = mesh.vertices / 2 + 0.5
    holed = Mesh(mesh.vertices, mesh.faces[~touching], vertex_colors=colors)
    filled = fill_holes(holed)
    rim = boundary_loops(holed.faces)[0]
    torch.testing.assert_close(filled.vertex_colors[-1], colors[rim].mean(dim=0))
    torch.testing.assert_close(filled.vertices[-1], mesh.vertices[rim].mean(dim=0))
