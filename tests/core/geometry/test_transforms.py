from __future__ import annotations

import pytest
import torch
from lift3d.core.camera import Camera, make_look_at_pose, make_orbit_pose
from lift3d.core.geometry.transforms import (
    matrix_to_quat,
    normalize,
    pixel_rays,
    project_points,
    quat_multiply,
    quat_to_matrix,
)
from scipy.spatial.transform import Rotation


def random_quats(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    quats = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return quats / quats.norm(dim=1, keepdim=True)


def to_scipy(quats: torch.Tensor) -> Rotation:
    return Rotation.from_quat(quats[:, [1, 2, 3, 0]].numpy())


def test_matrices_agree_with_scipy() -> None:
    quats = random_quats(200)
    expected = torch.from_numpy(to_scipy(quats).as_matrix())
    torch.testing.assert_close(quat_to_matrix(3 * quats), expected)


def test_matrix_to_quat_inverts_also_at_half_turns() -> None:
    half_turns = torch.eye(4, dtype=torch.float64)[1:]
    quats = torch.cat([random_quats(500), half_turns])
    back = matrix_to_quat(quat_to_matrix(quats))
    assert (back[:, 0] >= 0).all()
    agreement = (back * quats).sum(dim=1).abs()
    torch.testing.assert_close(agreement, torch.ones_like(agreement))


def test_product_applies_the_second_rotation_first() -> None:
    first, second = random_quats(50, 1), random_quats(50, 2)
    expected = quat_to_matrix(first) @ quat_to_matrix(second)
    torch.testing.assert_close(quat_to_matrix(quat_multiply(first, second)), expected)


def test_normalize_is_finite_at_zero_with_its_gradient() -> None:
    vectors = torch.zeros(2, 3, requires_grad=True)
    normalize(vectors).sum().backward()
    assert torch.isfinite(vectors.grad).all()


@pytest.mark.parametrize("ortho", [None, 2.0])
def test_points_along_a_pixel_ray_project_to_that_pixel_centre(ortho) -> None:
    pose = make_look_at_pose((1.0, 0.7, 2.0), (0.1, 0.0, 0.0))
    camera = Camera(pose, None if ortho else 35.0, ortho)
    origins, directions = pixel_rays(camera, width=9, height=6)
    points = (origins + 1.7 * directions).reshape(-1, 3)
    pixels, depth = project_points(points, camera, width=9, height=6)
    rows, columns = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(9) + 0.5, indexing="ij")
    expected = torch.stack([columns, rows], dim=-1).reshape(-1, 2)
    torch.testing.assert_close(pixels, expected, atol=1e-4, rtol=0)
    assert (depth > 0).all()


def test_y_up_in_the_world_is_up_in_the_image() -> None:
    camera = Camera(make_orbit_pose(0, 0, 3.0))
    above = torch.tensor([[0.0, 0.3, 0.0], [0.3, 0.0, 0.0]])
    pixels, _ = project_points(above, camera, width=64, height=64)
    assert float(pixels[0, 1]) < 32 and float(pixels[1, 0]) > 32
