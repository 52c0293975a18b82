"""Time and memory of a large reconstruction model at its published size, weights random.

The planes that the heads read are those of a lumpy ball, so that the surface is like an object's.
"Extra" is the largest resident memory during a stage beyond what was resident before it.

Run: python3 run.py bench lrm_extraction [--size prm] [--no-planes] [--unchunked-cells 40]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch
from lift3d.benchmarks._memory import measured
from lift3d.core.geometry.flexicubes import flexicubes, weights_from_logits
from lift3d.core.geometry.isosurface_tables import CORNER_OFFSETS
from lift3d.core.networks.lrm import (
    LargeReconstructionModel,
    LrmGridParams,
    load_lrm_params,
    make_lrm,
)
from lift3d.core.networks.lrm_cameras import make_camera_vectors
from lift3d.core.pipelines.lrm_to_mesh import grid_to_mesh, triplane_to_grid, views_to_triplane
from lift3d.core.triplane import Triplane


def make_lumpy_ball(model: LargeReconstructionModel, seed: int = 0) -> Triplane:
    """Planes whose distance head shows a ball of radius 0.75 with lumps; changes that head.

    Channel 0 of the planes sums to 3 - |x|^2, the other channels are smooth noise.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, side = model.params.decoder.plane_channels, model.params.transformer.high_res
    noise = torch.randn(3, channels, 9, 9, generator=generator)
    planes = torch.nn.functional.interpolate(noise, (side, side), mode="bicubic")
    centres = (torch.arange(side) + 0.5) * 2 / side - 1
    planes[:, 0] = 1 - (centres[:, None] ** 2 + centres**2) / 2 + 0.02 * planes[:, 1]
    linears = [layer for layer in model.decoder.net_sdf if isinstance(layer, torch.nn.Linear)]
    for index, linear in enumerate(linears):
        linear.weight.zero_()
        linear.bias.zero_()
        linear.weight[0, :: channels if index == 0 else linear.in_features] = 1.0
    linears[-1].weight.neg_()
    linears[-1].bias.fill_(3 - 0.75**2)
    for name in ("net_deformation", "net_weight"):
        for parameter in getattr(model.decoder, name).parameters():
            if parameter.ndim == 2:  # fresh heads are nearly constant
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    return Triplane(planes[None])


def unchunked_vertices(model: LargeReconstructionModel, triplane: Triplane) -> torch.Tensor:
    """Vertices from all heads at all points and cells at once, as the published program does it."""
    decoder, points = model.decoder, model.params.grid.points()
    volume = model.features(triplane, points.reshape(-1, 3)).reshape(*points.shape[:3], -1)
    nx, ny, nz = (size - 1 for size in points.shape[:3])
    corners = [volume[i : nx + i, j : ny + j, k : nz + k] for i, j, k in CORNER_OFFSETS]
    logits = decoder.weight_logits(torch.stack(corners, dim=3).flatten(0, 2))
    moved = points + model.params.grid.displacement(decoder.deformation(volume))
    return flexicubes(decoder.sdf(volume), moved, weights_from_logits(logits)).vertices


def difference_to_unchunked(
    model: LargeReconstructionModel, triplane: Triplane, cells: int
) -> float:
    """Largest distance between the vertices of both evaluations on a smaller grid."""
    model.params = replace(model.params, grid=LrmGridParams((cells,) * 3, (2.1,) * 3))
    mesh = grid_to_mesh(model, triplane_to_grid(model, triplane))
    whole = model.to_world(unchunked_vertices(model, triplane))
    if mesh.vertices.shape != whole.shape or len(whole) < 100:
        return float("inf")
    return float((mesh.vertices - whole).abs().max())


@torch.no_grad()
def main(options: list[str]) -> int:
    """Print one table row per stage; 1 if the extraction takes 2 GB or the meshes differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="prm", choices=["prm", "instantmesh_large"])
    parser.add_argument("--no-planes", action="store_true", help="skip the transformer")
    parser.add_argument("--unchunked-cells", type=int, default=40)
    arguments = parser.parse_args(options)
    with measured() as stage:
        model = make_lrm(load_lrm_params(arguments.size)).eval().requires_grad_(False)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"| {arguments.size}, {count / 1e6:.1f} M parameters, made | {stage.text()} |")
    print("| --- | --- |")
    if not arguments.no_planes:
        views = torch.rand(4, 512, 512, 3, generator=torch.Generator().manual_seed(0))
        with measured() as stage:
            views_to_triplane(model, views, make_camera_vectors("kiss3dgen"))
        print(f"| 4 views to planes | {stage.text()} |", flush=True)
    triplane = make_lumpy_ball(model)
    with measured() as extraction:
        mesh = grid_to_mesh(model, triplane_to_grid(model, triplane))
    cells = model.params.grid.cells
    print(
        f"| planes to a mesh, grid {cells[0]}, {mesh.num_faces} faces | {extraction.text()} "
        "(target < 2 GB) |",
        flush=True,
    )
    difference = difference_to_unchunked(model, triplane, arguments.unchunked_cells)
    print(
        f"| vertices against the evaluation at once, grid {arguments.unchunked_cells} | "
        f"{difference:.1e} (target 1e-5) |"
    )
    return int(extraction.extra >= 2e9 or not difference < 1e-5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
