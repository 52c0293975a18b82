"""Contains the recognition of reconstruction checkpoints: their size, and what is in them.

The size follows from the keys and shapes; a YAML file beside the checkpoint with the same name
describes sizes that are not published (see `core/configs/lrm.yaml`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from .lrm import (
    KEY_PREFIX,
    LargeReconstructionModel,
    LrmParams,
    PublishedLrm,
    build_lrm,
    empty_lrm,
    load_lrm_params,
    read_lrm_params,
)
from .weights import KeyReport, compare_keys, read_weights, strip_prefix

PUBLISHED: tuple[PublishedLrm, ...] = get_args(PublishedLrm)
CONFIG_SUFFIX = ".yaml"
IGNORED_ROOTS_LISTED = 5


@dataclass(frozen=True)
class LoadedLrm:
    """A model and what its checkpoint held.

    Attributes:
        model: ready for inference.
        size: published name of its size, or the name of the YAML file that described it.
        report: lines for people: keys, parameters, what was ignored or merged.
    """

    model: LargeReconstructionModel
    size: str
    report: str


def load_lrm_checkpoint(
    path: Path | str,
    size: PublishedLrm | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> LoadedLrm:
    """Model of a checkpoint, on the CPU, with a report on its keys.

    Args:
        path: ``.ckpt``, ``.pth``, ``.pt``, ``.bin`` or ``.safetensors``; keys below
            ``lrm_generator.`` if there are any, else all.
        size: published size; None takes the YAML file beside the checkpoint, else the published
            size that all keys fit.
        dtype: of encoder and transformer.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or its keys do not fit; the message lists them.
    """
    path = Path(path)
    everything = read_weights(path)
    state = strip_prefix(everything, KEY_PREFIX)
    config = path.with_suffix(CONFIG_SUFFIX)
    if size is not None:
        name, params = str(size), load_lrm_params(size)
    elif config.is_file():
        name, params = config.name, read_lrm_params(config)
    else:
        found = recognize_size(state, name=path.name)
        name, params = found, load_lrm_params(found)
    model = build_lrm(state, params, name=path.name, dtype=dtype)
    return LoadedLrm(model, name, _report(path.name, name, model, everything, state))


def recognize_size(state: Mapping[str, Tensor], *, name: str = "The file") -> PublishedLrm:
    """Published size that a state dict has, with or without its adapters.

    Raises:
        ValueError: it has none of them; the message lists the keys that keep it from the nearest.
    """
    reports = {size: _fit(state, load_lrm_params(size)) for size in PUBLISHED}
    best = min(reports, key=lambda size: _misfits(reports[size]))
    if reports[best].is_clean:
        return best
    raise ValueError(
        f"{name} has the size of no published reconstruction model ({', '.join(PUBLISHED)}). "
        f"Compared with '{best}': {reports[best].describe()}. For a size of your own put a "
        f"{CONFIG_SUFFIX} file with the same name beside it."
    )


def _fit(state: Mapping[str, Tensor], params: LrmParams) -> KeyReport:
    plain = compare_keys(empty_lrm(params.without_lora()), state)
    if plain.is_clean or not params.transformer.lora_rank:
        return plain
    adapted = compare_keys(empty_lrm(params), state)
    return min(plain, adapted, key=_misfits)


def _misfits(report: KeyReport) -> int:
    return len(report.missing) + len(report.unexpected) + len(report.misshaped)


def _report(
    file: str,
    size: str,
    model: LargeReconstructionModel,
    everything: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
) -> str:
    parameters = sum(value.numel() for value in model.parameters())
    lines = [
        f"{file}: size '{size}', {len(model.state_dict())} keys, {parameters:,} parameters; all "
        "keys fit."
    ]
    ignored = [key for key in everything if not key.startswith(KEY_PREFIX)]
    if len(state) < len(everything):
        roots = sorted({key.split(".")[0] for key in ignored})
        more = ", ..." if len(roots) > IGNORED_ROOTS_LISTED else ""
        lines.append(
            f"{len(ignored)} keys outside '{KEY_PREFIX}' are not needed and were ignored: "
            f"{', '.join(roots[:IGNORED_ROOTS_LISTED])}{more}."
        )
    adapters = sum(key.endswith("_lora_A") for key in state)
    if adapters:
        lines.append(f"{adapters} adapters were merged into their weights.")
    if model.params.decoder.has_material:
        lines.append("Its material head is loaded; meshes do not use it.")
    return "\n".join(lines)
