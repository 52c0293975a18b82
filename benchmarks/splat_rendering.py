"""Gaussians on the CPU: numba kernels against a tile compositor in vectorised torch.

Run: python3 run.py bench splat_rendering [--counts 5000 100000] [--sizes 512]

Both composite the same ellipses (projection excluded) forward and backward, in turn, in one run;
medians are printed. The rival culls, works tile by tile on dense [Gaussian, pixel] blocks,
and is given the best of three tile sizes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable

import torch
from lift3d.core.backends.numba_cpu import splats as numba_splats
from lift3d.core.backends.splat_view import ALPHA_MAX, ALPHA_MIN, MIN_TRANSMITTANCE, SplatView
from lift3d.core.backends.torch_reference import splats as reference
from lift3d.core.camera import make_orbit_rig
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.rendering.splats import make_splat_view
from torch import Tensor

Leaves = dict[str, Tensor]


def make_shell(count: int, seed: int = 0) -> GaussianCloud:
    """Anisotropic Gaussians of random opacity on a bumpy sphere, about 20-30 pairs per pixel."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, 3, generator=generator)
    directions = normal / normal.norm(dim=1, keepdim=True)
    bumps = 0.8 + 0.1 * torch.sin(5 * directions[:, :1]) * torch.cos(4 * directions[:, 1:2])
    spread = (0.5 * torch.randn(count, 3, generator=generator)).exp()
    return GaussianCloud.from_unnormalized(
        means=directions * bumps,
        scales=1.9 / math.sqrt(count) * spread,
        quats=torch.randn(count, 4, generator=generator),
        opacities=0.03 + 0.95 * torch.rand(count, generator=generator),
        harmonics=0.3 * torch.randn(count, 16, 3, generator=generator),
    )


def project(module: object, cloud: GaussianCloud, view: SplatView) -> tuple[Leaves, Tensor]:
    """Ellipses as leaves of autograd, and their radii."""
    ellipses = module.project_splats(  # type: ignore[attr-defined]
        *vars(cloud).values(), view, sh_degree=3, with_normals=False
    )
    leaves = {
        "means2d": ellipses.means2d,
        "conics": ellipses.conics,
        "opacities": cloud.opacities,
        "features": ellipses.features,
    }
    return leaves, ellipses.radii_px


def fresh(leaves: Leaves, dtype: torch.dtype | None = None) -> Leaves:
    """Detached copies that collect gradients."""
    return {k: v.detach().clone().to(dtype or v.dtype).requires_grad_() for k, v in leaves.items()}


