"""Frames of an orbit, or one picture, to Gaussians: GSV3D's protocol on our objects or a folder.

    python run.py bench image_to_splat [--meshes FOLDER] [--no-procedural] [--held-out 32]

Rows: "fit N", Gaussians optimised from N true frames (the training-free fallback); "decoder N", a
trained decoder on the true latents of N frames; "image, ...", an orbit model's frames of one
picture, decoded or fitted. Decoder and orbit model are the embedded ones unless named; rows whose
weights are missing are left out, and named. The protocol and every convention are printed above
the table; cpu s is the time of one reconstruction without the judging.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from lift3d.benchmarks._objects import add_object_options, chosen_objects, prepared
from lift3d.core.camera import ViewRig, make_orbit_rig
from lift3d.core.diffusion.embedded import embedded_path
from lift3d.core.diffusion.gaussian_decoder_files import load_gaussian_decoder
from lift3d.core.diffusion.orbit_files import load_orbit_model, with_orbit_lora
from lift3d.core.evaluation.contact_sheet import make_contact_sheet
from lift3d.core.evaluation.mesh_metrics import Reduction
from lift3d.core.evaluation.shape_scores import Alignment, Normalization, ShapeConvention
from lift3d.core.evaluation.view_scores import Averaging, ViewProtocol
from lift3d.core.formats.png import write_png
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.decode_gaussians import decode_gaussians
from lift3d.core.pipelines.image_to_orbit import OrbitParams, image_to_orbit
from lift3d.core.pipelines.orbit_scores import (
    OrbitScoreParams,
    OrbitScores,
    score_gaussians,
    true_views,
)
from lift3d.core.pipelines.orbit_to_splat import OrbitSplatParams, orbit_to_splat
from lift3d.core.pipelines.splat_to_mesh import SplatToMeshParams
from lift3d.core.training.bundle_dataset import BundleDatasetParams, draw_training_object

HELD_OUT_SEED = 9_600_000
SHOWN_VIEWS = 4
Method = Callable[[Mesh, int], GaussianCloud]
"""Mesh and its number -> Gaussians; only pictures of the mesh are looked at."""


def frames_of(truth: Mesh, rig: ViewRig, size_px: int) -> torch.Tensor:
    """True frames for the input, drawn at twice the size so that they are smooth."""
    large = true_views(truth, rig, 2 * size_px).permute(0, 3, 1, 2)
    return torch.nn.functional.avg_pool2d(large, 2).permute(0, 2, 3, 1)


def even_rig(count: int, elevation: float, radius: float, fov_y_deg: float) -> ViewRig:
    """Cameras at even azimuths, the picture's first."""
    azimuths = [360.0 * view / count for view in range(count)]
    return make_orbit_rig(azimuths, elevation, radius=radius, fov_y_deg=fov_y_deg)


def fit(images: torch.Tensor, rig: ViewRig, options: argparse.Namespace) -> GaussianCloud:
    """The training-free fallback."""
    return orbit_to_splat(images, rig, params=OrbitSplatParams(options.gaussians, options.steps))


def make_methods(options: argparse.Namespace, protocol: ViewProtocol) -> dict[str, Method]:
    """What is measured, by the name of its row."""
    methods: dict[str, Method] = {}

    def add_fit(count: int) -> None:
        def run(truth: Mesh, index: int) -> GaussianCloud:
            elevation = protocol.elevation_of(index)
            rig = even_rig(count, elevation, protocol.radius, protocol.fov_y_deg)
            return fit(frames_of(truth, rig, options.fit_px), rig, options)

        methods[f"fit {count}"] = run

    for count in options.frames:
        add_fit(count)
    decoder = options.decoder or embedded_path("gaussian_decoder")
    orbit = options.orbit or embedded_path("orbit")
    if orbit is None or not Path(orbit).exists():
        print("No orbit model: rows of images, and of decoders without its encoder, are left out.")
        return methods
    model = load_orbit_model(orbit)
    loaded = None if decoder is None else load_gaussian_decoder(decoder)
    if loaded is None:
        print("No Gaussian decoder: its rows are left out.")
    else:
        for count in options.frames:
            methods[f"decoder {count}"] = decoder_method(model, loaded, count, protocol)
    models = {"": model}
    if options.lora:
        models[" + LoRA"] = with_orbit_lora(model, options.lora)
    for name, each in models.items():
        methods[f"image{name}, fit"] = image_method(each, None, options, protocol)
        if loaded is not None:
            methods[f"image{name}, decoder"] = image_method(each, loaded, options, protocol)
    return methods


def decoder_method(model: Any, decoder: Any, count: int, protocol: ViewProtocol) -> Method:
    """A decoder on true latents."""

    def run(truth: Mesh, index: int) -> GaussianCloud:
        facts = decoder.facts
        elevation = protocol.elevation_of(index)
        rig = even_rig(count, elevation, facts.radius, facts.fov_y_deg)
        frames = frames_of(truth, rig, facts.latent_px * facts.downscale)
        with torch.no_grad():
            latents = model.latent_format.to_network(model.encode_picture(frames))
        return decode_gaussians(decoder, latents, rig, frames[0])

    return run


