"""Changes of frame of Gaussians: round trips, and covariance and colour that follow."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.geometry.harmonics import evaluate_harmonics, rotate_harmonics
from lift3d.core.geometry.splat_frames import from_3dgs, transform_gaussians, world_to_3dgs
from lift3d.core.geometry.transforms import normalize, quat_to_matrix


def _cloud(count: int = 20, coefficients: int = 16, seed: int = 0) -> GaussianCloud:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return GaussianCloud.from_unnormalized(
        means=random(count, 3),
        scales=random(count, 3).exp(),
        quats=random(count, 4),
        opacities=random(count).sigmoid(),
        harmonics=random(count, coefficients, 3),
    )


def _covariances(cloud: GaussianCloud) -> torch.Tensor:
    factors = quat_to_matrix(cloud.quats) * cloud.scales[:, None, :]
    return factors @ factors.transpose(1, 2)


def _matrix(seed: int, scale: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = scale * quat_to_matrix(
        torch.randn(4, generator=generator, dtype=torch.float64)
    )
    matrix[:3, 3] = torch.randn(3, generator=generator, dtype=torch.float64)
    return matrix


def test_3dgs_frame_has_y_down_and_z_forward() -> None:
    cloud = _cloud()
    turned = world_to_3dgs(cloud)
    torch.testing.assert_close(turned.means[:, 1:], -cloud.means[:, 1:])
    torch.testing.assert_close(turned.means[:, 0], cloud.means[:, 0])


def test_3dgs_frame_is_the_half_turn_about_x() -> None:
    cloud = _cloud()
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    turned, expected = world_to_3dgs(cloud), transform_gaussians(cloud, half_turn)
    torch.testing.assert_close(turned.means, expected.means)
    torch.testing.assert_close(_covariances(turned), _covariances(expected))
    torch.testing.assert_close(
        turned.harmonics, rotate_harmonics(cloud.harmonics, half_turn[:3, :3])
    )


def test_round_trip_to_3dgs_is_bit_exact() -> None:
    cloud = _cloud()
    back = from_3dgs(world_to_3dgs(cloud))
    for name, value in vars(cloud).items():
        assert torch.equal(getattr(back, name), value), name


@pytest.mark.parametrize("scale", [1.0, 0.3, 7.0])
def test_transform_moves_covariance_and_colour_with_the_means(scale: float) -> None:
    cloud, matrix = _cloud(), _matrix(1, scale)
    moved = transform_gaussians(cloud, matrix)
    linear = matrix[:3, :3]
    torch.testing.assert_close(moved.means, cloud.means @ linear.T + matrix[:3, 3])
    torch.testing.assert_close(_covariances(moved), linear @ _covariances(cloud) @ linear.T)
    directions = normalize(torch.randn(20, 3, dtype=torch.float64))
    torch.testing.assert_close(
        evaluate_harmonics(moved.harmonics, directions @ (linear / scale).T),
        evaluate_harmonics(cloud.harmonics, directions),
    )


def test_transform_and_inverse_give_the_cloud_back() -> None:
    cloud, matrix = _cloud(), _matrix(2, 0.5)
    back = transform_gaussians(transform_gaussians(cloud, matrix), torch.linalg.inv(matrix))
    torch.testing.assert_close(back.means, cloud.means)
    torch.testing.assert_close(back.harmonics, cloud.harmonics)
    torch.testing.assert_close(_covariances(back), _covariances(cloud))


def test_input_cloud_is_left_alone() -> None:
    cloud = _cloud()
    before = cloud.clone()
    transform_gaussians(cloud, _matrix(3, 2.0))
    world_to_3dgs(cloud)
    for name, value in vars(before).items():
        assert torch.equal(getattr(cloud, name), value), name


def test_empty_cloud_can_be_transformed() -> None:
    assert transform_gaussians(_cloud(0), _matrix(4, 1.0)).num_gaussians == 0


@pytest.mark.parametrize(
    ("diagonal", "message"),
    [((1.0, 1.0, -1.0, 1.0), "mirrored"), ((1.0, 2.0, 1.0, 1.0), "shears"), ((0.0, 1.0, 1.0, 1.0), "flattened")],
)  # fmt: skip
def test_transforms_that_gaussians_cannot_follow_are_refused(
    diagonal: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        transform_gaussians(_cloud(), torch.diag(torch.tensor(diagonal, dtype=torch.float64)))
