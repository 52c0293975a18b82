"""Contains the camera vectors that large reconstruction models were trained with, and their frame.

A vector has 16 numbers: the first three rows of ``camera_to_world`` (columns right, up, backward,
position; OpenGL) row by row, then fx, fy, cx, cy in units of the image's sides. The frame of the
models is right-handed with +Z up; azimuth 0 looks at the front from +X, azimuth 90 from +Y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import KISS3DGEN_AZIMUTHS_DEG, KISS3DGEN_ELEVATION_DEG, ViewRig

CameraFamily = Literal["kiss3dgen", "flexgen", "stdgen", "zero123plus"]

CAMERA_DIM = 16
FOV_Y_DEG = 30.0

KISS3DGEN_RADIUS = 3.5  # not the 4.5 that bundle images are drawn from

# FlexGen's tile i lies at azimuth 90 i of the model's frame, and tile 3 shows the given picture:
# the front of the object is at 270 there, and the columns of a bundle are tiles 3, 0, 1, 2.
FLEXGEN_COLUMN_TILES = (3, 0, 1, 2)
FLEXGEN_AZIMUTHS_DEG = (270.0, 0.0, 90.0, 180.0)
FLEXGEN_RENDER_RADIUS = 4.15

ZERO123PLUS_RADIUS = 4.0
ZERO123PLUS_AZIMUTHS_DEG = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)
ZERO123PLUS_ELEVATIONS_DEG = (20.0, -10.0, 20.0, -10.0, 20.0, -10.0)

FRONT_AZIMUTH_DEG: dict[str, float] = {
    "kiss3dgen": 0.0,
    "flexgen": FLEXGEN_AZIMUTHS_DEG[0],
    "stdgen": 0.0,
    "zero123plus": 0.0,
}
"""Azimuth in the model's frame at which the front of the object is seen."""

_EPS = 2.0**-23  # noise of the trainer's half-precision table
_D, _P = 0.70703125, 3.166015625  # the diagonal and its position
_R = 4.4765625
# S-LRM was trained with poses in half precision, up to 1.9e-3 from the formula; so these are data.
_STDGEN_POSES = (
    ((0.0, -_EPS / 2, 1.0, _R), (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, _EPS / 2, 0.0)),
    ((-_D, _EPS, _D, _P), (_D, -1.5 * _EPS, _D, _P), (2 * _EPS, 1.0, _EPS / 2, 0.0)),
    ((-1.0, 0.0, _EPS, 0.0), (_EPS, -_EPS, 1.0, _R), (0.0, 1.0, _EPS, 0.0)),
    (
        (_EPS / 2, _EPS / 2, -1.0, -_R),
        (-1.0, _EPS / 2, -_EPS / 2, 0.0),
        (_EPS / 2, 1.0, -_EPS / 2, 0.0),
    ),
    ((1.0, 0.0, _EPS, 0.0), (_EPS, _EPS, -1.0, -_R), (0.0, 1.0, _EPS, 0.0)),
    ((_D, _EPS, _D, _P), (_D, 1.5 * _EPS, -_D, -_P), (-2 * _EPS, 1.0, _EPS / 2, 0.0)),
)
_STDGEN_INTRINSICS = (1.8662109375, 1.8662109375, 0.5, 0.5)


def make_camera_vectors(family: CameraFamily) -> Float[Tensor, "view 16"]:
    """Camera vectors of the views that a published model expects.

    Args:
        family: "kiss3dgen" for the four views of a bundle (azimuths 0, 90, 180, 270 at elevation
            5), "flexgen" for the same four views painted by FlexGen, which Kiss3DGen tells to lie
            at azimuths 270, 0, 90, 180; "stdgen" for the six of S-LRM (0, 45, 90, 180, 270, 315 at
            elevation 0), "zero123plus" for the six of InstantMesh.
    """
    if family == "kiss3dgen":
        return orbit_camera_vectors(
            KISS3DGEN_AZIMUTHS_DEG, KISS3DGEN_ELEVATION_DEG, radius=KISS3DGEN_RADIUS
        )
    if family == "flexgen":
        return orbit_camera_vectors(
            FLEXGEN_AZIMUTHS_DEG, KISS3DGEN_ELEVATION_DEG, radius=KISS3DGEN_RADIUS
        )
    if family == "stdgen":
        poses = torch.tensor(_STDGEN_POSES).flatten(1)
        return torch.cat([poses, torch.tensor(_STDGEN_INTRINSICS).expand(len(poses), 4)], dim=1)
    if family == "zero123plus":
        return orbit_camera_vectors(
            ZERO123PLUS_AZIMUTHS_DEG, ZERO123PLUS_ELEVATIONS_DEG, radius=ZERO123PLUS_RADIUS
        )
    raise ValueError(f"Unknown family '{family}'; choose {', '.join(FRONT_AZIMUTH_DEG)}.")


