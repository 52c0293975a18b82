"""Contains how one kernel runs on all cores: the same function in several Python threads.

Kernels take ``(lane, num_lanes, ...)`` and do every num_lanes-th piece of the work; they release
the GIL. Compared with numba's own parallel loops this compiles several times faster and needs no
threading layer, so it is safe wherever it is called from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from .runtime import run_kernel


def run_in_lanes(kernel: Callable[..., None], *arguments: Any) -> None:
    """Call ``kernel(lane, num_lanes, *arguments)`` for every lane; returns when all are done.

    Uses as many threads as torch does.
    """
    num_lanes = max(torch.get_num_threads(), 1)
    if num_lanes == 1 or not getattr(kernel, "signatures", True):  # compile once, not in a race
        for lane in range(num_lanes):
            run_kernel(kernel, lane, num_lanes, *arguments)
        return
    others = [
        _pool(num_lanes - 1).submit(kernel, lane, num_lanes, *arguments)
        for lane in range(1, num_lanes)
    ]
    try:
        kernel(0, num_lanes, *arguments)
    finally:  # the arrays must outlive every lane
        for other in others:
            other.result()


@functools.cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, thread_name_prefix="lift3d-kernel")
