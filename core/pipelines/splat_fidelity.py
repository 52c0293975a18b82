"""Contains how well Gaussians keep to the prompt they were made from, and how sharp they are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..datasets.materials import hue_shares
from ..gaussian_cloud import GaussianCloud
from ..rendering.splats import render_splats
from .prompt_fidelity import (
    HUE_ELEVATION_DEG,
    HUE_PX,
    HUE_VIEWS,
    SILHOUETTE_PX,
    PromptCase,
    PromptScore,
    SilhouetteLibrary,
    score_pictures,
    silhouette_rig,
)
from .render_views import make_named_rig
from .splat_to_mesh import solid_bounds
from .splat_tools import move_splats, placement_matrix

COVERED = 0.5
LONGEST_SIDE = 1.8


def centred_splats(cloud: GaussianCloud) -> GaussianCloud:
    """The solid part of a cloud, centred and 1.8 long, as `prompt_fidelity` wants meshes."""
    low, high = solid_bounds(cloud, share=0.99)
    scale = LONGEST_SIDE / float((high - low).max())
    shift = (-(low + high) / 2 * scale).tolist()
    return move_splats(cloud, placement_matrix(translation=shift, scale=scale))


def splat_silhouettes(cloud: GaussianCloud) -> Float[Tensor, "view height width"]:
    """Coverage seen by `silhouette_rig`."""
    size = SILHOUETTE_PX
    return render_splats(
        cloud, silhouette_rig(), width=size, height=size, with_normals=False
    ).alpha.clamp(0, 1)


def splat_hue_shares(cloud: GaussianCloud) -> dict[str, float]:
    """Share of each named hue in pictures from all sides, largest first."""
    rig = make_named_rig("orbit", num_views=HUE_VIEWS, elevation_deg=HUE_ELEVATION_DEG)
    drawn = render_splats(cloud, rig, width=HUE_PX, height=HUE_PX, with_normals=False)
    # Without the white behind what is not quite opaque.
    colors = (drawn.rgb - (1 - drawn.alpha[..., None])) / drawn.alpha[..., None].clamp(min=1e-3)
    return hue_shares(colors[drawn.alpha > COVERED].clamp(0, 1).double().numpy())


@torch.no_grad()
def score_splats(cloud: GaussianCloud, case: PromptCase, library: SilhouetteLibrary) -> PromptScore:
    """Compare Gaussians (+Z front) with what was asked for."""
    centred = centred_splats(cloud)
    return score_pictures(splat_hue_shares(centred), splat_silhouettes(centred), case, library)


def sharpness(
    pictures: Float[Tensor, "view height width 3"], masks: Float[Tensor, "view height width"]
) -> float:
    """Mean length of the colour gradient where the object is, in colour units per pixel.

    Args:
        pictures: on one background.
        masks: coverage; pixels that are half covered and their neighbours inside count.
    """
    down = (pictures[:, 1:, :-1] - pictures[:, :-1, :-1]).square().sum(dim=-1)
    right = (pictures[:, :-1, 1:] - pictures[:, :-1, :-1]).square().sum(dim=-1)
    inside = masks[:, :-1, :-1] > COVERED
    if not bool(inside.any()):
        return 0.0
    return float((down + right).sqrt()[inside].mean())


def edge_width_px(masks: Float[Tensor, "view height width"]) -> float:
    """Mean width of silhouettes: soft pixels over the length of the outline; about 1 when crisp."""
    soft = (4 * masks * (1 - masks)).sum()
    solid = (masks > COVERED).float()
    outline = (solid[:, 1:] - solid[:, :-1]).abs().sum()
    outline = outline + (solid[:, :, 1:] - solid[:, :, :-1]).abs().sum()
    return float(soft / outline.clamp(min=1.0))
