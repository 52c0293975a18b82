"""One ComfyUI process per job, also when the suite is dealt out to several workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 1800
JOB_SECONDS = 1500


@pytest.fixture(scope="session")
def comfyui_root() -> Path:
    """The ComfyUI checkout."""
    root = os.environ.get("COMFYUI_PATH")
    if not root:
        pytest.skip("needs a ComfyUI checkout: set COMFYUI_PATH (and COMFYUI_PYTHON)")
    return Path(root)


@pytest.fixture(scope="session")
def drive(tmp_path_factory) -> Callable[[str, Callable[[Path], dict[str, Any]]], dict[str, Any]]:
    """Function that runs a driver script with a job and returns its report.

    Its arguments are the name of the script, and a function that fills the job's folder and gives
    the job. Workers share the folder: the first one works, the others wait for its report.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def run(script: str, prepare: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        folder = base / script.removesuffix(".py")
        result = folder.with_suffix(".json")
        try:
            folder.mkdir()
        except FileExistsError:
            _wait_for(result)
        else:
            _publish(result, _outcome(script, folder, prepare))
        outcome = json.loads(result.read_text(encoding="utf-8"))
        assert "failure" not in outcome, outcome["failure"]
        return {**outcome["report"], "folder": folder}

    return run


def _outcome(
    script: str, folder: Path, prepare: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    try:
        job = {**prepare(folder), "folder": str(folder)}
    except BaseException as error:
        _publish(folder.with_suffix(".json"), {"failure": f"preparing failed: {error!r}"})
        raise
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    environment = _compiled_once(python, folder / "pycache")
    done = subprocess.run(
        [
            python,
            str(Path(__file__).with_name(script)),
            str(folder / "job.json"),
            str(folder / "report.json"),
        ],
        capture_output=True, text=True, cwd=folder, timeout=JOB_SECONDS, env=environment,
    )  # fmt: skip
    if done.returncode:
        return {"failure": done.stdout[-3000:] + done.stderr[-6000:]}
    return {"report": json.loads((folder / "report.json").read_text(encoding="utf-8"))}


def _compiled_once(python: str, cache: Path) -> dict[str, str]:
    """Environment in which the pack is compiled already, as in every start after the first."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    folders = [str(ROOT / name) for name in ("__init__.py", "nodes", "core", "standalone")]
    subprocess.run([python, "-m", "compileall", "-q", *folders], env=environment, check=True)
    return environment


def _publish(path: Path, content: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    os.replace(part, path)


def _wait_for(path: Path) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not path.is_file():
        assert time.monotonic() < end, f"no report of another worker at {path}"
        time.sleep(1)
