"""Contains bounded reading of files and of the files they name beside themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from .limits import MAX_FILE_BYTES, require_at_most

SiblingLoader = Callable[[str], bytes]
"""Gives the bytes of a file named inside another file (MTL, texture, glTF buffer)."""

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*:")


class MissingSiblingError(ValueError):
    """A file names another file that is not there."""


def read_bounded(path: Path) -> bytes:
    """All bytes of a file that exists, is not empty and is not too large."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file; check the path.")
    size = path.stat().st_size
    if size == 0:
        raise ValueError("the file is empty.")
    require_at_most("bytes in the file", size, MAX_FILE_BYTES)
    return path.read_bytes()


def safe_relative_name(name: str) -> PurePosixPath:
    """The relative path that a file gives for a sibling, refused if it could leave the folder."""
    cleaned = name.strip().replace("\\", "/")
    parts = PurePosixPath(cleaned)
    if not cleaned or "\0" in cleaned:
        raise ValueError(f"names another file by {name[:100]!r}, which is no file name.")
    if _SCHEME.match(cleaned):
        raise ValueError(
            f"names {name[:100]!r}: drives and URLs are not followed; put the file beside this one."
        )
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(
            f"names {name[:100]!r}, which leads out of its own folder; put the file beside this "
            "one and name it without '..' or a leading slash."
        )
    return parts


def folder_loader(folder: Path) -> SiblingLoader:
    """Loader of the siblings in ``folder``; symbolic links that leave it are refused too."""
    root = folder.resolve()

    def load(name: str) -> bytes:
        path = root / safe_relative_name(name)
        if not path.is_file():
            raise MissingSiblingError(f"names {name[:100]!r}, which does not exist beside it.")
        if not path.resolve().is_relative_to(root):
            raise ValueError(f"names {name[:100]!r}, a link that leads out of its own folder.")
        return read_bounded(path)

    return load


def no_siblings(name: str) -> bytes:
    """Loader for data without a folder (bytes from a socket): nothing beside it can be read."""
    safe_relative_name(name)
    raise MissingSiblingError(
        f"names {name[:100]!r}, but was given as bytes without a folder; save it as a file "
        "beside the one it names, or embed everything in a GLB."
    )


def decode_uri(uri: str) -> str:
    """File name of a relative URI: percent escapes resolved."""
    return unquote(uri)
