"""Contains the training of S-LRM: six views of a character to its shape, classes and colours.

Stages: ``points`` (ours, without rendering, for small models from nothing), then those of the
paper: ``nerf_single`` on the whole character (Eq. 5), ``nerf_multi`` on sets of classes (Eq. 9),
``mesh_multi`` through FlexiCubes (Eq. 11).

Reference: He et al. 2025, "StdGEN", Sec. 3.3 and 4.1: LoRA of rank 128, rate 4e-5, pictures of
192, 144 and 512 pixels.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..camera import ViewRig
from ..diffusion.embedded import DEFAULTS_FILE
from ..formats.atomic import atomic_write
from ..geometry.flexicubes import FlexiCubesMesh, flexicubes, weights_from_logits
from ..geometry.normals import vertex_normals
from ..geometry.semantic_parts import labels_sdf, part_classes
from ..networks.attention import merge_lora
from ..networks.lrm import (
    LargeReconstructionModel,
    LrmParams,
    load_lrm_params,
    make_lrm,
    read_lrm_params,
)
from ..networks.lrm_cameras import make_camera_vectors
from ..networks.lrm_checkpoint import PUBLISHED
from ..pipelines.lrm_to_mesh import surface_cells
from ..progress import ProgressCallback
from ..rendering.mesh import antialias, interpolate, rasterize, world_to_clip
from ..rendering.semantic_volume import render_classes
from ..rendering.volume import VolumeParams
from ..triplane import Triplane
from .character_dataset import CharacterDataParams, LevelTruth, TrainingCharacter, draw_characters
from .config import settings_as_json
from .loop import LoopParams, Losses, TrainingLoop
from .slrm_losses import SlrmLossParams, picture_losses, point_losses, surface_losses
from .slrm_sheets import write_slrm_sheet
from .slrm_start import count_trained, freeze_for_lora, start_from
from .workers import find_workers

LOGGER = logging.getLogger(__name__)
SlrmStage = Literal["points", "nerf_single", "nerf_multi", "mesh_multi"]
PARTS_OF_LEVEL = {"whole": "whole", "without_hair": "without_hair", "body": "body"}


@dataclass(frozen=True)
class SlrmParams:
    """Settings of the trainer ``slrm``.

    Attributes:
        output: folder of checkpoints.
        result: the finished model, a .safetensors file; a .yaml file beside it names its size.
        half_precision: write the result with 16 bits per number.
        facts: write how it was made to lift3d.json beside it.
        data: characters.
        model: published size, or a YAML file as in ``core/configs/lrm.yaml``.
        stage: what is trained.
        initial: checkpoint to start from; None starts from nothing.
        batch: characters per step.
        points: points per character and step (stage "points").
        views: pictures per level and step (other stages).
        samples: per ray (stages "nerf").
        losses: weights.
        device: "cpu", "cuda" or empty.
        loop: schedule.
    """

    output: Path
    result: Path
    data: CharacterDataParams
    half_precision: bool = False
    facts: bool = False
    model: str = "stdgen_slrm"
    stage: SlrmStage = "points"
    initial: Path | None = None
    batch: int = 8
    points: int = 4096
    views: int = 2
    samples: int = 96
    losses: SlrmLossParams = SlrmLossParams()
    device: str = ""
    loop: LoopParams = field(
        default_factory=lambda: LoopParams(steps=15_000, learning_rate=4e-4, betas=(0.9, 0.95))
    )

    def __post_init__(self) -> None:
        if min(self.batch, self.points, self.views, self.samples) < 1:
            raise ValueError(
                "batch, points, views and samples must be at least 1, got "
                f"{self.batch}, {self.points}, {self.views} and {self.samples}."
            )
        if self.stage not in ("points", "nerf_single", "nerf_multi", "mesh_multi"):
            raise ValueError(f"stage is unknown: {self.stage!r}.")
        if self.stage != "points" and self.data.level_views < self.views:
            raise ValueError(
                f"The stage '{self.stage}' needs {self.views} pictures per level, but "
                f"data.level_views is {self.data.level_views}."
            )
        if self.result.suffix != ".safetensors":
            raise ValueError(f"result must be a .safetensors file, got '{self.result.name}'.")


def model_params(params: SlrmParams) -> LrmParams:
    """Size of the model, with the heads that the stage trains."""
    size = (
        load_lrm_params(params.model)  # type: ignore[arg-type]
        if params.model in PUBLISHED
        else read_lrm_params(params.model)
    )
    if not size.decoder.num_labels:
        raise ValueError(f"The model '{params.model}' has no classes; S-LRM needs them.")
    stage: Literal["mesh", "nerf"] = "nerf" if params.stage.startswith("nerf") else "mesh"
    return dataclasses.replace(size, decoder=dataclasses.replace(size.decoder, stage=stage))


class SlrmTraining(nn.Module):
    """The model and the loss of a stage on random characters.

    Args:
        params: settings.
        data: characters; see `draw_characters`.
    """

    def __init__(self, params: SlrmParams, data: Any) -> None:
        super().__init__()
        self.params = params
        self.data = data
        self.model: LargeReconstructionModel = make_lrm(model_params(params), seed=params.loop.seed)
        if params.initial is not None:
            new = start_from(self.model, params.initial)
            LOGGER.info("Started from %s; %d keys are new.", params.initial.name, len(new))
        if self.model.params.transformer.lora_rank:
            freeze_for_lora(self.model)
        LOGGER.info("%s numbers are trained.", f"{count_trained(self.model):,}")
        self.cameras = make_camera_vectors("stdgen")

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """Loss of one batch."""
        picks = torch.randint(self.data.num_trained, (self.params.batch,), generator=generator)
        characters = [self.data[int(number)] for number in picks]
        planes = self.planes(characters)
        of_one = {
            "points": self._points_loss,
            "nerf_single": self._density_loss,
            "nerf_multi": self._density_loss,
            "mesh_multi": self._mesh_loss,
        }[self.params.stage]
        with torch.autocast(planes.device.type, enabled=False):  # heads need single precision
            parts = [
                of_one(Triplane(plane[None].float()), character, generator)
                for plane, character in zip(planes, characters, strict=True)
            ]
        # An object without a surface yet reports other losses than the rest of its batch.
        shared = [name for name in parts[0] if all(name in part for part in parts)]
        return {name: torch.stack([part[name] for part in parts]).mean() for name in shared}

    def planes(self, characters: list[TrainingCharacter]) -> Tensor:
        """Planes of characters from their six views."""
        images = torch.stack([item.images for item in characters]).permute(0, 1, 4, 2, 3)
        return self.model(images, self.cameras.expand(len(characters), -1, -1))

    def _points_loss(
        self, triplane: Triplane, truth: TrainingCharacter, generator: torch.Generator
    ) -> Losses:
        count = min(self.params.points, len(truth.points))
        chosen = torch.randperm(len(truth.points), generator=generator)[:count]
        truth = dataclasses.replace(
            truth,
            points=truth.points[chosen],
            sdf=truth.sdf[chosen],
            labels=truth.labels[chosen],
            colors=truth.colors[chosen],
        )
        decoder = self.model.decoder
        places = self.model.from_world(truth.points.to(triplane.planes))
        features = self.model.features(triplane, places)
        losses = point_losses(
            decoder.sdf(features), decoder.semantic_logits(features), decoder.rgb(features),
            truth, self.params.losses,
        )  # fmt: skip
        cells = features[: len(features) // 8 * 8].reshape(-1, 8, features.shape[-1])
        rest = decoder.deformation(features).square().mean()
        rest = rest + decoder.weight_logits(cells).square().mean()
        return {**losses, "total": losses["total"] + self.params.losses.rest * rest}

    def _pick(
        self, truth: TrainingCharacter, generator: torch.Generator
    ) -> tuple[ViewRig, str, LevelTruth]:
        """Random cameras and a level: the whole, or in multi-layer stages any of them."""
        assert truth.rig is not None  # `SlrmParams` saw to it
        names = ["whole"] if self.params.stage == "nerf_single" else list(PARTS_OF_LEVEL)
        level = names[int(torch.randint(len(names), (1,), generator=generator))]
        views = torch.randperm(len(truth.rig), generator=generator)[: self.params.views].tolist()
        pictures = truth.levels[level]
        chosen = LevelTruth(
            *(getattr(pictures, f.name)[views] for f in dataclasses.fields(pictures))
        )
        return truth.rig.select(views).to(self.model.device), level, chosen

    def _kept(self, level: str) -> frozenset[int]:
        return part_classes(PARTS_OF_LEVEL[level], self.model.params.label_names)

    def _density_loss(
        self, triplane: Triplane, truth: TrainingCharacter, generator: torch.Generator
    ) -> Losses:
        rig, level, goal = self._pick(truth, generator)
        height, width = goal.alpha.shape[1:]
        seed = int(torch.randint(1 << 30, (1,), generator=generator))
        volume = VolumeParams(
            num_samples=self.params.samples, stratified=True, seed=seed, bound=1.05
        )
        field = self.model.semantic_density_field(triplane)
        drawn = render_classes(
            field, rig, self._kept(level), width=width, height=height, params=volume
        )
        return picture_losses(drawn.rgb, drawn.alpha, drawn.semantics, goal, self.params.losses)

    def _mesh_loss(
        self, triplane: Triplane, truth: TrainingCharacter, generator: torch.Generator
    ) -> Losses:
        rig, level, goal = self._pick(truth, generator)
        surface = self._surface(triplane, self._kept(level))
        if not len(surface.faces):
            return self._points_loss(triplane, truth, generator)  # nothing to draw yet
        rgb, alpha, semantics, normals, depth = self._draw(triplane, surface, rig, goal)
        pictures = picture_losses(rgb, alpha, semantics, goal, self.params.losses)
        shape = surface_losses(normals, depth, surface.deviation, goal, self.params.losses)
        return {**pictures, **shape, "total": pictures["total"] + shape["total"]}

    def _surface(self, triplane: Triplane, kept: frozenset[int]) -> FlexiCubesMesh:
        """Surface of classes in the frame of the model, differentiable (Eq. 10)."""
        decoder, grid = self.model.decoder, self.model.params.grid
        corners = grid.points(self.model.device)
        features = self.model.features(triplane, corners.reshape(-1, 3))
        shape = corners.shape[:3]
        probabilities = decoder.semantic_logits(features).softmax(dim=-1).reshape(*shape, -1)
        sdf = labels_sdf(decoder.sdf(features).reshape(shape), probabilities, kept)
        moved = corners + grid.displacement(decoder.deformation(features)).reshape(corners.shape)
        cells, numbers = surface_cells(sdf.detach() < 0)
        logits = features.new_zeros((shape[0] - 1) * (shape[1] - 1) * (shape[2] - 1), 21)
        logits = logits.index_copy(0, numbers, decoder.weight_logits(features[cells]))
        return flexicubes(sdf, moved, weights_from_logits(logits), training=True)

    def _draw(
        self, triplane: Triplane, surface: FlexiCubesMesh, rig: ViewRig, goal: LevelTruth
    ) -> tuple[Tensor, ...]:
        """Colour on white, coverage, classes, normals and depth of the surface."""
        height, width = goal.alpha.shape[1:]
        features = self.model.features(triplane, surface.vertices)
        vertices = self.model.to_world(surface.vertices)
        probabilities = self.model.decoder.semantic_logits(features).softmax(dim=-1)
        rgb, normals = self.model.decoder.rgb(features), vertex_normals(vertices, surface.faces)
        clip = world_to_clip(vertices, rig, width=width, height=height)
        rast = rasterize(clip, surface.faces, width=width, height=height)
        ones = torch.ones_like(rgb[:, :1])
        values = torch.cat([rgb, ones, probabilities, normals], dim=1)
        flat = interpolate(values, rast, surface.faces)
        depths = torch.stack([
            -(vertices - camera.position) @ camera.camera_to_world[:3, 2] for camera in rig
        ])  # fmt: skip
        depth = interpolate(depths[..., None], rast, surface.faces)[..., 0]
        smooth = antialias(flat[..., :4].contiguous(), rast, clip, surface.faces)
        color = smooth[..., :3] + (1 - smooth[..., 3:])
        return color, smooth[..., 3], flat[..., 4:-3], flat[..., -3:], depth


def train_slrm(params: SlrmParams, on_progress: ProgressCallback) -> list[Path]:
    """Draw the data, train a stage and write the model; a stopped run goes on.

    Returns:
        The model, its YAML file and its facts, by the first process.
    """
    workers = find_workers(params.device)
    told = workers.told(on_progress)
    with workers.first_goes_ahead():
        data = draw_characters(params.data, told)
    torch.manual_seed(params.loop.seed)
    training = SlrmTraining(params, data).to(workers.device)
    loop = TrainingLoop(training, params.output, params.loop, workers)
    loop.run(
        training.loss,
        on_progress=told,
        sample=lambda step: write_slrm_sheet(
            params.output / f"sheet_{step:06}.png", training.model, data, title=f"step {step}"
        ),
    )
    if not workers.is_first:
        return []
    with loop.averaged():
        files = save_slrm(params.result, training.model, half_precision=params.half_precision)
    if params.facts:
        files.append(save_facts(params.result.with_name(DEFAULTS_FILE), params, loop))
    return files


def save_facts(path: Path, params: SlrmParams, loop: TrainingLoop) -> Path:
    """Write how a model was made: characters, steps, settings and losses."""
    size = params.model if params.model in PUBLISHED else settings_as_json(Path(params.model))
    content = {
        "training": {
            "characters": params.data.characters - params.data.held_out,
            "steps": loop.step,
            "settings": {**settings_as_json(params), "model": size},
            "history": loop.history,
        }
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def save_slrm(
    path: Path, model: LargeReconstructionModel, *, half_precision: bool = False
) -> list[Path]:
    """Write a model with its adapters merged, and the YAML file that tells its size.

    In half precision the file takes half the room; it is loaded in single precision again.
    """
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    alpha = model.params.transformer.lora_alpha
    kind = torch.float16 if half_precision else torch.float32
    state = {
        name: value.detach().cpu().to(kind).contiguous()
        for name, value in merge_lora(model.state_dict(), alpha=alpha).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file(state, temporary)
    config = path.with_suffix(".yaml")
    with atomic_write(config) as temporary:
        OmegaConf.save(OmegaConf.create(_plain(model.params.without_lora())), temporary)
    return [path, config]


def _plain(params: LrmParams) -> dict[str, Any]:
    """Settings as YAML can hold them."""

    def simple(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: simple(item) for key, item in value.items()}
        return [simple(item) for item in value] if isinstance(value, tuple) else value

    return simple(dataclasses.asdict(params))
