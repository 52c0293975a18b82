"""Contains how CPU kernels are compiled and called: cached, announced, one at a time.

Kernels are declared with `compiled` and called from Python through `run_kernel`. Modules that
declare kernels import numba, so they are themselves imported only when a kernel is wanted.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import logging
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

LOGGER = logging.getLogger(__name__)

# Where numba finds neither OpenMP nor TBB, two Python threads that start parallel kernels at the
# same time abort the whole process; ComfyUI runs nodes in worker threads.
KERNEL_LOCK = threading.RLock()

_announced: set[str] = set()


def compiled(
    *, parallel: bool = False, fastmath: bool | set[str] = False, inline: str = "never"
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile a function on its first call and keep the machine code on disk.

    Args:
        parallel: let `numba.prange` loops use all cores.
        fastmath: numba's relaxed floating-point rules; they must not break determinism.
        inline: ``always`` inlines the function into the kernels that call it.
    """
    import numba

    options: dict[str, Any] = {"nogil": True, "parallel": parallel, "fastmath": fastmath}
    if inline != "never":
        options["inline"] = inline

    def declare(function: Callable[..., Any]) -> Any:
        function = inspect.unwrap(function)  # the tests' shape contracts wrap every function
        _name_module_for_the_cache(function)
        try:
            return _tie_to_sources(numba.njit(cache=True, **options)(function))
        except RuntimeError as error:  # neither __pycache__ nor the user's cache folder is writable
            LOGGER.info("Kernels are compiled anew in every process: %s", error)
            return numba.njit(**options)(function)

    return declare


def _tie_to_sources(kernel: Any) -> Any:
    """Make cached code stale when any kernel source changes.

    numba watches only the file a kernel stands in, but kernels inline functions and constants of
    their neighbours: after an update they would go on with the old ones.
    """
    cache_file = kernel._cache._cache_file
    cache_file._source_stamp = (cache_file._source_stamp, _sources_hash())
    return kernel


@functools.cache
def _sources_hash() -> str:
    backends = Path(__file__).resolve().parent.parent
    shared = [backends / "splat_view.py", backends / "torch_reference" / "harmonics.py"]
    digest = hashlib.sha256()
    for path in sorted((backends / "numba_cpu").glob("*.py")) + shared:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _name_module_for_the_cache(function: Callable[..., Any]) -> None:
    """Give the module of a kernel the name under which the cache on disk finds it again.

    numba writes the global ``__name__`` into its cache and imports it when it loads from there.
    The package is called `lift3d` in one process and after its folder in ComfyUI; code cached
    under one name could not be loaded under the other.
    """
    actual = function.__module__
    family, stable = "lift3d_kernels", f"lift3d_kernels.{actual.rpartition('.')[2]}"
    sys.modules.setdefault(family, types.ModuleType(family))
    sys.modules[stable] = sys.modules[actual]
    function.__globals__["__name__"] = stable
    function.__module__ = stable
    for value in function.__globals__.values():  # named tuples that kernels hand over
        if isinstance(value, type) and value.__module__ == actual:
            value.__module__ = stable


def run_kernel(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """Call a compiled kernel under the lock; the first compilation is announced in the log."""
    with KERNEL_LOCK, _announced_compilation(kernel):
        return kernel(*arguments)


def to_array(tensor: Tensor, dtype: Any) -> np.ndarray:
    """Contiguous numpy view (or copy, where type or layout differ) of a CPU tensor."""
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=dtype)


@contextlib.contextmanager
def _announced_compilation(kernel: Callable[..., Any]) -> Iterator[None]:
    from numba.core import event

    theme = kernel.__module__.rpartition(".")[2]
    if theme in _announced:
        yield
        return

    class _Announcer(event.Listener):
        def on_start(self, event: Any) -> None:  # not reached when the disk cache has the code
            if theme not in _announced:
                _announced.add(theme)
                LOGGER.warning("Compiling CPU kernels (%s), first run only ...", theme)

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", _Announcer()):
        yield
