"""Contains the making of frames all round an object from one picture of it (SV3D).

Reference: Voleti et al. 2024, "SV3D", Sec. 3; GSV3D (Tao et al. 2025), Sec. 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..camera import ViewRig
from ..diffusion.latent_preview import fit_preview
from ..diffusion.model import LatentFormat
from ..diffusion.orbit_conditioning import (
    OrbitOrder,
    OrbitPoses,
    make_orbit_poses,
    triangle_guidance,
)
from ..diffusion.orbit_model import OrbitCondition, OrbitModel
from ..diffusion.placement import FixedPlacement, Placement
from ..diffusion.sampling import Method, PreviewFunction, make_noise, sample_latents
from ..diffusion.schedules import make_karras_sigmas
from ..progress import Progress, ProgressCallback, ignore_progress, share_progress

Sense = Literal["counter-clockwise", "clockwise"]
SAMPLED_PERCENT = 90
# Two values that differ by less than this on all pixels show nothing.
EVEN_PICTURE = 1e-3


@dataclass(frozen=True)
class OrbitParams:
    """Settings of a run; 0 and None take what the model was made for.

    Attributes:
        num_frames: of the orbit.
        elevations_deg: one for all frames, or one each.
        order: where the given picture stands among the sampled frames.
        steps: sampling steps.
        guidance: scale in the middle of the video.
        smallest_guidance: scale at both ends.
        seed: of the noise; frame i has seed + i.
        method: Euler as published, or Heun.
        size_px: width and height of the frames.
        radius: distance of the cameras in world units.
        fov_y_deg: vertical field of view.
        sense: which way the model turns; the published code does not say it in words.
        input_first: hand out the frames with the given picture first, whatever the order.
        keep_input: put the given picture in place of its frame, as SV3D's code does.
    """

    num_frames: int = 0
    elevations_deg: tuple[float, ...] = (10.0,)
    order: OrbitOrder | None = None
    steps: int = 0
    guidance: float = 0.0
    smallest_guidance: float = 1.0
    seed: int = 0
    method: Method = "euler"
    size_px: int = 0
    radius: float = 0.0
    fov_y_deg: float = 0.0
    sense: Sense = "counter-clockwise"
    input_first: bool = True
    keep_input: bool = True

    def __post_init__(self) -> None:
        smallest = min(self.num_frames, self.steps, self.guidance, self.size_px, self.radius)
        if smallest < 0 or self.fov_y_deg < 0 or self.seed < 0:
            raise ValueError(f"Settings of an orbit must not be negative, got {self}.")
        if self.num_frames == 1:
            raise ValueError("An orbit needs at least 2 frames, got 1.")
        if self.sense not in ("counter-clockwise", "clockwise"):
            raise ValueError(
                f"Unknown sense {self.sense!r}; choose counter-clockwise or clockwise."
            )


@dataclass(frozen=True)
class OrbitFrames:
    """Frames all round an object with their cameras.

    Attributes:
        images: sRGB 0..1, in the order of the rig.
        latents: of the frames, normalised for the network.
        latent_format: of the latents.
        rig: one camera per frame; the given picture sees the front (+Z).
        input_frame: index of the frame that is the given picture, if there is one.
    """

    images: Float[Tensor, "frame height width 3"]
    latents: Float[Tensor, "frame channel latent_height latent_width"]
    latent_format: LatentFormat
    rig: ViewRig
    input_frame: int | None


def plan_orbit(model: OrbitModel, params: OrbitParams) -> OrbitPoses:
    """Poses of a run, with the model's own number of frames and order where none is named."""
    facts = model.facts
    frames = params.num_frames or facts.num_frames
    elevations = params.elevations_deg
    given = elevations[0] if len(elevations) == 1 else elevations
    return make_orbit_poses(frames, given, params.order or facts.order)


