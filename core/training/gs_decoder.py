"""Contains stage one of GSV3D: training the Gaussian splatting decoder on true views.

The decoder sees the autoencoder's latents of N views of an object and must draw input and novel
views right. Any view of the orbit can be the first one: the world is turned so that it sees the
front.

Reference: Tao et al. 2025, "GSV3D", Sec. 3.4.1: 80,000 steps of 128 objects, AdamW, 1e-5.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..camera import ViewRig
from ..diffusion.diffusers_files import read_network
from ..diffusion.gaussian_decoder_files import (
    VISION_CLASS,
    DecoderFacts,
    encode_features,
    make_decoder_vision,
    save_gaussian_decoder,
)
from ..evaluation.contact_sheet import make_contact_sheet
from ..evaluation.image_metrics import psnr
from ..formats.png import write_png
from ..gaussian_cloud import GaussianCloud
from ..geometry.pluecker import rig_pluecker
from ..networks.gaussian_decoder import DecoderSize, GaussianDecoder, load_decoder_params
from ..networks.gaussian_heads import gaussians_of_pixels
from ..progress import ProgressCallback
from ..rendering.splats import render_splats
from .config import settings_as_json
from .encoded_orbits import DrawnOrbit, EncodedOrbits, encode_orbits, read_vae
from .loop import LoopParams, Losses, TrainingLoop
from .orbit_dataset import OrbitDatasetParams, open_orbits
from .orbit_sheets import TrainingOrbits
from .pixel_losses import pixel_losses
from .splat_losses import SplatLossParams, mean_losses, splat_losses
from .workers import find_workers

LOGGER = logging.getLogger(__name__)
OWN_VISION_PATCH = 8
SHEET_OBJECTS = 6
SHEET_VIEWS = 4


@dataclass(frozen=True)
class GsDecoderParams:
    """Settings of the trainer ``gs-decoder``.

    Attributes:
        output: folder of checkpoints and sheets.
        result: folder of the finished decoder.
        data: orbits.
        vae: folder of the autoencoder, in diffusers layout.
        size: of the decoder.
        num_layers: transformer layers; 0 takes those of the size.
        use_picture: attend to the features of the given picture.
        vision: folder of a published DINOv2, which stays as it is; None trains a small one along.
        vision_px: side of the picture that it sees; a multiple of its patches.
        num_frames: views that are given.
        batch: objects per step.
        rendered_views: views per object and step that are compared.
        novel_share: share of them that are not given.
        losses: weights.
        pixel_steps: first steps, which compare Gaussians with the pixels they stand for instead of
            drawing them (`pixel_losses`); not in the paper.
        held_out: last objects of the data, which are not trained on.
        gradient_checkpointing: less memory, more time.
        device: "cpu", "cuda" or empty.
        loop: schedule.
    """

    output: Path
    result: Path
    data: OrbitDatasetParams
    vae: Path
    size: DecoderSize = "published"
    num_layers: int = 0
    use_picture: bool = True
    vision: Path | None = None
    vision_px: int = 224
    num_frames: int = 16
    batch: int = 4
    rendered_views: int = 4
    novel_share: float = 0.5
    losses: SplatLossParams = SplatLossParams()
    pixel_steps: int = 0
    held_out: int = 16
    gradient_checkpointing: bool = False
    device: str = ""
    loop: LoopParams = field(
        default_factory=lambda: LoopParams(steps=80_000, learning_rate=1e-5, betas=(0.9, 0.999))
    )

    def __post_init__(self) -> None:
        if self.num_frames < 2 or self.batch < 1 or self.rendered_views < 1 or self.held_out < 0:
            raise ValueError(
                "num_frames must be at least 2, batch and rendered_views at least 1, held_out not "
                f"negative, got {self.num_frames}, {self.batch}, {self.rendered_views} and "
                f"{self.held_out}."
            )
        if self.pixel_steps < 0:
            raise ValueError(f"pixel_steps must not be negative, got {self.pixel_steps}.")
        if not 0 <= self.novel_share <= 1:
            raise ValueError(f"novel_share must lie within 0..1, got {self.novel_share}.")


class DecoderTraining(nn.Module):
    """The decoder with its image encoder, and the loss on random objects.

    Args:
        params: settings.
        data: latents and views.
    """

    def __init__(self, params: GsDecoderParams, data: EncodedOrbits) -> None:
        super().__init__()
        self.params = params
        self.data = data
        channels, height, _ = data.latent_shape
        sizes = load_decoder_params(params.size)
        self.vision, width = _make_vision(params, sizes.context_dim)
        self.decoder = GaussianDecoder(
            dataclasses.replace(
                sizes,
                latent_channels=channels,
                grid=height // sizes.patch,
                num_layers=params.num_layers or sizes.num_layers,
                context_dim=width,
            )
        )
        self.decoder.gradient_checkpointing = params.gradient_checkpointing
        self.num_trained = data.num_trained(params.held_out)

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """L_3D of one batch and the PSNR of its renders; `pixel_losses` in the first steps."""
        drawn = self.data.draw(self.params.batch, self.num_trained, generator)
        if step < self.params.pixel_steps:
            return self._pixel_loss(drawn)
        parts = []
        for item, cloud in zip(drawn, self.decode(drawn), strict=True):
            shown = compared_views(
                self.data.orbits, item, self.params.num_frames, self.params.rendered_views,
                self.params.novel_share, generator,
            )  # fmt: skip
            rig = self.data.orbits.rig(item.index, shown, item.start).to(cloud.means.device)
            truth = self.data.orbits.views(item.index, shown)
            with torch.autocast(cloud.means.device.type, enabled=False):
                parts.append(splat_losses(cloud, rig, truth, self.params.losses, generator))
        losses = mean_losses(parts)
        return {**losses, "psnr": -10 * losses["rgb"].detach().clamp(min=1e-9).log10()}

    def _pixel_loss(self, drawn: list[DrawnOrbit]) -> Losses:
        orbits, parts = self.data.orbits, []
        for item, cloud in zip(drawn, self.decode(drawn), strict=True):
            given = item.inputs(orbits, self.params.num_frames)
            rig = orbits.rig(item.index, given, item.start).to(cloud.means.device)
            with torch.autocast(cloud.means.device.type, enabled=False):
                parts.append(pixel_losses(cloud, rig, orbits.views(item.index, given)))
        return mean_losses(parts)

    def decode(self, drawn: list[DrawnOrbit]) -> list[GaussianCloud]:
        """Gaussians of objects from the latents of their given views."""
        orbits, frames = self.data.orbits, self.params.num_frames
        device = next(self.decoder.parameters()).device
        latents, rigs, pictures = [], [], []
        for item in drawn:
            given = item.inputs(orbits, frames)
            latents.append(self.data.take(item.index, given))
            rigs.append(orbits.rig(item.index, given, item.start))
            pictures.append(orbits.views(item.index, [item.start]).rgb)
        return decode_batch(
            self.decoder,
            torch.stack(latents).to(device),
            rigs,
            self._features(torch.cat(pictures).to(device)),
        )

    def _features(self, pictures: Tensor) -> Tensor | None:
        if self.vision is None:
            return None
        return encode_features(self.vision, pictures, self.params.vision_px)


def compared_views(
    orbits: TrainingOrbits,
    item: DrawnOrbit,
    num_frames: int,
    count: int,
    novel_share: float,
    generator: torch.Generator,
) -> list[int]:
    """Random views of an object for the loss: given ones, and a share of novel ones."""
    given = item.inputs(orbits, num_frames)
    novel = [view for view in range(orbits.views_per_object) if view not in given]
    num_novel = round(novel_share * count) if novel else 0
    picks = torch.randperm(len(given), generator=generator)[: count - num_novel].tolist()
    others = torch.randperm(len(novel), generator=generator)[:num_novel].tolist()
    return [given[i] for i in picks] + [novel[i] for i in others]


def decode_batch(
    decoder: GaussianDecoder, latents: Tensor, rigs: list[ViewRig], context: Tensor | None
) -> list[GaussianCloud]:
    """Gaussians of a batch of objects; gradients pass, nothing is left out.

    Args:
        decoder: the network.
        latents: [batch, view, channel, height, width].
        rigs: one per object.
        context: features of the pictures.
    """
    height, width = (int(side) for side in latents.shape[-2:])
    kind, heads = latents.device.type, decoder.params.heads
    with torch.autocast(kind, enabled=False):  # geometry needs single precision
        rays = torch.stack([rig_pluecker(rig, width=width, height=height) for rig in rigs])
    raw = decoder(latents, rays.to(latents), context)
    with torch.autocast(kind, enabled=False):
        return [
            gaussians_of_pixels(values.float(), rig.to(latents.device), heads)
            for values, rig in zip(raw, rigs, strict=True)
        ]


def _make_vision(params: GsDecoderParams, own_width: int) -> tuple[Any, int]:
    """Image encoder and the width of its features; None and 0 without one."""
    if not params.use_picture:
        return None, 0
    if params.vision is not None:
        if not (params.vision / "config.json").is_file():
            raise FileNotFoundError(
                f"{params.vision} holds no DINOv2 (config.json and model.safetensors of "
                "https://huggingface.co/facebook/dinov2-base)."
            )
        vision: Any = read_network(params.vision, VISION_CLASS, torch.float32)
        return vision, int(vision.config.hidden_size)
    width = own_width or 128
    vision = make_decoder_vision(width, side_px=params.vision_px, patch_px=OWN_VISION_PATCH)
    return vision, width


def train_gs_decoder(params: GsDecoderParams, on_progress: ProgressCallback) -> list[Path]:
    """Draw and encode the data, train the decoder and write it; a stopped run goes on.

    Returns:
        The files of the run, by the first process.
    """
    workers = find_workers(params.device)
    told = workers.told(on_progress)
    vae = read_vae(params.vae)
    with workers.first_goes_ahead():
        orbits = open_orbits(params.data, told)
        data = encode_orbits(
            orbits, vae, params.vae, params.output, device=workers.device, on_progress=told
        )
    del vae
    torch.manual_seed(params.loop.seed)
    training = DecoderTraining(params, data).to(workers.device)
    loop = TrainingLoop(training, params.output, params.loop, workers)
    loop.run(training.loss, on_progress=told, sample=lambda step: write_sheet(training, step))
    if not workers.is_first:
        return []
    with loop.averaged():
        own_vision = training.vision if params.vision is None else None
        save_gaussian_decoder(
            params.result, training.decoder, own_vision, decoder_facts(params, data),
            **({"image_encoder": str(params.vision.name)} if params.vision else {}),
            training={
                "objects": training.num_trained,
                "steps": loop.step,
                "settings": settings_as_json(params),
                "losses": loop.history,
            },
        )  # fmt: skip
    return sorted(path for path in params.result.rglob("*") if path.is_file())


def decoder_facts(params: GsDecoderParams, data: EncodedOrbits) -> DecoderFacts:
    """What the decoder was trained with."""
    facts, latents = data.orbits.facts, data.latent_format
    return DecoderFacts(
        num_frames=params.num_frames,
        latent_px=data.latent_shape[1],
        downscale=latents.downscale,
        latent_scale=latents.scale,
        latent_shift=latents.shift,
        radius=facts.radius,
        fov_y_deg=facts.fov_y_deg,
        elevation_deg=facts.elevation_deg,
        vision_px=params.vision_px,
    )


@torch.no_grad()
def write_sheet(training: DecoderTraining, step: int) -> None:
    """Novel views of held-out objects beside the truth, with their PSNR in the log."""
    orbits = training.data.orbits
    count = min(SHEET_OBJECTS, training.params.held_out) or 1
    rows, scores = [], []
    for index in range(len(orbits) - count, len(orbits)):
        item = DrawnOrbit(index, 0)
        cloud = training.decode([item])[0]
        given = item.inputs(orbits, training.params.num_frames)
        novel = [view for view in range(orbits.views_per_object) if view not in given] or given
        shown = novel[:: max(len(novel) // SHEET_VIEWS, 1)][:SHEET_VIEWS]
        truth = orbits.views(index, shown)
        rig = orbits.rig(index, shown, 0).to(cloud.means.device)
        size = orbits.facts.size_px
        drawn = render_splats(cloud, rig, width=size, height=size, with_normals=False).rgb.cpu()
        scores.append(psnr(drawn.clamp(0, 1), truth.rgb))
        rows.append([*truth.rgb, *drawn])
    LOGGER.info("step %d: PSNR of novel views %.2f dB", step, sum(scores) / len(scores))
    labels = [f"{score:.1f} dB" for score in scores]
    write_png(
        training.params.output / f"sheet_{step:06}.png",
        make_contact_sheet(rows, row_labels=labels, title=f"step {step}: truth | Gaussians"),
    )
