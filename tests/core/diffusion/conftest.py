from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # tests/tiny_models.py

import tiny_models  # noqa: E402


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random models of every family, written once."""
    root = tmp_path_factory.mktemp("tiny_models")
    return {
        "flux": tiny_models.make_tiny_flux_folder(root / "flux"),
        "flux_published": tiny_models.make_tiny_flux_folder(
            root / "flux_published", published=True
        ),
        "sd15": tiny_models.make_tiny_sd_folder(root / "sd15"),
        "sd21": tiny_models.make_tiny_sd_folder(root / "sd21", prediction="v_prediction"),
        "sdxl": tiny_models.make_tiny_sd_folder(root / "sdxl", sdxl=True),
    }
