"""Frames of an orbit, or one picture, to Gaussians: GSV3D's protocol on our objects or a folder.

    python run.py bench image_to_splat [--meshes FOLDER] [--no-procedural] [--held-out 32]

GSV3D's ablation, after the trainings core/configs/ablation_*.yaml (one line):

    python run.py bench image_to_splat --no-procedural --held-out 32 --no-fit --no-images
        --decoder full=models/embedded/gaussian_decoder
        no-picture=build/ablation/without_picture/decoder
        views-4=build/ablation/views_4/decoder views-8=build/ablation/views_8/decoder

View consistency before and after geometric distillation, object by object with the same noise:

    python run.py bench image_to_splat --no-procedural --held-out 32 --distillation

Rows: "fit N", Gaussians optimised from N true frames (the training-free fallback); "decoder N", a
trained decoder on the true latents of N frames, with its name if there are several; "image, ...",
an orbit model's frames of one picture, decoded or fitted. Decoder and orbit model are the embedded
ones unless named; rows whose weights are missing are left out, and named. The protocol and every
convention are printed above the table; cpu s is the time of one reconstruction without the judging;
agreement is the PSNR of renders against the frames that the orbit model had sampled. A
reconstruction without a surface is missed: it counts with IoU and F of 0, and not in CD.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from lift3d.benchmarks._objects import add_object_options, chosen_objects, prepared
from lift3d.core.camera import ViewRig, make_orbit_rig
from lift3d.core.diffusion.embedded import embedded_path
from lift3d.core.diffusion.gaussian_decoder_files import (
    GaussianDecoderModel,
    load_gaussian_decoder,
)
from lift3d.core.diffusion.image_codec import vae_latent_format
from lift3d.core.diffusion.orbit_files import load_orbit_model, with_orbit_lora
from lift3d.core.evaluation.contact_sheet import make_contact_sheet
from lift3d.core.evaluation.mesh_metrics import Reduction
from lift3d.core.evaluation.shape_scores import Alignment, Normalization, ShapeConvention
from lift3d.core.evaluation.view_scores import Averaging, ViewProtocol
from lift3d.core.formats.png import write_png
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.mesh import Mesh, NoSurfaceError
from lift3d.core.pipelines.decode_gaussians import decode_gaussians
from lift3d.core.pipelines.image_to_orbit import OrbitParams, image_to_orbit
from lift3d.core.pipelines.orbit_scores import (
    OrbitScoreParams,
    OrbitScores,
    frame_agreement,
    score_gaussians,
    true_views,
)
from lift3d.core.pipelines.orbit_to_splat import OrbitSplatParams, orbit_to_splat
from lift3d.core.pipelines.splat_to_mesh import SplatToMeshParams
from lift3d.core.training.bundle_dataset import BundleDatasetParams, draw_training_object
from lift3d.core.training.embedded_bundle import EMBEDDED_CATEGORIES
from lift3d.core.training.encoded_orbits import read_vae

HELD_OUT_SEED = 9_600_000
SHOWN_VIEWS = 4
LORA = " + LoRA"
NOTHING = GaussianCloud(
    torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 1, 3)
)


class Made(NamedTuple):
    """A reconstruction; frames and cameras of the orbit model, if it had one."""

    cloud: GaussianCloud
    frames: torch.Tensor | None = None
    rig: ViewRig | None = None


Method = Callable[[Mesh, int], Made]
"""Mesh and its number -> what is made of it; only pictures of the mesh are looked at."""


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
    with_fit = not options.no_fit and not options.distillation
    methods = {} if not with_fit else {
        f"fit {count}": fit_method(count, options, protocol) for count in options.frames or [16]
    }  # fmt: skip
    decoders = find_decoders(options)
    for name, decoder in decoders.items():
        for count in options.frames or [decoder.facts.num_frames]:
            if not options.distillation:
                methods[f"{name} {count}"] = decoder_method(decoder, count, options, protocol)
    if options.no_images:
        return methods
    first = next(iter(decoders.values()), None)
    orbit = options.orbit or embedded_path("orbit")
    if orbit is None or not Path(orbit).exists():
        print("No orbit model: rows of images are left out.")
        return methods
    for name, model in orbit_models(orbit, options).items():
        if with_fit:
            methods[f"image{name}, fit"] = image_method(model, None, options, protocol)
        if first is not None:
            methods[f"image{name}, decoder"] = image_method(model, first, options, protocol)
    return methods


def orbit_models(orbit: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The orbit model by an empty name, and with its LoRA."""
    models = {"": load_orbit_model(orbit)}
    lora = options.lora or embedded_path("orbit/geometric.safetensors")
    if lora is not None:
        models[LORA] = with_orbit_lora(load_orbit_model(orbit), lora)
    return models


