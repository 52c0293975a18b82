"""Contains the attachment of a LoRA file to all networks of a model, with a report of the rest."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from torch import nn

from .adapters import ActiveAdapter
from .diffusers_files import require_libraries
from .lora_files import LoraFile, read_lora
from .lora_targets import (
    ENCODER_PREFIXES,
    NETWORK_PREFIXES,
    LoraMatch,
    guess_architecture,
    match_lora,
)
from .model_parts import Backbone, ModelParts

LOGGER = logging.getLogger(__name__)
LISTED_KEYS = 8


def attach_lora(
    parts: ModelParts, path: Path, strength: float
) -> tuple[tuple[str, ActiveAdapter], ...]:
    """Put a LoRA file into the networks of a model.

    Layers that fit nowhere are named in a warning.

    Returns:
        The LoRA in each network that it changes, by the network's folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no LoRA, or one for another kind of model.
    """
    require_libraries("A LoRA", "peft")
    file = read_lora(path)
    matches = _match_all(file, parts.networks(), parts.backbone.folder)
    _report(file, matches, parts.backbone)
    name = adapter_name(path)
    return tuple(
        (
            folder,
            ActiveAdapter(parts.bank(folder).attach(name, match.layers, parts.placement), strength),
        )
        for folder, match in matches.items()
        if match.layers
    )


def _match_all(
    file: LoraFile, networks: dict[str, nn.Module], backbone: str
) -> dict[str, LoraMatch]:
    """Layers of a LoRA file for each network; those with no text prefix are the backbone's."""
    names: dict[str, list[str]] = {folder: [] for folder in networks}
    homeless: list[str] = []
    for name in file.layers:
        folder = next((f for f, p in ENCODER_PREFIXES.items() if name.startswith(p)), backbone)
        (names[folder] if folder in names else homeless).append(name)
    matches = {}
    for folder, network in networks.items():
        prefixes = NETWORK_PREFIXES if folder == backbone else ENCODER_PREFIXES[folder]
        matches[folder] = match_lora(names[folder], file, network, prefixes)
    matches[backbone].unmatched += homeless
    return matches


def _report(file: LoraFile, matches: dict[str, LoraMatch], backbone: Backbone) -> None:
    fitting = sum(len(match.layers) for match in matches.values())
    rest = "; ".join(
        f"{folder}: {match.describe_rest()}"
        for folder, match in matches.items()
        if match.describe_rest()
    )
    main = matches[backbone.folder]
    # A file whose text part fits by chance (Flux and SD share CLIP-L) is still for another model.
    if not fitting or (main.describe_rest() and not main.layers):
        raise ValueError(
            f"None of the layers of the LoRA {file.name} for the main network fits this "
            f"{backbone.architecture} model; it looks made for "
            f"{guess_architecture(file)} ({rest}). Choose a LoRA for this model."
        )
    if rest:
        LOGGER.warning("LoRA %s: %d layers applied; not applied: %s.", file.name, fitting, rest)
    if file.ignored:
        LOGGER.warning(
            "LoRA %s: %d tensors are no part of a LoRA and are ignored: %s.",
            file.name, len(file.ignored), ", ".join(file.ignored[:LISTED_KEYS]),
        )  # fmt: skip


def adapter_name(path: Path) -> str:
    """Name that differs between files and between states of one file."""
    state = path.stat()
    identity = f"{path.resolve()}:{state.st_size}:{state.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return f"{re.sub('[^A-Za-z0-9]+', '_', path.stem)}_{digest}"
