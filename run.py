#!/usr/bin/env python3
"""Lift3D without ComfyUI: one command that sets itself up and runs.

    python3 run.py demo                 make a first 3D object and say where it lies
    python3 run.py test                 lint, type check and run the tests
    python3 run.py workflow FILE ...    run a workflow JSON: --set NODE.input=VALUE --out DIR
    python3 run.py train NAME CONFIG    train a LoRA or an embedded model by a YAML file
    python3 run.py bench [NAME ...]     run the benchmarks
    python3 run.py health               what is ready on this machine, what is missing, the remedy
    python3 run.py script FILE [ARGS]   run your own Python file with `import lift3d` working

On first use it makes `.venv` beside this file and installs what is needed there; nothing else on
the machine is touched. Set LIFT3D_PYTHON to a Python that has the requirements already (such as
ComfyUI's) to use that one instead. Standard library only. Exit codes: 0 done, 1 failed while
running, 2 bad arguments or a workflow that does not validate.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
import subprocess
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
MIN_PYTHON = (3, 10)
COMMANDS = ("demo", "test", "workflow", "train", "bench", "health", "script", "thumbnail", "docs")
DEVELOPER_COMMANDS = ("test", "bench")
INSIDE = "LIFT3D_INSIDE"


class SetupError(Exception):
    """The environment could not be made; the message says what to do."""


def register_package() -> None:
    """Make this folder importable as the package `lift3d`, whatever the folder is called.

    A bare module with our folder as its path: the pack's own ``__init__`` is for ComfyUI alone.
    """
    if "lift3d" in sys.modules:
        return
    spec = importlib.machinery.ModuleSpec("lift3d", None, is_package=True)
    spec.submodule_search_locations = [str(ROOT)]
    package = types.ModuleType("lift3d")
    package.__path__ = [str(ROOT)]
    package.__spec__ = spec
    sys.modules["lift3d"] = package


def requirement_files(command: str) -> list[Path]:
    """Requirement files that ``command`` needs."""
    files = [ROOT / "requirements.txt", ROOT / "requirements-standalone.txt"]
    if command in DEVELOPER_COMMANDS:
        files.append(ROOT / "requirements-dev.txt")
    return files


def venv_python() -> Path:
    """The interpreter of our virtual environment."""
    if os.name == "nt":
        return VENV / "Scripts" / "python.exe"
    return VENV / "bin" / "python"


def run_quietly(command: list[str], what: str) -> None:
    """Run a set-up step; its output is shown only when it fails."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise SetupError(f"{what} failed. The command was\n  {' '.join(command)}\n{result.stdout}")


def make_venv() -> None:
    """Create `.venv`, explaining the usual reason why that fails."""
    print("Lift3D: making .venv (first run only) ...", flush=True)
    try:
        run_quietly([sys.executable, "-m", "venv", str(VENV)], "Making the virtual environment")
    except SetupError as error:
        raise SetupError(
            f"{error}\nOn Debian and Ubuntu install the package python3-venv, then run this again."
        ) from None


def torch_pin() -> str:
    """The exact torch that the standalone environment uses, from constraints.txt."""
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("torch=="):
            return line.strip()
    raise SetupError("constraints.txt pins no torch; restore the file from the repository.")


def ensure_environment(command: str) -> Path:
    """Make or update `.venv` for ``command`` and return its interpreter."""
    override = os.environ.get("LIFT3D_PYTHON")
    if override:
        return Path(override)
    files = requirement_files(command)
    pinned = [*files, ROOT / "constraints.txt"]
    content = b"".join(path.read_bytes() for path in pinned)
    digest = hashlib.sha256(content + sys.version.encode()).hexdigest()
    profile = "developer" if command in DEVELOPER_COMMANDS else "user"
    stamp = VENV / f"lift3d-{profile}.stamp"
    python = venv_python()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest and python.exists():
        return python
    if not python.exists():
        make_venv()
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    # torch goes first and by its exact version: a range could pull a build for other hardware.
    print(f"Lift3D: installing {torch_pin()} (first run only, a few minutes) ...", flush=True)
    run_quietly([*pip, torch_pin()], "Installing torch")
    print("Lift3D: installing the other requirements ...", flush=True)
    wanted = [part for path in files for part in ("-r", str(path))]
    run_quietly([*pip, *wanted, *constraints], "Installing the requirements")
    stamp.write_text(digest, encoding="utf-8")
    return python


def run_inside(command: str, arguments: list[str]) -> int:
    """Dispatch a command; runs in the interpreter that has the requirements."""
    register_package()
    if command == "test":
        from lift3d.standalone.checks import run_tests

        return run_tests(arguments)
    if command == "bench":
        from lift3d.benchmarks.run_all import main as bench

        return bench(arguments)
    from lift3d.standalone.cli import main as cli

    return cli([command, *arguments])


def main(arguments: list[str]) -> int:
    """Entry point: set up, then run ``arguments`` in the right interpreter."""
    if sys.version_info < MIN_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        print(f"Lift3D needs Python 3.10 or newer; this is {found}.", file=sys.stderr)
        return 2
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(__doc__)
        return 0 if arguments else 2
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        listed = ", ".join(COMMANDS)
        print(f"Unknown command '{command}'. Choose one of: {listed}.", file=sys.stderr)
        return 2
    if os.environ.get(INSIDE) == "1":
        return run_inside(command, rest)
    try:
        python = ensure_environment(command)
    except (SetupError, OSError) as error:
        print(f"Lift3D could not set itself up: {error}", file=sys.stderr)
        return 1
    environment = dict(os.environ, **{INSIDE: "1", "PYTHONUTF8": "1"})
    called = [str(python), str(ROOT / "run.py"), command, *rest]
    try:
        return subprocess.run(called, env=environment).returncode
    except KeyboardInterrupt:
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
