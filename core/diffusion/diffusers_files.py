"""Contains the reading of model folders in diffusers layout: from local files only, nothing silent.

A folder holds ``model_index.json`` and a folder per part (``transformer``, ``vae`` ...). Parts are
made from a fixed list of classes; no code in the folder is run, nothing is ever downloaded.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..formats.json_fields import JsonObject, parse_json
from .placement import plain_tensors

INDEX = "model_index.json"
MAX_CONFIG_BYTES = 1 << 24
DIFFUSERS_CLASSES = (
    "AutoencoderKL",
    "AutoencoderKLTemporalDecoder",
    "ControlNetModel",
    "FluxControlNetModel",
    "FluxTransformer2DModel",
    "ReduxImageEncoder",
    "UNet2DConditionModel",
    "UNetSpatioTemporalConditionModel",
)
TRANSFORMERS_CLASSES = (
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "CLIPVisionModelWithProjection",
    "Dinov2Model",
    "SiglipVisionModel",
    "T5EncoderModel",
)
TOKENIZER_CLASSES = (
    "CLIPTokenizer",
    "CLIPTokenizerFast",
    "PreTrainedTokenizerFast",
    "T5Tokenizer",
    "T5TokenizerFast",
    "TokenizersBackend",  # the name of PreTrainedTokenizerFast since transformers 5
)
WEIGHT_PATTERNS = ("*.safetensors", "*.bin")
LISTED_KEYS = 6


def require_libraries(purpose: str, *names: str) -> None:
    """Check that libraries are installed.

    Raises:
        ImportError: names those that are not, with the command that installs them.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{purpose} needs {', '.join(missing)}: pip install {' '.join(missing)}")


def read_index(folder: Path) -> dict[str, str]:
    """Classes of a model folder's parts by part; absent parts are left out.

    Raises:
        FileNotFoundError: there is no model in the folder.
        ValueError: its index cannot be read.
    """
    data = read_json(folder / INDEX, f"{folder.name} is no model in diffusers layout").data
    return {
        part: value[1]
        for part, value in data.items()
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str)
    }


def read_json(path: Path, missing: str = "The file is missing") -> JsonObject:
    """A small JSON file.

    Raises:
        FileNotFoundError: there is none; the message begins with ``missing``.
        ValueError: it is damaged or too large.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{missing}: {path} does not exist.")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path} is too large for a configuration.")
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def require_parts(folder: Path, parts: Mapping[str, str], link: str = "") -> None:
    """Check that every network of a folder has its configuration and weights, before any is read.

    Args:
        folder: of the model.
        parts: classes by part.
        link: where the model comes from, for the message.

    Raises:
        FileNotFoundError: names each file that is missing.
    """
    missing = []
    for part, kind in parts.items():
        if kind in TOKENIZER_CLASSES:
            if not (folder / part).is_dir():
                missing.append(f"{part}/ (tokenizer files)")
        elif kind in DIFFUSERS_CLASSES + TRANSFORMERS_CLASSES:
            if not (folder / part / "config.json").is_file():
                missing.append(f"{part}/config.json")
            if not has_weights(folder / part):
                missing.append(f"{part}/{_usual_file(kind)}")
    if missing:
        source = f" from {link}" if link else ""
        raise FileNotFoundError(
            f"The model folder {folder} is not complete: {', '.join(missing)} missing. Copy the "
            f"missing files there{source}."
        )


def has_weights(folder: Path) -> bool:
    """Whether a part's folder holds a weight file."""
    return any(next(folder.glob(pattern), None) for pattern in WEIGHT_PATTERNS)


def _usual_file(kind: str) -> str:
    stem = "diffusion_pytorch_model" if kind in DIFFUSERS_CLASSES else "model"
    return f"{stem}.safetensors"


def read_network(folder: Path, kind: str, dtype: torch.dtype) -> nn.Module:
    """Network of one of the known classes, on the CPU, ready for use and without gradients.

    Raises:
        ValueError: the class is not known, the files are damaged, or weights are missing.
    """
    loader = network_class(kind)
    try:
        with plain_tensors(), quiet_libraries():
            network, report = loader.from_pretrained(
                str(folder),
                torch_dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                variant=_variant(folder),
            )
    except _damage() as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"The weights in {folder} cannot be read: a file is missing, truncated or of another "
            f"kind; download it again ({reason})."
        ) from error
    _require_complete(report, folder)
    return freeze(network)


def freeze(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, its weights without gradients."""
    return network.eval().requires_grad_(False)


def read_tokenizer(folder: Path, kind: str) -> Any:
    """Tokenizer of one of the known classes.

    Raises:
        ValueError: the class is not known, or the files are damaged.
    """
    import transformers

    if kind not in TOKENIZER_CLASSES:
        raise ValueError(
            f"{folder} asks for the tokenizer class {kind!r}, which is not known here."
        )
    loader = getattr(transformers, kind, transformers.PreTrainedTokenizerFast)
    try:
        with quiet_libraries():
            return loader.from_pretrained(str(folder), local_files_only=True)
    except _damage() as error:
        raise ValueError(
            f"The tokenizer in {folder} cannot be read; copy all its files again "
            f"({' '.join(str(error).split())[:200]})."
        ) from error


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Block without progress bars and notices of deprecation, which users cannot act on."""
    import transformers

    bars = transformers.utils.logging
    was_shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if was_shown:
            bars.enable_progress_bar()


def network_class(kind: str) -> Any:
    """Class of diffusers or transformers of a known name."""
    import diffusers
    import transformers

    if kind in DIFFUSERS_CLASSES:
        return getattr(diffusers, kind)
    if kind in TRANSFORMERS_CLASSES:
        return getattr(transformers, kind)
    raise ValueError(
        f"The model asks for the class {kind!r}, which is not known here; supported are Flux, "
        "Stable Diffusion 1.5, 2.1, SDXL and Stable Video Diffusion."
    )


def _variant(folder: Path) -> str | None:
    """``fp16`` where a folder holds only files such as ``model.fp16.safetensors``."""
    files = [path.name for pattern in WEIGHT_PATTERNS for path in folder.glob(pattern)]
    return "fp16" if files and all(".fp16." in name for name in files) else None


def _damage() -> tuple[type[Exception], ...]:
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    return (
        OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, UnpicklingError,
        SafetensorError,
    )  # fmt: skip


def _require_complete(report: Any, folder: Path) -> None:
    wrong = [*report.get("missing_keys", ()), *map(str, report.get("mismatched_keys", ()))]
    if wrong:
        more = f" and {len(wrong) - LISTED_KEYS} more" if len(wrong) > LISTED_KEYS else ""
        raise ValueError(
            f"The weights in {folder} do not fit its config.json: {len(wrong)} are missing or of "
            f"another shape ({', '.join(wrong[:LISTED_KEYS])}{more}); download the folder again."
        )
