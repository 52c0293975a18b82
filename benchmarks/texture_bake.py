"""Texture bake: time for a 50k-face mesh, and how well the views come back from the texture.

Time: four views of 512 px into 1024x1024, with and without unwrap. Quality: PSNR inside the
silhouette, per view from lowest to highest, of the input views and of six unseen ones, drawn with
the baked texture against the mesh itself (with a pattern of waves if it has no colours).

Run: python3 run.py bench texture_bake [--faces 50000] [--size 1024] [--repeat 3] [--meshes FOLDER]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace

import torch
from lift3d.benchmarks._objects import add_object_options, chosen_objects
from lift3d.core.camera import ViewRig, make_kiss3dgen_rig, make_orbit_rig
from lift3d.core.geometry.uv import UnwrapParams, unwrap_mesh
from lift3d.core.geometry.uv_coverage import inspect_uvs
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.texture_projection import TextureParams, project_texture
from lift3d.core.rendering.mesh import render_mesh

DEFAULT_OBJECTS = ("ellipsoid", "procedural mug", "procedural house")


def make_bumpy_sphere(num_faces: int) -> Mesh:
    """A latitude-longitude sphere with bumps, coloured by position."""
    rings = max(4, round(math.sqrt(num_faces / 4)))
    segments = 2 * rings
    polar = torch.linspace(0.01, math.pi - 0.01, rings + 1)
    around = torch.arange(segments) * 2 * math.pi / segments
    theta, phi = torch.meshgrid(polar, around, indexing="ij")
    radius = 0.8 + 0.08 * torch.sin(5 * phi) * torch.sin(4 * theta)
    directions = torch.stack(
        [theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], dim=-1
    )
    vertices = (radius[..., None] * directions).reshape(-1, 3)
    index = torch.arange(len(vertices)).reshape(rings + 1, segments)
    a, b = index[:-1], index[1:]
    c, d = b.roll(-1, dims=1), a.roll(-1, dims=1)
    faces = torch.cat([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)]).reshape(-1, 3)
    colors = 0.5 + 0.5 * torch.sin(9 * vertices + torch.tensor([0.0, 1.0, 2.0]))
    return Mesh(vertices, faces, vertex_colors=colors)


def with_pattern(mesh: Mesh) -> Mesh:
    """The mesh with its own texture, else with waves of colour at its vertices."""
    if mesh.texture is not None:
        return mesh
    colors = 0.5 + 0.4 * torch.sin(9 * mesh.vertices + torch.tensor([0.0, 1.0, 2.0]))
    return replace(mesh, vertex_colors=colors)


def range_of_psnr(baked: Mesh, truth: Mesh, rig: ViewRig) -> str:
    """Lowest to highest PSNR of the views, where both are covered fully."""
    mine, true = (render_mesh(mesh, rig, width=512, height=512) for mesh in (baked, truth))
    inside = (mine.alpha > 0.99) & (true.alpha > 0.99)
    values = [
        -10 * math.log10(max(float((a - b)[m].square().mean()), 1e-12))
        for a, b, m in zip(mine.rgb, true.rgb, inside, strict=True)
    ]
    return f"{min(values):.0f} to {max(values):.0f} dB"


def print_quality(name: str, mesh: Mesh, params: TextureParams) -> None:
    """One row: the mesh is unwrapped, baked from the four views and looked at again."""
    rig = make_kiss3dgen_rig()
    truth = with_pattern(mesh)
    views = render_mesh(truth, rig, width=512, height=512).rgb
    bare = replace(truth, vertex_colors=None, texture=None, uvs=None)
    baked = project_texture(bare, views, rig, params=params).mesh
    unseen = make_orbit_rig(
        [45.0, 135.0, 225.0, 315.0, 20.0, 200.0], [5, 20, -10, 35, 50, -30], radius=4.5
    )
    print(
        f"| {name} | {range_of_psnr(baked, truth, rig)} | {range_of_psnr(baked, truth, unseen)} |",
        flush=True,
    )


def best_of(repeat: int, function, *arguments, **options):  # noqa: ANN001, ANN201
    """Shortest wall time of several calls, and the last result."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = function(*arguments, **options)
        times.append(time.perf_counter() - start)
    return min(times), result


def main(options: list[str]) -> int:
    """Print one table row per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3)
    add_object_options(parser)
    arguments = parser.parse_args(options)
    print_times(arguments)
    print("\n| mesh | input views, PSNR inside | six unseen angles |\n| --- | --- | --- |")
    chosen = chosen_objects(arguments)
    if not arguments.meshes and not arguments.only:
        chosen = {name: chosen[name] for name in DEFAULT_OBJECTS}
    for name, mesh in chosen.items():
        print_quality(name, mesh, TextureParams(size_px=arguments.size))
    return 0


def print_times(arguments: argparse.Namespace) -> None:
    """Seconds of unwrapping, baking, and both."""
    mesh, rig = make_bumpy_sphere(arguments.faces), make_kiss3dgen_rig()
    views = render_mesh(mesh, rig, width=512, height=512).rgb
    bare = replace(mesh, vertex_colors=None)
    params = TextureParams(size_px=arguments.size)
    project_texture(
        make_bumpy_sphere(2000), views, rig, params=TextureParams(size_px=64)
    )  # compile
    print(f"{mesh.num_faces} faces, 4 views of 512x512, texture {arguments.size}x{arguments.size}")
    seconds, unwrapped = best_of(
        arguments.repeat, unwrap_mesh, bare, UnwrapParams(resolution_px=arguments.size)
    )
    report = inspect_uvs(unwrapped, resolution=arguments.size)
    print(f"unwrap                {seconds:6.2f} s   overlap {report.overlap_share:.5f}")
    seconds, baked = best_of(
        arguments.repeat, project_texture, unwrapped, views, rig,
        params=replace(params, uvs="keep"),
    )  # fmt: skip
    again = render_mesh(baked.mesh, rig, width=512, height=512)
    error = ((again.rgb - views) ** 2)[again.alpha > 0.99].mean()
    print(
        f"bake, given uvs       {seconds:6.2f} s   seen {baked.seen_fraction:.2f}, "
        f"PSNR of the input views {-10 * math.log10(float(error)):.1f} dB"
    )
    seconds, _ = best_of(1, project_texture, bare, views, rig, params=params)
    print(f"bake with unwrap      {seconds:6.2f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
