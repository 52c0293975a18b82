"""Contains the sampling of bundle images from a prompt, from scratch or from a start bundle.

Flow models are sampled on Kiss3DGen's noise levels (static shift 3, the tail shifted twice) with
Heun's method; variance-preserving ones on those of Karras et al.

Reference: Kiss3DGen (Lin et al. 2025), Sec. 3.1, and its released pipeline.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite
from ..bundle_image import (
    BUNDLE_COLUMNS,
    MAX_TILE_PX,
    MIN_TILE_PX,
    BundleImage,
    join_bundle,
    split_bundle,
)
from ..diffusion.guidance import GuidedPrompt, guided_denoise
from ..diffusion.model import Conditioning, Control, DiffusionModel
from ..diffusion.sampling import KeptRegion, Method, make_noise, sample_latents
from ..diffusion.schedules import (
    FLUX_SHIFT,
    add_noise,
    make_flow_sigmas,
    make_karras_sigmas,
    start_index,
)
from ..progress import Progress, ProgressCallback, ignore_progress
from .bundle_masks import composite_bundle, feather_mask, latent_mask
from .bundle_pixels import clean_bundle, resize_bundle
from .bundle_prompt import BundlePrompt, encode_empty_prompt, encode_prompt

LOGGER = logging.getLogger(__name__)

MAX_BATCH = 64
MAX_STEPS = 1000


@dataclass(frozen=True)
class BundleSampleParams:
    """How bundles are sampled; 0 stands for what the model was made for.

    Attributes:
        tile_px: side of a tile, or 0.
        steps: N noise levels, or 0. Heun's method asks the model 2 N - 1 times, Euler's N times.
        method: "heun" or "euler".
        guidance: guidance scale, or 0. Distilled models take it as an input; others are asked for
            the empty text as well, unless it is 1.
        shift: of the noise levels of flow models.
        strength: share of the steps that run on a start bundle; 1 ignores it.
        seed: of the noise; entry i of the batch has ``seed + i``. 0 is a seed like any other.
        batch: bundles to make.
        clean: give the bundles unit normals and a pure white background.
        feather_px: width of the seam round an edited region, for pictures of this tile size.
    """

    tile_px: int = 0
    steps: int = 0
    method: Method = "heun"
    guidance: float = 0.0
    shift: float = FLUX_SHIFT
    strength: float = 1.0
    seed: int = 0
    batch: int = 1
    clean: bool = True
    feather_px: float = 4.0

    def __post_init__(self) -> None:
        if self.method not in ("heun", "euler"):
            raise ValueError(f"method must be heun or euler, got '{self.method}'.")
        if not 0 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps must lie within 0..{MAX_STEPS}, got {self.steps}.")
        if not 1 <= self.batch <= MAX_BATCH:
            raise ValueError(f"batch must lie within 1..{MAX_BATCH}, got {self.batch}.")
        if self.guidance < 0 or self.seed < 0:
            raise ValueError(
                f"guidance and seed must be 0 or more, got {self.guidance} and {self.seed}."
            )
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"strength must lie within 0..1, got {self.strength}.")

    def resolved(self, model: DiffusionModel) -> BundleSampleParams:
        """Copy in which each 0 is replaced by what the model was made for.

        Raises:
            ValueError: a tile size that the model's latents cannot hold.
        """
        tile_px = self.tile_px or model.defaults.tile_px
        cell = model.latent_format.downscale
        if not MIN_TILE_PX <= tile_px <= MAX_TILE_PX or tile_px % cell:
            raise ValueError(
                f"tile_px must lie within {MIN_TILE_PX}..{MAX_TILE_PX} and be a multiple of "
                f"{cell} for this model, got {tile_px}; its own tiles are "
                f"{model.defaults.tile_px} pixels wide."
            )
        return replace(
            self,
            tile_px=tile_px,
            steps=self.steps or model.defaults.steps,
            guidance=self.guidance or model.defaults.guidance,
        )


@dataclass(frozen=True)
class BundleSamples:
    """What sampling gives.

    Attributes:
        bundles: one per entry of the batch.
        latents: clean network latents of the same, before any cleaning or compositing.
        warnings: lines for people.
    """

    bundles: tuple[BundleImage, ...]
    latents: Float[Tensor, "batch channel latent_height latent_width"]
    warnings: tuple[str, ...] = ()

    def images(self) -> Float[Tensor, "batch height width 3"]:
        """All bundles as pictures."""
        return torch.stack([join_bundle(bundle) for bundle in self.bundles])


@torch.no_grad()
def sample_bundle(
    model: DiffusionModel,
    prompt: BundlePrompt,
    params: BundleSampleParams = BundleSampleParams(),
    *,
    start: BundleImage | None = None,
    editable: Float[Tensor, "rows columns"] | None = None,
    controls: Sequence[Control] = (),
    on_progress: ProgressCallback = ignore_progress,
) -> BundleSamples:
    """Make bundle images that show what the prompt says.

    Args:
        model: of either family.
        prompt: words, and perhaps a picture.
        params: settings.
        start: bundle to start from, brought to the tile size; ``params.strength`` says how much of
            it is lost.
        editable: 1 where the start bundle may change, as `bundle_masks.fit_bundle_mask` gives it
            for the tile size; the rest is kept exactly.
        controls: ControlNets with their pictures.
        on_progress: called after each evaluation of the model, with a preview, and at the end; what
            it raises stops the run and passes on.

    Raises:
        ValueError: settings that do not fit each other or the model, or NaN from the model.
    """
    params = params.resolved(model)
    start, weights = _fitted_start(start, editable, params)
    index, warnings = _first_step(start, weights, params)
    sigmas = make_bundle_sigmas(model, params)[index:]
    conditioning, denoise = _prepared_denoiser(model, prompt, params, controls)

    shape = _latent_shape(model, params, start)
    noise = make_noise(shape, params.seed, device=model.device)
    clean = torch.zeros_like(noise)
    kept = None
    if start is not None and (index or weights is not None):
        clean = _encoded(model, start).expand(shape)
    if weights is not None:
        mask = latent_mask(weights.to(noise), model.latent_format.downscale)
        kept = KeptRegion(clean, mask.expand(shape[0], 1, *shape[2:]), noise, model.family)
    state = add_noise(clean, noise, float(sigmas[0]), model.family)
    latents = sample_latents(
        denoise,
        state,
        sigmas,
        conditioning,
        method=params.method,
        kept=kept,
        on_progress=_with_decoding_to_come(on_progress),
        preview=model.preview_latents,
    )
    bundles = _decoded(model, latents, params, start)
    if start is not None and weights is not None:
        bundles = [composite_bundle(start, bundle, weights) for bundle in bundles]
    total = denoise.evaluations + 1
    on_progress(Progress(total, total, f"{len(bundles)} bundles decoded", join_bundle(bundles[0])))
    return BundleSamples(tuple(bundles), latents, tuple(warnings))


def make_bundle_sigmas(
    model: DiffusionModel, params: BundleSampleParams
) -> Float[Tensor, " sigma"]:
    """The N falling noise levels and the final 0 that suit the model's family."""
    if model.family == "rectified_flow":
        return make_flow_sigmas(params.steps, shift=params.shift)
    low, high = model.sigma_range
    return make_karras_sigmas(params.steps, sigma_min=low, sigma_max=high)