def image_method(
    model: Any, decoder: Any, options: argparse.Namespace, protocol: ViewProtocol
) -> Method:
    """One picture by an orbit model, decoded or fitted."""

    def run(truth: Mesh, index: int) -> GaussianCloud:
        facts = model.facts
        elevation = protocol.elevation_of(index)
        rig = even_rig(1, elevation, facts.radius, facts.fov_y_deg)
        picture = frames_of(truth, rig, facts.size_px)[0]
        made = image_to_orbit(model, picture, OrbitParams(elevations_deg=(elevation,), seed=index))
        if decoder is None:
            return fit(made.images, made.rig, options)
        return decode_gaussians(decoder, made.latents, made.rig, picture)

    return run


def held_out_objects(count: int) -> dict[str, Mesh]:
    """Procedural objects that no shipped configuration trains on."""
    params = BundleDatasetParams(count=max(count, 1), seed=HELD_OUT_SEED)
    made = [draw_training_object(index, params) for index in range(count)]
    return {f"{one.category}-{one.seed}": prepared(one.mesh) for one in made}


def make_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_object_options(parser)
    parser.add_argument(
        "--held-out", type=int, default=0, help="procedural objects never trained on"
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[16], help="such as 4 8 16")
    parser.add_argument("--decoder", type=Path, help="folder of a decoder; else the embedded one")
    parser.add_argument("--orbit", type=Path, help="orbit model; else the embedded one")
    parser.add_argument("--lora", type=Path, help="LoRA of geometric distillation")
    parser.add_argument("--gaussians", type=int, default=8000, help="of the fit")
    parser.add_argument("--steps", type=int, default=400, help="of the fit")
    parser.add_argument("--fit-px", type=int, default=192, help="side of the frames of the fit")
    parser.add_argument("--size", type=int, default=256, help="side of the judged views")
    parser.add_argument("--views", type=int, default=21, help="of the protocol")
    parser.add_argument("--average", choices=get_args(Averaging), default="views")
    parser.add_argument("--normalize", choices=get_args(Normalization), default="unit_cube")
    parser.add_argument("--align", choices=get_args(Alignment), default="none")
    parser.add_argument("--squared", action="store_true", help="squared distances in CD")
    parser.add_argument("--reduction", choices=get_args(Reduction), default="sum")
    parser.add_argument("--taus", type=float, nargs="+", default=[0.01, 0.02, 0.05])
    parser.add_argument("--points", type=int, default=4096)
    parser.add_argument("--mesh-resolution", type=int, default=96, help="of the judged mesh")
    parser.add_argument("--out", type=Path, default=Path("output"))
    return parser


def rules_of(options: argparse.Namespace) -> OrbitScoreParams:
    """Protocol and conventions."""
    return OrbitScoreParams(
        ViewProtocol(num_views=options.views, size_px=options.size, average=options.average),
        ShapeConvention(
            options.normalize, options.align, options.squared, options.reduction,
            tuple(options.taus), options.points,
        ),
        SplatToMeshParams(resolution=options.mesh_resolution, num_views=32),
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run and print the table; write the sheet."""
    options = make_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    objects = {**chosen_objects(options), **held_out_objects(options.held_out)}
    if not objects:
        print(f"Nothing to run: --only {options.only} fits no object.")
        return 2
    rules = rules_of(options)
    print(f"{rules.protocol.text()}. {rules.convention.text()}. Mesh: TSDF of the Gaussians.\n")
    methods = make_methods(options, rules.protocol)
    sums: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    rows: list[tuple[str, list[torch.Tensor]]] = []
    for index, (name, truth) in enumerate(objects.items()):
        for row, method in methods.items():
            numbers, scores = measure(method, truth, index, rules)
            if not rows:
                print("| object | " + " | ".join(numbers) + " |\n|" + " --- |" * (len(numbers) + 1))
            print(line(f"{name}, {row}", numbers), flush=True)
            if row == next(iter(methods)):
                rows.append((f"{name}: truth", some_of(scores.truth)))
            sums[row].append(numbers)
            rows.append((row, some_of(scores.drawn)))
    for row, found in sums.items():
        mean = {key: sum(one[key] for one in found) / len(found) for key in found[0]}
        print(line(f"**mean, {row}**", mean))
    write_sheet(options.out / "image_to_splat.png", rows)
    return 0


def measure(
    method: Method, truth: Mesh, index: int, rules: OrbitScoreParams
) -> tuple[dict[str, float], OrbitScores]:
    """One reconstruction: the numbers of its row, and its pictures."""
    begin = time.process_time()
    cloud = method(truth, index)
    seconds = time.process_time() - begin
    scores = score_gaussians(cloud, truth, index, rules)
    return {**scores.columns(), "cpu s": seconds}, scores


def some_of(views: torch.Tensor) -> list[torch.Tensor]:
    """A few views, evenly."""
    return list(views[:: max(len(views) // SHOWN_VIEWS, 1)])[:SHOWN_VIEWS]


def write_sheet(path: Path, rows: list[tuple[str, list[torch.Tensor]]]) -> None:
    """All rows of pictures below each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels, pictures = [label for label, _ in rows], [views for _, views in rows]
    write_png(path, make_contact_sheet(pictures, row_labels=labels))
    print(f"Sheet: {path}")


def line(name: str, numbers: dict[str, float]) -> str:
    """A row in Markdown."""
    return f"| {name} | " + " | ".join(f"{value:.3f}" for value in numbers.values()) + " |"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
