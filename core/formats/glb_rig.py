"""Contains what a skinned glTF file says of its skeleton: joint nodes and inverse bind matrices.

Reference: Khronos glTF 2.0 specification, section 3.7.3 (skins).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from ..geometry.skeleton import Skeleton, SkinWeights
from ..mesh import Mesh
from .arrays import to_array

MAX_JOINTS = 256  # joint numbers are stored in one byte


@dataclass(frozen=True)
class GlbRig:
    """A skeleton and how it moves each mesh of a file.

    Attributes:
        skeleton: in its rest pose, in the frame of the meshes.
        skins: one per mesh, in their order.
    """

    skeleton: Skeleton
    skins: tuple[SkinWeights, ...]

    def require_fit(self, meshes: Sequence[Mesh]) -> None:
        """Raise ValueError unless there is one skin per mesh, with one row per vertex."""
        counts = [mesh.num_vertices for mesh in meshes]
        rows = [len(skin.joints) for skin in self.skins]
        if counts != rows:
            raise ValueError(
                f"The rig has skins of {rows} vertices, but the meshes have {counts}; bind these "
                "meshes to the skeleton first."
            )
        if len(self.skeleton.names) > MAX_JOINTS:
            raise ValueError(
                f"At most {MAX_JOINTS} joints fit in a file, got {len(self.skeleton.names)}."
            )


def joint_nodes(skeleton: Skeleton, first: int) -> list[dict[str, Any]]:
    """Nodes of the joints, the first of which gets the number ``first`` in the file."""
    positions = to_array(skeleton.positions, "<f8")
    nodes: list[dict[str, Any]] = []
    for index, (name, parent) in enumerate(zip(skeleton.names, skeleton.parents, strict=True)):
        offset = positions[index] - (positions[parent] if parent >= 0 else 0.0)
        nodes.append({"name": name, "translation": offset.tolist()})
        if parent >= 0:
            nodes[parent].setdefault("children", []).append(first + index)
    return nodes


def inverse_bind_matrices(skeleton: Skeleton) -> Float32[np.ndarray, "joint 16"]:
    """From the world of the rest pose to the axes of each joint, column by column."""
    matrices = np.tile(np.eye(4, dtype="<f4"), (len(skeleton.names), 1, 1))
    matrices[:, :3, 3] = -to_array(skeleton.positions)
    return matrices.transpose(0, 2, 1).reshape(-1, 16).copy()
