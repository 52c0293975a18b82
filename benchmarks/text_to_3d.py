"""Prompt fidelity of the embedded text-to-3D chain, measured on the final meshes.

    python run.py bench text_to_3d [--seeds=2] [--cases=32] [--library=190] [--out=DIR]
        [--model=embedded name]

For every held-out (category, hue) pair: prompt -> bundle -> mesh, and the true object of the same
prompt drawn, sampled and rebuilt alike. Dominant: the first named hue covers more of the mesh than
any other. Both: both named hues cover at least 3 %. Category: the nearest silhouettes among objects
of all categories of the model are of the category asked for, with 40 and with 190 objects of each
(3,040 in all). Consistency: colours (0..1) and normals (degrees) of points that two neighbouring
views share, over the objects where there are any.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.bundle_image import BundleImage, join_bundle
from ..core.datasets.procedural_objects import make_object
from ..core.diffusion.diffusers_model import load_diffusers_model
from ..core.evaluation.contact_sheet import make_contact_sheet
from ..core.evaluation.view_consistency import ViewConsistency, view_consistency
from ..core.formats.png import write_png
from ..core.mesh import Mesh
from ..core.pipelines.bundle_prompt import BundlePrompt
from ..core.pipelines.bundle_to_mesh import reconstruct_from_bundle
from ..core.pipelines.bundle_views import read_bundle_views
from ..core.pipelines.mesh_to_bundle import render_bundle
from ..core.pipelines.prompt_fidelity import (
    PromptCase,
    PromptScore,
    SilhouetteLibrary,
    make_silhouette_library,
    score_prompt,
)
from ..core.pipelines.render_views import ViewsParams, make_bundle_rig, make_named_rig
from ..core.pipelines.render_views import render_mesh_views as draw_views
from ..core.pipelines.text_to_bundle import BundleSampleParams, sample_bundle
from ..core.training.embedded_bundle import EMBEDDED_CATEGORIES, held_out_cases

TRUE_SEED = 60_000_000
SHEET_COLUMNS = 4
LIBRARY_SIZE, SMALL_LIBRARY_SIZE = 190, 40
"""Objects per category that a mesh is compared with."""


@dataclass(frozen=True)
class Made:
    """One rebuilt object: its scores and pictures."""

    case: PromptCase
    score: PromptScore
    small_score: PromptScore
    consistency: ViewConsistency
    bundle: BundleImage
    mesh: Mesh
    sample_seconds: float
    mesh_seconds: float


def main(arguments: list[str]) -> int:
    """Run the benchmark and print its tables."""
    options = dict(item.removeprefix("--").split("=", 1) for item in arguments if "=" in item)
    cases = held_out_cases()[: int(options.get("cases", 32))]
    seeds = range(int(options.get("seeds", 2)))
    model = load_diffusers_model(
        options.get("model", "bundle"), dtype=torch.float32, device=torch.device("cpu")
    )
    library = make_silhouette_library(
        EMBEDDED_CATEGORIES, per_category=int(options.get("library", LIBRARY_SIZE))
    )
    generated = [make_generated(model, case, seed, library) for case in cases for seed in seeds]
    true = [make_true(case, number, library) for number, case in enumerate(cases)]
    print_totals({"prompt to mesh": generated, "true bundle to mesh": true})
    print_categories(generated)
    print_failures(generated)
    if "out" in options:
        write_sheets(Path(options["out"]), [item for item in generated[:: len(seeds)]])
    return 0


def make_generated(model: object, case: PromptCase, seed: int, library: SilhouetteLibrary) -> Made:
    """Sample a bundle for a prompt and rebuild it."""
    started = time.perf_counter()
    sampled = sample_bundle(model, BundlePrompt(case.prompt), BundleSampleParams(seed=seed))
    seconds = time.perf_counter() - started
    return rebuild(case, sampled.bundles[0], library, seconds)


def make_true(case: PromptCase, number: int, library: SilhouetteLibrary) -> Made:
    """Draw the true object of a prompt at the model's tile size and rebuild it."""
    made = make_object(case.category, TRUE_SEED + number, hue=case.hue, second_hue=case.second_hue)
    bundle, _, _ = render_bundle(made.mesh, tile_px=64, supersampling=3, normalize=False)
    return rebuild(case, bundle, library, 0.0)


