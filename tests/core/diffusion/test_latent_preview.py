"""The preview's map from latents to colour, fitted to an encoder whose inverse is known."""

from __future__ import annotations

import torch
from lift3d.core.diffusion.latent_preview import fit_preview
from torch import Tensor
from torch.nn import functional

MATRIX = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def encode(images: Tensor) -> Tensor:
    """Mean colours of 8x8 pixels, mixed into five channels."""
    means = functional.avg_pool2d(images.movedim(-1, 1), 8)
    return torch.einsum("cr,brhw->bchw", MATRIX, means) + 0.3


def test_colours_of_a_linear_encoder_are_recovered() -> None:
    preview = fit_preview(encode, 8)
    patches = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    images = patches.repeat_interleave(24, dim=2).repeat_interleave(24, dim=3).movedim(1, -1)
    picture = preview.render(encode(images)[0], 8)
    assert picture.shape == (96, 144, 3)
    centres = (picture[11::24, 11::24] + picture[12::24, 12::24]) / 2
    assert torch.allclose(centres, patches[0].movedim(0, -1), atol=0.03)


def test_the_fit_is_the_same_every_time_and_stays_in_range() -> None:
    first, second = fit_preview(encode, 8), fit_preview(encode, 8)
    assert torch.equal(first.weights, second.weights)
    wild = first.render(100 * torch.randn(5, 3, 3), 8)
    assert wild.min() >= 0 and wild.max() <= 1


def test_constant_latents_do_not_break_the_fit() -> None:
    preview = fit_preview(lambda images: torch.zeros(1, 4, 32, 32), 8)
    assert torch.isfinite(preview.render(torch.zeros(4, 2, 2), 8)).all()
