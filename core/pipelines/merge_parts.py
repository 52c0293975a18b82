"""Contains the merging of several meshes into one that keeps the colours of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..mesh import Material, Mesh, merge_meshes


def merge_parts(meshes: Sequence[Mesh], name: str = "merged") -> Mesh:
    """One mesh from several; a single one is handed on unchanged, with its texture.

    Textures of different parts cannot share one picture without a new atlas, so a merged mesh
    carries vertex colours: those of the part, its texture sampled at the vertices, or its colour
    factor.
    """
    if len(meshes) == 1:
        return meshes[0]
    device = meshes[0].vertices.device if meshes else torch.device("cpu")
    if not any(_is_colored(mesh) for mesh in meshes):
        return merge_meshes(meshes, name=name)
    return merge_meshes([bake_vertex_colors(mesh.to(device)) for mesh in meshes], name=name)


def bake_vertex_colors(mesh: Mesh) -> Mesh:
    """Copy whose whole appearance lies in its vertex colours: no texture, a white factor."""
    from ..rendering.texture import sample_texture

    colors = mesh.vertex_colors
    if mesh.texture is not None and mesh.uvs is not None:
        colors = sample_texture(mesh.texture, mesh.uvs).to(mesh.vertices)
    if colors is None:
        colors = torch.ones_like(mesh.vertices)
    factor = colors.new_tensor(mesh.material.base_color)
    return replace(
        mesh,
        vertex_colors=(colors * factor).clamp(0, 1),
        uvs=None,
        texture=None,
        metallic_roughness=None,
        material=replace(mesh.material, base_color=Material().base_color),
    )


def _is_colored(mesh: Mesh) -> bool:
    return (
        mesh.vertex_colors is not None
        or mesh.texture is not None
        or mesh.material.base_color != Material().base_color
    )


def normalize_parts(meshes: Sequence[Mesh], longest_side: float = 1.8) -> list[Mesh]:
    """Parts moved and scaled together: centred, with ``longest_side`` over all of them.

    Raises:
        ValueError: no part has a vertex, or all vertices lie on one point.
    """
    bounds = [mesh.bounds() for mesh in meshes if mesh.num_vertices]
    if not bounds:
        raise ValueError("There are no vertices to normalise; give a mesh with triangles.")
    low = torch.stack([corner for corner, _ in bounds]).amin(dim=0)
    high = torch.stack([corner for _, corner in bounds]).amax(dim=0)
    extent = float((high - low).max())
    if extent <= 0:
        raise ValueError("All vertices of the mesh lie on one point; it cannot be scaled.")
    scale, centre = longest_side / extent, (low + high) / 2
    # A shift and a uniform scale leave normals as they are.
    return [replace(mesh, vertices=(mesh.vertices - centre) * scale) for mesh in meshes]
