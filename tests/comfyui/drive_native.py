"""Measures `NativeModel` inside a ComfyUI process and writes the numbers into a report.

Runs in a process of its own: python drive_native.py JOB.json REPORT.json, like `drive_comfyui`. Each
check is a function that returns what it measured; the tests beside this file judge it.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import native_agreement  # noqa: E402, F401  (importing a file registers its checks)
import native_hosting  # noqa: E402, F401
import native_inputs  # noqa: E402, F401
import torch  # noqa: E402
from drive_comfyui import start_comfyui  # noqa: E402
from native_scene import CHECKS, Scene  # noqa: E402


def drive(job: dict[str, Any]) -> dict[str, Any]:
    """Run all checks."""
    torch.set_num_threads(1)
    start_comfyui(Path(job["comfyui"]), Path(job["folder"]))
    import run

    run.register_package()
    scene = Scene(Path(job["folder"]) / "tiny", Path(job["comfyui"]))
    report: dict[str, Any] = {}
    for function in CHECKS:
        try:
            report[function.__name__] = function(scene)
        except Exception:  # noqa: BLE001  (one failed check must not hide the others)
            report[function.__name__] = {"error": traceback.format_exc()}
    return report


if __name__ == "__main__":
    job_file, report_file = map(Path, sys.argv[1:3])
    done = drive(json.loads(job_file.read_text(encoding="utf-8")))
    report_file.write_text(json.dumps(done, indent=1, default=str), encoding="utf-8")
