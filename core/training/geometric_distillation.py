"""Contains stage two of GSV3D: a LoRA that teaches an orbit model to agree with itself in 3D.

True latents are noised, the orbit model predicts clean ones, the frozen Gaussian decoder makes
Gaussians of them, and their renders are compared with true views:

    L = L_2D + 1.5 L_3D,    L_2D = |predicted - true latents|^2,    L_3D of `splat_losses`

at every noise level. Only the LoRA is trained; decoder, UNet, autoencoder and vision encoder stay.

Reference: Tao et al. 2025, "GSV3D", Sec. 3.4.2, Eq. 5-7: 40,000 steps of 32 objects, AdamW, 1e-5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..diffusion.gaussian_decoder_files import GaussianDecoderModel, load_gaussian_decoder
from ..diffusion.orbit_files import load_orbit_model
from ..diffusion.orbit_model import OrbitModel
from ..diffusion.orbit_names import orbit_layer_names
from ..diffusion.schedules import expand_sigma
from ..formats.atomic import atomic_write
from ..progress import ProgressCallback
from .config import settings_as_json
from .encoded_orbits import DrawnOrbit, EncodedOrbits, encode_orbits, read_vae
from .gs_decoder import compared_views, decode_batch
from .loop import LoopParams, Losses, TrainingLoop
from .lora_adapter import ADAPTER, FILE_DTYPES, inject_lora
from .orbit_dataset import OrbitDatasetParams, open_orbits
from .orbit_diffusion import condition_of, draw_levels, in_order, velocity_error, with_empty
from .splat_losses import SplatLossParams, mean_losses, splat_losses
from .workers import find_workers

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
RESULT = "geometric_lora.safetensors"


@dataclass(frozen=True)
class OrbitLoraParams:
    """Size of the LoRA; the paper does not state it.

    Attributes:
        rank: inner size of the two matrices, in all spatial and temporal attentions.
        alpha: the change is multiplied by alpha / rank.
        file_dtype: number type in the file.
    """

    rank: int = 16
    alpha: float = 16.0
    file_dtype: Literal["float16", "bfloat16", "float32"] = "float16"

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"rank and alpha must be positive, got {self.rank}, {self.alpha}.")


@dataclass(frozen=True)
class GeometricDistillationParams:
    """Settings of the trainer ``geometric-distillation``.

    Attributes:
        output: folder of checkpoints.
        result: file of the LoRA; None puts it into ``output``.
        model: orbit model: a single file of SV3D, a folder, or the name of an embedded model.
        decoder: Gaussian decoder of stage one: a folder, or the name of an embedded one.
        vae: folder of the autoencoder.
        data: orbits; with the cameras that the decoder was trained with.
        lora: size.
        num_frames: of a video, as the decoder was trained; 0 takes its own.
        batch: objects per step.
        rendered_views: views per object and step that are compared.
        novel_share: share of them that are not among the frames.
        splat_weight: of L_3D, 1.5 in the paper.
        losses: weights within L_3D.
        velocity_loss: measure L_2D on the velocity, which weighs low noise more; the paper prints
            the error of clean latents without a weight.
        level_mean: of the logarithm of the noise levels.
        level_std: of the same.
        empty_share: share of videos without the picture.
        held_out: last objects of the data, which are not trained on.
        precision: of the frozen networks.
        gradient_checkpointing: less memory, more time.
        device: "cpu", "cuda" or empty.
        loop: schedule.
    """

    output: Path
    model: str
    decoder: str
    vae: Path
    data: OrbitDatasetParams
    result: Path | None = None
    lora: OrbitLoraParams = OrbitLoraParams()
    num_frames: int = 0
    batch: int = 1
    rendered_views: int = 4
    novel_share: float = 0.5
    splat_weight: float = 1.5
    losses: SplatLossParams = SplatLossParams()
    velocity_loss: bool = False
    level_mean: float = 1.0
    level_std: float = 1.6
    empty_share: float = 0.1
    held_out: int = 16
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    device: str = ""
    loop: LoopParams = field(
        default_factory=lambda: LoopParams(steps=40_000, learning_rate=1e-5, betas=(0.9, 0.999))
    )

    def __post_init__(self) -> None:
        if self.splat_weight < 0 or self.batch < 1 or self.num_frames == 1:
            raise ValueError(
                "splat_weight must not be negative, batch at least 1 and num_frames not 1, got "
                f"{self.splat_weight}, {self.batch} and {self.num_frames}."
            )


class DistillationTraining(nn.Module):
    """The orbit model with a trainable LoRA, and the loss through the frozen decoder.

    Args:
        params: settings.
        data: latents and views.
        model: orbit model; its UNet is changed.
        decoder: Gaussian decoder.
    """

    def __init__(
        self,
        params: GeometricDistillationParams,
        data: EncodedOrbits,
        model: OrbitModel,
        decoder: GaussianDecoderModel,
    ) -> None:
        super().__init__()
        require_same_latents(data, model, decoder)
        self.params = params
        self.data = data
        self.num_trained = data.num_trained(params.held_out)
        self.model = model
        self.unet = model.unet
        self.decoder = decoder
        self.layers = add_orbit_lora(model.unet.unet, params.lora, seed=params.loop.seed)
        if params.gradient_checkpointing:
            model.unet.unet.enable_gradient_checkpointing()
            decoder.network.gradient_checkpointing = True
        self.others = nn.ModuleList(
            [decoder.network, model.vision, *([decoder.vision] if decoder.vision else [])]
        )
        self.others.requires_grad_(False)

    @property
    def num_frames(self) -> int:
        """Frames of a video."""
        return self.params.num_frames or self.decoder.facts.num_frames

    def loss(self, step: int, generator: torch.Generator) -> Losses:
        """Eq. 7 of one batch."""
        params = self.params
        drawn = self.data.draw(params.batch, self.num_trained, generator)
        with torch.no_grad():
            latents, told = condition_of(self.model, self.data, drawn, self.num_frames)
        told = with_empty(told, torch.rand(len(drawn), generator=generator) < params.empty_share)
        sigma = draw_levels(len(drawn), params.level_mean, params.level_std, generator)
        sigma = sigma.clamp(*self.model.facts.sigma_range).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = latents + expand_sigma(sigma, latents) * noise
        clean = self.model.clean_latents(noisy, sigma, told).float()
        error = clean - latents
        if params.velocity_loss:
            error = velocity_error(error, sigma)
        flat = error.square().mean()
        solid = self._solid(drawn, clean, generator)
        total = flat + params.splat_weight * solid["total"]
        return {"total": total, "2d": flat, "3d": solid["total"], "rgb": solid["rgb"]}

    def _solid(
        self, drawn: Sequence[DrawnOrbit], clean: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """L_3D of predicted latents through the decoder."""
        orbits, order = self.data.orbits, self.model.facts.order
        pictures = torch.cat([orbits.views(item.index, [item.start]).rgb for item in drawn])
        context = self.decoder.features(pictures.to(clean.device))
        rigs = [
            orbits.rig(
                item.index, in_order(item.inputs(orbits, self.num_frames), order), item.start
            )
            for item in drawn
        ]
        clouds = decode_batch(self.decoder.network, clean, rigs, context)
        parts = []
        for item, cloud in zip(drawn, clouds, strict=True):
            shown = compared_views(
                orbits, item, self.num_frames, self.params.rendered_views,
                self.params.novel_share, generator,
            )  # fmt: skip
            rig = orbits.rig(item.index, shown, item.start).to(clean.device)
            with torch.autocast(clean.device.type, enabled=False):
                truth = orbits.views(item.index, shown)
                parts.append(splat_losses(cloud, rig, truth, self.params.losses, generator))
        return mean_losses(parts)


def require_same_latents(
    data: EncodedOrbits, model: OrbitModel, decoder: GaussianDecoderModel
) -> None:
    """Raise ValueError unless data, model and decoder speak of the same latents."""
    formats = {
        "data": data.latent_format,
        "orbit model": model.latent_format,
        "decoder": decoder.latent_format,
    }
    if len(set(formats.values())) > 1:
        listed = "; ".join(f"{name}: {value}" for name, value in formats.items())
        raise ValueError(
            f"Data, model and decoder need one autoencoder, but have other latents ({listed})."
        )
    facts = data.orbits.facts
    if (facts.radius, facts.fov_y_deg) != (decoder.facts.radius, decoder.facts.fov_y_deg):
        raise ValueError(
            f"The orbits were drawn with radius {facts.radius:g} and field of view "
            f"{facts.fov_y_deg:g}, the decoder was trained with {decoder.facts.radius:g} and "
            f"{decoder.facts.fov_y_deg:g}; draw them with the decoder's."
        )


def add_orbit_lora(unet: Any, params: OrbitLoraParams, *, seed: int = 0) -> list[str]:
    """Freeze a UNet and put a trainable LoRA into all its attentions; names of the layers."""
    layers = [
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(ATTENTION) and ".attn" in name
    ]
    inject_lora(unet, layers, params.rank, params.alpha, seed=seed)
    return layers


def orbit_lora_state(
    unet: Any, layers: Sequence[str], params: OrbitLoraParams
) -> dict[str, Tensor]:
    """Tensors of the file: ``diffusion_model.<layer of the original code>.lora_A.weight``.

    ComfyUI's LoRA loader and ours find the layers by these names in an SV3D model.
    """
    dtype = FILE_DTYPES[params.file_dtype]
    per_level = max(len(block.resnets) for block in unet.down_blocks)
    state = {}
    for layer in layers:
        module = unet.get_submodule(layer)
        name = f"diffusion_model.{orbit_layer_names(layer, per_level)[0]}"
        for key, part in (("lora_A", module.lora_A), ("lora_B", module.lora_B)):
            weight = part[ADAPTER].weight.detach()
            state[f"{name}.{key}.weight"] = weight.to("cpu", dtype).contiguous()
        if params.alpha != params.rank:
            state[f"{name}.alpha"] = torch.tensor(params.alpha)
    return state


def lora_facts(params: GeometricDistillationParams, steps: int) -> dict[str, str]:
    """What the head of the file says: base model, steps, and all settings as JSON."""
    return {
        "format": "pt",
        "base_model": Path(params.model).name,
        "steps": str(steps),
        "settings": json.dumps(settings_as_json(params)),
    }


def train_geometric_distillation(
    params: GeometricDistillationParams, on_progress: ProgressCallback
) -> list[Path]:
    """Draw and encode the data, train the LoRA and write it; a stopped run goes on.

    Returns:
        The files of the run, by the first process.
    """
    from safetensors.torch import save_file

    workers = find_workers(params.device)
    told = workers.told(on_progress)
    dtype = getattr(torch, params.precision)
    model = load_orbit_model(params.model, dtype=dtype)
    decoder = load_gaussian_decoder(params.decoder, dtype=torch.float32)
    with workers.first_goes_ahead():
        orbits = open_orbits(params.data, told)
        data = encode_orbits(
            orbits, read_vae(params.vae), params.vae, params.output, device=workers.device,
            on_progress=told,
        )  # fmt: skip
    training = DistillationTraining(params, data, model, decoder).to(workers.device)
    loop = TrainingLoop(training, params.output, params.loop, workers)
    loop.run(training.loss, on_progress=told)
    if not workers.is_first:
        return []
    result = params.result or params.output / RESULT
    with loop.averaged(), atomic_write(result) as temporary:
        state = orbit_lora_state(training.model.unet.unet, training.layers, params.lora)
        save_file(state, temporary, lora_facts(params, loop.step))
    return [loop.checkpoint_file, result]
