"""Runs the benchmarks by name and prints their tables.

Each script in this folder has ``main(arguments: list[str]) -> int`` and prints Markdown: ratios
against a rival that ran in the same process, interleaved, and the absolute figures of this machine.
"""

from __future__ import annotations

import importlib
import os
import platform
from pathlib import Path

import torch

SCRIPTS = sorted(
    path.stem
    for path in Path(__file__).resolve().parent.glob("*.py")
    if path.stem not in ("__init__", "run_all")
)


def machine() -> str:
    """One line about the machine, for the head of a table."""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def main(arguments: list[str]) -> int:
    """Run the named benchmarks, or all of them; ``--list`` names them."""
    if "--list" in arguments:
        print("\n".join(SCRIPTS))
        return 0
    names = [argument for argument in arguments if not argument.startswith("-")] or SCRIPTS
    unknown = sorted(set(names) - set(SCRIPTS))
    if unknown:
        print(f"Unknown benchmark {', '.join(unknown)}; choose from {', '.join(SCRIPTS)}.")
        return 2
    print(f"Machine: {machine()}\n")
    failed = 0
    options = [argument for argument in arguments if argument.startswith("-")]
    for name in names:
        print(f"## {name}\n", flush=True)
        module = importlib.import_module(f".{name}", __package__)
        failed |= module.main(options)
        print(flush=True)
    return failed
