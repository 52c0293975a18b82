"""Contains the choice of weights on a node: what lies in the model folders, and where the rest is.

Published names are always offered, so that workflows name them on every machine; a file that is not
there is an error of the node that says where to get it and where to put it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.networks.weights import PICKLE_SUFFIXES, SAFE_SUFFIXES
from .host import IN_COMFYUI, file_fingerprint, io, model_folders

WEIGHT_SUFFIXES = (*SAFE_SUFFIXES, *PICKLE_SUFFIXES)
INDEX = "model_index.json"
DIFFUSERS_KIND = "diffusers"
MAX_DEPTH = 3


def weight_files(*kinds: str) -> list[str]:
    """Weight files below the folders of Lift3D and of ComfyUI's model kinds, as ``a/b.ckpt``."""
    found = {
        path.relative_to(root).as_posix()
        for root in model_folders(*kinds)
        for path in _below(root)
        if path.suffix.lower() in WEIGHT_SUFFIXES and not (path.parent.parent / INDEX).is_file()
    }
    return sorted(found)


def diffusers_folders(marker: str = INDEX) -> list[str]:
    """Model folders in diffusers layout in the folders of Lift3D and of ComfyUI's diffusers.

    Args:
        marker: file that such a folder holds, as ``unet/config.json``.
    """
    depth = marker.count("/")
    found = {
        path.parents[depth].relative_to(root).as_posix()
        for root in model_folders(DIFFUSERS_KIND)
        for path in _below(root)
        if path.as_posix().endswith(f"/{marker}") and path.parents[depth] != root
    }
    return sorted(found)


def model_input(id: str, found: Sequence[str], published: Sequence[str], **options: Any) -> Any:
    """Choice among what is there and the published names."""
    names = list(dict.fromkeys([*published, *found]))
    # The mark tells the writer of the help pages that the list differs from machine to machine.
    extra = {"lift3d_weights": True}
    return io.Combo.Input(id, options=names, default=names[0], extra_dict=extra, **options)


def resolve_weights(name: str, link: str, *kinds: str) -> Path:
    """Path of a weight file that a node names.

    Args:
        name: below one of the model folders; standalone also any path.
        link: where to get it, for the message.
        kinds: ComfyUI's model folders that are searched after ours.

    Raises:
        ValueError: it is missing, lies outside the model folders or is of another kind.
    """
    path = resolve_model(name, link, *kinds)
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        raise ValueError(f"'{name}' is no weight file; expected {', '.join(WEIGHT_SUFFIXES)}.")
    if not path.is_file():
        raise ValueError(f"'{name}' is a folder; expected a weight file.")
    return path


def resolve_diffusers_folder(name: str, link: str) -> Path:
    """Path of a model folder that a node names; ValueError as `resolve_weights`."""
    path = resolve_model(name, link, DIFFUSERS_KIND)
    if not path.is_dir():
        raise ValueError(f"'{name}' is a file; expected the folder of a model.")
    return path


def missing_verdict(*checks: Callable[[], Path]) -> bool | str:
    """True when all checks find their files, else what the first one misses (`validate_inputs`)."""
    try:
        for check in checks:
            check()
    except ValueError as error:
        return str(error).rstrip(".")
    return True


def weights_fingerprint(name: str) -> str:
    """Text that changes with the file; also for one that is not there yet."""
    for root in model_folders(DIFFUSERS_KIND):
        if (root / name).exists():
            return file_fingerprint(root / name)
    return f"{name}: missing"


def resolve_model(name: str, link: str, *kinds: str) -> Path:
    """Path of a weight file or model folder that a node names.

    Args:
        name: below one of the model folders; standalone also any path.
        link: where to get it, for the message.
        kinds: ComfyUI's model folders that are searched after ours.

    Raises:
        ValueError: it is missing or lies outside the model folders.
    """
    roots = model_folders(*kinds)
    if not name.strip():
        raise ValueError(f"No weights are named; choose a file, or get one from {link}.")
    if not IN_COMFYUI and Path(name).expanduser().exists():
        return Path(name).expanduser()  # standalone, paths are the user's own
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name:
        raise ValueError(f"'{name}' leads out of the model folders; name a file inside {roots[0]}.")
    for root in roots:
        if (root / pure).exists():
            return root / pure
    places = " or ".join(str(root / pure) for root in roots)
    raise ValueError(f"'{name}' is not there. Download {link} and put it at {places}.")


def _below(root: Path) -> list[Path]:
    """Files at most `MAX_DEPTH` folders deep."""
    patterns = ["/".join(["*"] * depth) for depth in range(1, MAX_DEPTH + 1)]
    return [path for pattern in patterns for path in root.glob(pattern) if path.is_file()]
