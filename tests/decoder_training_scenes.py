"""Tiny orbits with a tiny autoencoder, for the trainers of GSV3D."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lift3d.core.training.encoded_orbits import EncodedOrbits, encode_orbits, read_vae
from lift3d.core.training.orbit_dataset import OrbitDatasetParams, open_orbits
from tiny_models import make_tiny_vae, seeded


def write_vae(folder: Path) -> Path:
    """Autoencoder whose latents have a spread of about 1."""
    with seeded(7):
        vae: Any = make_tiny_vae(channels=4, scale=1.0, shift=None)
        for value in vae.encoder.parameters():
            value.data.mul_(1.5)
    vae.save_pretrained(folder)
    return folder


def data_params(folder: Path, **more: Any) -> OrbitDatasetParams:
    """A handful of procedural objects, 8 views of 32 pixels and two free ones."""
    settings: dict[str, Any] = {
        "count": 3, "categories": ("mug", "car"), "num_views": 8, "num_free_views": 2,
        "size_px": 32, "supersampling": 1,
    }  # fmt: skip
    return OrbitDatasetParams(folder / "orbits", **{**settings, **more})


def make_data(folder: Path, **more: Any) -> EncodedOrbits:
    """Drawn and encoded orbits."""
    vae_folder = folder / "vae"
    if not vae_folder.is_dir():
        write_vae(vae_folder)
    orbits = open_orbits(data_params(folder, **more))
    return encode_orbits(orbits, read_vae(vae_folder), vae_folder, folder / "encoded")
