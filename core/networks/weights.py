"""Contains the reading of weight files and the check of their keys against a network.

Files are data by strangers: only tensors are unpickled, and what a header claims is bounded.
"""

from __future__ import annotations

import logging
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MAX_WEIGHT_BYTES = 2**35
"""Largest weight file that is read (32 GiB), packed and unpacked."""

PICKLE_SUFFIXES = (".ckpt", ".pth", ".pt", ".bin")
SAFE_SUFFIXES = (".safetensors",)
LOGGER = logging.getLogger(__name__)
MAX_LOGGED_KEYS = 10_000
LISTED_KEYS = 10
"""How many keys of each kind an error message names."""

# What torch.load and its unpickler raise on files that are damaged or hold more than tensors.
_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    MemoryError,
    OverflowError,
    AssertionError,
)


@dataclass(frozen=True)
class KeyReport:
    """How the keys of a file fit a network.

    Attributes:
        missing: wanted by the network, not in the file.
        unexpected: in the file, unknown to the network.
        misshaped: in both with different shapes: key, shape wanted, shape found.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()

    @property
    def is_clean(self) -> bool:
        """True when every key fits."""
        return not (self.missing or self.unexpected or self.misshaped)

    def describe(self, listed: int = LISTED_KEYS) -> str:
        """Counts and the first ``listed`` keys of each kind, for people."""
        shapes = [f"{key} {list(got)} for {list(want)}" for key, want, got in self.misshaped]
        kinds = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", shapes),
        )
        lines = []
        for kind, keys in kinds:
            if keys:
                first = ", ".join(keys[:listed])
                rest = f", and {len(keys) - listed} more" if len(keys) > listed else ""
                lines.append(f"{len(keys)} keys {kind}: {first}{rest}")
        return "; ".join(lines) or "all keys fit"


def read_weights(
    path: Path | str, *, prefix: str = "", max_bytes: int = MAX_WEIGHT_BYTES
) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors``, ``.ckpt``, ``.pth``, ``.pt`` or ``.bin`` file, on the CPU.

    A dict under ``state_dict`` (Lightning) is unwrapped. The tensors may be views of the file:
    copy them before the file changes (`load_weights` does).

    Args:
        path: the file.
        prefix: if any key begins with it, only those keys are kept, without it.
        max_bytes: larger files are refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is too large, damaged, of another kind, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file; check the path.")
    if path.suffix.lower() not in SAFE_SUFFIXES + PICKLE_SUFFIXES:
        kinds = ", ".join(SAFE_SUFFIXES + PICKLE_SUFFIXES)
        raise ValueError(f"{path.name} is no weight file; expected one of {kinds}.")
    _require_bytes(path, path.stat().st_size, max_bytes)
    if path.suffix.lower() in SAFE_SUFFIXES:
        state = _read_safetensors(path)
    else:
        state = _read_pickle(path, max_bytes)
    return strip_prefix(state, prefix) if prefix else state


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The keys that begin with the prefix, without it; all keys if none does."""
    kept = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return kept or dict(state)


def compare_keys(module: nn.Module, state: Mapping[str, Tensor]) -> KeyReport:
    """How a state dict fits a network; the network may lie on the meta device."""
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    return KeyReport(
        missing=tuple(key for key in wanted if key not in found),
        unexpected=tuple(key for key in found if key not in wanted),
        misshaped=tuple(
            (key, shape, found[key])
            for key, shape in wanted.items()
            if key in found and found[key] != shape
        ),
    )


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True, name: str = "The file"
) -> KeyReport:
    """Put copies of the tensors into a network, in the type and on the device of each parameter.

    Parameters on the meta device come to lie on the CPU.

    Args:
        module: is changed.
        state: is not.
        strict: every key must fit; else what does not is left out and reported.
        name: of the source, for messages.

    Raises:
        ValueError: keys do not fit (strict), or parameters on the meta device would stay empty.
    """
    report = compare_keys(module, state)
    if strict and not report.is_clean:
        LOGGER.error("%s does not fit: %s.", name, report.describe(listed=MAX_LOGGED_KEYS))
        raise ValueError(
            f"{name} does not fit this network: {report.describe()}. Choose the checkpoint that "
            "belongs to this model, or another model size."
        )
    skipped = {*report.unexpected, *(key for key, _, _ in report.misshaped)}
    current = module.state_dict()
    copies = {
        key: _copy_like(value, current[key]) for key, value in state.items() if key not in skipped
    }
    empty = [key for key, value in current.items() if value.is_meta and key not in copies]
    if empty:
        raise ValueError(
            f"{name} leaves {len(empty)} parameters without values, such as {empty[0]}: "
            f"{report.describe()}."
        )
    module.load_state_dict(copies, strict=False, assign=True)
    return report


def _copy_like(value: Tensor, target: Tensor) -> Tensor:
    device = torch.device("cpu") if target.is_meta else target.device
    return value.to(device=device, dtype=target.dtype, copy=True)


def _require_bytes(path: Path, size: int, max_bytes: int) -> None:
    if size == 0:
        raise ValueError(f"{path.name} is empty; download it again.")
    if size > max_bytes:
        raise ValueError(
            f"{path.name} holds {size:,} bytes, but at most {max_bytes:,} are accepted."
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, *_UNREADABLE) as error:
        raise ValueError(_unreadable_message(path, error)) from error


def _read_pickle(path: Path, max_bytes: int) -> dict[str, Tensor]:
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            _require_plain_archive(path, max_bytes)
        # Only the zip format can be mapped into memory instead of read.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except _UNREADABLE as error:
        raise ValueError(_unreadable_message(path, error)) from error
    return _only_tensors(path, content)


def _require_plain_archive(path: Path, max_bytes: int) -> None:
    """Refuse archives that torch did not write: their entries are stored as they are."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are compressed")
    if sum(entry.file_size for entry in entries) > max_bytes:
        raise ValueError(f"its entries claim more than {max_bytes:,} bytes")


def _only_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path.name} holds a {type(content).__name__}, expected a dict of tensors."
        )
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{path.name} holds a {type(value).__name__} under {str(key)[:80]!r}, expected "
                "nothing but tensors; it is no state dict."
            )
    return dict(content)


def _unreadable_message(path: Path, error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        advice = "it holds more than tensors or is damaged; get a .safetensors version of it"
    else:
        advice = "it is truncated, damaged or of another kind; download it again"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{path.name} cannot be read as weights: {advice} ({reason})."
