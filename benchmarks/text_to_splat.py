"""Text to splat: overhead per iteration, and GE3D against SDS and ISM at equal evaluations.

Every held-out prompt begins as a coarse object of the embedded model (reconstructive generation
from a grey ball, row "start"), which each objective goes on from. Each may ask the model about the
same number of latents; SDS and ISM, which need fewer per iteration, get more iterations, with the
same seed, cameras and step sizes. "ge3d" is the preset for small models, whose way up is plain
noise; "ge3d-inversion" asks the model there, as the paper does; "ge3d-sharp" ends as the paper
does: fewer iterations, then reconstructive generation along the trajectories. Columns:

- hue: share of prompts whose hue covers most of the object's coloured pixels,
- hue share: mean share of those pixels that have the hue asked for,
- category: share whose silhouettes are nearest to an object of the category asked for,
- IoU: mean overlap with the nearest silhouettes of that category,
- sharpness: mean colour gradient inside the object, as a share of that of a made object,
- detail: how near that share is to 1, as share or one over it; blur and speckles both lower it,
- edge: width of silhouettes in pixels (smaller is crisper),
- s: seconds per object.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
import time
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from ..core.camera import make_orbit_rig
from ..core.datasets.procedural_objects import make_object
from ..core.diffusion.diffusers_model import load_diffusers_model
from ..core.diffusion.embedded import embedded_path
from ..core.diffusion.model import DiffusionModel
from ..core.diffusion.objective import Distiller, ObjectiveKind
from ..core.evaluation.contact_sheet import make_contact_sheet
from ..core.formats.png import write_png
from ..core.gaussian_cloud import GaussianCloud
from ..core.pipelines.ge3d_presets import (
    SMALL_COARSE,
    SMALL_SHARP,
    RefineChoices,
    RunChoices,
    choose_params,
    choose_refine_params,
)
from ..core.pipelines.initial_splats import InitialSplatParams, splats_in_shape
from ..core.pipelines.prompt_fidelity import (
    PromptCase,
    SilhouetteLibrary,
    make_silhouette_library,
)
from ..core.pipelines.reconstructive_refine import refine_reconstructively
from ..core.pipelines.splat_fidelity import (
    centred_splats,
    edge_width_px,
    score_splats,
    sharpness,
    splat_silhouettes,
)
from ..core.pipelines.text_to_splat import TextToSplatParams, text_to_splat
from ..core.rendering.mesh import render_mesh
from ..core.rendering.splats import render_splats
from ..core.training.embedded_bundle import EMBEDDED_CATEGORIES, held_out_cases

LOGGER = logging.getLogger(__name__)
Method = Literal["ge3d", "ge3d-sharp", "ge3d-inversion", "sds", "ism"]
METHODS: tuple[Method, ...] = typing.get_args(Method)
SHARP_SHARE = 27 / 40
"""Of GE3D's iterations that "ge3d-sharp" does: the evaluations of the rest redraw views."""
SHEET_RIG = make_orbit_rig([0.0, 120.0, 240.0], 15.0, radius=4.5)
SHARP_PX = 128
COLUMNS = (
    "objective", "iterations", "evaluations", "hue", "hue share", "category", "IoU", "sharpness",
    "detail", "edge", "s",
)  # fmt: skip
COARSE_GUIDANCE = 3.0


@functools.cache
def model_named(name: str) -> DiffusionModel:
    """The model, loaded once.

    Raises:
        FileNotFoundError: there is none.
    """
    return load_diffusers_model(embedded_path(name) or Path(name), device="cpu")


@functools.cache
def library_of(per_category: int) -> SilhouetteLibrary:
    """The silhouettes, drawn once."""
    return make_silhouette_library(EMBEDDED_CATEGORIES, per_category=per_category)


@dataclass(frozen=True)
class Task:
    """One object to make.

    Attributes:
        case: the prompt.
        model: embedded model, or a folder.
        params: settings; None for the coarse object.
        sharpen: end with reconstructive generation.
        seed: of the start and of the run.
        per_category: size of the silhouette library.
        gaussians: to start with.
    """

    case: PromptCase
    model: str
    params: TextToSplatParams | None
    per_category: int
    gaussians: int
    sharpen: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """One object that was made, and its scores."""

    case: PromptCase
    cloud: GaussianCloud
    hue: bool
    hue_share: float
    category: bool
    iou: float
    sharpness: float
    detail: float
    edge_px: float
    seconds: float
    evaluations: int


def start_splats(count: int, seed: int = 0) -> GaussianCloud:
    """The grey ball that every run starts from."""
    return splats_in_shape(InitialSplatParams(count, radius=0.6, opacity=0.3, seed=seed))


