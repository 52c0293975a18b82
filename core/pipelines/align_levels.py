"""Contains the fitting of views to meshes: horizontal registration, and the check for a mirror.

Reference: released program of StdGEN (registration by shifts of whole pixels).
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .._checks import require_shape
from ..camera import ViewRig
from ..evaluation.image_metrics import silhouette_iou
from ..mesh import Mesh
from ..rendering.mesh import render_mesh

LOGGER = logging.getLogger(__name__)

MAX_SHIFT = 200 / 1024
"""Share of the picture's width that views are shifted by at most."""
MIRROR_MARGIN = 0.01
CHECK_PX = 256


def find_shifts(
    masks: Float[Tensor, "view height width"],
    reference: Float[Tensor, "view height width"],
    *,
    max_shift: float = MAX_SHIFT,
) -> Int64[Tensor, " view"]:
    """Pixels to the right by which each view fits its reference best; the smallest of equal ones.

    Fit is the overlap of the backgrounds when the view is shifted cyclically.

    Args:
        masks: coverage of the views, 0..1.
        reference: coverage that they shall have.
        max_shift: largest shift, as a share of the width.
    """
    require_shape("masks", masks, None, None, None)
    require_shape("reference", reference, *masks.shape)
    width = masks.shape[2]
    outside, wanted = (torch.fft.rfft(1 - mask.double(), dim=2) for mask in (masks, reference))
    # Cross-correlation along rows, summed over them: overlap[s] = sum_x outside[x - s] wanted[x].
    overlap = torch.fft.irfft((outside.conj() * wanted).sum(dim=1), n=width, dim=1)
    reach = min(round(max_shift * width), (width - 1) // 2)
    shifts = torch.tensor(sorted(range(-reach, reach + 1), key=lambda shift: (abs(shift), shift)))
    scores = overlap[:, shifts % width].round(decimals=6)
    return shifts[scores.argmax(dim=1)]


def shift_views(
    pictures: Float[Tensor, "view height width *channel"], shifts: Int64[Tensor, " view"]
) -> Float[Tensor, "view height width *channel"]:
    """Pictures moved to the right, cyclically, by a number of pixels each."""
    moved = [
        picture.roll(int(shift), dims=1) for picture, shift in zip(pictures, shifts, strict=True)
    ]
    return torch.stack(moved)


@torch.no_grad()
def silhouettes(mesh: Mesh, rig: ViewRig, *, size_px: int) -> Float[Tensor, "view height width"]:
    """Coverage of a mesh in square views."""
    return render_mesh(mesh, rig, width=size_px, height=size_px).alpha


def is_mirrored(mesh: Mesh, masks: Float[Tensor, "view height width"], rig: ViewRig) -> bool:
    """Whether the mesh fits the silhouettes clearly better when left and right are swapped.

    Programs that write OBJ files with one axis negated hand over mirrored characters; a nearly
    symmetric pose hides it.
    """
    require_shape("masks", masks, len(rig), None, None)
    small = torch.nn.functional.interpolate(masks[:, None], (CHECK_PX, CHECK_PX), mode="area")[:, 0]
    fits = [
        float(silhouette_iou(silhouettes(item, rig, size_px=CHECK_PX), small).mean())
        for item in (mesh, mirrored(mesh))
    ]
    LOGGER.info("Fit to the silhouettes: %.4f as it is, %.4f mirrored.", *fits)
    return fits[1] > fits[0] + MIRROR_MARGIN


def mirrored(mesh: Mesh) -> Mesh:
    """Mesh with left and right swapped, still facing outwards."""
    flip = mesh.vertices.new_tensor([-1.0, 1.0, 1.0])
    normals = None if mesh.vertex_normals is None else mesh.vertex_normals * flip
    return replace(
        mesh, vertices=mesh.vertices * flip, faces=mesh.faces.flip(1), vertex_normals=normals
    )
