"""Contains the training of a small orbit model of the SV3D family, from nothing to a folder.

The network is diffusers' spatio-temporal UNet in a small size with a small CLIP vision encoder
trained along; it predicts the velocity of the variance-preserving process at EDM's noise levels.
As in the other embedded models, errors along the directions of the latents that hold colour count
more.

Reference: Blattmann et al. 2023, "Stable Video Diffusion", App. D; Karras et al. 2022, Sec. 5.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..diffusion.orbit_conditioning import OrbitOrder, embed_poses
from ..diffusion.orbit_files import FACTS_FILE, vision_processor
from ..diffusion.orbit_model import OrbitCondition, OrbitFacts, OrbitModel
from ..diffusion.schedules import expand_sigma, signal_scale
from ..evaluation.contact_sheet import make_contact_sheet
from ..evaluation.image_metrics import psnr
from ..formats.atomic import atomic_write
from ..formats.png import write_png
from ..networks.orbit_unet import OrbitUNet
from ..pipelines.image_to_orbit import OrbitParams, image_to_orbit
from ..progress import ProgressCallback
from .config import settings_as_json
from .encoded_orbits import DrawnOrbit, EncodedOrbits, encode_orbits, read_vae
from .flux_bundle import fit_color_directions
from .loop import LoopParams, Losses, TrainingLoop
from .orbit_dataset import OrbitDatasetParams, open_orbits
from .orbit_networks import (
    Float32Attention,
    OrbitUNetParams,
    make_orbit_network,
    make_orbit_vision,
    take_over_spatial,
)
from .orbit_sheets import TrainingOrbits

LOGGER = logging.getLogger(__name__)
COLOR_SAMPLES = 1500
SHEET_OBJECTS = 6
SHEET_FRAMES = 8


@dataclass(frozen=True)
class EmbeddedOrbitParams:
    """Settings of the trainer ``embedded-orbit``.

    Attributes:
        work: folder of data and checkpoints.
        result: folder of the finished model.
        data: orbits.
        vae: folder of the autoencoder.
        vae_name: embedded name of the same autoencoder, noted instead of a copy; empty copies it.
        network: sizes.
        num_frames: of a video.
        frame_choices: numbers of frames of a training video; each step has one of them.
        initial: folder of a UNet of single views whose spatial layers are taken over, as Stable
            Video Diffusion begins with those of Stable Diffusion; None begins with random values.
        batch: videos per step.
        empty_share: share of videos without the picture, for guidance.
        level_mean: of the logarithm of the noise levels.
        level_std: of the same.
        color_weight: of errors along the colour directions.
        held_out: last objects of the data, which are not trained on.
        facts: what nodes use by default.
        loop: schedule.
    """

    work: Path
    result: Path
    data: OrbitDatasetParams
    vae: Path
    vae_name: str = ""
    network: OrbitUNetParams = OrbitUNetParams()
    num_frames: int = 16
    frame_choices: tuple[int, ...] = (8, 16)
    initial: Path | None = None
    batch: int = 4
    empty_share: float = 0.1
    level_mean: float = 0.4
    level_std: float = 1.4
    color_weight: float = 3.0
    held_out: int = 16
    facts: OrbitFacts = OrbitFacts(
        num_frames=16, size_px=64, order="input first", sigma_range=(0.02, 120.0), steps=20,
        guidance=2.0, radius=4.5, fov_y_deg=30.0, elevation_deg=(-5.0, 30.0),
    )  # fmt: skip
    loop: LoopParams = field(
        default_factory=lambda: LoopParams(
            steps=6000, learning_rate=8e-4, warmup_steps=150, decay_start=0.4, average=0.999
        )
    )

    def __post_init__(self) -> None:
        if min(self.num_frames, *self.frame_choices) < 2 or self.batch < 1 or self.held_out < 0:
            raise ValueError(
                "num_frames and frame_choices must be at least 2, batch at least 1 and held_out "
                f"not negative, got {self.num_frames}, {self.frame_choices}, {self.batch} and "
                f"{self.held_out}."
            )


class OrbitTraining(nn.Module):
    """UNet and vision encoder, trained together.

    Args:
        params: settings.
        data: latents and views.
        vae: autoencoder of the latents, for pictures to look at.
        color_directions: latents to colours, see `flux_bundle.fit_color_directions`.
    """

    def __init__(
        self,
        params: EmbeddedOrbitParams,
        data: EncodedOrbits,
        vae: Any,
        color_directions: Float[Tensor, "3 channel"],
    ) -> None:
        super().__init__()
        channels, height, _ = data.latent_shape
        self.params = params
        self.data = data
        self.unet = make_orbit_network(params.network, channels, height)
        self.unet.set_attn_processor(Float32Attention())
        if params.initial is not None:
            take_over_spatial(self.unet, params.initial)
        self.vision = make_orbit_vision(params.network)
        self._vae = [vae]  # no part of what is trained
        self.color_directions = color_directions
        self.num_trained = data.num_trained(params.held_out)

    def model(self) -> OrbitModel:
        """The networks as they are used."""
        return OrbitModel(
            name="the model in training",
            unet=OrbitUNet(self.unet),
            vae=self._vae[0],
            vision=self.vision,
            processor=vision_processor(self.vision),
            facts=self.params.facts,
        )

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """Error of the velocity in one batch, and its part along colours."""
        params = self.params
        drawn = self.data.draw(params.batch, self.num_trained, generator)
        model = self.model()
        choice = int(torch.randint(len(params.frame_choices), (), generator=generator))
        frames = params.frame_choices[choice]
        latents, condition = condition_of(model, self.data, drawn, frames)
        empty = torch.rand(len(drawn), generator=generator) < params.empty_share
        condition = with_empty(condition, empty)
        sigma = draw_levels(len(drawn), params.level_mean, params.level_std, generator)
        noise = torch.randn(latents.shape, generator=generator)
        clean = model.clean_latents(
            latents + expand_sigma(sigma, latents) * noise, sigma, condition
        )
        error = velocity_error(clean.float() - latents, sigma)
        plain = error.square().mean()
        color = torch.einsum("kc,bfchw->bfkhw", self.color_directions, error).square().mean()
        return {"total": plain + params.color_weight * color, "plain": plain, "color": color}


def velocity_error(
    difference: Float[Tensor, "batch frame channel height width"], sigma: Float[Tensor, " batch"]
) -> Float[Tensor, "batch frame channel height width"]:
    """Error of the predicted velocity, from that of the clean latents: times sqrt(1 + s^2) / s."""
    level = expand_sigma(sigma, difference)
    return difference / (level * signal_scale(level, "variance_preserving"))


def draw_levels(
    count: int, mean: float, std: float, generator: torch.Generator
) -> Float[Tensor, " level"]:
    """Log-normal noise levels."""
    return (mean + std * torch.randn(count, generator=generator)).exp()


def condition_of(
    model: OrbitModel, data: EncodedOrbits, drawn: Sequence[DrawnOrbit], num_frames: int
) -> tuple[Float[Tensor, "batch frame channel height width"], OrbitCondition]:
    """True latents of some objects and what the model is told of them, in the model's order.

    The latents of the picture are those of its frame, as the encoder gives them.
    """
    orbits, order = data.orbits, model.facts.order
    latents, vectors, pictures, tokens = [], [], [], []
    for item in drawn:
        given = in_order(item.inputs(orbits, num_frames), order)
        latents.append(data.take(item.index, given))
        vectors.append(embed_poses(orbits.poses(item.index, given, item.start), model.facts.kind))
        pictures.append(data.latent_format.from_network(data.take(item.index, [item.start])))
        tokens.append(orbits.views(item.index, [item.start]).rgb)
    weights = next(model.unet.parameters())
    shown = model.encode_tokens(torch.cat(tokens).to(weights.device))
    told = OrbitCondition(shown, torch.cat(pictures).to(shown), torch.stack(vectors).to(shown))
    return torch.stack(latents).to(shown), told


def in_order(views: Sequence[int], order: OrbitOrder) -> list[int]:
    """Views that begin with the given picture, in the order that a model has its frames."""
    if order == "input first":
        return list(views)
    if order == "input last":
        return [*views[1:], views[0]]
    return [*views[:-1], views[0]]


def with_empty(condition: OrbitCondition, empty: Tensor) -> OrbitCondition:
    """Condition without the picture where ``empty`` is true."""
    kept = (~empty).to(condition.tokens)
    return OrbitCondition(
        condition.tokens * kept[:, None, None],
        condition.picture * kept[:, None, None, None],
        condition.vectors,
    )


def train_embedded_orbit(params: EmbeddedOrbitParams, on_progress: ProgressCallback) -> list[Path]:
    """Draw and encode the data, train and write the folder; a stopped run goes on where it was."""
    vae = read_vae(params.vae)
    orbits = open_orbits(params.data, on_progress)
    data = encode_orbits(orbits, vae, params.vae, params.work, on_progress=on_progress)
    directions, share = color_directions(data)
    LOGGER.info("Share of colour that is linear in the latents: %.4f", share)
    torch.manual_seed(params.loop.seed)
    training = OrbitTraining(params, data, vae, directions)
    loop = TrainingLoop(training, params.work / "model", params.loop)
    loop.run(
        training.loss, on_progress=on_progress, sample=lambda step: write_sheet(training, step)
    )
    with loop.averaged():
        save_orbit_model(training, loop)
    return sorted(path for path in params.result.rglob("*") if path.is_file())


class _AllViews(Sequence[np.ndarray]):
    """First views of all objects as bytes."""

    def __init__(self, orbits: TrainingOrbits) -> None:
        self.orbits = orbits

    def __len__(self) -> int:
        return len(self.orbits)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        return (self.orbits.views(index, [0]).rgb[0] * 255).round().byte().numpy()


def color_directions(data: EncodedOrbits) -> tuple[Float[Tensor, "3 channel"], float]:
    """Directions of the latents that hold colours, and the share of colours that they explain."""
    first = torch.stack([data.take(index, [0])[0] for index in range(len(data.orbits))])
    return fit_color_directions(first, _AllViews(data.orbits), samples=COLOR_SAMPLES)


def save_orbit_model(training: OrbitTraining, loop: TrainingLoop) -> None:
    """Write the folder of `diffusion.orbit_files`, weights in half precision."""
    params = training.params
    training.unet.half().save_pretrained(params.result / "unet")
    training.vision.half().save_pretrained(params.result / "image_encoder")
    training.float()
    content: dict[str, Any] = dataclasses.asdict(params.facts)
    if params.vae_name:
        content["vae"] = params.vae_name
    else:
        training.model().vae.half().save_pretrained(params.result / "vae")
        training.model().vae.float()
    content["training"] = {
        "objects": training.num_trained,
        "steps": loop.step,
        "settings": settings_as_json(params),
        "losses": loop.history,
    }
    with atomic_write(params.result / FACTS_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


@torch.no_grad()
def write_sheet(training: OrbitTraining, step: int) -> None:
    """Orbits of held-out objects below the truth, with their PSNR in the log."""
    params, orbits = training.params, training.data.orbits
    model = training.model()
    count = min(SHEET_OBJECTS, params.held_out) or 1
    rows, labels, scores = [], [], []
    for index in range(len(orbits) - count, len(orbits)):
        item = DrawnOrbit(index, 0)
        given = item.inputs(orbits, params.num_frames)
        truth = orbits.views(index, given).rgb
        height = orbits.poses(index, given, 0).elevations_deg[0]
        made = image_to_orbit(
            model, truth[0], OrbitParams(params.num_frames, (height,), seed=index)
        )
        scores.append(psnr(made.images[1:], truth[1:]))
        stride = max(params.num_frames // SHEET_FRAMES, 1)
        rows += [list(truth[::stride]), list(made.images[::stride])]
        labels += ["truth", f"{scores[-1]:.1f} dB"]
    LOGGER.info("step %d: PSNR of sampled frames %.2f dB", step, sum(scores) / len(scores))
    write_png(
        params.work / f"sheet_{step:06}.png",
        make_contact_sheet(rows, row_labels=labels, title=f"step {step}"),
    )