def orbit_camera_vectors(
    azimuths_deg: Sequence[float],
    elevations_deg: Sequence[float] | float,
    *,
    radius: float,
    fov_y_deg: float = FOV_Y_DEG,
) -> Float[Tensor, "view 16"]:
    """Camera vectors of square views on an orbit round the origin, in the models' frame."""
    azimuths = list(azimuths_deg)
    if isinstance(elevations_deg, (int, float)):
        elevations = [float(elevations_deg)] * len(azimuths)
    else:
        elevations = list(elevations_deg)
    if len(elevations) != len(azimuths) or not azimuths:
        raise ValueError(
            f"Give one elevation per azimuth, got {len(elevations)} for {len(azimuths)}."
        )
    if not radius > 0 or not 0 < fov_y_deg < 180:
        raise ValueError(
            f"radius must be positive and fov_y_deg within 0..180, got {radius} and {fov_y_deg}."
        )
    focal = 0.5 / math.tan(math.radians(fov_y_deg) / 2)
    rows = []
    for azimuth, elevation in zip(azimuths, elevations, strict=True):
        az, el = math.radians(azimuth), math.radians(elevation)
        right = (-math.sin(az), math.cos(az), 0.0)
        up = (-math.sin(el) * math.cos(az), -math.sin(el) * math.sin(az), math.cos(el))
        backward = (math.cos(el) * math.cos(az), math.cos(el) * math.sin(az), math.sin(el))
        pose = [x for i in range(3) for x in (right[i], up[i], backward[i], radius * backward[i])]
        rows.append([*pose, focal, focal, 0.5, 0.5])
    return torch.tensor(rows, dtype=torch.float32)


def camera_vectors_of_rig(rig: ViewRig) -> Float[Tensor, "view 16"]:
    """Camera vectors of square perspective views that are given in our world frame."""
    rows = []
    for camera in rig:
        if camera.fov_y_deg is None:
            raise ValueError(
                "Reconstruction models know perspective cameras only; for orthographic views take "
                "the table of their family (make_camera_vectors)."
            )
        focal = 0.5 / math.tan(math.radians(camera.fov_y_deg) / 2)
        pose = camera.camera_to_world[[2, 0, 1]].flatten()  # rows of world z, x, y
        rows.append(torch.cat([pose, pose.new_tensor([focal, focal, 0.5, 0.5])]))
    return torch.stack(rows)


def kiss3dgen_to_world(points: Float[Tensor, "*point 3"]) -> Float[Tensor, "*point 3"]:
    """From the frame of PRM and InstantMesh (+Z up, front +X) to the world (+Y up, front +Z)."""
    return points[..., [1, 2, 0]]


def stdgen_to_world(points: Float[Tensor, "*point 3"]) -> Float[Tensor, "*point 3"]:
    """From the frame of S-LRM (+Z up, front +X) to the world (+Y up, front +Z).

    StdGEN's own files hold (-y, z, -x), which faces -Z until its exporter turns it about +Y.
    """
    return points[..., [1, 2, 0]]


def turn_to_front(
    points: Float[Tensor, "*point 3"], front_azimuth_deg: float
) -> Float[Tensor, "*point 3"]:
    """Points of the world turned about +Y so that what lies at this azimuth comes to +Z.

    Exact for multiples of 90 degrees.
    """
    angle = math.radians(front_azimuth_deg)
    sin, cos = (round(value, 15) for value in (math.sin(angle), math.cos(angle)))
    x, y, z = points.unbind(-1)
    return torch.stack([x * cos - z * sin, y, x * sin + z * cos], dim=-1)
