"""Contains the commands of run.py that use the library: workflow, demo, health, script and others.

Exit codes: 0 done, 1 failed while running, 2 bad arguments or a workflow that does not validate.
"""

from __future__ import annotations

import argparse
import logging
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .train import add_train_command

DONE, FAILED, INVALID = 0, 1, 2
ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if list(arguments[:1]) == ["script"]:  # its arguments belong to the user's file
        return run_script(list(arguments[1:]))
    try:
        parsed = make_parser().parse_args(list(arguments))
    except SystemExit as stop:  # argparse has printed what was wrong
        return DONE if stop.code in (0, None) else INVALID
    command: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return command(parsed)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return FAILED


def make_parser() -> argparse.ArgumentParser:
    """Parser of all commands but ``script``."""
    parser = argparse.ArgumentParser(prog="run.py", description="Lift3D without ComfyUI.")
    commands = parser.add_subparsers(dest="command", required=True)
    workflow = commands.add_parser("workflow", help="run a workflow file of the editor")
    workflow.add_argument("file", type=Path, help="workflow JSON, for example of workflows/")
    workflow.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE_TITLE.input=VALUE",
        dest="settings",
        help="replace a stored value, for example 'Load Mesh.path=cup.glb'; repeatable",
    )
    workflow.add_argument(
        "--out", type=Path, default=Path("output"), help="folder of all output files"
    )
    workflow.add_argument(
        "--check", action="store_true", help="validate only, without running anything"
    )
    workflow.set_defaults(run=_workflow)
    demo = commands.add_parser("demo", help="make a first object from start to end")
    demo.add_argument("--out", type=Path, default=Path("demo_output"))
    demo.add_argument("--prompt", default=None, help="words, for example 'a blue car'")
    demo.add_argument("--seed", type=int, default=1, help="another number, another object")
    demo.add_argument(
        "--quick", action="store_true", help="small pictures and few steps, to see that it works"
    )
    demo.set_defaults(run=_demo)
    add_train_command(commands)
    health = commands.add_parser("health", help="what is ready, what is missing, the remedy")
    health.set_defaults(run=_health)
    thumbnail = commands.add_parser("thumbnail", help="make the thumbnails of workflows/")
    thumbnail.add_argument("names", nargs="*", help="workflows to picture; all without names")
    thumbnail.add_argument("--set", action="append", default=[], dest="settings")
    thumbnail.set_defaults(run=_thumbnail)
    docs = commands.add_parser("docs", help="write help pages and locale from the schemas")
    docs.set_defaults(run=_docs)
    return parser


def _workflow(arguments: argparse.Namespace) -> int:
    from .runner import NodeError, compile_workflow, node_classes, run_workflow
    from .workflow_file import WorkflowError, read_workflow

    try:
        if arguments.check:
            compile_workflow(read_workflow(arguments.file), arguments.settings, node_classes())
            print(f"{arguments.file} is valid.")
            return DONE
        files = run_workflow(arguments.file, arguments.out, settings=arguments.settings)
    except WorkflowError as error:
        print(f"{arguments.file} cannot be run:\n{error}", file=sys.stderr)
        return INVALID
    except NodeError as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return FAILED
    print(f"Done: {len(files)} files below {arguments.out}")
    return DONE


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import DEFAULT_PROMPT, run_demo

    prompt = DEFAULT_PROMPT if arguments.prompt is None else arguments.prompt
    try:
        sheet = run_demo(arguments.out, prompt=prompt, seed=arguments.seed, quick=arguments.quick)
    except (ValueError, OSError) as error:
        print(f"The demo stopped: {error}", file=sys.stderr)
        return FAILED
    print(f"Contact sheet: {sheet}")
    return DONE


def _health(arguments: argparse.Namespace) -> int:
    from ..core.health import check_health, health_text, is_healthy
    from ..nodes.host import model_folders

    findings = check_health(model_folders())
    print(health_text(findings))
    return DONE if is_healthy(findings) else FAILED


def _thumbnail(arguments: argparse.Namespace) -> int:
    from .thumbnails import make_thumbnails

    try:
        for path in make_thumbnails(
            ROOT / "workflows", arguments.names, settings=arguments.settings
        ):
            print(path)
    except ValueError as error:
        print(error, file=sys.stderr)
        return INVALID
    return DONE


def _docs(arguments: argparse.Namespace) -> int:
    from .docs import write_docs

    for path in write_docs(ROOT):
        print(path)
    return DONE


def run_script(arguments: Sequence[str]) -> int:
    """Run a user's Python file, in which ``import lift3d`` works, with the rest as its argv."""
    if not arguments or not Path(arguments[0]).is_file():
        named = f"'{arguments[0]}' is no file" if arguments else "no file was named"
        print(f"run.py script FILE [ARGS]: {named}.", file=sys.stderr)
        return INVALID
    file = Path(arguments[0]).resolve()
    sys.argv = [str(file), *arguments[1:]]
    sys.path.insert(0, str(file.parent))
    try:
        runpy.run_path(str(file), run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or DONE
        print(stop.code, file=sys.stderr)
        return FAILED
    return DONE
