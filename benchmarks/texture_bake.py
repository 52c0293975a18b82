"""Time of baking four views of a 50k-face mesh into a 1024x1024 texture, with and without unwrap.

Run: python3 run.py script benchmarks/texture_bake.py [--faces 50000] [--size 1024] [--repeat 3]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace

import torch
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.geometry.uv import UnwrapParams, unwrap_mesh
from lift3d.core.geometry.uv_coverage import inspect_uvs
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.texture_projection import TextureParams, project_texture
from lift3d.core.rendering.mesh import render_mesh


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
    arguments = parser.parse_args(options)
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
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
