import math

import pytest
import torch
from lift3d.core.geometry.triplane_sampling import PLANE_AXES, query_triplane
from lift3d.core.triplane import Triplane
from lrm_scenes import load_golden


def _linear_triplane(size: int = 8) -> Triplane:
    """Every plane holds its own two coordinates: width axis in channel 0, height in 1."""
    centres = (torch.arange(size) + 0.5) * 2 / size - 1
    vertical, horizontal = torch.meshgrid(centres, centres, indexing="ij")
    plane = torch.stack([horizontal, vertical])
    return Triplane(plane.expand(1, 3, 2, size, size).clone())


def _slow_sample(plane: torch.Tensor, u: float, v: float) -> torch.Tensor:
    """Bilinear sample of [channel, height, width] at u (width), v (height) in -1..1; zero outside."""
    _, height, width = plane.shape
    x, y = (u + 1) * width / 2 - 0.5, (v + 1) * height / 2 - 0.5
    total = torch.zeros(len(plane), dtype=plane.dtype)
    for column in (math.floor(x), math.floor(x) + 1):
        for row in (math.floor(y), math.floor(y) + 1):
            if 0 <= column < width and 0 <= row < height:
                total += plane[:, row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


def test_planes_that_hold_their_coordinates_give_the_coordinates_of_the_point():
    point = torch.tensor([[[0.1, -0.3, 0.6]]])
    x, y, z = point[0, 0].tolist()
    expected = torch.tensor([[[x, y, x, z, z, y]]])
    torch.testing.assert_close(query_triplane(_linear_triplane(), point), expected)


def test_samples_equal_a_slow_loop_inside_and_outside():
    generator = torch.Generator().manual_seed(0)
    planes = torch.randn(2, 3, 4, 5, 7, generator=generator, dtype=torch.float64)
    points = torch.rand(2, 50, 3, generator=generator, dtype=torch.float64) * 5 - 2.5
    result = query_triplane(Triplane(planes, bound=2.0), points)
    for batch in range(2):
        for index in range(50):
            where = points[batch, index] / 2
            expected = [
                _slow_sample(planes[batch, plane], float(where[u]), float(where[v]))
                for plane, (u, v) in enumerate(PLANE_AXES)
            ]
            torch.testing.assert_close(result[batch, index], torch.cat(expected))


def test_features_far_outside_are_zero():
    far = torch.tensor([[[3.0, 3.0, 3.0]]])
    assert query_triplane(_linear_triplane(), far).abs().max() == 0


def test_the_reference_is_reproduced(shared_dir):
    golden = load_golden(shared_dir, "forward")
    features = query_triplane(Triplane(golden["planes"]), golden["points"])
    expected = golden["plane_features"].permute(0, 2, 1, 3).flatten(2)
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=0)


def test_gradients_reach_planes_and_points():
    triplane = _linear_triplane()
    triplane.planes.requires_grad_()
    points = torch.tensor([[[0.1, -0.3, 0.6]]], requires_grad=True)
    query_triplane(triplane, points).sum().backward()
    torch.testing.assert_close(points.grad, torch.full((1, 1, 3), 2.0))
    assert float(triplane.planes.grad.sum()) == pytest.approx(6.0)


def test_points_of_another_batch_are_refused():
    with pytest.raises(ValueError, match="holds 1 samples"):
        query_triplane(_linear_triplane(), torch.zeros(2, 1, 3))
