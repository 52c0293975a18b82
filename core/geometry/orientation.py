"""Contains how faces are turned so that neighbours agree and the surface looks outwards."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..mesh import Mesh
from .components import link_components, number_by_first
from .edges import build_edges, side_vertices


def disagreeing_faces(faces: Int64[Tensor, "face 3"]) -> Bool[Tensor, " face"]:
    """Faces to turn so that any two at an edge of exactly two faces pass it in opposite directions.

    In each connected piece the smaller part is turned. A piece that has no such orientation (a
    Moebius band) is left as it is.
    """
    if not len(faces):
        return torch.zeros(0, dtype=torch.bool, device=faces.device)
    table = build_edges(faces)
    first, second = table.edge_sides[table.face_count == 2].unbind(1)
    start = side_vertices(faces)[:, 0]
    agree = start[first] != start[second]
    first, second = first // 3, second // 3
    count = len(faces)
    # Node f: face f as it is; node f + count: turned. Links join nodes that fit together.
    across = torch.where(agree, second, second + count)
    mirrored = torch.where(agree, second + count, second)
    links = torch.cat([first, first + count]), torch.cat([across, mirrored])
    label = link_components(*links, 2 * count)
    as_is, turned = label[:count], label[count:]
    piece = number_by_first(torch.minimum(as_is, turned))
    side = (as_is > turned).long()  # 0 or 1 where an orientation exists, 0 throughout elsewhere
    size = torch.bincount(piece)
    ones = torch.zeros_like(size).index_add(0, piece, side)
    minority = (2 * ones <= size).long()
    return (side == minority[piece]) & (ones > 0)[piece]


def piece_volumes(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    pieces: Int64[Tensor, " face"],
) -> Float[Tensor, " piece"]:
    """Signed volume of each piece, seen from the mean of its corners."""
    count = int(pieces.max()) + 1 if len(pieces) else 0
    corners = vertices[faces].double()
    mean = corners.new_zeros((count, 3)).index_add(0, pieces, corners.mean(dim=1))
    mean = mean / torch.bincount(pieces, minlength=count).clamp(min=1)[:, None]
    a, b, c = (corners - mean[pieces][:, None]).unbind(dim=1)
    volumes = (a * torch.linalg.cross(b, c)).sum(dim=-1) / 6
    return volumes.new_zeros(count).index_add(0, pieces, volumes).to(vertices.dtype)


def orient_outward(mesh: Mesh) -> Mesh:
    """Mesh with neighbours that agree and a positive signed volume.

    A mesh whose faces all agree already is at most turned as a whole, so that cavities stay
    cavities; otherwise each piece that had to be changed is turned outwards by itself.
    """
    if mesh.is_empty:
        return mesh
    flip = disagreeing_faces(mesh.faces)
    faces = _turned(mesh.faces, flip)
    pieces = _edge_pieces(faces)
    volumes = piece_volumes(mesh.vertices, faces, pieces)
    inward = volumes < 0
    if bool(flip.any()):
        changed = torch.zeros_like(inward)
        changed[pieces[flip]] = True
        inward = inward & changed
        faces = _turned(faces, inward[pieces])
    elif float(volumes.sum()) < 0:
        faces = faces.flip(1)
    if torch.equal(faces, mesh.faces):
        return mesh
    return replace(mesh, faces=faces, vertex_normals=None)


def _turned(faces: Tensor, flip: Tensor) -> Int64[Tensor, "face 3"]:
    return torch.where(flip[:, None], faces.flip(1), faces)


def _edge_pieces(faces: Tensor) -> Int64[Tensor, " face"]:
    """Number of the piece of each face; pieces hang together by edges with exactly two faces."""
    table = build_edges(faces)
    first, second = (table.edge_sides[table.face_count == 2] // 3).unbind(1)
    return number_by_first(link_components(first, second, len(faces)))
