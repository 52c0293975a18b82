"""Time and memory of the Gaussian decoder at its published size, weights random.

16 views of SV3D's latents of 72 x 72 and the features of one picture make 82,944 Gaussians. "Extra"
is the largest resident memory during the pass beyond what was resident before it.

Run: python3 run.py bench decoder_forward [--views 16] [--side 72] [--size published]
"""

from __future__ import annotations

import argparse
import sys

import torch
from lift3d.benchmarks._memory import measured
from lift3d.core.camera import make_orbit_rig
from lift3d.core.geometry.pluecker import rig_pluecker
from lift3d.core.networks.gaussian_decoder import GaussianDecoder, load_decoder_params
from lift3d.core.networks.gaussian_heads import gaussians_of_pixels

PICTURE_TOKENS = 257
"""DINOv2 ViT-B/14 of a picture of 224 pixels: 16 x 16 patches and the class token."""


@torch.no_grad()
def main(options: list[str]) -> int:
    """Print one table row per stage; 1 if a number is not finite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--side", type=int, default=72, help="of the latents")
    parser.add_argument("--size", default="published", choices=["published", "small", "tiny"])
    arguments = parser.parse_args(options)
    params = load_decoder_params(arguments.size)
    with measured() as stage:
        torch.manual_seed(0)
        network = GaussianDecoder(params).eval().requires_grad_(False)
    count = sum(value.numel() for value in network.parameters())
    print(f"| {arguments.size}, {count / 1e6:.1f} M parameters, made | {stage.text()} |")
    print("| --- | --- |", flush=True)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.views, params.latent_channels, arguments.side, arguments.side)
    latents = torch.randn(1, *shape, generator=generator)
    azimuths = [360 * view / arguments.views for view in range(arguments.views)]
    rig = make_orbit_rig(azimuths, 10.0, radius=4.0, fov_y_deg=33.8)
    rays = rig_pluecker(rig, width=arguments.side, height=arguments.side)[None]
    context = None
    if params.context_dim:
        context = torch.randn(1, PICTURE_TOKENS, params.context_dim, generator=generator)
    with measured() as stage:
        cloud = gaussians_of_pixels(network(latents, rays, context)[0], rig, params.heads)
    print(
        f"| {arguments.views} views of {arguments.side} x {arguments.side} to "
        f"{cloud.num_gaussians:,} Gaussians, {torch.get_num_threads()} threads | {stage.text()} |"
    )
    return int(not bool(cloud.means.isfinite().all()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
