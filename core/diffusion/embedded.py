"""Contains the list of embedded models, and the defaults that a model folder can bring along."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from .diffusers_files import INDEX, read_json
from .model import GuidanceKind, ModelDefaults

EMBEDDED_FOLDER = Path(__file__).resolve().parents[2] / "models" / "embedded"
DEFAULTS_FILE = "lift3d.json"
OWN_INDEXES = ("orbit.json", "decoder.json", "slrm.yaml")
"""What folders of our own layout hold instead of an index."""

EmbeddedKind = Literal["model", "control", "lora"]


def list_embedded(kind: EmbeddedKind, root: Path = EMBEDDED_FOLDER) -> list[str]:
    """Names of the embedded models, ControlNets or LoRAs: paths below ``models/embedded``."""
    patterns = {"model": INDEX, "control": "config.json", "lora": "*.safetensors"}
    found = sorted(path for path in root.rglob(patterns[kind]) if not _is_part(path, root))
    if kind == "lora":
        return [path.relative_to(root).as_posix() for path in found]
    return [path.parent.relative_to(root).as_posix() for path in found]


def embedded_path(name: str, root: Path = EMBEDDED_FOLDER) -> Path | None:
    """Path of an embedded model, ControlNet or LoRA; None if there is none of that name."""
    path = (root / name).resolve()
    inside = path.is_relative_to(root.resolve()) and path != root.resolve()
    return path if name and inside and path.exists() else None


def _is_part(path: Path, root: Path) -> bool:
    """Whether a file belongs to a part (such as ``vae``) of a model, or to a ControlNet."""
    folder = path.parent
    if path.suffix == ".safetensors":
        return any((folder / name).is_file() for name in ("config.json", *OWN_INDEXES))
    ahead = folder.parent
    indexes = (INDEX, *OWN_INDEXES)
    has_index = any((ahead / name).is_file() for name in indexes)
    return path.name != INDEX and has_index and ahead != root


def read_defaults(folder: Path, fallback: ModelDefaults) -> ModelDefaults:
    """Defaults of a model folder's ``lift3d.json``; what it omits is taken from ``fallback``.

    Raises:
        ValueError: the file is damaged, or a value is out of range.
    """
    path = folder / DEFAULTS_FILE
    if not path.is_file():
        return fallback
    fields = read_json(path).child("defaults")
    kind = fields.text("guidance_kind", fallback.guidance_kind)
    kinds: tuple[GuidanceKind, ...] = get_args(GuidanceKind)
    known = next((name for name in kinds if name == kind), None)
    if known is None:
        raise ValueError(f"{path}: guidance_kind must be one of {', '.join(kinds)}, got {kind!r}.")
    return ModelDefaults(
        tile_px=fields.integer("tile_px", fallback.tile_px),
        guidance=fields.number("guidance", fallback.guidance),
        guidance_kind=known,
        steps=fields.integer("steps", fallback.steps),
    )