def measure_overhead(model: DiffusionModel, gaussians: int, iterations: int) -> list[str]:
    """Milliseconds per picture of each part of an iteration, 64 px."""
    params = choose_params(
        "small", RunChoices(iterations=iterations, preview_every=0, densify=False)
    )
    text_to_splat("a red mug", model, start_splats(gaussians), replace_iterations(params, 2))
    _, report = text_to_splat("a red mug", model, start_splats(gaussians), params)
    pictures = iterations * params.run.views
    seconds = report.seconds
    align = seconds["ask"] - seconds["model"]
    outside = seconds["draw"] + seconds["encode"] + seconds["move"] + align
    whole = outside + seconds["model"]
    rows = [
        ("draw", seconds["draw"]),
        ("encode, forward and backward", seconds["encode"]),
        ("alignment", align),
        ("backward of the drawing and step", seconds["move"]),
        ("all outside the model (target: < 150 ms)", outside),
        ("the model", seconds["model"]),
    ]
    lines = ["| part | ms per picture |", "| --- | --- |"]
    lines += [f"| {name} | {1000 * value / pictures:.1f} |" for name, value in rows]
    lines.append(
        f"| alignment, share of an iteration (target: < 2 %) | {100 * align / whole:.2f} % |"
    )
    return lines


def replace_iterations(params: TextToSplatParams, iterations: int) -> TextToSplatParams:
    """The same run with another length."""
    return replace(params, run=replace(params.run, iterations=iterations))


def evaluations_per_iteration(model: DiffusionModel, params: TextToSplatParams) -> float:
    """Mean number of latents that the model is asked about in an iteration."""
    trial = replace_iterations(params, 40)
    distiller = Distiller(model, "a red mug", trial.objective)
    size = trial.run.size_px // model.latent_format.downscale
    latents = torch.zeros(trial.run.views, model.latent_format.channels, size, size)
    angles = torch.zeros(trial.run.views)
    generator = torch.Generator().manual_seed(0)
    for iteration in range(40):
        distiller.gradient(
            latents, angles, angles, iteration=iteration, total_iterations=40, generator=generator
        )
    return distiller.denoise.entries / 40


def params_of(method: Method, iterations: int, views: int = 0) -> TextToSplatParams:
    """The small preset with one of the objectives."""
    kind: ObjectiveKind = method if method in ("sds", "ism") else "ge3d"
    choices = RunChoices(iterations=iterations, views=views, preview_every=0)
    params = choose_params("small", choices)
    objective = replace(params.objective, kind=kind)
    if method == "ge3d-inversion":
        alignment = replace(objective.alignment, noising="inversion")
        objective = replace(objective, alignment=alignment)
    return replace(params, objective=objective)


@functools.cache
def coarse_splats(
    prompt: str, model: str, gaussians: int, seed: int = 0
) -> tuple[GaussianCloud, int]:
    """What every objective starts from: reconstructive generation from a grey ball.

    Returns:
        The Gaussians, and how many latents the model was asked about.
    """
    choices = replace(SMALL_COARSE, seed=SMALL_COARSE.seed + seed)
    return redrawn_splats(prompt, model, start_splats(gaussians, seed), choices)


def redrawn_splats(
    prompt: str, model: str, cloud: GaussianCloud, choices: RefineChoices
) -> tuple[GaussianCloud, int]:
    """Reconstructive generation by the small preset, and how many latents were asked about."""
    objective = replace(params_of("ge3d", 1).objective, guidance_scale=COARSE_GUIDANCE)
    params = choose_refine_params("small", choices)
    made = refine_reconstructively(prompt, model_named(model), cloud, objective, params)
    return made.cloud, made.evaluations


def make_one(task: Task) -> Made:
    """Make an object and score it; without iterations the coarse one."""
    case, library = task.case, library_of(task.per_category)
    began = time.perf_counter()
    cloud, evaluations = coarse_splats(case.prompt, task.model, task.gaussians, task.seed)
    if task.params is not None:
        began = time.perf_counter()
        params = replace(task.params, run=replace(task.params.run, seed=task.seed))
        cloud, report = text_to_splat(case.prompt, model_named(task.model), cloud, params)
        evaluations = report.evaluations
    if task.sharpen:
        choices = replace(SMALL_SHARP, seed=SMALL_SHARP.seed + task.seed)
        cloud, more = redrawn_splats(case.prompt, task.model, cloud, choices)
        evaluations += more
    seconds = time.perf_counter() - began
    score, sharp = score_splats(cloud, case, library), relative_sharpness(cloud, case)
    return Made(
        case, cloud, score.hue_is_dominant, score.shares.get(case.hue, 0.0),
        score.category_is_right, category_iou(cloud, case, library), sharp,
        min(sharp, 1 / max(sharp, 1e-6)),
        edge_width_px(splat_silhouettes(centred_splats(cloud))), seconds, evaluations,
    )  # fmt: skip


def make_row(tasks: list[Task]) -> list[Made]:
    """One prompt with every objective: the coarse object is made once."""
    return [make_one(task) for task in tasks]


def category_iou(cloud: GaussianCloud, case: PromptCase, library: SilhouetteLibrary) -> float:
    """Overlap with the nearest silhouettes of the category asked for."""
    masks = splat_silhouettes(centred_splats(cloud))
    own = [name == case.category for name in library.categories]
    wanted = library.masks[torch.tensor(own)]
    both = torch.minimum(masks, wanted).flatten(1).sum(dim=1)
    either = torch.maximum(masks, wanted).flatten(1).sum(dim=1)
    return float((both / either.clamp(min=1e-6)).max())


