"""Refinement of rough characters on views of their levels: what comes back, layer by layer.

    python run.py bench character_refinement [--seeds 1 2] [--size 384] [--steps 60 30] [--out DIR]

Procedural characters are made rough (bumps of 0.012 world units, detail smoothed away) and refined
from the inside out on six orthographic views and normal maps of each level. Two rows per layer: the
rough start, and the result. normals: mean angle in degrees over what the views see; surface: mean
distance of the true surface that the views see from the mesh, world units; F: at 0.02 of the
height, 20 000 points; in body: share of the layer's vertices inside the body, percent. cpu s: of
all threads, which holds on a busy machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lift3d.core.camera import ViewRig, make_stdgen_rig
from lift3d.core.datasets.characters import character_meshes, make_character
from lift3d.core.evaluation.contact_sheet import make_contact_sheet
from lift3d.core.evaluation.mesh_metrics import f_score, normal_error_deg, sample_surface
from lift3d.core.formats.png import write_png
from lift3d.core.geometry.closest import closest_surface_points
from lift3d.core.geometry.collision import points_inside
from lift3d.core.mesh import Mesh, merge_meshes
from lift3d.core.pipelines.character_levels import render_levels, roughen
from lift3d.core.pipelines.layer_params import load_layer_params
from lift3d.core.pipelines.refine_character import (
    LEVEL_OF_PART,
    CharacterLayer,
    read_level,
    refine_character,
)
from lift3d.core.rendering.mesh import render_mesh

HEIGHT = 2.0
TAU = 0.02 * HEIGHT
NUM_POINTS = 20_000
SCORE_PX = 256


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    values: dict[str, float]

    def line(self) -> str:
        """The row in Markdown."""
        return f"| {self.name} | " + " | ".join(f"{v:.4g}" for v in self.values.values()) + " |"


def score(mesh: Mesh, truth: Mesh, body: Mesh | None, rig: ViewRig) -> dict[str, float]:
    """Numbers of one layer."""
    points = sample_surface(mesh, NUM_POINTS).points
    goal = sample_surface(truth, NUM_POINTS).points
    seen = visible_vertices(truth, rig)
    away = closest_surface_points(seen, mesh.vertices, mesh.faces).distance
    inside = 0.0
    if body is not None:
        inside = 100 * float(points_inside(mesh.vertices, body.vertices, body.faces).float().mean())
    return {
        "normals": normal_error_deg(mesh, truth, rig, image_px=SCORE_PX),
        "surface": float(away.mean()),
        "F": f_score(points, goal, TAU),
        "in body": inside,
    }


def visible_vertices(mesh: Mesh, rig: ViewRig) -> torch.Tensor:
    """Vertices of the faces that some view of the layer alone sees."""
    drawn = render_mesh(mesh, rig, width=SCORE_PX, height=SCORE_PX, antialias=False)
    faces = drawn.face_index[drawn.face_index >= 0].unique()
    return mesh.vertices[mesh.faces[faces].unique()]


def run_character(seed: int, size: int, steps: tuple[int, int]) -> tuple[list[Row], list]:
    """Rows and pictures of one character."""
    rig = make_stdgen_rig()
    truth = list(character_meshes(make_character(seed)).values())
    drawn = render_levels(truth, rig, size_px=size)
    views = {item.level: read_level(item.views.rgb, item.views.normals, rig) for item in drawn}
    starts = [roughen(mesh, 0.012, seed=seed) for mesh in truth]
    layers = [
        CharacterLayer(
            replace(mesh, vertex_colors=None),
            views[LEVEL_OF_PART[mesh.name]],
            load_layer_params(mesh.name).with_steps(*steps),
        )
        for mesh in starts
    ]
    begin = time.process_time()
    made = refine_character(layers)
    seconds = time.process_time() - begin
    rows = []
    for index, goal in enumerate(truth):
        for name, meshes, spent in (("rough", starts, 0.0), ("refined", made.parts, seconds)):
            body = None if index == 0 else meshes[0]
            values = score(meshes[index], goal, body, rig)
            rows.append(Row(f"{seed} {goal.name}, {name}", {**values, "cpu s": spent}))
    return rows, [pictures(meshes) for meshes in (truth, starts, made.parts)]


def pictures(parts: list[Mesh] | tuple[Mesh, ...]) -> torch.Tensor:
    """Front and rear of the whole and of the clothes, beside each other."""
    rig = make_stdgen_rig().select([0, 3])
    whole, clothes = merge_meshes(list(parts)), parts[1]
    drawn = [
        render_mesh(mesh, rig, width=SCORE_PX, height=SCORE_PX, shading="headlight").rgb
        for mesh in (whole, clothes)
    ]
    return torch.cat([view for views in drawn for view in views], dim=1)


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--steps", type=int, nargs=2, default=(60, 30))
    parser.add_argument("--out", type=Path, default=Path("output/bench"))
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    sheet = []
    for seed in options.seeds:
        made, shown = run_character(seed, options.size, tuple(options.steps))
        if not rows:
            head = ["layer", *made[0].values]
            print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head), flush=True)
        for row in made:
            print(row.line(), flush=True)
        rows += made
        sheet.append(shown)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "character_refinement.png"
    write_png(path, make_contact_sheet(sheet, row_labels=[str(s) for s in options.seeds]))
    print(f"Sheet (true, rough, refined): {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
