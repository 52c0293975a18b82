"""Contains the connected parts of a mesh: find them, keep the large ones, take them apart."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..mesh import Mesh
from .edges import build_edges
from .normals import face_normals
from .submesh import select_faces

Connectivity = Literal["vertex", "edge"]


def connected_components(
    faces: Int64[Tensor, "face 3"], *, connectivity: Connectivity = "vertex"
) -> Int64[Tensor, " face"]:
    """Number of the component of each face, numbered by their first face.

    Args:
        faces: vertex indices.
        connectivity: whether faces hang together by a common vertex or only by a common edge.
    """
    if connectivity not in ("vertex", "edge"):
        raise ValueError(f"connectivity must be 'vertex' or 'edge', got {connectivity!r}.")
    if not len(faces):
        return torch.zeros(0, dtype=torch.int64, device=faces.device)
    # Each face is linked to a node per vertex (or edge) that it touches.
    nodes = faces if connectivity == "vertex" else build_edges(faces).face_edges
    face = torch.arange(len(faces), device=faces.device).repeat_interleave(3)
    count = len(faces) + int(nodes.max()) + 1
    labels = link_components(face, nodes.reshape(-1) + len(faces), count)[: len(faces)]
    return number_by_first(labels)


def link_components(
    first: Int64[Tensor, " link"], second: Int64[Tensor, " link"], count: int
) -> Int64[Tensor, " node"]:
    """Label of the component of each of ``count`` nodes that the links connect."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components as scipy_components

    rows, columns = first.cpu().numpy(), second.cpu().numpy()
    graph = coo_matrix(([True] * len(rows), (rows, columns)), shape=(count, count))
    labels = scipy_components(graph, directed=False)[1]
    return torch.as_tensor(labels, dtype=torch.int64, device=first.device)


def number_by_first(labels: Int64[Tensor, " item"]) -> Int64[Tensor, " item"]:
    """The same grouping, numbered 0, 1, ... in the order of first appearance."""
    _, compact = torch.unique(labels, return_inverse=True)
    count = int(compact.max()) + 1 if len(compact) else 0
    place = torch.arange(len(compact), device=labels.device)
    first = torch.full((count,), len(compact), dtype=torch.int64, device=labels.device)
    first = first.scatter_reduce(0, compact, place, "amin")
    new_number = torch.empty_like(first)
    new_number[first.argsort()] = torch.arange(count, device=labels.device)
    return new_number[compact]


def component_areas(mesh: Mesh, components: Int64[Tensor, " face"]) -> Float[Tensor, " component"]:
    """Surface area of each component, in squared units of the vertices."""
    areas = face_normals(mesh.vertices, mesh.faces, unit=False).norm(dim=-1) / 2
    count = int(components.max()) + 1 if len(components) else 0
    return torch.zeros(count, dtype=areas.dtype, device=areas.device).index_add(
        0, components, areas
    )


def keep_largest_component(mesh: Mesh) -> Mesh:
    """The part with the largest area; an empty mesh stays empty."""
    if mesh.is_empty:
        return mesh
    components = connected_components(mesh.faces)
    return select_faces(mesh, components == component_areas(mesh, components).argmax())


def drop_small_components(
    mesh: Mesh, *, min_area_fraction: float = 0.0, min_vertices: int = 0, min_faces: int = 0
) -> Mesh:
    """Mesh without small parts; the largest is kept whatever the limits.

    Args:
        mesh: mesh of any number of parts.
        min_area_fraction: parts with less of the total area go.
        min_vertices: parts with fewer vertices go.
        min_faces: parts with fewer faces go.
    """
    if mesh.is_empty:
        return mesh
    components = connected_components(mesh.faces)
    areas = component_areas(mesh, components)
    num_faces = torch.bincount(components, minlength=len(areas))
    component_of_vertex = torch.zeros(
        mesh.num_vertices, dtype=torch.int64, device=mesh.faces.device
    ).fill_(-1)
    component_of_vertex[mesh.faces] = components[:, None].expand(-1, 3)
    used = component_of_vertex[component_of_vertex >= 0]
    num_vertices = torch.bincount(used, minlength=len(areas))
    large = (
        (areas >= min_area_fraction * areas.sum())
        & (num_vertices >= min_vertices)
        & (num_faces >= min_faces)
    )
    large[areas.argmax()] = True
    return select_faces(mesh, large[components])


def split_components(mesh: Mesh) -> list[Mesh]:
    """One mesh per component, the largest area first."""
    if mesh.is_empty:
        return []
    components = connected_components(mesh.faces)
    order = component_areas(mesh, components).argsort(descending=True, stable=True)
    return [select_faces(mesh, components == number) for number in order]
