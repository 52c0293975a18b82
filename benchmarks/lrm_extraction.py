"""Time and memory of a large reconstruction model at its published size, weights random.

The planes that the heads read are those of a lumpy ball, so that the surface is like an object's;
models with classes (stdgen_slrm) give the four meshes that the published program makes of them.
"Extra" is the largest resident memory during a stage beyond what was resident before it. The rival
is the published program's way: all heads at all points, the weight head at all cells. At StdGEN's
grid it gathers 11.5 GB at once, so its weight head runs in slabs; --slabs 1 runs it in one go.

Run: python3 run.py bench lrm_extraction [--size prm] [--no-planes] [--unchunked-cells 40]
     python3 run.py bench lrm_extraction --size stdgen_slrm --no-planes
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch
from lift3d.benchmarks._memory import measured
from lift3d.core.geometry.flexicubes import flexicubes, weights_from_logits
from lift3d.core.geometry.isosurface_tables import CORNER_OFFSETS
from lift3d.core.geometry.semantic_parts import part_classes, part_sdf
from lift3d.core.mesh import Mesh
from lift3d.core.networks.lrm import (
    LargeReconstructionModel,
    LrmGridParams,
    load_lrm_params,
    make_lrm,
)
from lift3d.core.networks.lrm_cameras import make_camera_vectors
from lift3d.core.pipelines.character_field import CharacterField, field_to_parts
from lift3d.core.pipelines.lrm_to_mesh import (
    LrmGrid,
    grid_to_mesh,
    triplane_to_grid,
    views_to_triplane,
)
from lift3d.core.triplane import Triplane

PARTS = ("whole", "clothes", "hair", "body")
"""What the published program extracts of a character."""
BALL_SHARE = 0.714
"""Radius of the ball as a share of half the grid's shortest side: 0.75 at PRM's."""


def make_lumpy_ball(model: LargeReconstructionModel, seed: int = 0) -> Triplane:
    """Planes whose distance head shows a ball with lumps; changes the heads.

    Channel 0 of the planes sums to 3 - |x|^2, the other channels are smooth noise; classes follow
    channels 2 and up.
    """
    radius = BALL_SHARE * min(model.params.grid.scale) / 2
    generator = torch.Generator().manual_seed(seed)
    channels, side = model.params.decoder.plane_channels, model.params.transformer.high_res
    noise = torch.randn(3, channels, 9, 9, generator=generator)
    planes = torch.nn.functional.interpolate(noise, (side, side), mode="bicubic")
    centres = (torch.arange(side) + 0.5) * 2 / side - 1
    planes[:, 0] = 1 - (centres[:, None] ** 2 + centres**2) / 2 + 0.02 * planes[:, 1]
    read_channels(model.decoder.net_sdf, channels, first=0, offset=0.0)
    last = model.decoder.net_sdf[-1]
    last.weight.neg_()
    last.bias.fill_(3 - radius**2)
    if model.params.label_names:
        read_channels(model.decoder.semantic_net, channels, first=2, offset=10.0)
    for name in ("net_deformation", "net_weight"):
        for parameter in getattr(model.decoder, name).parameters():
            if parameter.ndim == 2:  # fresh heads are nearly constant
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    return Triplane(planes[None])


def read_channels(head: torch.nn.Module, channels: int, *, first: int, offset: float) -> None:
    """Change a head: output k is the sum over the planes of channel ``first`` + k, and an offset.

    The offset keeps sums positive on their way through the ReLUs.
    """
    linears = [layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)]
    for index, linear in enumerate(linears):
        linear.weight.zero_()
        linear.bias.zero_()
        for output in range(linears[-1].out_features):
            if index == 0:
                linear.weight[output, first + output :: channels] = 1.0
                linear.bias[output] = offset
            else:
                linear.weight[output, output] = 1.0


def unchunked_vertices(
    model: LargeReconstructionModel, triplane: Triplane, part: str
) -> torch.Tensor:
    """Vertices from all heads at all points and cells at once, as the published program does it."""
    decoder, points = model.decoder, model.params.grid.points()
    volume = model.features(triplane, points.reshape(-1, 3)).reshape(*points.shape[:3], -1)
    nx, ny, nz = (size - 1 for size in points.shape[:3])
    corners = [volume[i : nx + i, j : ny + j, k : nz + k] for i, j, k in CORNER_OFFSETS]
    logits = decoder.weight_logits(torch.stack(corners, dim=3).flatten(0, 2))
    moved = points + model.params.grid.displacement(decoder.deformation(volume))
    sdf = decoder.sdf(volume)
    if model.params.label_names:
        kept = part_classes(part, model.params.label_names)
        sdf = part_sdf(sdf, decoder.semantic_logits(volume).softmax(dim=-1), kept)
    return flexicubes(sdf, moved, weights_from_logits(logits)).vertices


def run_all_cells(model: LargeReconstructionModel, triplane: Triplane, slabs: int) -> int:
    """All heads at all points and the weight head at all cells, in slabs; number of cells."""
    decoder, points = model.decoder, model.params.grid.points()
    num_cells = 0
    for cells in torch.arange(len(points) - 1).tensor_split(slabs):
        slab = points[int(cells[0]) : int(cells[-1]) + 2]
        volume = model.features(triplane, slab.reshape(-1, 3)).reshape(*slab.shape[:3], -1)
        decoder.sdf(volume)
        decoder.deformation(volume)
        if model.params.label_names:
            decoder.semantic_logits(volume)
        nx, ny, nz = (size - 1 for size in slab.shape[:3])
        corners = [volume[i : nx + i, j : ny + j, k : nz + k] for i, j, k in CORNER_OFFSETS]
        num_cells += len(decoder.weight_logits(torch.stack(corners, dim=3).flatten(0, 2)))
    return num_cells


def difference_to_unchunked(
    model: LargeReconstructionModel, triplane: Triplane, cells: int, parts: tuple[str, ...]
) -> float:
    """Largest distance between the vertices of both evaluations on a smaller grid."""
    scale = model.params.grid.scale
    counts = tuple(round(cells * side / max(scale)) for side in scale)
    model.params = replace(model.params, grid=LrmGridParams(counts, scale))  # type: ignore[arg-type]
    meshes = extract(model, triplane_to_grid(model, triplane), parts)
    largest = 0.0
    for part, mesh in zip(parts, meshes, strict=True):
        whole = model.to_world(unchunked_vertices(model, triplane, part))
        if mesh.vertices.shape != whole.shape or len(whole) < 100:
            return float("inf")
        largest = max(largest, float((mesh.vertices - whole).abs().max()))
    return largest


def extract(
    model: LargeReconstructionModel, grid: LrmGrid, parts: tuple[str, ...]
) -> tuple[Mesh, ...]:
    """One mesh, or one per part of a model with classes."""
    if not model.params.label_names:
        return (grid_to_mesh(model, grid),)
    return field_to_parts(CharacterField(model, grid), parts).meshes


def make_model(size: str, with_planes: bool) -> LargeReconstructionModel:
    """Random weights; without planes only the heads are whole, the rest has one layer."""
    params = load_lrm_params(size)  # type: ignore[arg-type]
    if not with_planes:
        params = replace(
            params,
            encoder=replace(params.encoder, num_layers=1),
            transformer=replace(params.transformer, num_layers=1, lora_rank=0),
        )
    return make_lrm(params).eval().requires_grad_(False)


def draw_planes(model: LargeReconstructionModel) -> str:
    """Time and memory of the transformer on noise."""
    cameras = make_camera_vectors("stdgen" if model.params.frame == "stdgen" else "kiss3dgen")
    side = model.params.image_px
    views = torch.rand(len(cameras), side, side, 3, generator=torch.Generator().manual_seed(0))
    with measured() as stage:
        views_to_triplane(model, views, cameras)
    return f"| {len(views)} views to planes | {stage.text()} |"


@torch.no_grad()
def main(options: list[str]) -> int:
    """Print one table row per stage; 1 if the extraction takes 2 GB or the meshes differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--size", default="prm", choices=["prm", "instantmesh_large", "stdgen_slrm"]
    )
    parser.add_argument("--no-planes", action="store_true", help="skip the transformer")
    parser.add_argument("--unchunked-cells", type=int, default=40)
    parser.add_argument("--slabs", type=int, default=10, help="of the rival; 1 runs it at once")
    arguments = parser.parse_args(options)
    with measured() as stage:
        model = make_model(arguments.size, not arguments.no_planes)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"| {arguments.size}, {count / 1e6:.1f} M parameters, made | {stage.text()} |")
    print("| --- | --- |")
    if not arguments.no_planes:
        print(draw_planes(model), flush=True)
    triplane, parts = make_lumpy_ball(model), PARTS if model.params.label_names else ("mesh",)
    cells = " x ".join(map(str, model.params.grid.cells))
    with measured() as reading:
        grid = triplane_to_grid(model, triplane)
    print(f"| planes to the corners of the grid {cells} | {reading.text()} |", flush=True)
    with measured() as cutting:
        meshes = extract(model, grid, parts)
    faces = ", ".join(f"{mesh.name} {mesh.num_faces}" for mesh in meshes)
    print(f"| corners to meshes, faces: {faces} | {cutting.text()} |")
    extra = max(reading.extra, grid_bytes(grid) + cutting.extra)
    seconds = reading.seconds + cutting.seconds
    print(f"| both | {seconds:.1f} s, {extra / 1e9:.2f} GB extra (target < 2 GB) |", flush=True)
    del grid, meshes
    with measured() as rival:
        num_cells = run_all_cells(model, triplane, arguments.slabs)
    gathered = num_cells * 8 * 3 * model.params.decoder.plane_channels * 4
    print(
        f"| rival: all heads at all points and cells, in {arguments.slabs} slabs, once "
        f"| {rival.text()} (at once {gathered / 1e9:.2f} GB for the corners alone) |",
        flush=True,
    )
    difference = difference_to_unchunked(model, triplane, arguments.unchunked_cells, parts)
    print(
        f"| vertices against the evaluation at once, grid {arguments.unchunked_cells} | "
        f"{difference:.1e} (target 1e-5) |"
    )
    return int(extra >= 2e9 or not difference < 1e-5)


def grid_bytes(grid: LrmGrid) -> int:
    """What the corners of the grid hold."""
    held = [grid.sdf, grid.vertices, *([] if grid.logits is None else [grid.logits])]
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
