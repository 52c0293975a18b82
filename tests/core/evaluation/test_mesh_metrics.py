import math

import numpy as np
import pytest
import torch
import trimesh
from lift3d.core.camera import make_orbit_rig
from lift3d.core.evaluation.mesh_metrics import (
    chamfer_distance,
    f_score,
    normal_error_deg,
    normal_map_error_deg,
    sample_surface,
    to_unit_cube,
    volume_iou,
)
from lift3d.core.mesh import Mesh


def from_trimesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(
        torch.tensor(np.asarray(shape.vertices), dtype=torch.float32),
        torch.tensor(np.asarray(shape.faces), dtype=torch.int64),
    )


def box(*extents: float) -> Mesh:
    return from_trimesh(trimesh.creation.box(extents=extents))


def random_points(seed: int, count: int) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))


def slow_distances(points: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    gaps = points.double().numpy()[:, None] - reference.double().numpy()[None]
    return np.sqrt((gaps**2).sum(-1)).min(1)


def test_chamfer_matches_a_double_loop_for_every_convention():
    points, reference = random_points(0, 60), random_points(1, 45)
    there, back = slow_distances(points, reference), slow_distances(reference, points)
    assert chamfer_distance(points, reference) == pytest.approx(there.mean() + back.mean())
    assert chamfer_distance(points, reference, reduction="mean") == pytest.approx(
        (there.mean() + back.mean()) / 2
    )
    assert chamfer_distance(points, reference, squared=True) == pytest.approx(
        (there**2).mean() + (back**2).mean()
    )


def test_parallel_planes_are_their_distance_apart():
    plane = torch.cartesian_prod(torch.linspace(0, 1, 30), torch.linspace(0, 1, 30))
    low = torch.cat([plane, torch.zeros(900, 1)], dim=1)
    high = torch.cat([plane, torch.full((900, 1), 0.03)], dim=1)
    assert chamfer_distance(low, high) == pytest.approx(0.06, abs=1e-6)
    assert f_score(low, high, 0.02) == 0.0
    assert f_score(low, high, 0.05) == 1.0


def test_f_score_is_the_harmonic_mean_of_precision_and_recall():
    reference = random_points(2, 50)
    points = torch.cat([reference[:10], reference[:10] + 100])  # precision 1/2, recall about 1/5
    recall = float((slow_distances(reference, points) <= 1e-6).mean())
    assert f_score(points, reference, 1e-6) == pytest.approx(2 * 0.5 * recall / (0.5 + recall))


def test_samples_lie_on_the_sphere_and_fill_it_evenly():
    sphere = from_trimesh(trimesh.creation.icosphere(subdivisions=4))
    samples = sample_surface(sphere, 5000, seed=3)
    assert samples.points.norm(dim=1).sub(1).abs().max() < 5e-3
    assert samples.points.mean(dim=0).abs().max() < 0.03
    assert (samples.points * samples.normals).sum(dim=1).min() > 0.99


def test_samples_are_shared_out_by_area():
    slab = box(1.0, 1.0, 3.0)  # two faces of area 1, four of area 3
    samples = sample_surface(slab, 7000, seed=0)
    on_small = (samples.normals[:, 2].abs() > 0.5).double().mean()
    assert float(on_small) == pytest.approx(2 / 14, abs=0.01)


def test_same_seed_same_points_other_seed_other_points():
    shape = box(1.0, 2.0, 3.0)
    first, again = sample_surface(shape, 100, seed=5), sample_surface(shape, 100, seed=5)
    assert torch.equal(first.points, again.points)
    assert not torch.equal(first.points, sample_surface(shape, 100, seed=6).points)


def test_sampling_an_empty_mesh_is_refused():
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="no surface to sample"):
        sample_surface(empty, 10)


def test_faces_without_area_are_never_drawn():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]])
    mesh = Mesh(vertices, torch.tensor([[3, 3, 3], [0, 1, 2], [3, 3, 0]]))
    assert sample_surface(mesh, 50).face_index.unique().tolist() == [1]


def test_unit_cube_brings_the_reference_to_longest_side_one():
    shape = box(1.0, 2.0, 4.0)
    moved = to_unit_cube(shape, shape)
    low, high = moved.bounds()
    assert torch.allclose(high - low, torch.tensor([0.25, 0.5, 1.0]))
    assert torch.allclose(low + high, torch.zeros(3), atol=1e-6)


def test_normals_turned_by_ten_degrees_have_an_error_of_ten_degrees():
    angle = math.radians(10)
    normals = torch.tensor([0.0, 0.0, 1.0]).expand(1, 4, 4, 3)
    turned = torch.tensor([math.sin(angle), 0.0, math.cos(angle)]).expand(1, 4, 4, 3)
    mask = torch.ones(1, 4, 4)
    assert normal_map_error_deg(normals, turned, mask) == pytest.approx(10.0, abs=1e-3)
    mask[0, 0, 0] = 0
    spoiled = turned.clone()
    spoiled[0, 0, 0] = torch.tensor([0.0, 0.0, -1.0])
    assert normal_map_error_deg(normals, spoiled, mask) == pytest.approx(10.0, abs=1e-3)


def test_normal_error_needs_common_pixels():
    with pytest.raises(ValueError, match="No pixel"):
        normal_map_error_deg(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2))


def test_volume_iou_of_shifted_boxes():
    shape = box(1.0, 1.0, 1.0)
    shifted = shape.with_vertices(shape.vertices + torch.tensor([0.5, 0.0, 0.0]))
    assert volume_iou(shape, shape) == 1.0
    assert volume_iou(shape, shifted, resolution=96) == pytest.approx(1 / 3, abs=0.02)


def test_a_mesh_with_every_face_twice_has_the_normals_of_the_single_one():
    single = from_trimesh(trimesh.creation.icosphere(subdivisions=3))
    doubled = Mesh(single.vertices, torch.cat([single.faces.flip(1), single.faces]))
    rig = make_orbit_rig([0.0, 90.0], 10.0, radius=4.0)
    assert normal_error_deg(doubled, single, rig, image_px=64) < 1.0
