"""Contains `run.py test`: lint, type check and the test suite, in one go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_tests(arguments: list[str]) -> int:
    """Run every check; ``arguments`` go to pytest (``--slow``, a path, ``-k NAME``).

    With a path or ``-k`` only pytest runs, which is what one wants while writing code.
    """
    steps = [[sys.executable, "-m", "pytest", *arguments]]
    if all(argument in ("--slow", "-q", "-v") for argument in arguments):
        steps = [
            [sys.executable, "-m", "ruff", "check", "."],
            [sys.executable, "-m", "ruff", "format", "--check", "."],
            [sys.executable, "-m", "mypy"],
            *steps,
        ]
    failed = []
    for step in steps:
        print(f"== {' '.join(step[2:])}", flush=True)
        if subprocess.run(step, cwd=ROOT).returncode:
            failed.append(step[2])
    if failed:
        print(f"== failed: {', '.join(failed)}", flush=True)
    return 1 if failed else 0
