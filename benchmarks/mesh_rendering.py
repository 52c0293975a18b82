"""Meshes on the CPU: rasterisation against ray casting, the differentiable path, silhouettes.

    python run.py bench mesh_rendering [--faces 50000] [--sizes 512] [--quick]

Six views of a bumpy sphere. Rays: one per pixel, building the BVH included; rivals that are not
installed (pip install open3d, embreex) are left out. Everything of one row runs in turn in one
process; medians in milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from lift3d.core.camera import ViewRig, make_orbit_rig
from lift3d.core.geometry.transforms import pixel_rays
from lift3d.core.rendering.mesh import (
    antialias,
    build_topology,
    interpolate,
    rasterize,
    world_to_clip,
)
from torch import Tensor

VIEWS = 6
SUPERSAMPLING = 6
SILHOUETTES = ((1_000, 128), (1_000, 256), (5_000, 256), (20_000, 512), (100_000, 512))


def make_bumpy_sphere(num_faces: int) -> tuple[Tensor, Tensor]:
    """Closed surface of about ``num_faces`` faces: vertices and faces."""
    rings = round((num_faces / 2) ** 0.5)
    theta = np.linspace(0, np.pi, rings + 1)[1:-1]
    phi = np.linspace(0, 2 * np.pi, rings, endpoint=False)
    t, p = (a.ravel() for a in np.meshgrid(theta, phi, indexing="ij"))
    body = np.stack([np.sin(t) * np.sin(p), np.cos(t), np.sin(t) * np.cos(p)], axis=1)
    points = np.concatenate([[[0, 1, 0]], body, [[0, -1, 0]]])
    waves = np.sin(5 * points[:, 0]) * np.sin(7 * points[:, 1] + 1) * np.cos(6 * points[:, 2])
    points *= 0.95 + 0.095 * waves[:, None]
    row, column = np.divmod(np.arange((rings - 2) * rings), rings)
    a, b = 1 + row * rings + column, 1 + row * rings + (column + 1) % rings
    pole, nearby = np.arange(rings), (np.arange(rings) + 1) % rings
    last, bottom = len(points) - 1, 1 + (rings - 2) * rings
    faces = [
        np.stack([a, a + rings, b], axis=1),
        np.stack([b, a + rings, b + rings], axis=1),
        np.stack([0 * pole, 1 + pole, 1 + nearby], axis=1),
        np.stack([0 * pole + last, bottom + nearby, bottom + pole], axis=1),
    ]
    return torch.tensor(points, dtype=torch.float32), torch.tensor(np.concatenate(faces))


def make_rig(views: int = VIEWS) -> ViewRig:
    """Cameras all round at elevation 10."""
    return make_orbit_rig([360 * k / views for k in range(views)], 10, radius=4.5)


def milliseconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def ray_casters(vertices: Tensor, faces: Tensor, rig: ViewRig, size: int) -> dict[str, Callable]:
    """The installed rivals, each as a function that shoots the rays of all views."""
    corners = vertices.numpy()
    rays = [pixel_rays(camera, width=size, height=size) for camera in rig]
    origins, directions = (
        torch.stack([ray[part].expand(size, size, 3) for ray in rays]).reshape(-1, 3).numpy()
        for part in (0, 1)
    )
    found: dict[str, Callable] = {}
    with contextlib.suppress(ImportError):
        import open3d

        both = np.concatenate([origins, directions], axis=1)

        def cast_open3d() -> object:
            scene = open3d.t.geometry.RaycastingScene()
            scene.add_triangles(corners, faces.numpy().astype(np.uint32))
            return scene.cast_rays(both)["primitive_ids"].numpy()

        found["open3d"] = cast_open3d
    with contextlib.suppress(ImportError):
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        def cast_embreex() -> object:
            scene = rtcore_scene.EmbreeScene()
            TriangleMesh(scene, corners[faces.numpy()])
            return scene.run(origins, directions)

        found["embreex"] = cast_embreex
    return found


def compare_visibility(num_faces: int, size: int, repeats: int) -> None:
    """One row: which face is visible at each pixel."""
    vertices, faces = make_bumpy_sphere(num_faces)
    rig = make_rig()
    clip = world_to_clip(vertices, rig, width=size, height=size)

    def raster() -> Tensor:
        return rasterize(clip, faces, width=size, height=size)

    runners = {"raster": raster, **ray_casters(vertices, faces, rig, size)}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for name, run in runners.items():  # warm: compilation, first allocation
        run()
        if name != "raster":
            hit = np.asarray(run()).reshape(-1).astype(np.int64)
            ours = raster()[..., 3].reshape(-1).long().numpy() - 1
            covered = (hit >= 0) & (hit < len(faces))
            print(f"<!-- {name}: coverage differs at {np.mean(covered != (ours >= 0)):.1e} -->")
    for _ in range(repeats):
        for name, run in runners.items():
            times[name].append(milliseconds(run))
    median = {name: statistics.median(values) for name, values in times.items()}
    cells = [f"{median['raster']:.0f}"]
    for name in ("open3d", "embreex"):
        known = name in median
        cells.append(
            f"{median[name]:.0f} ({median[name] / median['raster']:.1f}x)" if known else "-"
        )
    print(f"| {len(faces)} @ {size} | " + " | ".join(cells) + " |")


def time_differentiable_path(num_faces: int, size: int, repeats: int) -> None:
    """One row: rasterise, interpolate 3 channels, anti-alias, MSE, gradients."""
    vertices, faces = make_bumpy_sphere(num_faces)
    rig, topology = make_rig(), build_topology(faces)
    target = torch.rand(VIEWS, size, size, 3, generator=torch.Generator().manual_seed(0))
    clip = world_to_clip(vertices, rig, width=size, height=size).requires_grad_()
    colors = vertices.abs().requires_grad_()

    def forward() -> Tensor:
        rast = rasterize(clip, faces, width=size, height=size)
        image = interpolate(colors, rast, faces)
        image = antialias(image, rast, clip, faces, topology=topology)
        return torch.nn.functional.mse_loss(image, target)

    gradients, times = [], []
    for _ in range(repeats + 1):
        clip.grad = colors.grad = None
        start = time.perf_counter()
        loss = forward()
        middle = time.perf_counter()
        loss.backward()
        times.append(((middle - start) * 1e3, (time.perf_counter() - middle) * 1e3))
        assert clip.grad is not None
        gradients.append(clip.grad)
    there, back = (statistics.median(part) for part in zip(*times[1:], strict=True))
    same = all(torch.equal(gradients[0], other) for other in gradients)
    print(
        f"| {len(faces)} @ {size} | {there:.0f} | {back:.0f} | {there + back:.0f} | "
        f"{'yes' if same else 'NO'} |"
    )


def deform(vertices: Tensor, params: Tensor) -> Tensor:
    """Scale, shift and shear: seven ways in which a silhouette moves."""
    x, y, z = vertices.unbind(-1)
    shear = torch.stack([params[4] * y + params[5] * z, params[6] * x, 0 * x], dim=-1)
    return vertices * (1 + params[0]) + params[1:4] + shear


def supersampled_alpha(vertices: Tensor, faces: Tensor, rig: ViewRig, size: int) -> Tensor:
    """Coverage of each pixel, counted at SUPERSAMPLING^2 points."""
    fine = size * SUPERSAMPLING
    views = []
    for index in range(len(rig)):
        clip = world_to_clip(vertices, rig.select([index]), width=fine, height=fine)
        inside = rasterize(clip, faces, width=fine, height=fine)[..., 3] > 0
        shape = (size, SUPERSAMPLING, size, SUPERSAMPLING)
        views.append(inside.double().reshape(shape).mean(dim=(1, 3)))
    return torch.stack(views)


def measure_silhouettes(num_faces: int, size: int) -> None:
    """One row: the gradient of a smoothly weighted silhouette against finite differences."""
    vertices, faces = make_bumpy_sphere(num_faces)
    rig = make_rig(3)
    coarse = torch.randn(3, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")[:, 0]
    params = torch.zeros(7, requires_grad=True)
    clip = world_to_clip(deform(vertices, params), rig, width=size, height=size)
    rast = rasterize(clip, faces, width=size, height=size)
    hard = (rast[..., 3:] > 0).float()
    smooth = antialias(hard, rast, clip, faces)[..., 0]
    per_view = (smooth * weights).sum(dim=(1, 2))
    gradient = torch.stack(
        [torch.autograd.grad(value, params, retain_graph=True)[0].double() for value in per_view]
    )
    step = 1.2 / size
    columns = []
    for offset in step * torch.eye(7):
        up, down = (
            supersampled_alpha(deform(vertices, sign * offset), faces, rig, size)
            for sign in (1, -1)
        )
        columns.append(((up - down) * weights).sum(dim=(1, 2)) / (2 * step))
    truth = torch.stack(columns, dim=1)
    image = supersampled_alpha(vertices, faces, rig, size)
    cosine = float((gradient * truth).sum() / (gradient.norm() * truth.norm()))
    share = float((smooth.detach() - image).abs().sum() / (hard[..., 0] - image).abs().sum())
    print(
        f"| {len(faces)} @ {size} | {cosine:.5f} | {float(gradient.norm() / truth.norm()):.3f} | "
        f"{float((gradient - truth).norm() / truth.norm()):.1%} | {share:.2f} |"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, nargs="+", default=[5_000, 50_000, 200_000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="50k faces at 512 px only")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    if options.quick:
        options.faces, options.sizes = [50_000], [512]
    scenes = [(faces, size) for faces in options.faces for size in options.sizes]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {VIEWS} views, ms\n")
    print("| faces @ px | raster | open3d rays | embreex rays |\n| --- | --- | --- | --- |")
    for faces, size in scenes:
        compare_visibility(faces, size, options.repeats)
    print("\nRasterise, interpolate 3 channels, anti-alias edges, MSE; gradients to positions and")
    print("attributes.\n")
    print("| faces @ px | forward | backward | both | bit-identical |")
    print("| --- | --- | --- | --- | --- |")
    for faces, size in scenes:
        time_differentiable_path(faces, size, options.repeats)
    print(
        f"\nSilhouette gradient against a {SUPERSAMPLING}x{SUPERSAMPLING} supersampled picture.\n"
    )
    print(
        "| faces @ px | cosine | size / true | relative error | image error, share of un-aliased |"
    )
    print("| --- | --- | --- | --- | --- |")
    for faces, size in SILHOUETTES:
        if not options.quick or faces == 5_000:
            measure_silhouettes(faces, size)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
