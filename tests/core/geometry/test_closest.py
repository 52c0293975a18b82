import numpy as np
import pytest
import torch
import trimesh
from lift3d.core.geometry.closest import closest_on_triangles, closest_surface_points


def test_points_inside_beside_and_beyond_a_triangle():
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    points = torch.tensor(
        [[0.25, 0.25, 2.0], [0.5, -1.0, 0.0], [2.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]]
    )
    weights, distance = closest_on_triangles(points, corners[None])
    expected = [[0.5, 0.25, 0.25], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [1, 0, 0]]
    torch.testing.assert_close(weights, torch.tensor(expected))
    torch.testing.assert_close(distance, torch.tensor([2.0, 1.0, 2**0.5, 0.5**0.5, 2**0.5]))


def test_a_triangle_without_area_is_a_segment():
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    weights, distance = closest_on_triangles(torch.tensor([[0.5, 3.0, 0.0]]), corners[None])
    assert float(distance[0]) == pytest.approx(3.0)
    torch.testing.assert_close((weights[0] @ corners)[0], torch.tensor(0.5))


def test_distances_agree_with_dense_sampling_of_the_triangles():
    generator = torch.Generator().manual_seed(0)
    corners = torch.randn(20, 3, 3, generator=generator, dtype=torch.float64)
    points = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    weights, distance = closest_on_triangles(points, corners)
    reached = (weights[..., None] * corners).sum(dim=1)
    torch.testing.assert_close((reached - points).norm(dim=-1), distance)
    s, t = np.meshgrid(np.linspace(0, 1, 201), np.linspace(0, 1, 201))
    inside = s + t <= 1
    grid = torch.tensor(np.stack([1 - s - t, s, t], axis=-1)[inside])  # [G, 3]
    sampled = torch.einsum("gk,fkc->fgc", grid, corners)
    nearest = (sampled - points[:, None]).norm(dim=-1).amin(dim=1)
    assert bool((distance <= nearest + 1e-12).all()) and float((nearest - distance).max()) < 0.02


def test_points_on_a_sphere_find_their_own_place():
    mesh = trimesh.creation.icosphere(4)
    vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces).long()
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator), dim=-1)
    found = closest_surface_points(directions * 1.3, vertices, faces)
    torch.testing.assert_close(found.interpolate(vertices, faces), directions, atol=0.01, rtol=0)
    assert float((found.distance - 0.3).abs().max()) < 5e-3
    torch.testing.assert_close(found.barycentric.sum(dim=1), torch.ones(500))


def test_no_faces_are_refused():
    with pytest.raises(ValueError, match="without faces"):
        closest_surface_points(
            torch.zeros(1, 3), torch.zeros(3, 3), torch.zeros((0, 3), dtype=torch.int64)
        )
