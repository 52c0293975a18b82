import torch
import trimesh
from lift3d.core.geometry.orientation import disagreeing_faces, orient_outward, piece_volumes
from lift3d.core.geometry.repair import signed_volume
from lift3d.core.mesh import Mesh, merge_meshes


def _mesh(source: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(source.vertices).float(), torch.tensor(source.faces).long())


def _sphere(subdivisions: int = 2) -> Mesh:
    return _mesh(trimesh.creation.icosphere(subdivisions=subdivisions))


def test_scrambled_windings_agree_again_and_look_outwards():
    mesh = _sphere()
    generator = torch.Generator().manual_seed(0)
    flip = torch.rand(mesh.num_faces, generator=generator) < 0.3
    faces = torch.where(flip[:, None], mesh.faces.flip(1), mesh.faces)
    assert torch.equal(disagreeing_faces(faces), flip)
    oriented = orient_outward(Mesh(mesh.vertices, faces))
    assert torch.equal(oriented.faces, mesh.faces)


def test_an_inside_out_mesh_is_turned_and_a_cavity_is_kept():
    mesh = _sphere()
    turned = orient_outward(Mesh(mesh.vertices, mesh.faces.flip(1)))
    assert float(signed_volume(turned.vertices, turned.faces)) > 0
    cavity = Mesh(mesh.vertices * 0.5, mesh.faces.flip(1))
    hollow = merge_meshes([mesh, cavity])
    assert torch.equal(orient_outward(hollow).faces, hollow.faces)


def test_a_moebius_band_has_no_orientation_and_is_left_alone():
    # A strip of squares whose end is glued to its start upside down.
    count = 8
    rings = [(2 * i, 2 * i + 1) for i in range(count)] + [(1, 0)]
    faces = []
    for (a, b), (c, d) in zip(rings, rings[1:], strict=False):
        faces += [[a, b, c], [c, b, d]]
    assert not bool(disagreeing_faces(torch.tensor(faces)).any())


def test_each_piece_that_had_to_change_is_turned_outwards_by_itself():
    one = _sphere()
    faces = one.faces.clone()
    faces[: len(faces) // 2 + 5] = faces[: len(faces) // 2 + 5].flip(1)  # most look inwards
    other = Mesh(one.vertices + torch.tensor([5.0, 0.0, 0.0]), one.faces)
    oriented = orient_outward(merge_meshes([Mesh(one.vertices, faces), other]))
    pieces = (torch.arange(oriented.num_faces) >= one.num_faces).long()
    assert bool((piece_volumes(oriented.vertices, oriented.faces, pieces) > 0).all())


def test_no_faces_have_nothing_to_turn():
    empty = Mesh(torch.zeros(0, 3), torch.zeros((0, 3), dtype=torch.int64))
    assert orient_outward(empty) is empty and disagreeing_faces(empty.faces).shape == (0,)
