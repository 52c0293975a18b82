"""Contains the walk over a glTF scene: world matrices of its nodes.

Reference: Khronos glTF 2.0 specification, section 3.5.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from .json_fields import JsonObject, pick

Matrix = Float[np.ndarray, "4 4"]


def world_matrices(document: JsonObject) -> dict[int, Matrix]:
    """World matrix of every node of the default scene, parents first.

    Raises:
        ValueError: the nodes form no forest (a cycle, or a node with two parents).
    """
    nodes = document.children("nodes")
    found: dict[int, Matrix] = {}
    stack = [(index, np.eye(4)) for index in reversed(_roots(document, nodes))]
    while stack:
        index, parent = stack.pop()
        node = pick(nodes, index, "node")
        if index in found:
            raise ValueError(f"{node.where} is reached twice: its nodes form a cycle or share one.")
        with np.errstate(over="ignore", invalid="ignore"):
            world = parent @ local_matrix(node)
        if not np.isfinite(world).all():
            raise ValueError(f"{node.where} has a transform that is NaN or infinite.")
        found[index] = world
        stack.extend((child, world) for child in reversed(node.indices("children")))
    return found


def _roots(document: JsonObject, nodes: list[JsonObject]) -> list[int]:
    scenes = document.children("scenes")
    if scenes:
        return pick(scenes, document.integer("scene", 0), "scene").indices("nodes")
    children = {child for node in nodes for child in node.indices("children")}
    return [index for index in range(len(nodes)) if index not in children]


def local_matrix(node: JsonObject) -> Matrix:
    """Matrix of one node, from its ``matrix`` or its translation, rotation and scale."""
    if node.has("matrix"):
        columns = node.numbers("matrix", 16)
        return np.asarray(columns).reshape(4, 4).T
    rotation = np.asarray(node.numbers("rotation", 4, (0, 0, 0, 1)))
    length = float(np.linalg.norm(rotation))
    if not 1e-6 < length < 1e6:
        raise ValueError(f"{node.where}.rotation has length {length:.3g}, expected 1.")
    x, y, z, w = rotation / length
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ) * np.asarray(node.numbers("scale", 3, (1, 1, 1)))
    matrix[:3, 3] = node.numbers("translation", 3, (0, 0, 0))
    return matrix
