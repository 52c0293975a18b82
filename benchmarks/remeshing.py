"""Time of the mesh optimiser (step and remesh) by face count, and of surface extraction by grid.

Run: python3 run.py bench remeshing [--faces 5000 20000 50000] [--repeat 10]

A sphere is pulled towards an ellipsoid, so that all three parts of a remeshing pass have work. The
rival, where it is installed, is the isotropic remesher of gpytoolbox: one of its iterations on the
same mesh. Extraction is compared with marching cubes of scikit-image.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
from lift3d.core.geometry.edges import build_edges, edge_lengths
from lift3d.core.geometry.flexicubes import flexicubes
from lift3d.core.geometry.isosurface import extract_isosurface
from lift3d.core.geometry.remesh import MeshOptimizer, MeshOptimizerParams
from lift3d.core.geometry.repair import is_manifold, is_watertight
from torch import Tensor

AXES = torch.tensor([1.0, 0.7, 1.2])


def sphere_field(size: int, radius: float = 0.7) -> tuple[Tensor, Tensor]:
    """Signed distances of a sphere on [-1, 1]^3, and the positions of the samples."""
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return grid.norm(dim=-1) - radius, grid


def sphere_of(num_faces: int) -> tuple[Tensor, Tensor]:
    """An extracted sphere of about that many faces."""
    size = max(6, round((num_faces / 6.1) ** 0.5) + 1)
    return extract_isosurface(sphere_field(size)[0], (-1.0,) * 3, (1.0,) * 3)


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def time_optimizer(num_faces: int, repeat: int) -> tuple[int, float, float, bool]:
    """Mean face count, median milliseconds of a step and of a pass, and whether it stayed sound."""
    vertices, faces = sphere_of(num_faces)
    length = float(edge_lengths(vertices, build_edges(faces).edges).mean())
    params = MeshOptimizerParams(
        edge_length_limits=(0.95 * length, 1.05 * length),
        learning_rate=0.1,
        local_edge_length=False,
    )
    optimizer = MeshOptimizer(vertices, faces, params)
    steps, passes, counts = [], [], []
    for _ in range(repeat + 2):
        optimizer.zero_grad()
        ((((optimizer.vertices / AXES).norm(dim=-1) - 0.7) ** 2).mean()).backward()
        steps.append(seconds(optimizer.step))
        passes.append(seconds(optimizer.remesh))
        counts.append(len(optimizer.faces))
    sound = is_watertight(optimizer.faces) and is_manifold(optimizer.faces)
    median = statistics.median
    return (
        round(statistics.mean(counts[2:])),
        1e3 * median(steps[2:]),
        1e3 * median(passes[2:]),
        sound,
    )


def time_rival(num_faces: int) -> str:
    """Milliseconds of one iteration of gpytoolbox on the same mesh, or why there is none."""
    if importlib.util.find_spec("gpytoolbox") is None:
        return "not installed"
    import gpytoolbox

    vertices, faces = sphere_of(num_faces)
    arrays = vertices.double().numpy(), faces.numpy()
    return f"{1e3 * seconds(lambda: gpytoolbox.remesh_botsch(*arrays, 1)):.0f}"


def time_extraction(size: int, repeat: int) -> tuple[int, float, float, str]:
    """Faces, then milliseconds of ours, of FlexiCubes forward and backward, of scikit-image."""
    field, grid = sphere_field(size)
    box = (-1.0,) * 3, (1.0,) * 3
    faces = len(extract_isosurface(field, *box)[1])

    def differentiable() -> None:
        leaf = field.clone().requires_grad_()
        mesh = flexicubes(leaf, grid, training=True)
        (mesh.vertices.square().sum() + mesh.deviation.mean()).backward()

    ours = statistics.median(
        seconds(lambda: extract_isosurface(field, *box)) for _ in range(repeat)
    )
    flexible = statistics.median(seconds(differentiable) for _ in range(max(1, repeat // 2)))
    rival = "not installed"
    if importlib.util.find_spec("skimage") is not None:
        from skimage.measure import marching_cubes

        array = field.numpy()
        times = [seconds(lambda: marching_cubes(array, 0.0)) for _ in range(repeat)]
        rival = f"{1e3 * statistics.median(times):.0f}"
    return faces, 1e3 * ours, 1e3 * flexible, rival


def main(arguments: list[str]) -> int:
    """Print both tables; 1 if a mesh did not stay watertight and manifold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, nargs="+", default=[5_000, 20_000, 50_000])
    parser.add_argument("--grids", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--repeat", type=int, default=10)
    options = parser.parse_args(arguments)

    print("| faces | step ms | remesh ms | both ms | gpytoolbox iteration ms | sound |")
    print("| ---: | ---: | ---: | ---: | ---: | :---: |")
    all_sound = True
    for num_faces in options.faces:
        count, step, remesh, sound = time_optimizer(num_faces, options.repeat)
        all_sound &= sound
        rival = time_rival(num_faces)
        print(
            f"| {count} | {step:.1f} | {remesh:.1f} | {step + remesh:.1f} | {rival} "
            f"| {'yes' if sound else 'NO'} |"
        )
    print("\n| grid | faces | extraction ms | FlexiCubes fwd+bwd ms | scikit-image ms |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for size in options.grids:
        faces, ours, flexible, rival = time_extraction(size, options.repeat)
        print(f"| {size}^3 | {faces} | {ours:.0f} | {flexible:.0f} | {rival} |")
    return 0 if all_sound else 1


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
