"""Contains guessing a file's format from its first bytes, and errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def sniff(data: bytes) -> str | None:
    """Suffix of the format that the bytes show beyond doubt, or None.

    Raises:
        ValueError: the bytes are a web page or a Git LFS pointer instead of a 3D file.
    """
    head = data[:256].lstrip()
    if head.startswith(b"glTF"):
        return ".glb"
    if head.startswith((b"ply\n", b"ply\r")):
        return ".ply"
    if data.startswith((b"\x1f\x8b\x08", b"NGSP")):
        return ".spz"
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            "it is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`."
        )
    if head[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise ValueError("it is a web page; the download went wrong.")
    return None


@contextmanager
def blamed_on(name: str) -> Iterator[None]:
    """Put the file's name in front of the messages of ValueErrors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
