import torch
import trimesh
from lift3d.core.geometry.edges import build_edges, vertex_degrees
from lift3d.core.geometry.remesh_flip import flip_edges
from lift3d.core.geometry.repair import euler_characteristic, is_manifold, is_watertight


def _spread(faces: torch.Tensor, count: int) -> float:
    degrees = vertex_degrees(build_edges(faces).edges, count)
    return float(((degrees - 6) ** 2).sum())


def _scrambled_sphere(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A sphere whose triangulation has uneven degrees: the convex hull of random points."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=-1)
    hull = trimesh.convex.convex_hull(points.numpy())
    return torch.tensor(hull.vertices).float(), torch.tensor(hull.faces).long()


def test_flips_lower_the_spread_of_degrees_and_keep_the_surface():
    for seed in range(4):
        vertices, faces = _scrambled_sphere(seed)
        before = _spread(faces, len(vertices))
        for _ in range(8):
            flipped = flip_edges(vertices, faces, build_edges(faces))
            assert is_watertight(flipped) and is_manifold(flipped)
            assert euler_characteristic(flipped) == 2
            assert _spread(flipped, len(vertices)) <= _spread(faces, len(vertices))
            faces = flipped
        assert _spread(faces, len(vertices)) < 0.5 * before


def _two_hubs(count: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Two vertices of high degree joined by an edge with two corners of low degree."""
    mesh = trimesh.creation.cylinder(1.0, 2.0, sections=count)
    return torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces).long()


def test_no_flip_makes_an_edge_that_exists_or_folds_a_corner():
    vertices, faces = _two_hubs()
    for _ in range(5):
        faces = flip_edges(vertices, faces, build_edges(faces))
        assert is_manifold(faces) and is_watertight(faces)


def test_a_regular_mesh_and_a_tetrahedron_stay_as_they_are():
    mesh = trimesh.creation.icosphere(2)
    vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces).long()
    assert torch.equal(flip_edges(vertices, faces, build_edges(faces)), faces)
    tetrahedron = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    points = torch.eye(4)[:, :3]
    assert torch.equal(flip_edges(points, tetrahedron, build_edges(tetrahedron)), tetrahedron)


def test_border_vertices_are_regular_with_four_edges():
    # A tube of two rows of triangles: six edges in the middle, four on both borders.
    rows, columns = 3, 12
    angle = torch.arange(columns) * 2 * torch.pi / columns
    circle = torch.stack([angle.cos(), torch.zeros(columns), angle.sin()], dim=1)
    vertices = torch.cat([circle + torch.tensor([0.0, 0.5 * row, 0.0]) for row in range(rows)])
    faces = []
    for row in range(rows - 1):
        for column in range(columns):
            a, b = (row * columns + (column + step) % columns for step in (0, 1))
            faces += [[a, a + columns, b], [b, a + columns, b + columns]]
    tube = torch.tensor(faces)
    assert torch.equal(flip_edges(vertices, tube, build_edges(tube)), tube)
    without_border_rule = vertex_degrees(build_edges(tube).edges, len(vertices))
    assert without_border_rule.unique().tolist() == [4, 6]
