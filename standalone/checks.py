"""Contains `run.py test`: lint, type check and the test suite, in one go."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


MAX_WORKERS = 4  # each holds torch and the networks of its tests in memory
WHOLE_SUITE = ("--slow", "--only-slow", "--durations", "-q", "-v", "-x")
"""Arguments (up to their ``=``) that leave it the whole suite."""


def run_tests(arguments: list[str]) -> int:
    """Run every check; ``arguments`` go to pytest (``--slow``, a path, ``-k NAME``).

    With a path or ``-k`` only pytest runs, which is what one wants while writing code. The whole
    suite is dealt out to the cores.
    """
    steps = [[sys.executable, "-m", "pytest", *arguments]]
    environment = dict(os.environ)
    if all(argument.split("=")[0] in WHOLE_SUITE for argument in arguments):
        workers = num_workers()
        if workers > 1:
            steps[0] += ["-n", str(workers), "--dist", "worksteal"]
            environment.setdefault("OMP_NUM_THREADS", "1")  # one torch thread per worker
        steps = [
            [sys.executable, "-m", "ruff", "check", "."],
            [sys.executable, "-m", "ruff", "format", "--check", "."],
            [sys.executable, "-m", "mypy"],
            *steps,
        ]
    failed = []
    for step in steps:
        print(f"== {' '.join(step[2:])}", flush=True)
        if subprocess.run(step, cwd=ROOT, env=environment).returncode:
            failed.append(step[2])
    if failed:
        print(f"== failed: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


def num_workers() -> int:
    """Processes for the whole suite: one per core that we may use, if pytest-xdist is there."""
    if importlib.util.find_spec("xdist") is None:
        return 1
    if hasattr(os, "sched_getaffinity"):
        return min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    return min(MAX_WORKERS, os.cpu_count() or 1)
