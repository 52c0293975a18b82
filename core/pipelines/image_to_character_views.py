"""Contains the painting of six views of a character with normal maps, level by level (StdGEN).

The batch is [domain, branch, view]: normals without and with the picture, then colours without and
with it, six views each. Normals are in StdGEN's encoding, (n + 1) / 2 in the frame of the front
camera for every view.

Reference: He et al. 2025, "StdGEN", Sec. 3.2; Li et al. 2024, "Era3D"; released program (40 steps
of DDIM with eta 1, guidance 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig, make_stdgen_rig
from ..diffusion.character_views_model import DOMAIN_WORDS, LEVELS, CharacterViewsModel
from ..diffusion.ddim import sample_ddim
from ..diffusion.image_codec import ImageCodec
from ..diffusion.placement import FixedPlacement, Placement
from ..diffusion.sampling import make_noise
from ..networks.character_views_unet import NUM_VIEWS, CharacterViewsUNet
from ..progress import Progress, ProgressCallback, ignore_progress, share_progress
from .character_framing import HEIGHT_PX, fit_view, pad_to_square
from .character_picture import require_character, require_sampling, see_picture

SAMPLED_PERCENT = 90


@dataclass(frozen=True)
class CharacterViewsParams:
    """Settings of a run; the defaults are the published ones.

    Attributes:
        steps: sampling steps.
        guidance: how much the picture counts; up to 1 it is asked for once per step.
        eta: share of fresh noise per step.
        seed: of all noise; all levels start from the same noise.
        height_px: of the views; their width is 9/16 of it before they are padded to squares.
        low_memory: ask with and without the picture one after the other instead of together: half
            the memory, the same result.
    """

    steps: int = 40
    guidance: float = 3.0
    eta: float = 1.0
    seed: int = 42
    height_px: int = HEIGHT_PX
    low_memory: bool = False

    def __post_init__(self) -> None:
        require_sampling(self.steps, self.guidance, self.seed, self.height_px)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie within 0..1, got {self.eta}.")


@dataclass(frozen=True)
class CharacterViews:
    """Views of one level.

    Attributes:
        images: square, sRGB on white.
        normals: square, colours of the normals on white.
        rig: one camera per view.
    """

    images: Float[Tensor, "view side side 3"]
    normals: Float[Tensor, "view side side 3"]
    rig: ViewRig


@torch.no_grad()
def image_to_character_views(
    model: CharacterViewsModel,
    image: Float[Tensor, "height width 3"],
    level: str = LEVELS[0],
    params: CharacterViewsParams = CharacterViewsParams(),
    *,
    placement: Placement | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> CharacterViews:
    """Paint one level of a character from six sides.

    A level is the same whether others are painted or not.

    Args:
        model: see `diffusion.character_views_model.load_character_views`.
        image: a character in A-pose on white (`canonicalize_pose`).
        level: one of `LEVELS`.
        params: settings.
        placement: brings the networks to their device; None leaves them where they are.
        on_progress: called after each step, with a rough picture; what it raises stops the run.

    Raises:
        ValueError: the picture is wider than high or shows nothing, or the level is unknown.
    """
    require_character(image)
    view = fit_view(image, params.height_px)[None]
    placement = placement or FixedPlacement(next(model.unet.parameters()).device)
    seen = see_picture(
        view, vae=model.vae, vision=model.vision, embed=model.embed, placement=placement
    )
    codec, picture = seen.codec, seen.latents
    size = (len(DOMAIN_WORDS) * NUM_VIEWS, *picture.shape[1:])
    noise = draw_noise(level, seen.features.shape[1], size, params)
    embedding = model.embedding_noise.apply(seen.features, noise.embedding)
    placement.prepare(model.unet)
    asked = _GuidedViews(
        model.unet, picture, model.class_vector(embedding, level), model.text, params
    )
    latents = sample_ddim(
        asked, noise.latents.to(picture), model.schedule, params.steps, eta=params.eta,
        generator=noise.generator, on_progress=share_progress(on_progress, 0, SAMPLED_PERCENT),
        preview=lambda clean: codec.preview(clean[NUM_VIEWS:]),  # the front view in colour
    )  # fmt: skip
    told = share_progress(on_progress, SAMPLED_PERCENT, 100)
    normals, images = _decode(codec, latents, told).to(image).chunk(len(DOMAIN_WORDS))
    return CharacterViews(pad_to_square(images), pad_to_square(normals), make_stdgen_rig())


@dataclass(frozen=True)
class LevelNoise:
    """Random numbers of one level.

    Attributes:
        embedding: for the embedding of the picture.
        latents: to start from, the same for all levels.
        generator: of the fresh noise in the steps.
    """

    embedding: Float[Tensor, "1 feature"]
    latents: Float[Tensor, "picture channel height width"]
    generator: torch.Generator


def draw_noise(
    level: str, channels: int, size: tuple[int, ...], params: CharacterViewsParams
) -> LevelNoise:
    """Noise of a level as a run of all levels in their order draws it.

    First the embeddings' noise of all levels, then the latents, then the fresh noise of each level
    in turn; what belongs to earlier levels is drawn and put aside.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got '{level}'.")
    generator = torch.Generator().manual_seed(params.seed)
    embeddings = [make_noise((1, channels), generator) for _ in LEVELS]
    latents = make_noise(size, generator)
    number = LEVELS.index(level)
    if params.eta > 0:
        for _ in range(number * params.steps):
            make_noise(size, generator)
    return LevelNoise(embeddings[number], latents, generator)


