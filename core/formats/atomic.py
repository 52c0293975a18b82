"""Contains all-or-nothing file writing: a reader sees the old file or the new one, never a half."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path in the folder of ``path``; on success it takes the place of ``path``.

    The temporary name keeps the suffix, so that libraries which look at it work. On any error,
    interruption included, the temporary file is removed and an existing ``path`` is untouched.
    Missing parent folders are made.

    Args:
        path: the file to write.
        durable: wait until the disk has the bytes (survives a power cut; slower).

    Yields:
        Path to write to; it does not exist yet.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        yield temporary
        if durable:
            _flush_to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write several files that belong together: all are complete before the first is replaced.

    The last one is moved last; give the file that refers to the others in that place.
    """
    with ExitStack() as stack:
        # ExitStack leaves in reverse order, hence the reversed writing order.
        for path, data in reversed(list(files.items())):
            stack.enter_context(atomic_write(path)).write_bytes(data)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())
