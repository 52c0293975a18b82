"""Contains the merging of meshes into one that keeps the colours of all, and batches of parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from ..mesh import Material, Mesh, merge_meshes

SameName = Literal["replace", "keep_both"]


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


def combine_parts(
    parts: Sequence[Mesh],
    added: Sequence[Mesh] = (),
    *,
    names: Sequence[str] = (),
    same_name: SameName = "replace",
) -> list[Mesh]:
    """One batch of named parts from two.

    Args:
        parts: keep their order.
        added: follow, unless they take the place of a part of the same name.
        names: of all parts that come out, in order; empty keeps the names they have. With
            ``keep_both``, parts of one name are numbered.
        same_name: whether an added part replaces one of its name or stands beside it.

    Raises:
        ValueError: there is no part, or another number of names than of parts.
    """
    if same_name not in ("replace", "keep_both"):
        raise ValueError(f"same_name must be replace or keep_both, got {same_name!r}.")
    combined = list(parts)
    for mesh in added:
        places = [index for index, old in enumerate(combined) if old.name == mesh.name]
        if places and same_name == "replace":
            combined[places[0]] = mesh
        else:
            combined.append(mesh)
    if not combined:
        raise ValueError("There is no part to combine; connect at least one mesh.")
    if names and len(names) != len(combined):
        raise ValueError(
            f"Got {len(names)} names for {len(combined)} parts "
            f"({', '.join(mesh.name for mesh in combined)}); give one for each, or none."
        )
    if names:
        combined = [replace(mesh, name=name) for mesh, name in zip(combined, names, strict=True)]
    return _numbered(combined)


def _numbered(meshes: Sequence[Mesh]) -> list[Mesh]:
    """Parts whose names differ: repeated ones get a number."""
    taken: set[str] = set()
    result = []
    for mesh in meshes:
        name, number = mesh.name, 1
        while name in taken:
            number += 1
            name = f"{mesh.name} {number}"
        taken.add(name)
        result.append(replace(mesh, name=name))
    return result


def find_part(parts: Sequence[Mesh], part: str) -> int:
    """Place of a part by its name, or by its number from 1.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    names = [mesh.name for mesh in parts]
    wanted = part.strip()
    if wanted in names:
        return names.index(wanted)
    if wanted.isdigit() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    raise ValueError(f"There is no part '{wanted}'; the mesh has {', '.join(names)}.")


def select_parts(parts: Sequence[Mesh], names: Sequence[str]) -> tuple[list[Mesh], list[Mesh]]:
    """Parts by name or number from 1, in the order asked for, and all others in their own order.

    Where no other part is left, the second list holds an empty mesh.

    Raises:
        ValueError: no name is given, or there is no such part.
    """
    if not names:
        raise ValueError(f"Name a part; the mesh has {', '.join(mesh.name for mesh in parts)}.")
    places = [find_part(parts, name) for name in names]
    others = [mesh for index, mesh in enumerate(parts) if index not in places]
    return [parts[place] for place in places], others or [_nothing(parts[0])]


def _nothing(like: Mesh) -> Mesh:
    return Mesh(like.vertices[:0], like.faces[:0], name="nothing")
