"""Our diffusion networks under ComfyUI's memory management, with its tokenizers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.comfyui

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    root = os.environ.get("COMFYUI_PATH")
    if not root:
        pytest.skip("needs a ComfyUI checkout: set COMFYUI_PATH (and COMFYUI_PYTHON)")
    folder = tmp_path_factory.mktemp("placement")
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    done = subprocess.run(
        [python, str(HERE / "drive_placement.py"), root, str(folder), str(folder / "report.json")],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_networks_survive_loading_and_unloading_by_comfyui(found) -> None:
    assert found["loaded"] == 1 and found["lora_acts"]
    assert found["while_loaded"] and found["loaded_again"] and found["after_unload"]


def test_images_are_differentiable_afterwards(found) -> None:
    assert found["gradient"] > 0


def test_the_tokenizers_of_comfyui_serve_single_files(found) -> None:
    """Word numbers of the published vocabularies, start and end marks included."""
    assert found["clip"] == [49406, 320, 736, 9722, 49407]
    assert found["t5"] == [3, 9, 1131, 3, 12963, 1]
