import pytest
import torch
import trimesh
from lift3d.core.geometry.repair import signed_volume
from lift3d.core.geometry.smoothing import laplacian_smooth, taubin_smooth


def _noisy_sphere() -> tuple[torch.Tensor, torch.Tensor]:
    source = trimesh.creation.icosphere(subdivisions=3)
    generator = torch.Generator().manual_seed(0)
    vertices = torch.tensor(source.vertices).float()
    vertices = vertices + 0.03 * torch.randn(vertices.shape, generator=generator)
    return vertices, torch.tensor(source.faces).long()


def _roughness(vertices: torch.Tensor) -> float:
    return float(vertices.norm(dim=-1).std())


def test_one_full_step_is_the_mean_of_the_neighbours():
    vertices, faces = _noisy_sphere()
    smoothed = laplacian_smooth(vertices, faces)
    graph = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False).vertex_neighbors
    for vertex in (0, 17, 500):
        torch.testing.assert_close(smoothed[vertex], vertices[graph[vertex]].mean(dim=0))


def test_smoothing_takes_noise_away_and_shrinks():
    vertices, faces = _noisy_sphere()
    smoothed = laplacian_smooth(vertices, faces, iterations=5, step=0.5)
    assert _roughness(smoothed) < 0.5 * _roughness(vertices)
    assert float(signed_volume(smoothed, faces)) < float(signed_volume(vertices, faces))


def test_taubin_takes_noise_away_and_keeps_the_volume():
    vertices, faces = _noisy_sphere()
    smoothed = taubin_smooth(vertices, faces)
    assert _roughness(smoothed) < 0.5 * _roughness(vertices)
    before, after = signed_volume(vertices, faces), signed_volume(smoothed, faces)
    assert float(after / before) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(ValueError, match="shrink < inflate"):
        taubin_smooth(vertices, faces, shrink=0.6, inflate=0.5)


def test_borders_stay_unless_freed_and_no_iterations_change_nothing():
    vertices, faces = _noisy_sphere()
    faces = faces[vertices[faces][..., 1].amin(dim=1) > 0]
    edge = torch.unique(torch.tensor([]))  # vertices of the open border, found by hand
    sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
    unique, count = torch.unique(sides, dim=0, return_counts=True)
    edge = unique[count == 1].reshape(-1)
    assert torch.equal(laplacian_smooth(vertices, faces)[edge], vertices[edge])
    freed = laplacian_smooth(vertices, faces, fix_boundary=False)
    assert not torch.equal(freed[edge], vertices[edge])
    assert torch.equal(laplacian_smooth(vertices, faces, iterations=0), vertices)


def test_an_empty_mesh_and_lone_vertices_pass():
    no_faces = torch.zeros((0, 3), dtype=torch.int64)
    vertices = torch.ones(2, 3)
    assert torch.equal(laplacian_smooth(vertices, no_faces), vertices)
    assert taubin_smooth(torch.zeros(0, 3), no_faces).shape == (0, 3)
