"""Contains the humanoid skeleton, its fitting to a body in A-pose, and linear blend skinning.

Names are those of VRM 1.0's humanoid. A bone starts at the joint of its name and ends at the child
that continues it. In the rest pose no joint is turned, so bones have the axes of the world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .._checks import require_finite, require_shape

SIDES = ("left", "right")
_TRUNK = {"hips": None, "spine": "hips", "chest": "spine", "neck": "chest", "head": "neck"}
_LIMBS = {
    "UpperArm": "chest",
    "LowerArm": "UpperArm",
    "Hand": "LowerArm",
    "UpperLeg": "hips",
    "LowerLeg": "UpperLeg",
    "Foot": "LowerLeg",
    "Toes": "Foot",
}


def _humanoid() -> dict[str, str | None]:
    parents: dict[str, str | None] = dict(_TRUNK)
    for side in SIDES:
        for name, parent in _LIMBS.items():
            parents[side + name] = parent if parent in _TRUNK else side + parent
    return parents


HUMANOID: Mapping[str, str | None] = _humanoid()
"""Parent of each joint; parents stand before their children."""
LEAST_SHARE = 1e-3
_CONTINUED_BY = {"hips": "spine", "chest": "neck"}
"""The child at whose joint a bone ends, where it has several."""


@dataclass(frozen=True)
class Skeleton:
    """Joints of a character in its rest pose, in world units.

    Attributes:
        names: one per joint; parents come before children.
        parents: number of the parent, -1 for the root.
        positions: places of the joints.
        tips: where the bone of each joint ends.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    positions: Float[Tensor, "joint 3"]
    tips: Float[Tensor, "joint 3"]

    def __post_init__(self) -> None:
        count = len(self.names)
        if len(set(self.names)) < count or len(self.parents) != count:
            raise ValueError(
                f"A skeleton needs one parent per joint and names that differ, got {self.names} "
                f"and {len(self.parents)} parents."
            )
        if any(not -1 <= parent < index for index, parent in enumerate(self.parents)):
            raise ValueError(f"Parents must stand before their children, got {self.parents}.")
        for name, value in (("positions", self.positions), ("tips", self.tips)):
            require_shape(name, value, count, 3)
            require_finite(name, value)

    def index(self, name: str) -> int:
        """Number of a joint by its name."""
        if name not in self.names:
            raise ValueError(f"There is no joint '{name}'; there are {', '.join(self.names)}.")
        return self.names.index(name)


def make_humanoid(
    places: Mapping[str, Float[Tensor, 3]], tips: Mapping[str, Float[Tensor, 3]]
) -> Skeleton:
    """Skeleton from the places of all joints of `HUMANOID` and the tips of those that end."""
    missing = [name for name in HUMANOID if name not in places]
    if missing:
        raise ValueError(f"The joints {', '.join(missing)} have no place.")
    names = tuple(HUMANOID)
    parents = tuple(-1 if parent is None else names.index(parent) for parent in HUMANOID.values())
    ends = []
    for name in names:
        children = [child for child, parent in HUMANOID.items() if parent == name]
        following = _CONTINUED_BY.get(name, children[0] if children else None)
        ends.append(tips[name] if following is None else places[following])
    return Skeleton(
        names, parents, torch.stack([places[name] for name in names]), torch.stack(ends)
    )


def joint_matrices(
    skeleton: Skeleton, rotations: Mapping[str, Float[Tensor, "3 3"]]
) -> Float[Tensor, "joint 4 4"]:
    """Movement of each joint against the rest pose when joints are turned about themselves.

    Args:
        skeleton: in its rest pose.
        rotations: of joints by name, in the axes of the world; others keep still.
    """
    unknown = set(rotations) - set(skeleton.names)
    if unknown:
        raise ValueError(f"There are no joints {', '.join(sorted(unknown))}.")
    matrices: list[Tensor] = []
    for name, parent, place in zip(
        skeleton.names, skeleton.parents, skeleton.positions, strict=True
    ):
        local = torch.eye(4).to(place)
        if name in rotations:
            turn = rotations[name].to(place)
            local[:3, :3] = turn
            local[:3, 3] = place - turn @ place
        matrices.append(local if parent < 0 else matrices[parent] @ local)
    return torch.stack(matrices)


@dataclass(frozen=True)
class SkinWeights:
    """Which joints move a vertex, and by how much.

    Attributes:
        joints: up to four joints per vertex.
        weights: their shares, of sum 1.
    """

    joints: Int64[Tensor, "vertex 4"]
    weights: Float[Tensor, "vertex 4"]

    def __post_init__(self) -> None:
        require_shape("joints", self.joints, None, 4)
        require_shape("weights", self.weights, len(self.joints), 4)

    def dense(self, num_joints: int) -> Float[Tensor, "vertex joint"]:
        """One column per joint."""
        table = self.weights.new_zeros(len(self.joints), num_joints)
        return table.scatter_add(1, self.joints, self.weights)


def strongest_four(table: Float[Tensor, "vertex joint"]) -> SkinWeights:
    """The four largest shares of each vertex, scaled to sum 1; unused places point at joint 0.

    Shares below a thousandth are dropped. A vertex that nothing moves hangs on the root.
    """
    padded = torch.nn.functional.pad(table, (0, max(0, 4 - table.shape[1])))
    weights, joints = padded.topk(4, dim=1)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
    weights = torch.where(weights < LEAST_SHARE, 0, weights)
    total = weights.sum(dim=1, keepdim=True)
    root = weights.new_tensor([1.0, 0, 0, 0])
    weights = torch.where(total > 0, weights / total.clamp(min=1e-12), root)
    return SkinWeights(torch.where((weights > 0) & (total > 0), joints, 0), weights)


def pose_vertices(
    vertices: Float[Tensor, "vertex 3"],
    skin: SkinWeights,
    matrices: Float[Tensor, "joint 4 4"],
) -> Float[Tensor, "vertex 3"]:
    """Vertices moved by the weighted mean of their joints' movements (linear blend skinning)."""
    blended = (skin.weights[..., None, None] * matrices[skin.joints]).sum(dim=1)
    return (blended[:, :3, :3] @ vertices[..., None])[..., 0] + blended[:, :3, 3]