def rebuild(
    case: PromptCase, bundle: BundleImage, library: SilhouetteLibrary, sample_seconds: float
) -> Made:
    """Mesh of a bundle, with its scores."""
    started = time.perf_counter()
    mesh = reconstruct_from_bundle(bundle).mesh
    seconds = time.perf_counter() - started
    rig = make_bundle_rig(4)
    shape = read_bundle_views(bundle, rig)
    agreement = view_consistency(mesh, bundle.rgb_views, shape.normals_world, shape.masks, rig)
    score = score_prompt(mesh, case, library)
    small = score_prompt(mesh, case, library.first_of_each(SMALL_LIBRARY_SIZE))
    return Made(case, score, small, agreement, bundle, mesh, sample_seconds, seconds)


def share(values: Iterable[bool]) -> str:
    """Percentage of true ones."""
    found = list(values)
    return f"{100 * sum(found) / len(found):.0f} % of {len(found)}" if found else "-"


def both_present(items: Iterable[Made]) -> list[bool]:
    """The answers of those cases that name two hues."""
    answers = [item.score.both_present for item in items]
    return [answer for answer in answers if answer is not None]


def print_totals(groups: dict[str, list[Made]]) -> None:
    """One row per group."""
    print("| | dominant | both | category | of fewer | colours | normals | sampling s | mesh s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, items in groups.items():
        shared = [item.consistency for item in items if item.consistency.shared_points]
        cells = [
            share(item.score.hue_is_dominant for item in items),
            share(both_present(items)),
            share(item.score.category_is_right for item in items),
            share(item.small_score.category_is_right for item in items),
            f"{statistics.fmean(agreement.color_error for agreement in shared):.3f}",
            f"{statistics.fmean(agreement.normal_error_deg for agreement in shared):.1f}",
            f"{statistics.fmean(item.sample_seconds for item in items):.1f}",
            f"{statistics.fmean(item.mesh_seconds for item in items):.1f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def print_categories(items: list[Made]) -> None:
    """Rates per category."""
    groups: dict[str, list[Made]] = defaultdict(list)
    for item in items:
        groups[item.case.category].append(item)
    print("| category | dominant | both | category | silhouette IoU |")
    print("| --- | --- | --- | --- | --- |")
    for name, group in groups.items():
        overlap = statistics.fmean(item.score.nearest_iou for item in group)
        cells = [
            share(item.score.hue_is_dominant for item in group),
            share(both_present(group)),
            share(item.score.category_is_right for item in group),
            f"{overlap:.3f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def print_failures(items: list[Made]) -> None:
    """What went wrong, line by line."""
    for item in items:
        score = item.score
        if score.hue_is_dominant and score.both_present is not False and score.category_is_right:
            continue
        hues = ", ".join(f"{name} {value:.2f}" for name, value in list(score.shares.items())[:4])
        print(f"- {item.case.prompt}: {hues}; nearest {score.nearest_category}")


def write_sheets(folder: Path, items: list[Made]) -> None:
    """Bundles and meshes of all prompts on two sheets."""
    rig = make_named_rig("orbit", num_views=2, first_azimuth_deg=30.0, elevation_deg=20.0)
    bundles = [join_bundle(item.bundle) for item in items]
    meshes = [
        torch.cat(list(draw_views(item.mesh, rig, params=ViewsParams(size_px=128)).rgb), dim=1)
        for item in items
    ]
    labels = [item.case.prompt for item in items]
    for name, tiles in (("bundles", bundles), ("meshes", meshes)):
        rows: list[list[Tensor]] = []
        captions = []
        for first in range(0, len(tiles), SHEET_COLUMNS):
            rows.append(tiles[first : first + SHEET_COLUMNS])
            captions.append(labels[first : first + SHEET_COLUMNS])
        write_png(folder / f"text_to_3d_{name}.png", make_contact_sheet(rows, tile_labels=captions))
