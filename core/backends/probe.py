"""Finds out, lazily and once, which rendering backends this machine can run.

Backends by name: ``numba`` (CPU kernels), ``torch`` (slow reference on any device), ``cuda``
(nvdiffrast for meshes, gsplat for Gaussians).
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from dataclasses import dataclass
from typing import Literal

import torch

LOGGER = logging.getLogger(__name__)

Backend = Literal["auto", "numba", "torch", "cuda"]
Kind = Literal["mesh", "splats"]

CUDA_LIBRARY: dict[str, str] = {"mesh": "nvdiffrast", "splats": "gsplat"}


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can run here and, if not, what would make it run."""

    name: str
    kind: str
    ready: bool
    remedy: str = ""


@functools.cache
def numba_problem() -> str:
    """Empty when the numba kernels can be compiled, else what went wrong on import."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    try:
        import numba  # noqa: F401
    except (ImportError, AttributeError, SystemError) as error:  # numpy newer than numba knows
        return f"numba cannot be imported: {error}"
    return ""


def backend_status(kind: Kind) -> list[BackendStatus]:
    """State of every backend for meshes or Gaussians, best first."""
    problem = numba_problem()
    library = CUDA_LIBRARY[kind]
    if not torch.cuda.is_available():
        cuda_remedy = "no CUDA device is visible to torch"
    elif importlib.util.find_spec(library) is None:
        cuda_remedy = f"{library} is not installed: see requirements-cuda.txt"
    else:
        cuda_remedy = ""
    return [
        BackendStatus("cuda", kind, not cuda_remedy, cuda_remedy),
        BackendStatus(
            "numba", kind, not problem, f"{problem}: pip install numba" if problem else ""
        ),
        BackendStatus("torch", kind, True),
    ]


def choose_backend(kind: Kind, device: torch.device, prefer: Backend = "auto") -> str:
    """Name of the backend to use for tensors on ``device``.

    Raises:
        ValueError: the preferred backend cannot run here; the message holds the remedy.
    """
    states = {state.name: state for state in backend_status(kind)}
    if prefer != "auto":
        if prefer not in states:
            raise ValueError(f"Unknown backend '{prefer}'; choose auto, numba, torch or cuda.")
        if not states[prefer].ready:
            raise ValueError(
                f"Backend '{prefer}' cannot draw {kind} here: {states[prefer].remedy}. "
                "Choose backend 'auto' to use the best one that is ready."
            )
        return prefer
    if device.type == "cuda" and states["cuda"].ready:
        return "cuda"
    if device.type == "cpu" and states["numba"].ready:
        return "numba"
    _log_fallback_once(
        kind, device.type, states["cuda" if device.type == "cuda" else "numba"].remedy
    )
    return "torch"


@functools.cache
def _log_fallback_once(kind: str, device_type: str, remedy: str) -> None:
    LOGGER.warning(
        "Drawing %s on %s with the slow torch reference: %s",
        kind,
        device_type,
        remedy or "no kernel",
    )
