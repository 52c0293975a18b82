"""Runs a checked workflow without ComfyUI: one node after the other, no cache, no server."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..core.progress import Progress
from ..nodes import Lift3DExtension, host
from . import folders
from .specs import NodeSpec, spec_from_schema
from .stock_nodes import STOCK_NODES
from .workflow_file import WorkflowError, WorkflowFile, read_workflow
from .workflow_steps import Step, compile_steps

LOGGER = logging.getLogger(__name__)
Say = Callable[[str], None]


class NodeError(RuntimeError):
    """A node failed; the message names it and says what was wrong."""


def own_node_classes() -> dict[str, Any]:
    """Lift3D's node classes by id, in the order of the menu."""
    own = asyncio.run(Lift3DExtension().get_node_list())
    return {cls.define_schema().node_id: cls for cls in own}


def node_classes() -> dict[str, Any]:
    """All node classes that run here, by id: Lift3D's own and the stock stand-ins."""
    return own_node_classes() | {cls.define_schema().node_id: cls for cls in STOCK_NODES}


def node_specs(classes: Mapping[str, Any]) -> dict[str, NodeSpec]:
    """Specs of the classes, by id."""
    return {name: spec_from_schema(cls.define_schema()) for name, cls in classes.items()}


def compile_workflow(
    workflow: WorkflowFile, settings: Sequence[str], classes: Mapping[str, Any]
) -> list[Step]:
    """Steps of a workflow, after every check that needs no computing.

    Raises:
        WorkflowError: names every problem.
    """
    steps = compile_steps(
        workflow,
        node_specs(classes),
        settings=settings,
        check_choice=lambda node_type, name: name not in _own_checks(classes[node_type]),
    )
    problems = []
    for step in steps:
        problem = _own_check(step, classes[step.type])
        if problem:
            problems.append(problem)
    if problems:
        raise WorkflowError(problems)
    return steps


def _own_checks(cls: Any) -> tuple[str, ...]:
    """Names of the inputs that a node checks itself, as in ComfyUI."""
    check = getattr(cls, "validate_inputs", None)
    return () if check is None else tuple(inspect.signature(check).parameters)


def _own_check(step: Step, cls: Any) -> str:
    names = _own_checks(cls)
    given = {name: step.values.get(name) for name in names if name in step.values}
    if not names or len(given) < len(names):
        return ""
    verdict = cls.validate_inputs(**given)
    return "" if verdict is True else f"'{', '.join(names)}' of {step.label}: {verdict}."


def run_workflow(
    path: Path,
    out: Path,
    *,
    settings: Sequence[str] = (),
    say: Say = lambda line: print(line, flush=True),
    input_folder: Path = Path("input"),
) -> list[Path]:
    """Run a workflow file and return the files that it wrote, all below ``out``.

    Args:
        path: workflow JSON of the editor.
        out: folder of all output files; made when missing.
        settings: texts ``NODE TITLE.input=VALUE``.
        say: takes the lines of the report.
        input_folder: where relative names of input files are looked up after the working folder.

    Raises:
        WorkflowError: the workflow does not validate; nothing was run.
        NodeError: a node failed while running.
    """
    classes = node_classes()
    with folders.use_folders(folders.RunFolders(output=out, input=input_folder)) as run_folders:
        steps = compile_workflow(read_workflow(path), settings, classes)
        out.mkdir(parents=True, exist_ok=True)
        _run_steps(steps, classes, say)
        return list(run_folders.written)


def _run_steps(steps: Sequence[Step], classes: Mapping[str, Any], say: Say) -> None:
    results: dict[str, list[list[Any]]] = {}
    for number, step in enumerate(steps, start=1):
        say(f"[{number}/{len(steps)}] {step.title}")
        written = len(folders.current().written)
        started = time.perf_counter()
        listener = ProgressLines(say)
        host.standalone_progress_hook.append(listener)
        try:
            results[step.id] = _run_step(step, classes[step.type], results, say)
        finally:
            host.standalone_progress_hook.remove(listener)
        seconds = time.perf_counter() - started
        if seconds > 1:
            say(f"    {seconds:.1f} s")
        for file in folders.current().written[written:]:
            say(f"    wrote {file}")


def _run_step(
    step: Step, cls: Any, results: Mapping[str, list[list[Any]]], say: Say
) -> list[list[Any]]:
    """Values of the step's outputs, each a list of what successive calls returned."""
    schema = cls.define_schema()
    inputs = {name: [value] for name, value in step.values.items()}
    inputs |= {name: results[origin][slot] for name, (origin, slot) in step.links.items()}
    outputs: list[list[Any]] = [[] for _ in schema.outputs]
    for arguments in _calls(inputs, schema.is_input_list):
        returned = _execute(step, cls, arguments)
        _show(returned.ui, say)
        for slot, value in enumerate(returned.args):
            is_list = schema.outputs[slot].is_output_list
            outputs[slot] += value if is_list else [value]
    return outputs


def _calls(inputs: Mapping[str, list[Any]], takes_lists: bool) -> list[dict[str, Any]]:
    """Arguments of each call: lists are walked through together, the last value repeats."""
    if takes_lists:
        return [dict(inputs)]
    count = max((len(values) for values in inputs.values()), default=1)
    return [
        {name: values[min(index, len(values) - 1)] for name, values in inputs.items() if values}
        for index in range(count)
    ]


def _execute(step: Step, cls: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        with torch.inference_mode():  # as ComfyUI does, so that both fail or work alike
            return cls.execute(**arguments)
    except (ValueError, OSError, RuntimeError, ImportError, MemoryError) as error:
        LOGGER.debug("Traceback of %s:", step.label, exc_info=True)
        raise NodeError(f"{step.label} failed: {error}") from error


def _show(shown: Any, say: Say) -> None:
    if shown is None:
        return
    content = shown if isinstance(shown, dict) else shown.as_dict()
    for text in content.get("text", ()):
        for line in str(text).splitlines():
            say(f"    {line}")


class ProgressLines:
    """Prints progress: one line that renews itself on a terminal, else a line per fifth."""

    def __init__(self, say: Say):
        self.say = say
        self.last_fifth = -1
        self.renews = sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        """Print the report if it is time."""
        total = max(progress.total, 1)
        line = f"    {progress.step}/{total} {progress.message}"
        if self.renews:
            end = "\n" if progress.step >= total else ""
            print(f"\r{line:<78}", end=end, file=sys.stderr, flush=True)
            return
        fifth = 5 * progress.step // total
        if fifth != self.last_fifth:
            self.last_fifth = fifth
            self.say(line)
