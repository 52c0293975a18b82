"""Contains the drawing of several views of an object from one picture of it (Zero123++, FlexGen).

FlexGen paints 2 x 2 tiles of 512 pixels: tile i is seen from azimuth 90 i at elevation 5 in the
frame that the reconstruction model is told, and the given picture is tile 3. Views leave this
module in the order of bundles (front, left, rear, right of the subject), with the front at +Z.

Reference: Kiss3DGen (Lin et al. 2025), released image-to-3D pipeline; Shi et al. 2023, "Zero123++".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..camera import ViewRig, make_kiss3dgen_rig, make_orbit_rig
from ..diffusion.ancestral import sample_ancestral
from ..diffusion.latent_preview import fit_preview
from ..diffusion.placement import FixedPlacement, Placement
from ..diffusion.sampling import PreviewFunction, make_noise
from ..diffusion.schedules import alphas_to_sigmas, make_alphas_cumprod, make_trailing_timesteps
from ..networks.lrm_cameras import (
    FLEXGEN_COLUMN_TILES,
    FLEXGEN_RENDER_RADIUS,
    ZERO123PLUS_AZIMUTHS_DEG,
    ZERO123PLUS_ELEVATIONS_DEG,
    ZERO123PLUS_RADIUS,
)
from ..networks.zero123plus import Zero123Plus
from ..progress import ProgressCallback, ignore_progress

LayoutName = Literal["flexgen", "zero123plus"]


@dataclass(frozen=True)
class MultiviewLayout:
    """Which views a model paints, and where.

    Attributes:
        rows: of tiles.
        columns: of tiles.
        tile_px: side of a tile that the model was trained for.
        tiles: tile (row-major) of each view that comes out.
        rig: camera of each view that comes out, the picture's subject facing +Z.
    """

    rows: int
    columns: int
    tile_px: int
    tiles: tuple[int, ...]
    rig: ViewRig


def multiview_layout(name: LayoutName) -> MultiviewLayout:
    """Layout of a published model: FlexGen's four views or the six of Zero123++ v1.2."""
    if name == "flexgen":
        rig = make_kiss3dgen_rig(FLEXGEN_RENDER_RADIUS)
        return MultiviewLayout(2, 2, 512, FLEXGEN_COLUMN_TILES, rig)
    if name == "zero123plus":
        rig = make_orbit_rig(
            ZERO123PLUS_AZIMUTHS_DEG, ZERO123PLUS_ELEVATIONS_DEG, radius=ZERO123PLUS_RADIUS
        )
        return MultiviewLayout(3, 2, 320, tuple(range(6)), rig)
    raise ValueError(f"Unknown layout '{name}'; choose 'flexgen' or 'zero123plus'.")


@dataclass(frozen=True)
class MultiviewParams:
    """Settings of a run; the defaults are those of Kiss3DGen.

    Attributes:
        layout: of the model.
        steps: sampling steps.
        guidance: how much the picture counts; up to 1 it is asked for once per step.
        seed: of all noise.
        tile_px: side of a tile; 0 for the layout's own.
    """

    layout: LayoutName = "flexgen"
    steps: int = 50
    guidance: float = 4.0
    seed: int = 42
    tile_px: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.seed < 0 or self.tile_px < 0 or not self.guidance >= 0:
            raise ValueError(
                "steps must be at least 1, seed, tile_px and guidance not negative, got "
                f"{self.steps}, {self.seed}, {self.tile_px} and {self.guidance}."
            )


@dataclass(frozen=True)
class MultiviewImages:
    """Views of an object with their cameras.

    Attributes:
        views: sRGB, in the order of the rig.
        rig: one camera per view.
        tiles: the picture as the model painted it.
    """

    views: Float[Tensor, "view height width 3"]
    rig: ViewRig
    tiles: Float[Tensor, "picture_height picture_width 3"]


