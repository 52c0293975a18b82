"""Contains the choice of input files: the list on the node, its check, and the reading."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.datasets.procedural_objects import CATEGORIES, make_object
from ..core.formats import read_mesh
from ..core.mesh import Mesh
from .host import file_fingerprint, file_from_link, io, list_input_files, resolve_input_file
from .sockets import MESH_SUFFIXES

SAMPLE_PREFIX = "sample: "
SAMPLE_SEED = 1
DEFAULT_SAMPLE = SAMPLE_PREFIX + "bird"


def path_input(suffixes: Sequence[str], *, with_samples: bool) -> Any:
    """The input ``path``: sample objects and files of the input folder, with an upload button."""
    samples = [SAMPLE_PREFIX + category for category in CATEGORIES] if with_samples else []
    options = [*samples, *list_input_files(suffixes)]
    default = DEFAULT_SAMPLE if DEFAULT_SAMPLE in options else next(iter(options), None)
    listed = ", ".join(suffix.lstrip(".").upper() for suffix in suffixes)
    extra = " or a sample object that Lift3D makes itself" if with_samples else ""
    return io.Combo.Input(
        "path",
        options=options,
        default=default,
        extra_dict={"mesh_upload": True, "upload_subfolder": "3d"},
        tooltip=f"A {listed} file of the folder input/3d{extra}.",
    )


def is_sample(path: str) -> bool:
    """Whether ``path`` names a sample object rather than a file."""
    return path.startswith(SAMPLE_PREFIX)


def path_verdict(path: str | None, suffixes: Sequence[str]) -> bool | str:
    """True when ``path`` can be read, else the reason why not."""
    if path is None:
        return True  # brought by a link: checked when the node runs
    try:
        if is_sample(path):
            _sample_category(path)
        else:
            resolve_input_file(path, suffixes)
    except ValueError as error:
        return str(error).rstrip(".")
    return True


def path_fingerprint(path: str, suffixes: Sequence[str]) -> str:
    """Text that changes with the file."""
    return path if is_sample(path) else file_fingerprint(resolve_input_file(path, suffixes))


@contextlib.contextmanager
def chosen_file(path: str, model_3d: Any, suffixes: Sequence[str]) -> Iterator[Path]:
    """Path of the file to read: the linked one, else the one chosen on the node."""
    if model_3d is not None:
        with file_from_link(model_3d, suffixes) as linked:
            yield linked
    else:
        yield resolve_input_file(path, suffixes)


def read_meshes(path: str, model_3d: Any) -> list[Mesh]:
    """Named meshes of a file or a sample object."""
    if model_3d is None and is_sample(path):
        category = _sample_category(path)
        return [replace(make_object(category, SAMPLE_SEED).mesh, name=category)]
    with chosen_file(path, model_3d, MESH_SUFFIXES) as file:
        meshes = [mesh for mesh in read_mesh(file) if not mesh.is_empty]
    if not meshes:
        raise ValueError(f"'{file.name}' holds no triangles; export the model with its mesh.")
    return meshes


def _sample_category(path: str) -> str:
    category = path.removeprefix(SAMPLE_PREFIX)
    if category not in CATEGORIES:
        raise ValueError(f"There is no sample '{category}'; choose {', '.join(CATEGORIES)}.")
    return category
