"""Contains the rigging of a character in layers: skeleton, skin weights, poses, and its file.

Reference: He et al. 2025, "StdGEN", Sec. 4.3, names rigging as the use of separate layers; the
fitting is described in `geometry.skeleton_fit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..formats.atomic import atomic_write
from ..formats.glb_rig import GlbRig
from ..formats.glb_write import GlbParams, encode_glb
from ..geometry.skeleton import Skeleton, SkinWeights, joint_matrices, pose_vertices
from ..geometry.skeleton_fit import bind_body, bind_to_surface, fit_skeleton
from ..mesh import Mesh
from ..progress import Progress, ProgressCallback, ignore_progress
from .merge_parts import find_part

PoseName = Literal["rest", "t_pose", "arms_down", "wave", "walk"]
Turns = Mapping[str, tuple[float, float, float]]

HAIR = "hair"
"""In the names of parts that follow head and trunk alone."""

_ARM_DOWN = 45.0  # of the rest pose, against the horizontal
POSES: Mapping[str, Turns] = {
    "rest": {},
    "t_pose": {"leftUpperArm": (0, 0, _ARM_DOWN), "rightUpperArm": (0, 0, -_ARM_DOWN)},
    "arms_down": {"leftUpperArm": (0, 0, -35), "rightUpperArm": (0, 0, 35)},
    "wave": {
        "leftUpperArm": (0, 0, 75),
        "leftLowerArm": (0, 0, 60),
        "rightUpperArm": (0, 0, 30),
        "head": (0, 15, 5),
    },
    "walk": {
        "leftUpperLeg": (-30, 0, 0),
        "leftLowerLeg": (15, 0, 0),
        "rightUpperLeg": (25, 0, 0),
        "rightLowerLeg": (25, 0, 0),
        "leftUpperArm": (25, 0, -25),
        "rightUpperArm": (-25, 0, 25),
    },
}
"""Turns in degrees about the world's X, Y and Z, applied in this order."""


@dataclass(frozen=True)
class RiggedCharacter:
    """Parts that one skeleton moves.

    Attributes:
        parts: in the rest pose.
        skeleton: fitted to the body.
        skins: one per part.
        lines: what was found, for people.
    """

    parts: tuple[Mesh, ...]
    skeleton: Skeleton
    skins: tuple[SkinWeights, ...]
    lines: tuple[str, ...] = ()


@torch.no_grad()
def rig_character(
    parts: Sequence[Mesh],
    *,
    body: str = "body",
    on_progress: ProgressCallback = ignore_progress,
) -> RiggedCharacter:
    """Fit a humanoid skeleton to the body and bind all parts to it.

    The body is bound by the distance from the bones, other parts by the place on the body that is
    nearest to them; hair that hangs over an arm only by head and trunk, or the arm would take it
    along.

    Args:
        parts: meshes in one frame: +Y up, +Z front, in A-pose. Empty ones are left out.
        body: name or number of the part that the skeleton is fitted to; it should be closed.
        on_progress: called after each part.

    Raises:
        ValueError: there is no such part, or the skeleton cannot be fitted to it.
    """
    solid = [mesh.to("cpu") for mesh in parts if not mesh.is_empty]
    if not solid:
        raise ValueError("No part has triangles; there is nothing to rig.")
    place = find_part(solid, body)
    skeleton = fit_skeleton(solid[place])
    on_progress(Progress(1, len(solid) + 1, "fitted the skeleton"))
    skin = bind_body(solid[place], skeleton)
    skins = []
    for index, mesh in enumerate(solid):
        limbs = skeleton_limbs(skeleton) if HAIR in mesh.name.lower() else []
        bound = skin if index == place else bind_to_surface(
            mesh, solid[place], skin, len(skeleton.names), without=limbs
        )  # fmt: skip
        skins.append(bound)
        on_progress(Progress(index + 2, len(solid) + 1, f"bound {mesh.name}"))
    low, high = solid[place].bounds()
    lines = [f"{len(skeleton.names)} joints, body {float(high[1] - low[1]):.2f} high."]
    lines += [f"{mesh.name}: {mesh.num_vertices} vertices bound." for mesh in solid]
    left_out = [mesh.name for mesh in parts if mesh.is_empty]
    lines += [f"{name}: has no triangles and was left out." for name in left_out]
    return RiggedCharacter(tuple(solid), skeleton, tuple(skins), tuple(lines))


def skeleton_limbs(skeleton: Skeleton) -> list[int]:
    """Numbers of the joints of arms and legs."""
    return [
        index for index, name in enumerate(skeleton.names) if name.startswith(("left", "right"))
    ]


@torch.no_grad()
def pose_character(character: RiggedCharacter, turns: Turns | PoseName) -> list[Mesh]:
    """Parts moved into a pose.

    Args:
        character: see `rig_character`.
        turns: degrees about X, Y and Z per joint, or the name of one of `POSES`.
    """
    if isinstance(turns, str):
        if turns not in POSES:
            raise ValueError(f"pose must be one of {', '.join(POSES)}, got '{turns}'.")
        turns = POSES[turns]
    rotations = {name: euler_matrix(*degrees) for name, degrees in turns.items()}
    matrices = joint_matrices(character.skeleton, rotations)
    return [
        mesh.with_vertices(pose_vertices(mesh.vertices, skin, matrices))
        for mesh, skin in zip(character.parts, character.skins, strict=True)
    ]


def euler_matrix(x_deg: float, y_deg: float, z_deg: float) -> Float[Tensor, "3 3"]:
    """Rotation about X, then Y, then Z, each right-handed."""
    total = torch.eye(3, dtype=torch.float64)
    for axis, degrees in enumerate((x_deg, y_deg, z_deg)):
        angle = math.radians(degrees)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3, dtype=torch.float64)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        total = turn @ total
    return total.float()


def write_rigged(
    path: Path | str,
    character: RiggedCharacter,
    *,
    metadata: dict[str, Any] | None = None,
    params: GlbParams | None = None,
) -> Path:
    """Write a GLB with one named node per part, an armature, and skins."""
    path = Path(path)
    if path.suffix.lower() != ".glb":
        raise ValueError(f"A rigged character is written as .glb, got '{path.name}'.")
    rig = GlbRig(character.skeleton, character.skins)
    data = encode_glb(character.parts, metadata=metadata, params=params, rig=rig)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return path