def composite_with(
    module: object, leaves: Leaves, radii: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Features and alpha drawn by one of our backends."""
    image = module.composite_splats(*leaves.values(), radii, width=size, height=size)  # type: ignore[attr-defined]
    return image.features, image.alpha


def composite_tiles(leaves: Leaves, radii: Tensor, size: int, tile: int) -> tuple[Tensor, Tensor]:
    """The rival: dense tensor operations per square tile, gradients by autograd, float32.

    All (tile, Gaussian) pairs are gathered at once and split, so that autograd scatters once.
    """
    counts, gaussian = list_tiles(leaves, radii, size, tile)
    means2d, conics, opacities, features = (value.float() for value in leaves.values())
    packed = torch.cat([means2d, conics, opacities[:, None], features], dim=1)
    segments = packed.index_select(0, gaussian).split(counts)
    per_side = (size + tile - 1) // tile
    inner = torch.arange(tile) + 0.5
    blocks = []
    for number, segment in enumerate(segments):
        top, left = (number // per_side) * tile, (number % per_side) * tile
        dx = (inner + left)[None, None, :] - segment[:, 0, None, None]  # [G, 1, tile]
        dy = (inner + top)[None, :, None] - segment[:, 1, None, None]  # [G, tile, 1]
        a, b, c, opacity = segment[:, 2:6, None, None].unbind(dim=1)
        power = (0.5 * a * dx + b * dy) * dx + 0.5 * c * dy * dy
        alpha = (opacity * torch.exp(-power)).clamp(max=ALPHA_MAX)
        alpha = torch.where(alpha >= ALPHA_MIN, alpha, 0.0).flatten(1)  # [G, pixel]
        after = torch.cumprod(1 - alpha, dim=0)
        before = torch.cat([torch.ones_like(after[:1]), after[:-1]])[: len(alpha)]
        weight = torch.where(after > MIN_TRANSMITTANCE, alpha * before, 0.0)
        sums = torch.cat([weight.T @ segment[:, 6:], weight.sum(dim=0)[:, None]], dim=1)
        blocks.append(sums.reshape(tile, tile, -1))
    grid = torch.stack(blocks).reshape(per_side, per_side, tile, tile, -1)
    image = grid.transpose(1, 2).reshape(per_side * tile, per_side * tile, -1)[:size, :size]
    return image[..., :-1], image[..., -1]


@torch.no_grad()
def list_tiles(leaves: Leaves, radii: Tensor, size: int, tile: int) -> tuple[list[int], Tensor]:
    """Number of Gaussians of each tile, and those Gaussians, tile by tile from front to back."""
    means2d, conics, opacities, features = leaves.values()
    drawn = torch.nonzero(radii > 0).squeeze(1)
    drawn = drawn[torch.argsort(features[drawn, 3])]
    a, b, c = conics[drawn].unbind(dim=1)
    reach = 2 * (opacities[drawn].clamp(min=ALPHA_MIN) / ALPHA_MIN).log()
    half = (torch.stack([c, a], dim=1) * (reach / (a * c - b * b))[:, None]).sqrt()
    per_side = (size + tile - 1) // tile
    first = ((means2d[drawn] - half) / tile).floor().clamp(0, per_side).long()
    last = ((means2d[drawn] + half) / tile).floor().clamp(-1, per_side - 1).long()
    across, down = (last - first + 1).clamp(min=0).unbind(dim=1)
    rank = torch.repeat_interleave(torch.arange(len(drawn)), across * down)
    inner = torch.arange(len(rank)) - (torch.cumsum(across * down, 0) - across * down)[rank]
    row = first[rank, 1] + inner // across[rank]
    number = row * per_side + first[rank, 0] + inner % across[rank]
    order = torch.argsort(number, stable=True)
    counts = torch.bincount(number, minlength=per_side * per_side)
    return counts.tolist(), drawn[rank[order]]


def timed(draw: Callable[[], tuple[Tensor, Tensor]], weights: Tensor) -> tuple[float, float]:
    """Milliseconds of the forward and of the backward pass."""
    start = time.perf_counter()
    features, alpha = draw()
    middle = time.perf_counter()
    ((features * weights[..., :4]).sum() + (alpha * weights[..., 4]).sum()).backward()
    return 1000 * (middle - start), 1000 * (time.perf_counter() - middle)


def best_tile(leaves: Leaves, radii: Tensor, size: int, weights: Tensor) -> int:
    """Tile size with which the rival is fastest."""
    times = {}
    for tile in (8, 16, 32):
        copy = fresh(leaves)
        times[tile] = sum(timed(lambda: composite_tiles(copy, radii, size, tile), weights))  # noqa: B023
    return min(times, key=times.__getitem__)


def largest_errors(
    leaves: Leaves, radii: Tensor, size: int, weights: Tensor
) -> tuple[float, float]:
    """Of the image (absolute) and of the gradients (relative), against the float64 reference."""
    results = []
    for module, dtype in ((reference, torch.float64), (numba_splats, None)):
        copy = fresh(leaves, dtype)
        features, alpha = composite_with(module, copy, radii, size)
        ((features * weights[..., :4]).sum() + (alpha * weights[..., 4]).sum()).backward()
        results.append((features[..., :3].detach(), {k: v.grad for k, v in copy.items()}))
    (want, want_gradients), (got, got_gradients) = results
    gradient = max(
        float((got_gradients[k] - v).abs().max() / v.abs().max()) for k, v in want_gradients.items()
    )
    return float((got - want).abs().max()), gradient


def compare(count: int, size: int, repeats: int, with_rival: bool) -> bool:
    """One row of the table; True if all backward passes gave the same bits."""
    cloud = make_shell(count)
    camera = make_orbit_rig([30.0], 10.0, radius=4.5)[0]
    view = make_splat_view(camera, width=size, height=size, like=cloud.means)
    leaves, radii = project(numba_splats, cloud, view)
    weights = torch.randn(size, size, 5, generator=torch.Generator().manual_seed(1))
    image_error, gradient_error = largest_errors(leaves, radii, size, weights)
    tile = best_tile(leaves, radii, size, weights) if with_rival else 0
    ours: list[tuple[float, float]] = []
    rivals: list[float] = []
    gradients: list[Leaves] = []
    for _ in range(repeats):
        copy = fresh(leaves)
        ours.append(timed(lambda: composite_with(numba_splats, copy, radii, size), weights))  # noqa: B023
        gradients.append({k: v.grad for k, v in copy.items()})
        if with_rival:
            rival = fresh(leaves)
            rivals.append(sum(timed(lambda: composite_tiles(rival, radii, size, tile), weights)))  # noqa: B023
    same = all(torch.equal(gradients[0][k], g[k]) for g in gradients for k in g)
    forward, backward = (statistics.median(part) for part in zip(*ours, strict=True))
    line = f"| {count} @ {size} | {forward:.0f} + {backward:.0f} "
    if rivals:
        slow = statistics.median(rivals)
        line += f"| {slow:.0f} (tiles of {tile}) | {slow / (forward + backward):.0f} "
    else:
        line += "| - | - "
    error = f"| {image_error:.1e} | {gradient_error:.1e} "
    print(f"{line}{error}| {'yes' if same else 'NO'} |", flush=True)
    return same


def main(arguments: list[str]) -> int:
    """Print a table of milliseconds, ratios and errors; 1 if a pass was not repeatable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[5_000, 20_000, 100_000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-rival", action="store_true", help="time our kernels alone")
    options = parser.parse_args(arguments)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; compositing only, ms\n")
    columns = (
        "Gaussians @ px", "numba fwd + bwd", "torch tiles fwd+bwd", "ratio",
        "image error", "gradient error", "bit-identical",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    same = True
    for count in options.counts:
        for size in options.sizes:
            same &= compare(count, size, options.repeats, not options.no_rival)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
