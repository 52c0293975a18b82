"""Round trip mesh -> bundle image of four views -> mesh: how much of the shape comes back.

    python run.py bench round_trip [--meshes FOLDER] [--no-procedural] [--tile 512] [--out DIR]

A dozen procedural objects and an ellipsoid are measured, beside them the meshes of a folder. Two
rows per object: the plain visual hull, and the whole reconstruction. IoU: silhouettes of the 4
input views and of 16 novel views (elevations -20..40). Normals: mean angle over the surface that
the input views see, degrees. CD: sum of both mean distances, F at 0.02 and 0.05, in the unit cube
of the true mesh, 30 000 points. PSNR: novel views of the coloured mesh. sound: watertight and
manifold. s: wall time of the reconstruction; cpu s: of all threads, which holds on a busy machine.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lift3d.benchmarks._objects import add_object_options, chosen_objects
from lift3d.core.camera import ViewRig, make_kiss3dgen_rig, make_orbit_rig
from lift3d.core.evaluation.image_metrics import psnr, silhouette_iou
from lift3d.core.evaluation.mesh_metrics import (
    chamfer_distance,
    f_score,
    normal_map_error_deg,
    sample_surface,
    to_unit_cube,
)
from lift3d.core.formats.png import write_png
from lift3d.core.geometry.repair import is_manifold, is_watertight
from lift3d.core.geometry.visual_hull import visual_hull_mesh
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.bundle_to_mesh import ReconstructionParams, reconstruct_from_bundle
from lift3d.core.pipelines.bundle_views import read_bundle_views
from lift3d.core.pipelines.isomer_params import load_isomer_params
from lift3d.core.pipelines.mesh_to_bundle import render_bundle
from lift3d.core.pipelines.texture_projection import project_vertex_colors
from lift3d.core.rendering.facing_normals import facing_normals
from lift3d.core.rendering.mesh import render_mesh

NOVEL_VIEWS = 16
NUM_POINTS = 30_000
EVALUATION_PX = 256


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    values: dict[str, float]

    def line(self) -> str:
        """The row in Markdown."""
        numbers = " | ".join(f"{value:.3f}" for value in self.values.values())
        return f"| {self.name} | {numbers} |"


def novel_rig() -> ViewRig:
    """Sixteen views between and off the input views."""
    azimuths = [11.25 + 22.5 * index for index in range(NOVEL_VIEWS)]
    elevations = [(-20.0, 0.0, 20.0, 40.0)[index % 4] for index in range(NOVEL_VIEWS)]
    return make_orbit_rig(azimuths, elevations, radius=4.5)


def measure(mesh: Mesh, truth: Mesh, rig: ViewRig) -> dict[str, float]:
    """All figures of a row but the time."""
    size = {"width": EVALUATION_PX, "height": EVALUATION_PX}
    values: dict[str, float] = {}
    for name, cameras in (("input", rig), ("novel", novel_rig())):
        mine, true = (render_mesh(item, cameras, **size) for item in (mesh, truth))
        values[f"IoU {name}"] = float(
            silhouette_iou(mine.alpha.clamp(0, 1), true.alpha.clamp(0, 1)).mean()
        )
        if name == "input":
            both = ((mine.face_index >= 0) & (true.face_index >= 0)).float()
            values["normals"] = normal_map_error_deg(
                facing_normals(mine, mesh, cameras), facing_normals(true, truth, cameras), both
            )
        else:
            values["PSNR"] = psnr(mine.rgb, true.rgb)
    pair = (to_unit_cube(mesh, truth), to_unit_cube(truth, truth))
    points, reference = (sample_surface(m, NUM_POINTS, seed=i).points for i, m in enumerate(pair))
    values["CD"] = chamfer_distance(points, reference)
    values["F.02"] = f_score(points, reference, 0.02)
    values["F.05"] = f_score(points, reference, 0.05)
    return values


def run_object(
    name: str, truth: Mesh, tile_px: int, steps: int
) -> tuple[list[Row], list[torch.Tensor]]:
    """Both rows of an object, and its pictures for the sheet."""
    rig = make_kiss3dgen_rig()
    bundle, _, _ = render_bundle(truth, tile_px=tile_px, rig=rig, normalize=False)
    views = read_bundle_views(bundle, rig)
    hull, _ = project_vertex_colors(
        visual_hull_mesh(views.masks, rig), bundle.rgb_views, rig, masks=views.masks
    )
    isomer = load_isomer_params("from_hull")
    isomer = replace(
        isomer,
        coarse=replace(isomer.coarse, steps=steps),
        fine=replace(isomer.fine, steps=steps),
    )
    begin, begin_cpu = time.perf_counter(), time.process_time()
    result = reconstruct_from_bundle(bundle, rig=rig, params=ReconstructionParams(isomer=isomer))
    times = {
        "s": time.perf_counter() - begin,
        "cpu s": time.process_time() - begin_cpu,
    }
    mesh = result.mesh
    sound = float(is_watertight(mesh.faces) and is_manifold(mesh.faces))
    rows = [
        Row(f"{name}, hull", measure(hull, truth, rig)),
        Row(name, {**measure(mesh, truth, rig), "sound": sound, **times}),
    ]
    return rows, [normals_strip(truth), normals_strip(hull), normals_strip(mesh), color_strip(mesh)]


def sheet_rig() -> ViewRig:
    """The input views and two others."""
    return make_orbit_rig(
        [0.0, 90.0, 180.0, 270.0, 45.0, 135.0], [5.0, 5.0, 5.0, 5.0, 30.0, -20.0], radius=4.5
    )


def normals_strip(mesh: Mesh) -> torch.Tensor:
    """World normals as colours, side by side."""
    drawn = render_mesh(mesh, sheet_rig(), width=192, height=192, antialias=False)
    colors = (facing_normals(drawn, mesh, sheet_rig()) + 1) / 2
    picture = torch.where(drawn.face_index[..., None] >= 0, colors, torch.ones_like(colors))
    return torch.cat(list(picture), dim=1)


def color_strip(mesh: Mesh) -> torch.Tensor:
    """The coloured mesh, side by side."""
    drawn = render_mesh(mesh, sheet_rig(), width=192, height=192)
    return torch.cat(list(drawn.rgb.clamp(0, 1)), dim=1)


def main(arguments: list[str]) -> int:
    """Run and print the table; write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_object_options(parser)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--steps", type=int, default=50, help="of each stage")
    parser.add_argument("--out", type=Path, default=Path("output"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    objects = chosen_objects(options)
    if not objects:
        print(f"Nothing to run: --only {options.only} fits no object.")
        return 2
    strips: list[torch.Tensor] = []
    plain: list[dict[str, float]] = []
    refined: list[dict[str, float]] = []
    for name, truth in objects.items():
        rows, pictures = run_object(name, truth, options.tile, options.steps)
        if not refined:
            head = ["object", *rows[1].values]
            print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head), flush=True)
        for row in rows:
            print(row.line(), flush=True)
        plain.append(rows[0].values)
        refined.append(rows[1].values)
        strips += pictures
        write_sheet(options.out / "round_trip.png", strips)
    print(Row("mean, hull", mean_of(plain)).line())
    print(Row("**mean**", mean_of(refined)).line())
    print(f"Sheet (true, hull, result, colours): {options.out / 'round_trip.png'}")
    return 0


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each column."""
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


def write_sheet(path: Path, strips: list[torch.Tensor]) -> None:
    """All strips so far below each other: a long run can be looked at while it goes on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, torch.cat(strips))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
