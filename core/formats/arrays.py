"""Contains the small steps between file arrays and tensors that all formats share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..mesh import Mesh
from .limits import MAX_TOKEN_BYTES


def to_tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
    """Tensor with its own memory."""
    # torch has no tensors over read-only or big-endian memory, so a native copy is made first.
    native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)
    return torch.from_numpy(native).to(dtype)


def to_array(tensor: Tensor, dtype: str = "<f4") -> np.ndarray:
    """NumPy copy of a tensor."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy()).astype(dtype)


def parse_numbers(tokens: Sequence[bytes] | np.ndarray, dtype: str, what: str) -> np.ndarray:
    """Numbers of text tokens, all at once; an array of byte strings keeps its shape.

    Raises:
        ValueError: a token is not a number.
    """
    if not isinstance(tokens, np.ndarray):
        if not tokens:
            return np.zeros(0, dtype)
        longest = max(map(len, tokens))  # the array below takes this much for every token
        if longest > MAX_TOKEN_BYTES:
            raise ValueError(f"{what}: a number of {longest} characters; the file is damaged.")
    try:
        return np.array(tokens).astype(dtype)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{what}: {error}; the file is damaged.") from error


def compact_vertices(
    faces: Int64[np.ndarray, "face 3"], num_vertices: int
) -> tuple[Int64[np.ndarray, " kept"], Int64[np.ndarray, "face 3"]]:
    """Indices of the vertices that faces use, in their order, and the faces renumbered."""
    used = np.zeros(num_vertices, dtype=bool)
    used[faces] = True
    renumber = np.cumsum(used) - 1
    return np.flatnonzero(used), renumber[faces]


def merge_equal_rows(
    rows: Float[np.ndarray, "row column"],
) -> tuple[Int64[np.ndarray, " unique"], Int64[np.ndarray, " row"]]:
    """First index of each distinct row (in order of appearance), and the group of every row."""
    # + 0.0 turns -0.0 into 0.0, whose bytes would differ.
    plain = np.ascontiguousarray(rows + 0.0)
    keys = plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1]))).reshape(-1)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return first[order], rank[group.reshape(-1)]


def smooth_normals(mesh: Mesh) -> Float[Tensor, "vertex 3"]:
    """Unit normals for a file: stored ones, else smooth ones that ignore UV seams.

    Vertices where no face has area get +Y, because files must not hold zero normals.
    """
    from ..geometry.normals import vertex_normals

    if mesh.vertex_normals is not None:
        normals = mesh.vertex_normals.detach().cpu().double()
    else:
        vertices = mesh.vertices.detach().cpu().double()
        first, group = merge_equal_rows(vertices.numpy())
        shared_faces = torch.from_numpy(group)[mesh.faces.cpu()]
        normals = vertex_normals(vertices[torch.from_numpy(first)], shared_faces)
        normals = normals[torch.from_numpy(group)]
    # Normals of slivers come back short, and files must hold exact unit vectors.
    length = normals.norm(dim=1, keepdim=True)
    up = normals.new_tensor([0.0, 1.0, 0.0])
    return torch.where(length > 1e-9, normals / length.clamp(min=1e-9), up)


def flat_vertex_colors(mesh: Mesh) -> Float[Tensor, "vertex 3"] | None:
    """Colours for formats without textures: vertex colours, else the texture at each vertex.

    Returns None for a mesh that has neither and a white material.
    """
    factor = mesh.vertices.new_tensor(mesh.material.base_color)
    if mesh.vertex_colors is not None:
        return mesh.vertex_colors.detach() * factor
    if mesh.texture is not None and mesh.uvs is not None:
        height, width = mesh.texture.shape[:2]
        size = mesh.uvs.new_tensor([width, height])
        uvs = mesh.uvs.detach()
        repeated = torch.where((uvs >= 0) & (uvs <= 1), uvs, uvs.remainder(1.0))
        texel = (repeated * size).long()
        column, row = texel[:, 0].clamp(max=width - 1), texel[:, 1].clamp(max=height - 1)
        return mesh.texture.detach()[row, column].to(factor) * factor
    if mesh.material.base_color != (1.0, 1.0, 1.0):
        return factor.expand(mesh.num_vertices, 3)
    return None
