"""Runs the benchmarks by name and prints their tables: ``run.py bench [NAME ...] [OPTIONS]``.

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
    if not path.stem.startswith("_") and path.stem != "run_all"
)


def machine() -> str:
    """One line about the machine, for the head of a table."""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def main(arguments: list[str]) -> int:
    """Run the named benchmarks, or all of them; ``--list`` names them.

    Names come first. What follows from the first option on goes to the script, so that options need
    exactly one name.
    """
    if "--list" in arguments:
        print("\n".join(SCRIPTS))
        return 0
    first = next((i for i, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    names, options = arguments[:first] or SCRIPTS, arguments[first:]
    unknown = sorted(set(names) - set(SCRIPTS))
    if unknown:
        print(f"Unknown benchmark {', '.join(unknown)}; choose from {', '.join(SCRIPTS)}.")
        return 2
    if options and len(names) != 1:
        print(f"Options such as {options[0]} belong to one benchmark: name it first.")
        return 2
    print(f"Machine: {machine()}\n")
    failed = 0
    for name in names:
        print(f"## {name}\n", flush=True)
        module = importlib.import_module(f".{name}", __package__)
        failed |= module.main(options)
        print(flush=True)
    return failed
