"""Contains the pictures of a character's three levels: whole, without hair, and body alone.

They are what a multi-view model gives for refinement, drawn from meshes in layers instead. Normal
maps are in StdGEN's encoding: (n + 1) / 2 in the frame of the front camera for every view, which is
our world frame.

Reference: He et al. 2025, "StdGEN", Sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..camera import ViewRig, make_stdgen_rig
from ..diffusion.character_views_model import LEVELS
from ..geometry.normals import vertex_normals
from ..geometry.smoothing import laplacian_smooth
from ..mesh import Mesh
from ..progress import ProgressCallback, ignore_progress, share_progress
from ..rendering.mesh import render_mesh
from .merge_parts import merge_parts
from .render_views import ViewImages, ViewsParams, render_mesh_views

_LEFT_OUT: dict[str, tuple[str, ...]] = {
    "whole": (),
    "without_hair": ("hair",),
    "body": ("hair", "clothes"),
}
NOTHING = -1
ALPHA_THRESHOLD = 80 / 255
BUMP_WAVES = 12
BUMPS_PER_UNIT = 14.0
SMOOTHING_ROUNDS = 4


@dataclass(frozen=True)
class LevelImages:
    """Pictures of one level.

    Attributes:
        level: one of `LEVELS`.
        views: colours on white, coverage, normals on white, depth.
        parts: number of the part that each pixel shows, -1 for none.
    """

    level: str
    views: ViewImages
    parts: Int64[Tensor, "view height width"]


def parts_of_level(parts: Sequence[Mesh], level: str) -> list[Mesh]:
    """Parts that a level shows, by their names; empty ones are left out."""
    if level not in _LEFT_OUT:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got '{level}'.")
    return [mesh for mesh in parts if mesh.name not in _LEFT_OUT[level] and not mesh.is_empty]


@torch.no_grad()
def render_levels(
    parts: Sequence[Mesh],
    rig: ViewRig | None = None,
    *,
    size_px: int = 512,
    levels: Sequence[str] = LEVELS,
    on_progress: ProgressCallback = ignore_progress,
) -> list[LevelImages]:
    """Draw a character in layers once per level.

    Args:
        parts: meshes in one frame; those named ``hair`` and ``clothes`` are left out of the levels
            that lack them.
        rig: cameras; None takes the six of StdGEN.
        size_px: width and height of a picture.
        levels: which levels, in this order.
        on_progress: called after each view.

    Raises:
        ValueError: a level shows nothing.
    """
    rig = make_stdgen_rig() if rig is None else rig
    images = []
    for index, level in enumerate(levels):
        shown = parts_of_level(parts, level)
        if not shown:
            raise ValueError(
                f"The level '{level}' shows nothing; the parts are "
                f"{', '.join(mesh.name for mesh in parts) or 'none'}."
            )
        report = share_progress(
            on_progress, 100 * index // len(levels), 100 * (index + 1) // len(levels)
        )
        views = render_mesh_views(
            merge_parts(shown),
            rig,
            params=ViewsParams(size_px, normal_encoding="world"),
            on_progress=report,
        )
        images.append(LevelImages(level, views, _part_numbers(parts, shown, rig, size_px)))
    return images


def _part_numbers(
    parts: Sequence[Mesh], shown: Sequence[Mesh], rig: ViewRig, size_px: int
) -> Tensor:
    """Number in ``parts`` of what each pixel's centre shows."""
    numbers = [next(index for index, part in enumerate(parts) if part is mesh) for mesh in shown]
    face_part = torch.cat(
        [torch.full((mesh.num_faces,), number) for mesh, number in zip(shown, numbers, strict=True)]
    )
    drawn = render_mesh(merge_parts(shown), rig, width=size_px, height=size_px, antialias=False)
    found = face_part.to(drawn.face_index.device)[drawn.face_index.clamp(min=0)]
    return torch.where(drawn.face_index >= 0, found, NOTHING)


def roughen(mesh: Mesh, amount: float, *, seed: int = 0) -> Mesh:
    """Mesh with smooth bumps of about ``amount`` world units along its normals: a start to refine.

    The same seed gives the same bumps. Colours stay.
    """
    if mesh.is_empty or not amount:
        return mesh
    generator = torch.Generator().manual_seed(seed)
    waves = torch.randn(BUMP_WAVES, 3, generator=generator) * BUMPS_PER_UNIT
    phases = torch.rand(BUMP_WAVES, generator=generator) * 2 * torch.pi
    smooth = laplacian_smooth(mesh.vertices, mesh.faces, iterations=SMOOTHING_ROUNDS, step=0.5)
    height = torch.sin(smooth @ waves.to(smooth).T + phases.to(smooth)).mean(dim=1, keepdim=True)
    height = height * (2 * BUMP_WAVES) ** 0.5  # standard deviation 1
    normals = vertex_normals(smooth, mesh.faces)
    return mesh.with_vertices(smooth + amount * height * normals)


def level_alpha(
    normals: Float[Tensor, "view height width 3"],
) -> Float[Tensor, "view height width"]:
    """Silhouettes of normal maps: what differs from the colour of each picture's top left corner.

    Reference: the released program's threshold of 80 of 255, summed over the channels.
    """
    corner = normals[:, :1, :1]
    return ((normals - corner).abs().sum(dim=-1) > ALPHA_THRESHOLD).to(normals)