@torch.no_grad()
def image_to_orbit(
    model: OrbitModel,
    image: Float[Tensor, "height width 3"],
    params: OrbitParams = OrbitParams(),
    *,
    placement: Placement | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> OrbitFrames:
    """Draw frames all round the object in a picture.

    Args:
        model: see `diffusion.orbit_files.load_orbit_model`.
        image: square, the object centred on white (`prepare_image`).
        params: settings.
        placement: brings the networks to their device; None leaves them where they are.
        on_progress: called after each step, with a rough picture; what it raises stops the run.

    Raises:
        ValueError: the picture is not square, empty or not finite; sizes do not fit the model.
    """
    check_picture(image)
    poses, size_px = plan_orbit(model, params), params.size_px or model.facts.size_px
    if size_px % model.multiple_px:
        raise ValueError(
            f"Frames of {size_px} pixels do not fit '{model.name}', which needs multiples of "
            f"{model.multiple_px}; {model.facts.size_px} is what it was made for."
        )
    placement = placement or FixedPlacement(next(model.unet.parameters()).device)
    picture = fit_square(image, size_px).to(placement.device)
    condition = model.condition(picture[None], poses, placement)
    rough = fit_preview(lambda chart: model.latent_format.to_network(model.encode_picture(chart)),
                        model.latent_format.downscale)  # fmt: skip
    placement.prepare(model.unet)
    latents = _sample(
        model, condition, params, share_progress(on_progress, 0, SAMPLED_PERCENT),
        lambda clean: rough.render(clean[0, clean.shape[1] // 2], model.latent_format.downscale),
    )  # fmt: skip
    placement.prepare(model.vae)
    told = share_progress(on_progress, SAMPLED_PERCENT, 100)
    frames = model.decode(
        latents, lambda done: told(Progress(done, len(latents), f"decoded {done} frames"))
    )
    return _assemble(model, params, poses, frames, latents, picture)


def check_picture(image: Tensor) -> None:
    """Raise ValueError unless a picture is square and shows something."""
    require_shape("image", image, None, None, 3)
    require_finite("image", image)
    if image.shape[0] != image.shape[1]:
        raise ValueError(
            f"The picture must be square, got {image.shape[1]} x {image.shape[0]} pixels; "
            "Prepare Image makes it so."
        )
    if float(image.max() - image.min()) < EVEN_PICTURE:
        raise ValueError("The picture is one even colour: there is no object in it.")


def fit_square(
    image: Float[Tensor, "height width 3"], size_px: int
) -> Float[Tensor, "{size_px} {size_px} 3"]:
    """A square picture at another size."""
    if tuple(image.shape[:2]) == (size_px, size_px):
        return image.float()
    pixels = torch.nn.functional.interpolate(
        image.float().permute(2, 0, 1)[None], (size_px, size_px), mode="bicubic",
        align_corners=False, antialias=True,
    )  # fmt: skip
    return pixels[0].permute(1, 2, 0).clamp(0, 1)


def _sample(
    model: OrbitModel,
    condition: OrbitCondition,
    params: OrbitParams,
    on_progress: ProgressCallback,
    preview: PreviewFunction,
) -> Float[Tensor, "frame channel height width"]:
    facts = model.facts
    frames = condition.vectors.shape[1]
    scales = triangle_guidance(frames, params.guidance or facts.guidance, params.smallest_guidance)
    low, high = facts.sigma_range
    sigmas = make_karras_sigmas(params.steps or facts.steps, sigma_min=low, sigma_max=high).float()
    size = tuple(condition.picture.shape[-2:])
    noise = make_noise((frames, model.unet.channels, *size), params.seed)
    start = noise[None].to(condition.picture) * float(1 + sigmas[0] ** 2) ** 0.5
    denoise = GuidedOrbit(model, scales.to(start))
    return sample_latents(
        denoise, start, sigmas, condition, method=params.method, on_progress=on_progress,
        preview=preview,
    )[0]  # fmt: skip


@dataclass(frozen=True)
class GuidedOrbit:
    """Predicts clean latents with a guidance scale per frame; a `Denoiser`.

    Attributes:
        model: asked with the picture and without it, in one batch.
        scales: of the guidance.
    """

    model: OrbitModel
    scales: Float[Tensor, " frame"]

    def __call__(self, latents: Tensor, sigma: Tensor, condition: OrbitCondition) -> Tensor:
        """Clean latents [batch, frame, channel, height, width]."""
        if bool((self.scales == 1).all()):
            return self.model.clean_latents(latents, sigma, condition)
        both = condition.joined(condition.without_picture())
        made = self.model.clean_latents(latents.repeat(2, 1, 1, 1, 1), sigma.repeat(2), both)
        picture, nothing = made.chunk(2)
        return nothing + self.scales[:, None, None, None] * (picture - nothing)


def _assemble(
    model: OrbitModel,
    params: OrbitParams,
    poses: OrbitPoses,
    frames: Tensor,
    latents: Tensor,
    picture: Tensor,
) -> OrbitFrames:
    at = poses.input_frame
    if params.keep_input and at is not None:
        frames = frames.clone()
        frames[at] = picture.to(frames)
    steps = -at if params.input_first and at is not None else 0
    poses = poses.rolled(steps)
    rig = poses.rig(
        radius=params.radius or model.facts.radius,
        fov_y_deg=params.fov_y_deg or model.facts.fov_y_deg,
        clockwise=params.sense == "clockwise",
    )
    return OrbitFrames(
        frames.roll(steps, dims=0).cpu(),
        latents.roll(steps, dims=0).float().cpu(),
        model.latent_format,
        rig,
        poses.input_frame,
    )
