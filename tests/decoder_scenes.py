"""A tiny random Gaussian decoder on disk."""

from __future__ import annotations

from pathlib import Path

from lift3d.core.diffusion.gaussian_decoder_files import (
    DecoderFacts,
    make_decoder_vision,
    save_gaussian_decoder,
)
from lift3d.core.networks.gaussian_decoder import GaussianDecoder, GaussianDecoderParams
from lift3d.core.networks.gaussian_heads import HeadParams
from tiny_models import seeded

TINY = GaussianDecoderParams(
    latent_channels=4, grid=2, patch=2, dim=32, num_layers=1, head_dim=16, context_dim=16,
    upsamplings=1, upsampler_layers=1, smallest_dim=16, window=4,
    heads=HeadParams("exp", (0.01, 0.3)),
)  # fmt: skip
FACTS = DecoderFacts(
    num_frames=4, latent_px=4, latent_scale=1.0, radius=4.5, fov_y_deg=30.0, vision_px=16
)


def write_tiny_decoder(
    folder: Path, params: GaussianDecoderParams = TINY, facts: DecoderFacts = FACTS, seed: int = 0
) -> Path:
    """Folder of a decoder with random weights."""
    with seeded(seed):
        network = GaussianDecoder(params)
        vision = None
        if params.context_dim:
            vision = make_decoder_vision(params.context_dim, side_px=16, layers=1)
    save_gaussian_decoder(folder, network, vision, facts)
    return folder