class _BundleDenoiser:
    """The model with its guidance; counts its evaluations and checks what they give."""

    def __init__(self, model: DiffusionModel, unconditional: Conditioning | None, scale: float):
        self.model = model
        self.unconditional = unconditional
        self.scale = scale
        self.evaluations = 0

    def __call__(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        self.evaluations += 1
        if self.unconditional is None:
            wanted = conditioning.expanded(latents.shape[0])
            denoised = self.model.denoise(latents, sigma, wanted)
        else:
            empty = replace(self.unconditional, controls=conditioning.controls)
            prompt = GuidedPrompt(conditioning, empty, self.scale)
            denoised = guided_denoise(self.model.denoise, latents, sigma, prompt)
        bad = int((~torch.isfinite(denoised)).sum())
        if bad:
            raise ValueError(
                f"The model gave {bad} NaN or infinite values out of {denoised.numel()} at "
                f"evaluation {self.evaluations}, noise level {float(sigma[0]):.4f}. Load it in "
                "bf16 or fp32 instead of fp16, or lower the strength of LoRAs and controls."
            )
        return denoised.to(latents)


def _prepared_denoiser(
    model: DiffusionModel,
    prompt: BundlePrompt,
    params: BundleSampleParams,
    controls: Sequence[Control],
) -> tuple[Conditioning, _BundleDenoiser]:
    conditioning = replace(encode_prompt(model, prompt), controls=tuple(controls))
    require_finite("The embedding of the prompt", conditioning.tokens)
    if model.defaults.guidance_kind == "distilled":
        conditioning = replace(conditioning, guidance=params.guidance)
        return conditioning, _BundleDenoiser(model, None, 1.0)
    empty = None if params.guidance == 1.0 else encode_empty_prompt(model, prompt)
    return conditioning, _BundleDenoiser(model, empty, params.guidance)


def _fitted_start(
    start: BundleImage | None, editable: Tensor | None, params: BundleSampleParams
) -> tuple[BundleImage | None, Tensor | None]:
    """The start bundle in the tile size, and the feathered weights of the edit."""
    if start is None:
        if editable is not None:
            raise ValueError(
                "A mask says which part of a start bundle may change, but there is no start "
                "bundle; connect one or remove the mask."
            )
        return None, None
    start = resize_bundle(start, params.tile_px)
    if editable is None:
        return start, None
    size = (2 * params.tile_px, start.num_views * params.tile_px)
    if tuple(editable.shape) != size:
        raise ValueError(
            f"The mask must have the size of the bundle, {size[1]} x {size[0]} pixels, got "
            f"{list(editable.shape)}."
        )
    return start, feather_mask(editable, start.num_views, params.feather_px)


def _first_step(
    start: BundleImage | None, weights: Tensor | None, params: BundleSampleParams
) -> tuple[int, list[str]]:
    """Index of the first noise level, and a warning if the start bundle has no effect."""
    if start is None:
        return 0, []
    index = start_index(params.steps, params.strength)
    if index or params.strength == 1.0:
        return index, []
    needed = math.ceil(1 / (1 - params.strength) - 1e-9)
    line = (
        f"Strength {params.strength:g} with {params.steps} steps begins at pure noise, so the "
        f"start bundle has no effect{'' if weights is None else ' inside the mask'}: use "
        f"{needed} steps or more, or a strength of {1 - 1 / params.steps:.2f} or less."
    )
    LOGGER.warning(line)
    return index, [line]


def _latent_shape(
    model: DiffusionModel, params: BundleSampleParams, start: BundleImage | None
) -> tuple[int, int, int, int]:
    cells = params.tile_px // model.latent_format.downscale
    columns = BUNDLE_COLUMNS if start is None else start.num_views
    return params.batch, model.latent_format.channels, 2 * cells, columns * cells


def _encoded(model: DiffusionModel, start: BundleImage) -> Tensor:
    latents = model.encode_image(join_bundle(start)[None].to(model.device)).float()
    require_finite("The encoded start bundle", latents)
    return latents


def _decoded(
    model: DiffusionModel, latents: Tensor, params: BundleSampleParams, start: BundleImage | None
) -> list[BundleImage]:
    images = model.decode_latents(latents).float()
    require_finite("The decoded bundle", images)
    images = images.clamp(0, 1).to("cpu" if start is None else start.rgb_views.device)
    columns = BUNDLE_COLUMNS if start is None else start.num_views
    bundles = [split_bundle(image, columns) for image in images]
    return [clean_bundle(bundle) for bundle in bundles] if params.clean else bundles


def _with_decoding_to_come(on_progress: ProgressCallback) -> ProgressCallback:
    def report(progress: Progress) -> None:
        on_progress(replace(progress, total=progress.total + 1))

    return report
