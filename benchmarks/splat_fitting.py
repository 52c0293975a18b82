"""Gaussians fitted to a mesh: how well views that were not fitted look, and the time of a step.

    python run.py bench splat_fitting [--meshes FOLDER] [--no-procedural] [--only NAMES]

Gaussians on the surface (10 000), 24 pictures of 256 px; PSNR over all pixels and inside the true
silhouette of 6 held-out views after each number of steps.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace

import torch
from lift3d.benchmarks._objects import add_object_options, chosen_objects
from lift3d.core.camera import ViewRig, make_orbit_rig
from lift3d.core.evaluation.image_metrics import psnr
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.mesh_to_splat import MeshToSplatParams, mesh_to_splat
from lift3d.core.rendering.mesh import MeshRender, render_mesh
from lift3d.core.rendering.splats import render_splats

SIZE_PX = 256
DEFAULT_OBJECTS = "ellipsoid,procedural mug,procedural tree,procedural robot"


def held_out_rig() -> ViewRig:
    """Six views from above and below."""
    return make_orbit_rig(
        [15.0, 75.0, 135.0, 195.0, 255.0, 315.0], [-30, 0, 30, 60, -15, 45], radius=4.5
    )


def quality(cloud: GaussianCloud, truth: MeshRender, rig: ViewRig) -> tuple[float, float]:
    """PSNR over all pixels, and inside the silhouette."""
    rgb = render_splats(cloud, rig, width=SIZE_PX, height=SIZE_PX).rgb.clamp(0, 1)
    inside = truth.alpha > 0.99
    error = (rgb - truth.rgb)[inside].square().mean()
    return psnr(rgb, truth.rgb), -10 * math.log10(float(error))


def fit(mesh: Mesh, steps: int, gaussians: int) -> tuple[GaussianCloud, float]:
    """The fitted cloud and milliseconds per step, drawing the pictures included."""
    params = MeshToSplatParams(gaussians, size_px=SIZE_PX)
    params = replace(params, fit=replace(params.fit, num_steps=steps))
    begin = time.perf_counter()
    cloud = mesh_to_splat(mesh, params)
    return cloud, 1000 * (time.perf_counter() - begin) / max(steps, 1)


def main(arguments: list[str]) -> int:
    """Print one row per object and number of steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_object_options(parser)
    parser.set_defaults(only=DEFAULT_OBJECTS)
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--gaussians", type=int, default=10_000)
    options = parser.parse_args(arguments)
    if options.meshes and options.only == DEFAULT_OBJECTS:
        options.only = ""
    rig = held_out_rig()
    print("| object | steps | PSNR | PSNR inside | ms per step |\n| --- | --- | --- | --- | --- |")
    for name, mesh in chosen_objects(options).items():
        with torch.no_grad():
            truth = render_mesh(mesh, rig, width=SIZE_PX, height=SIZE_PX)
        fit(mesh, 2, 1000)  # compile
        for steps in options.steps:
            cloud, per_step = fit(mesh, steps, options.gaussians)
            whole, inside = quality(cloud, truth, rig)
            print(f"| {name} | {steps} | {whole:.1f} | {inside:.1f} | {per_step:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
