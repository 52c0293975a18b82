"""The autoencoder's helpers do what their text says; whitening changes latents, not pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lift3d.core.training.loop import TrainingLoop
from lift3d.core.training.vae import (
    LoopParams,
    VaeParams,
    VaeTraining,
    make_vae,
    object_weights,
    patch_components,
    whiten_latents,
)

TINY = VaeParams(
    channels=4,
    widths=(8, 8, 8, 8),
    crops=1,
    loop=LoopParams(steps=30, learning_rate=3e-3, warmup_steps=3, report_every=100, save_every=0),
)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """White pictures with a coloured box each, the size of a bundle of 64 px tiles."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(6):
        picture = np.full((128, 256, 3), 255, np.uint8)
        row, column = rng.integers(0, 60), rng.integers(0, 180)
        picture[row : row + 50, column : column + 60] = rng.integers(0, 255, 3)
        made.append(picture)
    return made


def test_only_what_is_not_white_weighs_more() -> None:
    picture = torch.ones(1, 3, 2, 2)
    picture[0, 1, 0, 1] = 0.0
    assert object_weights(picture, 3.0).tolist() == [[[[1.0, 3.0], [1.0, 1.0]]]]


def test_components_are_orthonormal_and_rebuild_patches_that_lie_in_their_span(pictures) -> None:
    components, spread = patch_components(pictures, 5)
    flat = components.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(5), atol=1e-4, rtol=0)
    assert bool((spread[:-1] >= spread[1:] - 1e-4).all())  # the largest spread comes first


def test_whitened_latents_have_unit_variance_and_pictures_stay_the_same(pictures) -> None:
    torch.manual_seed(0)
    vae = make_vae(TINY).eval()
    values = torch.stack([torch.from_numpy(p) for p in pictures]).permute(0, 3, 1, 2)
    values = values.float() / 127.5 - 1
    with torch.no_grad():
        before = vae.encode(values).latent_dist
        rebuilt = vae.decode(before.mean).sample
        whiten_latents(vae, pictures)
        after = vae.encode(values).latent_dist
        torch.testing.assert_close(vae.decode(after.mean).sample, rebuilt, atol=2e-4, rtol=1e-3)
    flat = after.mean.transpose(0, 1).flatten(1)
    torch.testing.assert_close(flat.mean(dim=1), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.std(dim=1), torch.ones(4), atol=1e-2, rtol=0)
    # The posterior's noise shrinks as the mean does.
    ratio = (after.std / before.std).transpose(0, 1).flatten(1)
    scale = after.mean.transpose(0, 1).flatten(1).std(dim=1) / before.mean.transpose(0, 1).flatten(
        1
    ).std(dim=1)
    torch.testing.assert_close(ratio.mean(dim=1), scale, atol=1e-2, rtol=1e-2)


@pytest.mark.slow
def test_training_lowers_the_loss(pictures, tmp_path) -> None:
    torch.manual_seed(0)
    training = VaeTraining(pictures, TINY)
    fixed = torch.Generator().manual_seed(5)
    first = float(training.loss(0, fixed)["pixel"].detach())
    TrainingLoop(training, tmp_path, TINY.loop).run(training.loss)
    last = float(training.loss(29, torch.Generator().manual_seed(5))["pixel"].detach())
    assert last < 0.7 * first
