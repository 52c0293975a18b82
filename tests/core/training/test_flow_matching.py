"""Noise levels follow their laws; velocities are the slope of the straight path."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.training.flow_matching import LevelParams, draw_levels, noised_and_velocity


def levels(**options) -> torch.Tensor:
    return draw_levels(40_000, torch.Generator().manual_seed(0), LevelParams(**options))


def test_even_levels_without_shift_are_uniform() -> None:
    drawn = levels(even_share=1.0, shift=1.0)
    quantiles = torch.quantile(drawn, torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(quantiles, torch.tensor([0.1, 0.5, 0.9]), atol=0.01, rtol=0)


def test_the_shift_moves_the_median_to_three_quarters() -> None:
    # shift 3 maps 0.5 to 1.5 / 2
    assert float(levels(even_share=1.0, shift=3.0).median()) == pytest.approx(0.75, abs=0.01)


def test_the_rest_is_logit_normal() -> None:
    logits = torch.logit(levels(even_share=0.0))
    assert float(logits.mean()) == pytest.approx(0, abs=0.02)
    assert float(logits.std()) == pytest.approx(1, abs=0.02)


def test_the_path_from_the_noised_latents_ends_at_both_ends() -> None:
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    level = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    noised, velocity = noised_and_velocity(clean, noise, level)
    t = level.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(noised - t * velocity, clean)
    torch.testing.assert_close(noised + (1 - t) * velocity, noise)
