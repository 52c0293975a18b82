import pytest
import torch
import trimesh
from lift3d.core.geometry.components import connected_components
from lift3d.core.geometry.repair import (
    RepairParams,
    degenerate_faces,
    duplicate_faces,
    euler_characteristic,
    is_manifold,
    is_watertight,
    merge_duplicate_vertices,
    repair_mesh,
    signed_volume,
)
from lift3d.core.mesh import Mesh

TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


def _mesh(source: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(source.vertices).float(), torch.tensor(source.faces).long())


def _sphere(subdivisions: int = 2) -> Mesh:
    return _mesh(trimesh.creation.icosphere(subdivisions=subdivisions))


def _box(center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    box = trimesh.creation.box()
    box.apply_translation(center)
    return _mesh(box)


def _soup(mesh: Mesh) -> Mesh:
    faces = torch.arange(3 * mesh.num_faces).reshape(-1, 3)
    return Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), faces)


@pytest.mark.parametrize(
    ("source", "euler"),
    [
        (trimesh.creation.icosphere(2), 2),
        (trimesh.creation.torus(1.0, 0.3), 0),
        (trimesh.creation.box(), 2),
        (trimesh.creation.annulus(0.3, 0.6, 0.2), 0),
    ],
)
def test_closed_shapes_are_sound_and_agree_with_trimesh(source: trimesh.Trimesh, euler: int):
    mesh = _mesh(source)
    assert is_watertight(mesh.faces) and is_manifold(mesh.faces)
    assert euler_characteristic(mesh.faces) == source.euler_number == euler
    assert float(signed_volume(mesh.vertices, mesh.faces)) == pytest.approx(source.volume, rel=1e-4)


def test_each_kind_of_damage_is_told_apart():
    assert is_watertight(TETRAHEDRON) and is_manifold(TETRAHEDRON)
    open_mesh = TETRAHEDRON[1:]
    assert not is_watertight(open_mesh) and is_manifold(open_mesh)
    flipped = TETRAHEDRON.clone()
    flipped[0] = flipped[0].flip(0)
    assert not is_watertight(flipped) and is_manifold(flipped)
    doubled = torch.cat([TETRAHEDRON, TETRAHEDRON[:1]])
    assert not is_watertight(doubled) and not is_manifold(doubled)
    assert duplicate_faces(doubled).tolist() == [False] * 4 + [True]
    touching = torch.cat([TETRAHEDRON, torch.where(TETRAHEDRON == 0, 0, TETRAHEDRON + 3)])
    assert is_watertight(touching) and not is_manifold(touching)
    with_line = torch.cat([TETRAHEDRON, torch.tensor([[0, 0, 1]])])
    assert degenerate_faces(with_line).tolist() == [False] * 4 + [True]
    assert not is_manifold(with_line)


def test_no_faces_are_manifold_but_not_watertight():
    empty = torch.zeros((0, 3), dtype=torch.int64)
    assert is_manifold(empty) and not is_watertight(empty) and euler_characteristic(empty) == 0
    assert float(signed_volume(torch.zeros(0, 3), empty)) == 0


def test_signed_volume_turns_with_the_faces_and_has_a_gradient():
    mesh = _sphere()
    vertices = mesh.vertices.clone().requires_grad_()
    volume = signed_volume(vertices, mesh.faces)
    assert float(signed_volume(mesh.vertices, mesh.faces.flip(1))) == pytest.approx(
        -float(volume.detach()), rel=1e-5
    )
    volume.backward()
    assert bool(((vertices.grad * mesh.vertices).sum(dim=-1) > 0).all())


def test_a_soup_becomes_the_closed_mesh_it_came_from():
    mesh = _sphere(3)
    repaired = repair_mesh(_soup(mesh))
    assert repaired.num_vertices == mesh.num_vertices
    assert is_watertight(repaired.faces) and is_manifold(repaired.faces)


def test_a_sound_mesh_comes_back_as_it_was():
    mesh = _sphere()
    repaired = repair_mesh(mesh)
    assert torch.equal(repaired.vertices, mesh.vertices)
    assert torch.equal(repaired.faces, mesh.faces)


def test_a_fin_on_a_closed_surface_is_cut_off_and_the_surface_stays_closed():
    mesh = _sphere(1)
    fin = torch.cat([mesh.faces[0, :2], torch.tensor([mesh.num_vertices])])[None]
    vertices = torch.cat([mesh.vertices, torch.tensor([[3.0, 3.0, 3.0]])])
    repaired = repair_mesh(Mesh(vertices, torch.cat([mesh.faces, fin])))
    assert is_manifold(repaired.faces)
    body = repaired.faces[connected_components(repaired.faces) == 0]
    assert is_watertight(body) and len(body) == mesh.num_faces


@pytest.mark.parametrize("seed", range(5))
def test_any_heap_of_random_triangles_becomes_manifold(seed: int):
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randn(30, 3, generator=generator)
    faces = torch.randint(0, 30, (200, 3), generator=generator)
    for params in (RepairParams(), RepairParams(orient=False, max_hole_edges=0, weld=False)):
        repaired = repair_mesh(Mesh(vertices, faces), params)
        assert is_manifold(repaired.faces)
        assert repaired.num_faces > 100


def test_texture_seams_are_neither_welded_nor_filled():
    soup = _soup(_sphere(1))
    uvs = torch.arange(soup.num_vertices)[:, None].expand(-1, 2).float()
    mesh = Mesh(soup.vertices, soup.faces, uvs=uvs)
    repaired = repair_mesh(mesh)
    assert repaired.num_vertices == mesh.num_vertices and repaired.num_faces == mesh.num_faces


def test_welding_within_a_tolerance_and_by_colour():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1e-6, 0, 0], [1, 1, 0]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [1, 4, 3]]))
    assert merge_duplicate_vertices(mesh).num_vertices == 5
    welded = merge_duplicate_vertices(mesh, tolerance=1e-4)
    assert welded.faces.tolist() == [[0, 1, 2], [1, 3, 0]]
    colors = torch.zeros(5, 3)
    colors[3] = 1.0
    colored = Mesh(vertices, mesh.faces, vertex_colors=colors)
    assert merge_duplicate_vertices(colored, tolerance=1e-4).num_vertices == 5
    with pytest.raises(ValueError, match="must not be negative"):
        merge_duplicate_vertices(mesh, tolerance=-1.0)


def test_an_empty_mesh_is_repaired_to_an_empty_mesh():
    empty = Mesh(torch.zeros(0, 3), torch.zeros((0, 3), dtype=torch.int64))
    assert repair_mesh(empty).is_empty
    only_bad = Mesh(torch.zeros(2, 3), torch.tensor([[0, 0, 1]]))
    assert repair_mesh(only_bad).is_empty


@pytest.mark.parametrize("most", [1 << 21, 0])
def test_repeated_faces_are_those_that_a_set_has_seen(monkeypatch, most: int):
    from lift3d.core.geometry import repair

    monkeypatch.setattr(repair, "MAX_STRIDE", most)  # 0 takes the way of meshes beyond 63 bits
    generator = torch.Generator().manual_seed(0)
    faces = torch.randint(0, 9, (400, 3), generator=generator)
    seen: set[tuple[int, ...]] = set()
    expected = []
    for face in faces.tolist():
        corners = tuple(sorted(face))
        expected.append(corners in seen)
        seen.add(corners)
    assert duplicate_faces(faces).tolist() == expected
    far = torch.tensor([[0, 1, (1 << 21) - 2], [(1 << 21) - 2, 0, 1], [0, 1, 2]])
    assert duplicate_faces(far).tolist() == [False, True, False]
