"""Fixtures of the format tests: small meshes and clouds, and the validators from npm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NODE_FOLDER = Path(__file__).resolve().parents[2] / "node"
INSTALL_TIMEOUT_S = 240


class NodeTools:
    """The validators, installed in a cache folder outside the repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def validate_gltf(self, path: Path) -> dict[str, Any]:
        """Report of the Khronos glTF-Validator."""
        return json.loads(self._run("validate_gltf.mjs", path))

    def splat_transform(self, *arguments: str | Path) -> str:
        """Output of PlayCanvas' splat-transform."""
        script = "node_modules/@playcanvas/splat-transform/bin/cli.mjs"
        return self._run(script, "--gpu", "cpu", "--overwrite", "--quiet", *arguments)

    def _run(self, *words: str | Path) -> str:
        done = subprocess.run(
            ["node", *map(str, words)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def node_tools() -> NodeTools:
    """Validators from npm; skips where Node.js is missing or the registry cannot be reached."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs Node.js (node and npm) for independent validators")
    folder = _cache_folder()
    if not (folder / "installed").is_file():
        _install(npm, folder)
    for script in NODE_FOLDER.glob("*.mjs"):
        shutil.copy(script, folder)
    return NodeTools(folder)


def _cache_folder() -> Path:
    version = hashlib.sha256((NODE_FOLDER / "package.json").read_bytes()).hexdigest()[:12]
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "lift3d" / f"node-{version}"


def _install(npm: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(NODE_FOLDER / "package.json", folder)
    options = [
        "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund",
        "--fetch-retries=1", "--fetch-timeout=30000",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            [npm, "install", *options],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm install of the validators took too long")
    if done.returncode:
        pytest.skip(f"npm could not install the validators: {done.stderr[-200:].strip()}")
    (folder / "installed").touch()
