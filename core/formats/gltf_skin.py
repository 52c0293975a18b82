"""Contains the rest pose of skinned glTF meshes: where the joints stand in the scene as saved.

Reference: Khronos glTF 2.0 specification, section 3.7.3 (skins).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from .gltf_accessors import AccessorReader
from .gltf_scene import Matrix
from .json_fields import JsonObject


def rest_pose_matrices(
    skin: JsonObject,
    attributes: JsonObject,
    world_matrices: dict[int, Matrix],
    accessors: AccessorReader,
) -> Float[np.ndarray, "vertex 4 4"] | None:
    """Matrix of each vertex, the weighted mean over its joints; None without joints and weights.

    Vertices whose weights are all zero keep their place.

    Args:
        skin: entry of the document's ``skins``.
        attributes: attributes of the primitive.
        world_matrices: world matrix of each node of the scene.
        accessors: reader of the document.
    """
    if not (attributes.has("JOINTS_0") and attributes.has("WEIGHTS_0")):
        return None
    nodes = skin.indices("joints")
    inverse_bind = np.tile(np.eye(4), (len(nodes), 1, 1))
    if skin.has("inverseBindMatrices"):
        stored = accessors.floats(skin.integer("inverseBindMatrices"), (16,)).astype(np.float64)
        if len(stored) < len(nodes):
            raise ValueError(f"{skin.where} has {len(stored)} matrices for {len(nodes)} joints.")
        inverse_bind = stored[: len(nodes)].reshape(-1, 4, 4).transpose(0, 2, 1)
    if not set(nodes) <= world_matrices.keys():
        raise ValueError(f"{skin.where} uses joints that are not part of the scene.")
    joint_matrices = np.array([world_matrices[node] for node in nodes]) @ inverse_bind
    joints = accessors.floats(attributes.integer("JOINTS_0"), (4,)).astype(np.int64)
    weights = accessors.floats(attributes.integer("WEIGHTS_0"), (4,)).astype(np.float64)
    if len(joints) != len(weights):
        raise ValueError(f"{attributes.where} has unequal numbers of joints and weights.")
    joints = np.where(weights > 0, joints, 0)
    if joints.size and not 0 <= joints.min() <= joints.max() < len(nodes):
        raise ValueError(f"{attributes.where} uses joint {joints.max()} of {len(nodes)}.")
    total = weights.sum(axis=1, keepdims=True)
    blended = np.zeros((len(joints), 4, 4))
    for column in range(4):
        share = weights[:, column : column + 1] / np.where(total > 0, total, 1.0)
        blended += share[..., None] * joint_matrices[joints[:, column]]
    blended[total[:, 0] <= 0] = np.eye(4)
    return blended