@dataclass(frozen=True)
class _GuidedViews:
    """Asks the network for "nothing" and for the picture, in both domains.

    For "nothing" class vector and picture are zeros; the text is the same.
    """

    unet: CharacterViewsUNet
    picture: Tensor
    classes: Tensor
    text: Tensor
    params: CharacterViewsParams

    def __call__(self, latents: Tensor, timestep: int) -> Tensor:
        if self.params.guidance <= 1:
            return self._ask(latents, timestep, (1.0,))
        if self.params.low_memory:
            nothing, shown = (self._ask(latents, timestep, (share,)) for share in (0.0, 1.0))
        else:
            made = self._ask(latents, timestep, (0.0, 1.0))
            domains = made.unflatten(0, (len(DOMAIN_WORDS), 2, NUM_VIEWS))
            nothing, shown = (domains[:, branch].flatten(0, 1) for branch in range(2))
        return nothing + self.params.guidance * (shown - nothing)

    def _ask(self, latents: Tensor, timestep: int, shares: tuple[float, ...]) -> Tensor:
        """Prediction for branches in which the picture counts by ``shares``."""
        domains, branches = len(DOMAIN_WORDS), len(shares)
        weights = next(self.unet.parameters())
        share = torch.tensor(shares, device=latents.device, dtype=latents.dtype)
        share = share.repeat_interleave(NUM_VIEWS).repeat(domains)[:, None]
        noisy = latents.unflatten(0, (domains, 1, NUM_VIEWS))
        noisy = noisy.expand(-1, branches, *noisy.shape[2:]).flatten(0, 2)
        sample = torch.cat([noisy, share[..., None, None] * self.picture], dim=1)
        text = self.text[:, None].expand(-1, branches, *self.text.shape[1:]).flatten(0, 2)
        made = self.unet(
            sample.to(weights), timestep, text.to(weights), (share * self.classes).to(weights)
        )
        return made.to(latents)


def _decode(codec: ImageCodec, latents: Tensor, on_progress: ProgressCallback) -> Tensor:
    """Pictures one by one: the autoencoder is the hungriest of all for memory."""
    pictures = []
    for index in range(len(latents)):
        pictures.append(codec.decode(latents[index : index + 1]))
        done = index + 1
        on_progress(Progress(done, len(latents), f"decoded {done} of {len(latents)} pictures"))
    return torch.cat(pictures)
