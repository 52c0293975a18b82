"""Objects that several benchmarks measure: files of a folder, procedural ones, an ellipsoid."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from lift3d.core.datasets.procedural_objects import make_object
from lift3d.core.formats.mesh_files import read_mesh
from lift3d.core.mesh import Mesh, merge_meshes
from lift3d.core.pipelines.initial_mesh import icosphere
from lift3d.core.rendering.facing_normals import with_sheet_normals

# A dozen kinds that differ in what is hard: handles, thin legs, hollows, flat sides, many parts.
PROCEDURAL = (
    "chair",
    "table",
    "mug",
    "teapot",
    "mushroom",
    "tree",
    "car",
    "airplane",
    "fish",
    "robot",
    "house",
    "sword",
)
SUFFIXES = {".glb", ".obj", ".ply", ".stl"}


def add_object_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose what is measured."""
    parser.add_argument("--meshes", type=Path, help="folder of meshes to measure too")
    parser.add_argument("--no-procedural", action="store_true", help="only those of the folder")
    parser.add_argument("--only", default="", help="names to run, comma-separated")


def chosen_objects(options: argparse.Namespace) -> dict[str, Mesh]:
    """Meshes by name, brought to the size of bundle images; empty if ``--only`` fits none."""
    found: dict[str, Mesh] = {}
    for path in sorted(options.meshes.iterdir()) if options.meshes else []:
        if path.suffix.lower() in SUFFIXES:
            found[path.stem] = merge_parts(read_mesh(path))
    if not options.no_procedural:
        vertices, faces = icosphere(4)
        found["ellipsoid"] = Mesh(vertices * torch.tensor([0.9, 0.6, 0.7]), faces)
        for category in PROCEDURAL:
            found[f"procedural {category}"] = make_object(category, seed=1).mesh
    names = [name for name in options.only.split(",") if name] or list(found)
    return {name: prepared(found[name]) for name in names if name in found}


def merge_parts(parts: list[Mesh]) -> Mesh:
    """The mesh itself if there is one part only, which keeps its texture."""
    return parts[0] if len(parts) == 1 else merge_meshes(parts)


def prepared(mesh: Mesh) -> Mesh:
    """The mesh in a bundle's size, with normals that hold for doubled faces, and with colours.

    One that has no colours takes some by position, so that PSNR means something.
    """
    mesh = with_sheet_normals(mesh.normalized())
    if mesh.vertex_colors is not None or mesh.texture is not None:
        return mesh
    return replace(mesh, vertex_colors=(0.5 + 0.45 * mesh.vertices).clamp(0, 1))
