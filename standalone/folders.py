"""Contains the folders of a run without ComfyUI and the files written into them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.formats.png import write_png


@dataclass
class RunFolders:
    """Where a run reads and writes.

    Attributes:
        output: every written file lies below it.
        input: relative names of input files are looked up here after the working directory.
        written: files of this run in the order of writing.
    """

    output: Path = field(default_factory=lambda: Path("output"))
    input: Path = field(default_factory=lambda: Path("input"))
    written: list[Path] = field(default_factory=list)


_current = RunFolders()


def current() -> RunFolders:
    """The folders of the run in progress."""
    return _current


@contextlib.contextmanager
def use_folders(run_folders: RunFolders) -> Iterator[RunFolders]:
    """Make ``run_folders`` the current ones inside the block."""
    global _current
    previous, _current = _current, run_folders
    try:
        yield run_folders
    finally:
        _current = previous


def next_path(prefix: str, suffix: str) -> Path:
    """First free path ``output/prefix_00001_.suffix``; its folder is made.

    Raises:
        ValueError: the prefix leads out of the output folder.
    """
    root = _current.output.resolve()
    target = (root / prefix).resolve()
    if not target.is_relative_to(root) or target == root:
        raise ValueError(
            f"The file name prefix '{prefix}' leads out of the output folder {root}; use a "
            "relative name such as '3d/Lift3D'."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    taken = {path.name.split(".")[0] for path in target.parent.iterdir()}
    counter = 1
    while f"{target.name}_{counter:05}_" in taken:
        counter += 1
    return target.parent / f"{target.name}_{counter:05}_{suffix}"


def remember(path: Path) -> None:
    """Note a written file, so that the runner can print it."""
    if path not in _current.written:
        _current.written.append(path)


def describe(path: Path) -> dict[str, Any]:
    """A written file as the host's interface names it."""
    relative = path.resolve().relative_to(_current.output.resolve())
    folder = relative.parent.as_posix()
    return {
        "filename": relative.name,
        "subfolder": "" if folder == "." else folder,
        "type": "output",
    }


def save_images(images: Tensor, prefix: str) -> list[dict[str, Any]]:
    """Write a batch [image, height, width, channel] of 0..1 as PNG files."""
    named = []
    for image in images:
        path = next_path(prefix, ".png")
        write_png(path, image)
        remember(path)
        named.append(describe(path))
    return named