def relative_sharpness(cloud: GaussianCloud, case: PromptCase) -> float:
    """Colour gradient inside the object over that of procedural ones of its kind."""
    drawn = render_splats(centred_splats(cloud), SHEET_RIG, width=SHARP_PX, height=SHARP_PX)
    own = sharpness(drawn.rgb.clamp(0, 1), drawn.alpha)
    references = []
    for seed in range(3):
        made = make_object(
            case.category, 60_000_000 + seed, hue=case.hue, second_hue=case.second_hue
        )
        truth = render_mesh(made.mesh, SHEET_RIG, width=SHARP_PX, height=SHARP_PX)
        references.append(sharpness(truth.rgb.clamp(0, 1), truth.alpha))
    return own / max(sum(references) / len(references), 1e-6)


def table_row(kind: str, made: list[Made], iterations: int) -> str:
    """One line of the comparison."""

    def mean(name: str) -> float:
        return sum(float(getattr(item, name)) for item in made) / len(made)

    return (
        f"| {kind} | {iterations} | {mean('evaluations'):.0f} | {100 * mean('hue'):.0f} % | "
        f"{100 * mean('hue_share'):.0f} % | {100 * mean('category'):.0f} % | {mean('iou'):.3f} | "
        f"{mean('sharpness'):.2f} | {mean('detail'):.2f} | {mean('edge_px'):.2f} | "
        f"{mean('seconds'):.0f} |"
    )


def contact_sheet(results: dict[str, list[Made]]) -> torch.Tensor:
    """Three views of every object; a row for each prompt, a block for each objective."""
    kinds = list(results)
    rows, labels = [], []
    for index, first in enumerate(results[kinds[0]]):
        tiles = []
        for kind in kinds:
            cloud = results[kind][index].cloud
            drawn = render_splats(cloud, SHEET_RIG, width=96, height=96, with_normals=False)
            tiles += list(drawn.rgb.clamp(0, 1))
        rows.append(tiles)
        labels.append(first.case.prompt)
    columns = [f"{kind} {view}" for kind in kinds for view in ("front", "120", "240")]
    return make_contact_sheet(rows, row_labels=labels, column_labels=columns)


def main(arguments: list[str]) -> int:
    """Run and print the tables; write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="views", help="embedded model, or a folder")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=0, help="of GE3D; 0 takes the preset's")
    parser.add_argument("--views", type=int, default=0, help="per iteration; 0 takes the preset's")
    parser.add_argument("--gaussians", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0, help="of starts and runs")
    parser.add_argument("--only", default=",".join(METHODS), help="methods, comma-separated")
    parser.add_argument("--overhead", action="store_true", help="measure the overhead alone")
    parser.add_argument("--quick", action="store_true", help="two prompts, few iterations")
    parser.add_argument("--out", type=Path, default=Path("output"))
    options = parser.parse_args(arguments)
    unknown = set(options.only.split(",")) - set(METHODS)
    if unknown:
        parser.error(f"--only knows {', '.join(METHODS)}; got {', '.join(sorted(unknown))}.")
    try:
        model = model_named(options.model)
    except FileNotFoundError as error:
        print(f"Not run: {error}")
        return 0
    print("\n".join(measure_overhead(model, 5000, 3 if options.quick else 20)), flush=True)
    if not options.overhead:
        compare(options, model)
    return 0


def compare(options: argparse.Namespace, model: DiffusionModel) -> None:
    """Print the table of the objectives and write the sheet."""
    count = 2 if options.quick else options.prompts
    cases = held_out_cases()
    cases = cases[:: max(len(cases) // count, 1)][:count]
    iterations = options.iterations or (
        10 if options.quick else params_of("ge3d", 0).run.iterations
    )
    goal = params_of("ge3d", iterations, options.views)
    budget = iterations * evaluations_per_iteration(model, goal)
    print("\n| " + " | ".join(COLUMNS) + " |\n" + "|" + " --- |" * len(COLUMNS), flush=True)
    runs: dict[str, tuple[int, TextToSplatParams | None]] = {"start": (0, None)}
    for method in (method for method in METHODS if method in options.only.split(",")):
        each = evaluations_per_iteration(model, params_of(method, iterations, options.views))
        share = SHARP_SHARE if method == "ge3d-sharp" else 1.0
        number = max(round(share * budget / each), 1)
        runs[method] = number, params_of(method, number, options.views)
    per_category = 4 if options.quick else 24
    tasks = [
        [
            Task(
                case, options.model, params, per_category, options.gaussians,
                sharpen=method == "ge3d-sharp", seed=options.seed,
            )
            for method, (_, params) in runs.items()
        ]
        for case in cases
    ]  # fmt: skip
    made = [make_row(row) for row in tasks]
    results = {name: [row[index] for row in made] for index, name in enumerate(runs)}
    for name, (number, _) in runs.items():
        print(table_row(name, results[name], number), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    sheet = options.out / "text_to_splat.png"
    write_png(sheet, contact_sheet(results))
    print(f"\nSheet: {sheet}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
