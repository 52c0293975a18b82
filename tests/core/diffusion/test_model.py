from __future__ import annotations

import pytest
import torch
from lift3d.core.diffusion.model import (
    FLUX_LATENTS,
    Conditioning,
    Control,
    join_conditionings,
    mix_conditionings,
)


def conditioning(value: float, batch: int = 1, tokens: int = 2, **options) -> Conditioning:
    return Conditioning(
        torch.full((batch, tokens, 3), value), torch.full((batch, 4), -value), **options
    )


def test_latent_normalisation_is_inverted_exactly():
    encoded = torch.randn(2, 16, 4, 4, dtype=torch.float64)
    network = FLUX_LATENTS.to_network(encoded)
    torch.testing.assert_close(network, (encoded - 0.1159) * 0.3611)
    torch.testing.assert_close(FLUX_LATENTS.from_network(network), encoded)


def test_joining_stacks_the_batches_in_order():
    first = conditioning(1.0, 2, extras={"mask": torch.zeros(2, 5), "name": "flux"})
    second = conditioning(2.0, 1, extras={"mask": torch.ones(1, 5), "name": "flux"})
    joined = join_conditionings([first, second])
    assert joined.tokens[:, 0, 0].tolist() == [1.0, 1.0, 2.0]
    assert joined.pooled[:, 0].tolist() == [-1.0, -1.0, -2.0]
    assert joined.extras["mask"][:, 0].tolist() == [0.0, 0.0, 1.0]
    assert joined.extras["name"] == "flux"


def test_texts_of_different_length_are_repeated_where_that_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    short, long = (
        Conditioning(torch.randn(1, n, 4, generator=generator), repeatable_tokens=True)
        for n in (2, 3)
    )
    joined = join_conditionings([short, long])
    assert joined.tokens.shape == (2, 6, 4)
    query = torch.randn(1, 5, 4, generator=generator)
    attend = torch.nn.functional.scaled_dot_product_attention
    for row, part in zip(joined.tokens, (short, long), strict=True):
        torch.testing.assert_close(
            attend(query, row[None], row[None]), attend(query, part.tokens, part.tokens)
        )


def test_mixing_is_linear():
    mixed = mix_conditionings(
        [conditioning(1.0), conditioning(3.0)], torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    )
    assert mixed.tokens[:, 0, 0].tolist() == [1.0, 2.0]
    assert mixed.pooled[:, 0].tolist() == [-1.0, -2.0]


def test_one_entry_serves_a_whole_batch():
    expanded = conditioning(1.0, extras={"mask": torch.ones(1, 5)}).expanded(3)
    assert expanded.batch == 3
    assert expanded.pooled.shape == (3, 4)
    assert expanded.extras["mask"].shape == (3, 5)
    with pytest.raises(ValueError, match="2 conditionings for a batch of 3"):
        conditioning(1.0, 2).expanded(3)


def test_what_cannot_be_joined_is_named():
    with pytest.raises(ValueError, match=r"\[2, 5\] tokens"):
        join_conditionings([conditioning(1.0), conditioning(1.0, tokens=5)])
    with pytest.raises(ValueError, match="guidance scales"):
        join_conditionings([conditioning(1.0, guidance=3.5), conditioning(1.0, guidance=1.0)])
    with pytest.raises(ValueError, match="pooled"):
        join_conditionings([conditioning(1.0), Conditioning(torch.zeros(1, 2, 3))])
    with pytest.raises(ValueError, match="at least one part"):
        join_conditionings([])
    with pytest.raises(ValueError, match="one single conditioning per column"):
        mix_conditionings([conditioning(1.0)], torch.ones(1, 2))


def test_a_control_needs_an_ordered_span():
    with pytest.raises(ValueError, match="0 <= start <= end <= 1"):
        Control(None, torch.zeros(1, 2, 2, 3), start=0.7, end=0.2)