def find_decoders(options: argparse.Namespace) -> dict[str, GaussianDecoderModel]:
    """Decoders by the name of their rows; the embedded one if none is named."""
    embedded = embedded_path("gaussian_decoder")
    given = options.decoder or ([] if embedded is None else [str(embedded)])
    if not given:
        print("No Gaussian decoder: its rows are left out.")
    found = {}
    for text in given:
        name, _, folder = text.rpartition("=")
        decoder = load_gaussian_decoder(folder)
        found["decoder" if len(given) == 1 else f"decoder {name or decoder.name}"] = decoder
    if len(found) < len(given):
        raise ValueError(f"Decoders must have different names (NAME=FOLDER), got {given}.")
    return found


def fit_method(count: int, options: argparse.Namespace, protocol: ViewProtocol) -> Method:
    """The training-free fallback on true frames."""

    def run(truth: Mesh, index: int) -> Made:
        elevation = protocol.elevation_of(index)
        rig = even_rig(count, elevation, protocol.radius, protocol.fov_y_deg)
        return Made(fit(frames_of(truth, rig, options.fit_px), rig, options))

    return run


def decoder_method(
    decoder: GaussianDecoderModel, count: int, options: argparse.Namespace, protocol: ViewProtocol
) -> Method:
    """A decoder on true latents."""
    folder = options.vae or embedded_path("bundle/vae")
    vae = read_vae(Path(folder or "bundle/vae"))
    latent_format = vae_latent_format(vae)
    if latent_format != decoder.latent_format:
        raise ValueError(
            f"The decoder '{decoder.name}' was not trained with the latents of the autoencoder "
            f"{folder}; name its own by --vae."
        )

    @torch.no_grad()
    def run(truth: Mesh, index: int) -> Made:
        facts = decoder.facts
        elevation = protocol.elevation_of(index)
        rig = even_rig(count, elevation, facts.radius, facts.fov_y_deg)
        frames = frames_of(truth, rig, facts.latent_px * facts.downscale)
        encoded = vae.encode(frames.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mode()
        return Made(decode_gaussians(decoder, latent_format.to_network(encoded), rig, frames[0]))

    return run


def image_method(
    model: Any,
    decoder: GaussianDecoderModel | None,
    options: argparse.Namespace,
    protocol: ViewProtocol,
) -> Method:
    """One picture by an orbit model, decoded or fitted."""

    def run(truth: Mesh, index: int) -> Made:
        facts = model.facts
        elevation = protocol.elevation_of(index)
        rig = even_rig(1, elevation, facts.radius, facts.fov_y_deg)
        picture = frames_of(truth, rig, facts.size_px)[0]
        params = OrbitParams(
            elevations_deg=(elevation,), steps=options.sampling_steps, seed=index, keep_input=False
        )
        made = image_to_orbit(model, picture, params)
        if decoder is None:
            cloud = fit(made.images, made.rig, options)
        else:
            cloud = decode_gaussians(decoder, made.latents, made.rig, picture)
        return Made(cloud, made.images, made.rig)

    return run


def held_out_objects(count: int) -> dict[str, Mesh]:
    """Procedural objects of the embedded kinds that no shipped configuration trains on."""
    params = BundleDatasetParams(max(count, 1), EMBEDDED_CATEGORIES, seed=HELD_OUT_SEED)
    made = [draw_training_object(index, params) for index in range(count)]
    return {f"{one.category}-{one.seed}": prepared(one.mesh) for one in made}


def make_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_object_options(parser)
    parser.add_argument(
        "--held-out", type=int, default=0, help="procedural objects never trained on"
    )
    parser.add_argument(
        "--frames", type=int, nargs="+", help="such as 4 8 16; else what a decoder was trained with"
    )
    parser.add_argument(
        "--decoder", nargs="+", metavar="[NAME=]FOLDER", help="decoders; else the embedded one"
    )
    parser.add_argument("--vae", type=Path, help="autoencoder of the decoders; else the embedded")
    parser.add_argument("--orbit", type=Path, help="orbit model; else the embedded one")
    parser.add_argument("--lora", type=Path, help="LoRA of geometric distillation")
    parser.add_argument(
        "--distillation", action="store_true",
        help="only the orbit model with its decoder, without and with the LoRA; views only",
    )  # fmt: skip
    parser.add_argument(
        "--sampling-steps", type=int, default=0, help="of the orbit model; 0: its own"
    )
    parser.add_argument("--no-fit", action="store_true", help="leave out what is optimised")
    parser.add_argument("--no-images", action="store_true", help="leave out the orbit model")
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
    parser.add_argument("--shown", type=int, default=8, help="objects of the sheet")
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
        None if options.distillation
        else SplatToMeshParams(resolution=options.mesh_resolution, num_views=32),
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
    shape = f" {rules.convention.text()}. Mesh: TSDF of the Gaussians."
    print(f"{rules.protocol.text()}.{'' if options.distillation else shape}\n")
    methods = make_methods(options, rules.protocol)
    if not methods:
        print("Nothing to run: no method is left.")
        return 2
    sums: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    rows: list[tuple[str, list[torch.Tensor]]] = []
    for index, (name, truth) in enumerate(objects.items()):
        for row, method in methods.items():
            numbers, scores = measure(method, truth, index, rules)
            if not any(sums.values()):
                print("| object | " + " | ".join(numbers) + " |\n|" + " --- |" * (len(numbers) + 1))
            print(line(f"{name}, {row}", numbers), flush=True)
            sums[row].append(numbers)
            if index < options.shown:
                first = row == next(iter(methods))
                rows += [(f"{name}: truth", some_of(scores.truth))] if first else []
                rows.append((row, some_of(scores.drawn)))
    for row, found in sums.items():
        print(line(f"**mean, {row}**", means(found)))
    if f"image{LORA}, decoder" in sums:
        before, after = sums["image, decoder"], sums[f"image{LORA}, decoder"]
        print("\n" + difference_text("agreement", before, after))
        print(difference_text("PSNR", before, after))
    write_sheet(options.out / "image_to_splat.png", rows)
    return 0


def measure(
    method: Method, truth: Mesh, index: int, rules: OrbitScoreParams
) -> tuple[dict[str, float], OrbitScores]:
    """One reconstruction: the numbers of its row, and its pictures."""
    begin = time.process_time()
    try:
        made = method(truth, index)
    except NoSurfaceError as error:  # such as frames that show nothing
        logging.getLogger(__name__).warning("A miss: %s", error)
        made = Made(NOTHING)
    seconds = time.process_time() - begin
    scores = score_gaussians(made.cloud, truth, index, rules)
    agreement = math.nan
    if made.frames is not None and made.rig is not None:
        agreement = frame_agreement(made.cloud, made.frames, made.rig)
    return {**scores.columns(), "agreement": agreement, "cpu s": seconds}, scores


def means(found: list[dict[str, float]]) -> dict[str, float]:
    """Means of the columns over the objects that have a number there."""
    columns = {key: [one[key] for one in found if not math.isnan(one[key])] for key in found[0]}
    return {key: sum(own) / len(own) if own else math.nan for key, own in columns.items()}


def difference_text(
    column: str, before: list[dict[str, float]], after: list[dict[str, float]]
) -> str:
    """Mean difference over the objects and its standard error."""
    pairs = zip(before, after, strict=True)
    changes = torch.tensor([b[column] - a[column] for a, b in pairs], dtype=torch.float64)
    changes = changes[~changes.isnan()]
    error = float(changes.std()) / math.sqrt(len(changes)) if len(changes) > 1 else math.nan
    better = int((changes > 0).sum())
    return (
        f"{column} with the LoRA minus without: {float(changes.mean()):+.3f} dB, standard error "
        f"{error:.3f}, better on {better} of {len(changes)} objects"
    )


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
    cells = ["" if math.isnan(value) else f"{value:.3f}" for value in numbers.values()]
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
