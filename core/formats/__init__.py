"""Contains readers and writers of 3D files, read_*/write_* in pairs.

Meshes keep core's frame (+Y up, +Z front) in files. Gaussians are turned into the 3DGS frame that
splat viewers expect, unless ``frame="world"`` is given. Every writer is all-or-nothing; every
reader treats its file as hostile.
"""

from .atomic import atomic_write, write_files
from .glb_read import read_glb_metadata
from .glb_write import GlbParams
from .mesh_files import (
    MESH_SUFFIXES,
    WRITABLE_MESH_SUFFIXES,
    decode_mesh,
    encode_mesh,
    read_mesh,
    write_mesh,
)
from .splat_files import (
    SPLAT_SUFFIXES,
    SplatFrame,
    decode_splats,
    encode_splats,
    read_splats,
    write_splats,
)

__all__ = [
    "GlbParams",
    "MESH_SUFFIXES",
    "SPLAT_SUFFIXES",
    "SplatFrame",
    "WRITABLE_MESH_SUFFIXES",
    "atomic_write",
    "decode_mesh",
    "decode_splats",
    "encode_mesh",
    "encode_splats",
    "read_glb_metadata",
    "read_mesh",
    "read_splats",
    "write_files",
    "write_mesh",
    "write_splats",
]
