"""Contains the repainting of a character in A-pose: standing, arms 45 degrees down, on white.

Reference: He et al. 2025, "StdGEN", Sec. 3.1; released program (40 steps of DDIM, guidance 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.ddim import sample_ddim
from ..diffusion.placement import FixedPlacement, Placement
from ..diffusion.pose_canonicalizer import PoseCanonicalizer
from ..diffusion.sampling import make_noise
from ..networks.pose_networks import PoseNetworks
from ..progress import ProgressCallback, ignore_progress
from .character_framing import HEIGHT_PX, fit_portrait
from .character_picture import require_character, require_sampling, see_picture


@dataclass(frozen=True)
class PoseParams:
    """Settings of a run; the defaults are the published ones.

    Attributes:
        steps: sampling steps.
        guidance: how much picture and prompt count; up to 1 they are asked for once per step.
        seed: of the noise.
        height_px: of the portrait; its width is 5/8 of it.
        low_memory: ask with and without the picture one after the other instead of together: half
            the memory, the same result.
    """

    steps: int = 40
    guidance: float = 5.0
    seed: int = 42
    height_px: int = HEIGHT_PX
    low_memory: bool = False

    def __post_init__(self) -> None:
        require_sampling(self.steps, self.guidance, self.seed, self.height_px)


@torch.no_grad()
def canonicalize_pose(
    model: PoseCanonicalizer,
    image: Float[Tensor, "height width 3"],
    params: PoseParams = PoseParams(),
    *,
    placement: Placement | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Float[Tensor, "new_height new_width 3"]:
    """Paint the character of a picture in A-pose.

    Args:
        model: see `diffusion.pose_canonicalizer.load_pose_canonicalizer`.
        image: portrait of 5 : 8, the whole character on white (`frame_character`).
        params: settings.
        placement: brings the networks to their device; None leaves them where they are.
        on_progress: called after each step, with a rough picture; what it raises stops the run.

    Raises:
        ValueError: the picture has other proportions, or shows nothing.
    """
    require_character(image)
    portrait = fit_portrait(image, params.height_px)[None]
    placement = placement or FixedPlacement(next(model.networks.parameters()).device)
    seen = see_picture(
        portrait, vae=model.vae, vision=model.vision, embed=model.encode_token, placement=placement
    )
    tokens, picture = seen.features, seen.latents
    generator = torch.Generator().manual_seed(params.seed)
    noise = make_noise(picture.shape, generator, device=picture.device)
    placement.prepare(model.networks)
    latents = sample_ddim(
        _GuidedPose(model.networks, picture, tokens, model.text.to(tokens), params),
        noise, model.schedule, params.steps, on_progress=on_progress, preview=seen.codec.preview,
    )  # fmt: skip
    return seen.codec.decode(latents)[0].to(image)


@dataclass(frozen=True)
class _GuidedPose:
    """Asks the networks for "nothing" and for the picture; the picture's latents serve both."""

    networks: PoseNetworks
    picture: Tensor
    tokens: Tensor
    text: Tensor
    params: PoseParams

    def __call__(self, latents: Tensor, timestep: int) -> Tensor:
        if self.params.guidance <= 1:
            return self._ask(latents, timestep, slice(1, 2))
        if self.params.low_memory:
            nothing, shown = (self._ask(latents, timestep, slice(i, i + 1)) for i in range(2))
        else:
            nothing, shown = self._ask(latents, timestep, slice(0, 2)).chunk(2)
        return nothing + self.params.guidance * (shown - nothing)

    def _ask(self, latents: Tensor, timestep: int, half: slice) -> Tensor:
        tokens, text = self.tokens[half], self.text[half]
        noisy = latents.expand(len(tokens), -1, -1, -1)
        picture = self.picture.expand(len(tokens), -1, -1, -1)
        return self.networks(noisy, timestep, tokens, picture, text)
