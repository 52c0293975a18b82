"""Contains reading and writing of mesh files by suffix: .glb, .gltf (read), .obj, .stl, .ply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..mesh import Mesh
from .atomic import atomic_write, write_files
from .files import SiblingLoader, folder_loader, no_siblings, read_bounded
from .glb_read import decode_glb
from .glb_write import GlbParams, encode_glb
from .obj_read import decode_obj
from .obj_write import encode_obj
from .ply_mesh import decode_ply_mesh, encode_ply_mesh
from .sniffing import blamed_on, sniff
from .stl import decode_stl, encode_stl

_DECODERS: dict[str, Callable[[bytes, SiblingLoader], list[Mesh]]] = {
    ".glb": decode_glb,
    ".gltf": decode_glb,
    ".obj": decode_obj,
    ".stl": lambda data, load_sibling: decode_stl(data),
    ".ply": lambda data, load_sibling: decode_ply_mesh(data),
}
MESH_SUFFIXES = tuple(_DECODERS)
"""Suffixes that `read_mesh` knows."""

WRITABLE_MESH_SUFFIXES = (".glb", ".obj", ".stl", ".ply")
"""Suffixes that `write_mesh` knows."""


def read_mesh(path: str | Path) -> list[Mesh]:
    """Parts of a .glb, .gltf, .obj, .stl or .ply file, named after nodes, objects or groups.

    Files are taken to be +Y up and +Z front; no axis is changed.

    Args:
        path: the file; its content decides where it contradicts the suffix. Files that it names
            must lie in the same folder or below.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: damaged, unsafe, too large, or without triangles; the message names the file.
    """
    path = Path(path)
    with blamed_on(path.name):
        data = read_bounded(path)
    return decode_mesh(data, path.suffix, name=path.name, load_sibling=folder_loader(path.parent))


def decode_mesh(
    data: bytes,
    suffix: str,
    *,
    name: str = "mesh data",
    load_sibling: SiblingLoader = no_siblings,
) -> list[Mesh]:
    """Parts of a mesh from the bytes of a file; see `read_mesh`.

    Args:
        data: bytes of the file.
        suffix: one of `MESH_SUFFIXES`.
        name: what to call the data in messages.
        load_sibling: gives the files named in it; by default there are none.
    """
    with blamed_on(name):
        found = sniff(data) or suffix.lower()
        if found == ".spz":
            raise ValueError("it holds Gaussians, not a mesh; load it as a splat file.")
        decoder = _DECODERS.get(found)
        if decoder is None:
            raise ValueError(
                f"{suffix or 'no suffix'!r} is no mesh format; use {', '.join(MESH_SUFFIXES)}."
            )
        return decoder(data, load_sibling)


def write_mesh(
    path: str | Path,
    meshes: Mesh | Sequence[Mesh],
    *,
    metadata: dict[str, Any] | None = None,
    params: GlbParams | None = None,
) -> list[Path]:
    """Write meshes as .glb, .obj (with .mtl and .png), .stl or .ply, all or nothing.

    GLB and OBJ keep the parts and their names; STL and PLY join them, and keep no textures.

    Args:
        path: the suffix decides the format; existing files are replaced at the end.
        meshes: one part or several.
        metadata: JSON values for a GLB's ``asset.extras``; other formats have no place for it.
        params: options of the GLB writer.

    Returns:
        The files written; ``path`` is the last.

    Raises:
        ValueError: unknown suffix, or no faces.
    """
    path = Path(path)
    with blamed_on(path.name):
        files = encode_mesh(meshes, path.suffix, stem=path.stem, metadata=metadata, params=params)
    # The main file is last and keeps exactly the name that was asked for.
    contents = list(files.values())
    targets = [path.with_name(name) for name in list(files)[:-1]] + [path]
    if len(targets) == 1:
        with atomic_write(path) as temporary:
            temporary.write_bytes(contents[0])
    else:
        write_files(dict(zip(targets, contents, strict=True)))
    return targets


def encode_mesh(
    meshes: Mesh | Sequence[Mesh],
    suffix: str,
    *,
    stem: str = "mesh",
    metadata: dict[str, Any] | None = None,
    params: GlbParams | None = None,
) -> dict[str, bytes]:
    """Files of a mesh by name, the main one last; only OBJ has more than one.

    Args:
        meshes: one part or several.
        suffix: one of `WRITABLE_MESH_SUFFIXES`.
        stem: file name without suffix.
        metadata: JSON values for a GLB's ``asset.extras``.
        params: options of the GLB writer.
    """
    parts = [meshes] if isinstance(meshes, Mesh) else list(meshes)
    if not parts:
        raise ValueError("There is nothing to write: no mesh was given.")
    suffix = suffix.lower()
    if suffix == ".obj":
        return encode_obj(parts, stem)
    if suffix == ".glb":
        data = encode_glb(parts, metadata=metadata, params=params)
    elif suffix == ".stl":
        data = encode_stl(parts)
    elif suffix == ".ply":
        data = encode_ply_mesh(parts)
    else:
        known = ", ".join(WRITABLE_MESH_SUFFIXES)
        raise ValueError(f"{suffix or 'no suffix'!r} cannot be written as a mesh; use {known}.")
    return {f"{stem}{suffix}": data}