@torch.no_grad()
def image_to_multiview(
    model: Zero123Plus,
    image: Float[Tensor, "height width 3"],
    params: MultiviewParams = MultiviewParams(),
    *,
    placement: Placement | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> MultiviewImages:
    """Draw the views of a published layout from one picture.

    Args:
        model: see `networks.zero123plus_files.load_zero123plus`.
        image: square, the object centred on an even background (`prepare_image`).
        params: settings.
        placement: brings the networks to their device; None leaves them where they are.
        on_progress: called after each step, with a rough picture; what it raises stops the run.
    """
    _check_image(image)
    layout = multiview_layout(params.layout)
    tile_px = params.tile_px or layout.tile_px
    shape = _latent_shape(model, layout, tile_px)
    placement = placement or FixedPlacement(model.unet.device)
    placement.prepare(model.vision)
    tokens = model.encode_tokens(image[None])
    placement.prepare(model.vae)
    reference = model.encode_reference(image[None])
    rough = fit_preview(model.encode, model.downscale)
    placement.prepare(model.unet)
    latents = _sample(
        model, shape, tokens, reference, params, on_progress,
        lambda denoised: rough.render(denoised[0], model.downscale),
    )  # fmt: skip
    placement.prepare(model.vae)
    picture = model.decode(latents)[0]
    views = split_tiles(picture.to(image.device), layout.rows, layout.columns)
    return MultiviewImages(views[list(layout.tiles)], layout.rig, picture.to(image.device))


def split_tiles(
    picture: Float[Tensor, "height width 3"], rows: int, columns: int
) -> Float[Tensor, "tile tile_height tile_width 3"]:
    """Tiles of a picture, row by row.

    Raises:
        ValueError: the sides do not divide.
    """
    height, width, channels = picture.shape
    if height % rows or width % columns:
        raise ValueError(
            f"A picture of {width} x {height} pixels does not divide into {columns} x {rows} tiles."
        )
    tiles = picture.reshape(rows, height // rows, columns, width // columns, channels)
    return tiles.transpose(1, 2).flatten(0, 1).contiguous()


def _check_image(image: Tensor) -> None:
    require_shape("image", image, None, None, 3)
    require_finite("image", image)
    if image.shape[0] != image.shape[1]:
        raise ValueError(
            f"The picture must be square, got {image.shape[1]} x {image.shape[0]} pixels; "
            "Prepare Image makes it so."
        )


def _latent_shape(model: Zero123Plus, layout: MultiviewLayout, tile_px: int) -> tuple[int, ...]:
    height, width = layout.rows * tile_px, layout.columns * tile_px
    if height % model.multiple_px or width % model.multiple_px or tile_px % model.downscale:
        raise ValueError(
            f"Tiles of {tile_px} pixels make a picture of {width} x {height}, but this model needs "
            f"multiples of {model.multiple_px}; {layout.tile_px} is what it was trained for."
        )
    channels = int(model.unet.config.in_channels)
    return 1, channels, height // model.downscale, width // model.downscale


def _sample(
    model: Zero123Plus,
    shape: tuple[int, ...],
    tokens: Tensor,
    reference: Tensor,
    params: MultiviewParams,
    on_progress: ProgressCallback,
    preview: PreviewFunction,
) -> Float[Tensor, "1 channel height width"]:
    schedule = model.schedule
    table = alphas_to_sigmas(
        make_alphas_cumprod(
            schedule.num_train_steps, schedule.beta_start, schedule.beta_end, schedule.spacing
        )
    ).float()
    timesteps = make_trailing_timesteps(params.steps, schedule.num_train_steps)
    sigmas = torch.cat([table[timesteps], table.new_zeros(1)])
    generator = torch.Generator().manual_seed(params.seed)
    start = make_noise(shape, generator, device=tokens.device) * sigmas[0]
    if params.guidance <= 1:
        tokens, reference = tokens[1:], reference[1:]
    denoiser = _GuidedDenoiser(model, reference, timesteps, sigmas, params.guidance, generator)
    return sample_ancestral(
        denoiser, start, sigmas, tokens, generator, on_progress=on_progress, preview=preview
    )


@dataclass
class _GuidedDenoiser:
    """Predicts clean latents of the views; each call noises the reference anew.

    Symbols: s noise level, a = 1 / sqrt(1 + s^2), b = s a; the network sees z = a x.
    """

    model: Zero123Plus
    reference: Tensor
    timesteps: Tensor
    sigmas: Tensor
    guidance: float
    generator: torch.Generator

    def __call__(self, latents: Tensor, sigma: Tensor, tokens: Tensor) -> Tensor:
        level = float(sigma[0])
        step = int((self.sigmas - level).abs().argmin())
        a = (1 + level**2) ** -0.5
        noise = make_noise(self.reference.shape, self.generator, device=latents.device)
        noisy = (self.reference.to(latents) + level * noise) * a
        z = latents * a
        batch = z.expand(len(tokens), -1, -1, -1)
        made = self.model.predict(batch, int(self.timesteps[step]), tokens, noisy)
        if len(made) == 2:
            nothing, picture = made.chunk(2)
            made = nothing + self.guidance * (picture - nothing)
        if self.model.schedule.prediction == "epsilon":
            return (z - level * a * made) / a
        return a * z - level * a * made
