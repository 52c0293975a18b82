"""Contains orbits as the networks see them: latents of all views, kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.diffusers_files import read_network
from ..diffusion.image_codec import vae_latent_format
from ..diffusion.model import LatentFormat
from ..progress import ProgressCallback, ignore_progress
from .orbit_sheets import TrainingOrbits, input_views
from .row_cache import cached_rows

PICTURES_AT_A_TIME = 16


@dataclass(frozen=True)
class EncodedOrbits:
    """Latents of the regular views of all objects, normalised for the network.

    Attributes:
        orbits: the objects.
        latents: [object, view, channel, height, width] in half precision, mapped from disk.
        latent_format: size and normalisation.
    """

    orbits: TrainingOrbits
    latents: np.ndarray
    latent_format: LatentFormat

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.latents.shape[2:]
        return int(channels), int(height), int(width)

    def take(self, index: int, views: Sequence[int]) -> Float[Tensor, "view channel height width"]:
        """Latents of some regular views of an object, in single precision."""
        return torch.from_numpy(self.latents[index][list(views)]).float()

    def num_trained(self, held_out: int) -> int:
        """Objects to train on when the last ``held_out`` are kept for looking.

        Raises:
            ValueError: none would be left.
        """
        if len(self.orbits) <= held_out:
            raise ValueError(
                f"There are {len(self.orbits)} objects and {held_out} are held out; draw more, or "
                "hold out fewer."
            )
        return len(self.orbits) - held_out

    def draw(self, batch: int, count: int, generator: torch.Generator) -> list[DrawnOrbit]:
        """Random objects among the first ``count``, each seen from a random first view."""
        objects = torch.randint(count, (batch,), generator=generator).tolist()
        starts = torch.randint(self.orbits.facts.num_views, (batch,), generator=generator)
        return [DrawnOrbit(i, int(s)) for i, s in zip(objects, starts, strict=True)]


@dataclass(frozen=True)
class DrawnOrbit:
    """An object and the view of it that is the given picture."""

    index: int
    start: int

    def inputs(self, orbits: TrainingOrbits, num_frames: int) -> list[int]:
        """Views that are given to the network, this one first."""
        return input_views(orbits.facts.num_views, num_frames, self.start)


def read_vae(folder: Path) -> Any:
    """Autoencoder of a folder in diffusers layout, in single precision.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no autoencoder (config.json). The embedded models share that of the "
            "embedded bundle model; for SV3D take the folder 'vae' of Stable Diffusion 1.5."
        )
    return read_network(folder, "AutoencoderKL", torch.float32)


@torch.no_grad()
def encode_orbits(
    orbits: TrainingOrbits,
    vae: Any,
    source: Path,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    on_progress: ProgressCallback = ignore_progress,
) -> EncodedOrbits:
    """Encode all regular views once; what is in the folder already is used again.

    Args:
        orbits: the objects.
        vae: diffusers' ``AutoencoderKL``.
        source: folder that it was read from; another one begins anew.
        folder: where the array is kept.
        device: where to compute.
        on_progress: called after each object.
    """
    latent_format = vae_latent_format(vae)
    vae.to(device)

    def encode(rows: range) -> dict[str, Tensor]:
        return {"latents": torch.stack([_encode(orbits, row, vae, latent_format) for row in rows])}

    facts = [record.name for record in orbits.records], orbits.facts.__dict__
    weights = [(path.name, path.stat().st_size, path.stat().st_mtime_ns)
               for path in sorted(source.glob("*.safetensors"))]  # fmt: skip
    state = hashlib.sha256(json.dumps([facts, weights]).encode()).hexdigest()
    rows = cached_rows(
        folder, "orbits", state, len(orbits), encode, batch=1, on_progress=on_progress
    )
    return EncodedOrbits(orbits, rows["latents"], latent_format)


def _encode(
    orbits: TrainingOrbits, index: int, vae: Any, latent_format: LatentFormat
) -> Float[Tensor, "view channel height width"]:
    found = []
    for first in range(0, orbits.facts.num_views, PICTURES_AT_A_TIME):
        last = min(first + PICTURES_AT_A_TIME, orbits.facts.num_views)
        pixels = orbits.views(index, range(first, last)).rgb.permute(0, 3, 1, 2) * 2 - 1
        encoded = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode()
        found.append(latent_format.to_network(encoded.float()).cpu())
    return torch.cat(found)
