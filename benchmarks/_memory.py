"""Contains the measuring of time and of resident memory of a stage."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STATM = Path("/proc/self/statm")
SAMPLE_EVERY_S = 0.005


@dataclass
class Stage:
    """Seconds and extra bytes of one stage; no bytes where they cannot be read."""

    seconds: float = 0.0
    extra: int = 0

    def text(self) -> str:
        """For a table row."""
        memory = f"{self.extra / 1e9:.2f} GB" if STATM.exists() else "not measured"
        return f"{self.seconds:.1f} s, {memory} extra"


def resident_bytes() -> int:
    """Resident memory of this process; 0 where there is no /proc."""
    if not STATM.exists():
        return 0
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def measured() -> Iterator[Stage]:
    """Block whose time and peak of resident memory are measured."""
    stage, before, done = Stage(), resident_bytes(), threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_EVERY_S):
            stage.extra = max(stage.extra, resident_bytes() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        yield stage
    finally:
        stage.seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        stage.extra = max(stage.extra, resident_bytes() - before)
