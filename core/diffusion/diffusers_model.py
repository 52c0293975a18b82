"""Contains `DiffusersModel`: the `DiffusionModel` protocol over networks of diffusers.

Flux (rectified flow), Stable Diffusion 1.5 / 2.1 and SDXL (variance preserving) from a folder in
diffusers layout or a single file. Stable Video Diffusion (from a folder) follows the protocol with
these limits: its batch is the frames of one video, the only prompt is the empty one, the picture
comes by `with_image_prompt` (strength 0 for the unconditional branch), there are no ControlNets,
guidance is the same for all frames, and frames are decoded together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from .adapters import ActiveAdapter
from .control_files import load_control_network
from .controls import (
    AppliedControl,
    ControlNetwork,
    fit_picture,
    repeat_entries,
    require_fitting,
)
from .diffusers_files import require_libraries
from .diffusers_loading import assemble, find_model, read_folder, read_single_file
from .image_prompt import ImagePromptEncoder, load_redux
from .lora_attach import attach_lora
from .model import Conditioning, Control, LatentFormat, ModelDefaults
from .model_parts import ModelParts
from .placement import Offload, Placement, make_placement
from .schedules import Family


def load_diffusers_model(
    path: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    offload: Offload = "none",
    placement: Placement | None = None,
    config: Path | None = None,
    tokenizers: Mapping[str, Path] | None = None,
    link: str = "",
) -> DiffusersModel:
    """Load a diffusion model from local files; nothing is ever downloaded.

    Args:
        path: a folder in diffusers layout, a single checkpoint file, or the name of an embedded
            model.
        dtype: number type of the weights; single precision on the CPU and bfloat16 elsewhere by
            default.
        device: where to compute; CUDA where there is a card by default.
        offload: "none", "model" (networks take turns on the card) or "sequential" (layers do).
        placement: replaces ``device`` and ``offload`` where the host manages memory.
        config: folder with configurations and tokenizers for a single file; by default a folder
            beside it with the same name.
        tokenizers: folders of tokenizers ("clip", "t5") for single files whose folder has none.
        link: where the model comes from, for messages about missing files.

    Raises:
        FileNotFoundError: files are missing; the message names them, before anything is read.
        ValueError: they are damaged or of an unknown kind.
        ImportError: a library is missing; the message says how to install it.
    """
    require_libraries("A diffusion model", "diffusers", "transformers", "safetensors")
    if placement is None:
        usual = "cuda" if torch.cuda.is_available() else "cpu"
        placement = make_placement(usual if device is None else device, offload)
    if dtype is None:
        dtype = torch.float32 if placement.device.type == "cpu" else torch.bfloat16
    found = find_model(path)
    if found.is_dir():
        loaded = read_folder(found, dtype, link=link)
    else:
        loaded = read_single_file(found, dtype, config, tokenizers)
    return DiffusersModel(assemble(loaded, dtype, placement))


@dataclass(frozen=True)
class DiffusersModel:
    """A diffusion model of diffusers; see `core.diffusion.model.DiffusionModel`.

    Attributes:
        parts: shared with all models derived from this one.
        loras: by the folder of the network they act in.
        image_prompt: encoder of pictures, or None.
    """

    parts: ModelParts
    loras: tuple[tuple[str, ActiveAdapter], ...] = ()
    image_prompt: ImagePromptEncoder | None = None

    @property
    def family(self) -> Family:
        """Which sigma form the latents have."""
        return self.parts.backbone.family

    @property
    def latent_format(self) -> LatentFormat:
        """Size and normalisation of the latents."""
        return self.parts.codec.latent_format

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest noise level it was trained for."""
        return self.parts.backbone.sigma_range

    @property
    def device(self) -> torch.device:
        """Where latents and conditionings are expected."""
        return self.parts.placement.device

    @property
    def defaults(self) -> ModelDefaults:
        """Settings that it was made for."""
        return self.parts.defaults

    @torch.no_grad()
    def encode_text(
        self, prompts: Sequence[str], *, pooled_prompts: Sequence[str] | None = None
    ) -> Conditioning:
        """Embed prompts; only Flux's CLIP takes ``pooled_prompts``."""
        if pooled_prompts is not None and len(pooled_prompts) != len(prompts):
            raise ValueError(f"Got {len(prompts)} prompts, but {len(pooled_prompts)} pooled ones.")
        for folder in self.parts.text.networks:
            self._activate(folder)
        return self.parts.text.encode(prompts, pooled_prompts, self.parts.placement)

    def with_image_prompt(
        self,
        conditioning: Conditioning,
        image: Float[Tensor, "1 height width 3"],
        strength: float,
    ) -> Conditioning:
        """Conditioning with the tokens of a picture behind those of the text (Redux)."""
        encoder = self.image_prompt or self.parts.image_prompt
        if encoder is None:
            raise ValueError(
                f"'{self.parts.name}' has no encoder for image prompts; load one with the node "
                "'Load Image Prompt' (Flux: the folder of FLUX.1-Redux-dev)."
            )
        return encoder.append(conditioning, image, strength, self.parts.placement)

    def encode_image(
        self, images: Float[Tensor, "batch height width 3"]
    ) -> Float[Tensor, "batch channel latent_height latent_width"]:
        """Images 0..1 to network latents; differentiable with respect to the images."""
        return self.parts.codec.encode(images)

    def decode_latents(
        self, latents: Float[Tensor, "batch channel latent_height latent_width"]
    ) -> Float[Tensor, "batch height width 3"]:
        """Network latents to images 0..1."""
        return self.parts.codec.decode(latents)

    def preview_latents(
        self, latents: Float[Tensor, "batch channel latent_height latent_width"]
    ) -> Float[Tensor, "height width 3"]:
        """Quick, rough picture of the first entry."""
        return self.parts.codec.preview(latents)

    @torch.no_grad()
    def denoise(
        self,
        latents: Float[Tensor, "batch channel latent_height latent_width"],
        sigma: Float[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel latent_height latent_width"]:
        """Predict clean latents; no gradient passes through the network."""
        backbone = self.parts.backbone
        require_fitting(conditioning.controls, backbone.architecture)
        conditioning = conditioning.expanded(latents.shape[0])
        applied = [self._applied(control, latents) for control in conditioning.controls]
        self._activate(backbone.folder)
        return backbone.clean_latents(latents, sigma, conditioning, applied, self.parts.placement)

    def with_lora(self, path: Path, strength: float = 1.0) -> DiffusersModel:
        """Model with a LoRA file attached; the original is unchanged.

        What the file holds for the text encoders is applied too. Layers that fit nowhere are named
        in a warning.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no LoRA, or one for another kind of model.
        """
        return replace(self, loras=(*self.loras, *attach_lora(self.parts, Path(path), strength)))

    def with_redux(self, folder: Path, *, link: str = "") -> DiffusersModel:
        """Model that takes image prompts by the encoder in a folder; the original is unchanged."""
        return replace(self, image_prompt=load_redux(folder, self.parts.dtype, link=link))

    def load_control(self, path: Path) -> ControlNetwork:
        """Load a ControlNet from a folder or a single file; the result is `Control.network`."""
        control = load_control_network(Path(path), self.parts.dtype)
        if control.architecture != self.parts.backbone.architecture:
            raise ValueError(
                f"ControlNet '{control.name}' is made for {control.architecture} models, but "
                f"'{self.parts.name}' is a {self.parts.backbone.architecture} model."
            )
        control.require_sizes(self.parts.backbone.network)
        return control

    def _activate(self, folder: str) -> None:
        if folder in self.parts.banks:
            self.parts.banks[folder].activate([lora for name, lora in self.loras if name == folder])

    def _applied(self, control: Control, latents: Tensor) -> AppliedControl:
        """A control with its picture prepared; each picture is encoded once per size."""
        kind = self.parts.backbone.picture_kind(control.network.network)
        height, width = (size * self.latent_format.downscale for size in latents.shape[-2:])
        known = self.parts.pictures.setdefault(control.image, {})
        key = (kind, height, width)
        if key not in known:
            image = fit_picture(control.image.to(self.device).float(), height, width)
            known[key] = self._picture(image, kind)
        return AppliedControl(control, repeat_entries(known[key], latents.shape[0]))

    def _picture(self, image: Tensor, kind: str) -> Tensor:
        if kind == "latents":
            return self.encode_image(image)
        pixels = image.movedim(-1, 1)
        return pixels * 2 - 1 if kind == "pixels" else pixels
