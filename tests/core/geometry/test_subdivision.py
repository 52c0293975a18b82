import pytest
import torch
import trimesh
from lift3d.core.geometry.components import connected_components
from lift3d.core.geometry.edges import build_edges, edge_lengths
from lift3d.core.geometry.repair import (
    euler_characteristic,
    is_manifold,
    is_watertight,
    signed_volume,
)
from lift3d.core.geometry.subdivision import loop_subdivide
from lift3d.core.geometry.submesh import first_of_each, group_rows
from lift3d.core.mesh import Mesh


def _mesh(source: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(source.vertices).float(), torch.tensor(source.faces).long())


@pytest.mark.parametrize(
    "source",
    [
        trimesh.creation.icosphere(1),
        trimesh.creation.box(),
        trimesh.creation.torus(1, 0.4, major_sections=9, minor_sections=6),
    ],
)
def test_without_a_threshold_it_is_the_loop_scheme_of_trimesh(source: trimesh.Trimesh):
    ours = loop_subdivide(_mesh(source), iterations=2, edge_threshold=0.0)
    vertices, faces = trimesh.remesh.subdivide_loop(source.vertices, source.faces, iterations=2)
    assert ours.num_vertices == len(vertices) and ours.num_faces == len(faces)
    distances = torch.cdist(ours.vertices.double(), torch.tensor(vertices))
    assert float(distances.min(dim=1).values.max()) < 1e-5
    assert float(distances.min(dim=0).values.max()) < 1e-5


def test_borders_follow_their_own_curve_and_not_the_inside():
    # Not compared with trimesh, which takes two border vertices joined across the inside for
    # neighbours along the border.
    x, y = (
        values.reshape(-1).float()
        for values in torch.meshgrid(*[torch.arange(5)] * 2, indexing="ij")
    )
    heights = torch.rand(25, generator=torch.Generator().manual_seed(0))
    corner = (5 * torch.arange(4)[:, None] + torch.arange(4)).reshape(-1, 1)
    faces = torch.cat([corner + torch.tensor([0, 5, 1]), corner + torch.tensor([1, 5, 6])])
    mesh = Mesh(torch.stack([x, y, heights], dim=1), faces)
    refined = loop_subdivide(mesh, iterations=1, edge_threshold=0.0)
    old = mesh.vertices
    for vertex in (1, 2, 3):  # the border x = 0 runs through the vertices 0..4
        expected = 0.75 * old[vertex] + (old[vertex - 1] + old[vertex + 1]) / 8
        torch.testing.assert_close(refined.vertices[vertex], expected)
        middle = (old[vertex] + old[vertex + 1]) / 2
        assert float((refined.vertices - middle).norm(dim=-1).min()) < 1e-6


def test_only_long_edges_are_divided_and_no_crack_opens():
    source = trimesh.creation.box(extents=(2.0, 0.2, 0.2)).subdivide()
    mesh = _mesh(source)
    refined = loop_subdivide(mesh, iterations=1, edge_threshold=0.2)
    assert mesh.num_faces < refined.num_faces < 4 * mesh.num_faces
    assert is_watertight(refined.faces) and is_manifold(refined.faces)
    assert euler_characteristic(refined.faces) == 2


def test_vertices_far_from_long_edges_do_not_move():
    mesh = _mesh(trimesh.creation.icosphere(3))
    vertices = mesh.vertices.clone()
    vertices[:, 0] = torch.where(vertices[:, 0] > 0.8, vertices[:, 0] * 3, vertices[:, 0])
    stretched = Mesh(vertices, mesh.faces)
    refined = loop_subdivide(stretched, iterations=1, edge_threshold=0.1)
    left = vertices[:, 0] < 0
    assert torch.equal(refined.vertices[: mesh.num_vertices][left], vertices[left])
    assert refined.num_vertices > mesh.num_vertices


def test_a_threshold_above_every_edge_changes_nothing():
    mesh = _mesh(trimesh.creation.icosphere(2))
    assert torch.equal(loop_subdivide(mesh, 2, 0.9).vertices, mesh.vertices)


def test_repeated_subdivision_ends_below_the_threshold():
    mesh = _mesh(trimesh.creation.box())
    refined = loop_subdivide(mesh, iterations=6, edge_threshold=0.1)
    low, high = mesh.bounds()
    lengths = edge_lengths(refined.vertices, build_edges(refined.faces).edges)
    assert float(lengths.max()) <= 0.1 * float((high - low).norm())


def test_colours_lie_halfway_and_seams_stay_closed():
    source = _mesh(trimesh.creation.icosphere(1))
    # Every face on its own: a mesh that is nothing but seams.
    faces = torch.arange(3 * source.num_faces).reshape(-1, 3)
    vertices = source.vertices[source.faces].reshape(-1, 3)
    generator = torch.Generator().manual_seed(0)
    uvs = torch.rand(len(vertices), 2, generator=generator)
    soup = Mesh(vertices, faces, vertex_colors=vertices / 2 + 0.5, uvs=uvs)
    refined = loop_subdivide(soup, 1, 0.0)
    welded = loop_subdivide(source, 1, 0.0)
    assert refined.num_faces == 4 * source.num_faces
    sites = group_rows(refined.vertices)
    assert len(first_of_each(sites)) == welded.num_vertices
    assert is_watertight(sites[refined.faces])
    middles = refined.uvs[len(vertices) :]
    ends = uvs[build_edges(faces).edges]
    torch.testing.assert_close(middles, ends.mean(dim=1))
    assert refined.vertex_colors.shape == refined.vertices.shape


def test_empty_meshes_and_loose_vertices_pass_and_negative_numbers_do_not():
    empty = Mesh(torch.zeros(0, 3), torch.zeros((0, 3), dtype=torch.int64))
    assert loop_subdivide(empty).is_empty
    lone = Mesh(torch.rand(4, 3), torch.tensor([[0, 1, 2]]))
    refined = loop_subdivide(lone, 1, 0.0)
    assert refined.num_faces == 4 and bool(torch.isfinite(refined.vertices).all())
    assert int(connected_components(refined.faces).max()) == 0
    with pytest.raises(ValueError, match="must not be negative"):
        loop_subdivide(lone, -1)


def test_interpolation_keeps_old_vertices_and_the_thickness_of_a_rod():
    rod = _mesh(trimesh.creation.torus(1.0, 0.1, major_sections=40, minor_sections=5))
    plain = loop_subdivide(rod, 1, 0.0)
    kept = loop_subdivide(rod, 1, 0.0, interpolate=True)
    assert torch.equal(kept.faces, plain.faces)

    def shift(refined: Mesh) -> float:
        return float((refined.vertices[: rod.num_vertices] - rod.vertices).norm(dim=1).mean())

    assert shift(kept) < 0.25 * shift(plain)
    before, shrunk, round_again = (
        float(signed_volume(mesh.vertices, mesh.faces)) for mesh in (rod, plain, kept)
    )
    circle = 2 * torch.pi**2 * 0.1**2  # the torus that the vertices lie on
    assert shrunk < before < round_again < circle
