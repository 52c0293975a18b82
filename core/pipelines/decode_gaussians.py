"""Contains the decoding of an orbit's latents to Gaussians, without any optimisation.

Reference: Tao et al. 2025, "GSV3D", Sec. 3.3.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_shape
from ..camera import ViewRig
from ..diffusion.gaussian_decoder_files import GaussianDecoderModel
from ..diffusion.orbit_model import require_latents_of
from ..diffusion.placement import FixedPlacement, Placement
from ..gaussian_cloud import GaussianCloud
from ..geometry.pluecker import rig_pluecker
from ..networks.gaussian_heads import gaussians_of_pixels, prune_cloud
from ..progress import ProgressCallback, ignore_progress

LOGGER = logging.getLogger(__name__)
MIN_VIEWS = 2
CAMERA_TOLERANCE = 0.03
"""Share by which a camera may differ from those of the training before a warning is given."""


@dataclass(frozen=True)
class DecodeParams:
    """Which Gaussians are kept.

    Attributes:
        min_opacity: fainter ones are left out.
        bound: those outside the cube [-bound, bound]^3 are left out.
    """

    min_opacity: float = 0.05
    bound: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_opacity < 1 or not self.bound > 0:
            raise ValueError(
                "min_opacity must lie within 0..1 and bound be positive, got "
                f"{self.min_opacity} and {self.bound}."
            )


@torch.no_grad()
def decode_gaussians(
    decoder: GaussianDecoderModel,
    latents: Float[Tensor, "view channel latent_height latent_width"],
    rig: ViewRig,
    image: Float[Tensor, "height width 3"] | None = None,
    params: DecodeParams = DecodeParams(),
    *,
    placement: Placement | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> GaussianCloud:
    """Gaussians of the latents of views.

    Args:
        decoder: see `diffusion.gaussian_decoder_files.load_gaussian_decoder`.
        latents: normalised as the diffusion model's (`decoder.latent_format`).
        rig: one camera per view, the given picture at the front.
        image: the given picture, for decoders that look at it.
        params: which Gaussians are kept.
        placement: brings the networks to their device; None leaves them where they are.
        on_progress: called after each layer; what it raises stops the run.

    Raises:
        ValueError: views and cameras do not match, latents of another autoencoder, a missing
            picture, or nothing is left.
    """
    _check(decoder, latents, rig, image)
    _warn_of_other_cameras(decoder, rig)
    network = decoder.network
    placement = placement or FixedPlacement(next(network.parameters()).device)
    context = None
    if decoder.vision is not None and image is not None:
        placement.prepare(decoder.vision)
        context = decoder.features(image[None].to(placement.device))
    placement.prepare(network)
    weights = next(network.parameters())
    height, width = (int(side) for side in latents.shape[-2:])
    rays = rig_pluecker(rig, width=width, height=height).to(weights)
    raw = network(
        latents[None].to(weights),
        rays[None],
        None if context is None else context.to(weights),
        on_progress=on_progress,
    )[0]
    cloud = gaussians_of_pixels(raw.float(), rig, network.params.heads)
    return prune_cloud(cloud, min_opacity=params.min_opacity, bound=params.bound)


def _check(
    decoder: GaussianDecoderModel, latents: Tensor, rig: ViewRig, image: Tensor | None
) -> None:
    what = f"The decoder '{decoder.name}'"
    require_latents_of(latents, decoder.latent_format, what)
    if len(latents) < MIN_VIEWS:
        raise ValueError(f"{what} needs at least {MIN_VIEWS} views, got {len(latents)}.")
    if len(latents) != len(rig):
        raise ValueError(
            f"Got latents of {len(latents)} views for {len(rig)} cameras; connect the rig of the "
            "node that made the frames."
        )
    if any(int(side) % decoder.params.patch for side in latents.shape[-2:]):
        raise ValueError(
            f"{what} takes latents whose sides are multiples of {decoder.params.patch}, got "
            f"{list(latents.shape[-2:])}."
        )
    if decoder.vision is not None:
        if image is None:
            raise ValueError(f"{what} looks at the given picture; connect it as 'image'.")
        require_shape("image", image, None, None, 3)


def _warn_of_other_cameras(decoder: GaussianDecoderModel, rig: ViewRig) -> None:
    facts = decoder.facts
    distances = [float(camera.position.norm()) for camera in rig]
    fovs = [camera.fov_y_deg or 0.0 for camera in rig]
    for name, found, trained in (
        ("stand at a distance of", distances, facts.radius),
        ("have a field of view of", fovs, facts.fov_y_deg),
    ):
        worst = max(found, key=lambda value: abs(value - trained))
        if abs(worst - trained) > CAMERA_TOLERANCE * trained:
            LOGGER.warning(
                "The cameras %s %.3g, but the decoder '%s' was trained with %.3g; use its value.",
                name, worst, decoder.name, trained,
            )  # fmt: skip
