"""Contains the command ``train``: one trainer of the table, set up by a YAML file."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from ..core.progress import Progress

SECONDS_BETWEEN_LINES = 5.0


def add_train_command(commands: Any) -> None:
    """Declare the command and its arguments; the trainers themselves are loaded when it runs."""
    parser = commands.add_parser(
        "train",
        help="train a LoRA, a ControlNet or a dataset by a YAML file",
        description="Train by a YAML file; a stopped run goes on where it was. "
        "Without NAME it lists the trainers.",
    )
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="what to train")
    parser.add_argument(
        "config",
        nargs="?",
        default="",
        metavar="CONFIG",
        help="YAML file, or the name of one in core/configs",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="replace a value of the file, for example loop.steps=200; repeatable",
    )
    parser.set_defaults(run=run_train)


def run_train(arguments: argparse.Namespace) -> int:
    """Train, print where the files lie, and return the exit code."""
    from ..core.training.config import ConfigError, read_config
    from ..core.training.trainers import TRAINERS
    from .cli import DONE, FAILED, INVALID

    trainer = TRAINERS.get(arguments.name)
    if trainer is None or not arguments.config:
        print(usage(arguments.name), file=sys.stderr)
        return INVALID
    try:
        params = read_config(trainer.params, arguments.config, arguments.settings)
    except ConfigError as error:
        print(f"The configuration cannot be used: {error}", file=sys.stderr)
        return INVALID
    try:
        files = trainer.train(params, ProgressLines())
    except (ValueError, OSError, ImportError) as error:
        print(f"Training stopped: {error}", file=sys.stderr)
        return FAILED
    for line in describe_files(files):
        print(line)
    return DONE


def usage(name: str) -> str:
    """What to type, with the trainers and the shipped configurations."""
    from ..core.training.config import CONFIG_FOLDER
    from ..core.training.trainers import TRAINERS

    lines = [f"There is no trainer '{name}'."] if name and name not in TRAINERS else []
    lines += ["run.py train NAME CONFIG [--set KEY=VALUE ...]", "", "NAME is one of:"]
    lines += [f"  {known:16}{trainer.summary}" for known, trainer in TRAINERS.items()]
    shipped = sorted(path.stem for path in CONFIG_FOLDER.glob("*_*.yaml"))
    return "\n".join([*lines, "", "CONFIG is a YAML file, or one of:", f"  {', '.join(shipped)}"])


class ProgressLines:
    """Prints progress now and then: a new message, but not more often than every few seconds."""

    def __init__(self) -> None:
        self.last_time = 0.0
        self.last_message = ""

    def __call__(self, progress: Progress) -> None:
        """Print a report if it is due."""
        now = time.monotonic()
        is_due = now - self.last_time >= SECONDS_BETWEEN_LINES or progress.step == progress.total
        if progress.message != self.last_message and is_due:
            self.last_time, self.last_message = now, progress.message
            print(progress.message, flush=True)


def describe_files(files: list[Path]) -> list[str]:
    """One line per file with its size; folders of many alike files are summed up."""
    lines = []
    for folder in sorted({path.parent for path in files}):
        inside = [path for path in files if path.parent == folder]
        size = sum(path.stat().st_size for path in inside)
        named = ", ".join(path.name for path in inside[:4])
        rest = f" and {len(inside) - 4} more" if len(inside) > 4 else ""
        lines.append(f"wrote {folder}: {named}{rest} ({size / 2**20:.1f} MB)")
    return lines
