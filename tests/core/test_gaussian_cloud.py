from __future__ import annotations

import pytest
import torch
from lift3d.core.gaussian_cloud import GaussianCloud, color_to_harmonic


def make_cloud(count: int = 4, coefficients: int = 1, **change: torch.Tensor) -> GaussianCloud:
    generator = torch.Generator().manual_seed(0)
    values = {
        "means": torch.randn(count, 3, generator=generator),
        "scales": torch.rand(count, 3, generator=generator),
        "quats": torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1),
        "opacities": torch.rand(count, generator=generator),
        "harmonics": torch.randn(count, coefficients, 3, generator=generator),
    }
    return GaussianCloud(**{**values, **change})


@pytest.mark.parametrize("coefficients, degree", [(1, 0), (4, 1), (9, 2), (16, 3)])
def test_degree_follows_from_the_number_of_coefficients(coefficients: int, degree: int) -> None:
    assert make_cloud(coefficients=coefficients).sh_degree == degree


def test_colour_survives_the_constant_harmonic() -> None:
    colors = torch.rand(4, 3)
    cloud = make_cloud(harmonics=color_to_harmonic(colors))
    torch.testing.assert_close(cloud.base_colors, colors)


def test_quaternions_of_any_length_can_be_normalised() -> None:
    cloud = make_cloud()
    scaled = GaussianCloud.from_unnormalized(
        cloud.means, cloud.scales, cloud.quats * 7, cloud.opacities, cloud.harmonics
    )
    torch.testing.assert_close(scaled.quats, cloud.quats)
    with pytest.raises(ValueError, match="length zero"):
        GaussianCloud.from_unnormalized(
            cloud.means, cloud.scales, cloud.quats * 0, cloud.opacities, cloud.harmonics
        )


def test_select_keeps_rows_together() -> None:
    cloud = make_cloud()
    picked = cloud.select(torch.tensor([True, False, False, True]))
    torch.testing.assert_close(picked.means, cloud.means[[0, 3]])
    torch.testing.assert_close(picked.harmonics, cloud.harmonics[[0, 3]])


def test_zero_gaussians_are_a_cloud() -> None:
    assert make_cloud(0).num_gaussians == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scales": -torch.ones(4, 3)}, "logarithms"),
        ({"opacities": torch.full((4,), 2.0)}, "logits"),
        ({"quats": torch.ones(4, 4)}, "unit length"),
        ({"means": torch.full((4, 3), float("nan"))}, "NaN"),
        ({"harmonics": torch.zeros(4, 5, 3)}, "1, 4, 9 or 16"),
        ({"scales": torch.ones(3, 3)}, r"scales must have shape \[4, 3\]"),
    ],
)
def test_broken_clouds_are_refused_with_a_reason(
    change: dict, message: str, unchecked_shapes
) -> None:
    with pytest.raises(ValueError, match=message):
        make_cloud(**change)
