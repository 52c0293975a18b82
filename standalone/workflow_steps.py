"""Contains the check of a workflow file and its translation into a list of steps to run.

Links are followed through reroutes, bypassed nodes and primitive nodes; muted nodes and notes drop
out. Every problem of a file is collected, so that one message names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .specs import CONTROL_VALUES, InputSpec, NodeSpec, parse_value, types_match, value_problem
from .workflow_file import FileNode, WorkflowError, WorkflowFile

MODE_MUTED, MODE_BYPASSED = 2, 4
NOTES = ("Note", "MarkdownNote")
REROUTE, PRIMITIVE = "Reroute", "PrimitiveNode"
OWN_PREFIX = "Lift3D_"
_MISSING = object()


@dataclass
class Step:
    """One node to run: constants by input name, and links as (node id, output slot)."""

    id: str
    type: str
    title: str
    values: dict[str, Any] = field(default_factory=dict)
    links: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name for messages."""
        return f"node '{self.title}' ({self.type}, id {self.id})"


def compile_steps(
    workflow: WorkflowFile,
    specs: Mapping[str, NodeSpec],
    *,
    settings: Sequence[str] = (),
    check_choice: Callable[[str, str], bool] = lambda node_type, name: True,
) -> list[Step]:
    """Steps in the order of running, checked against the node types.

    Args:
        workflow: parsed file.
        specs: known node types.
        settings: texts ``TITLE.input=VALUE`` that replace stored values.
        check_choice: whether the choice of a combo must be in its list (node type, input).

    Raises:
        WorkflowError: names every problem found.
    """
    compiler = _Compiler(workflow, specs, check_choice)
    steps = compiler.compile(settings)
    if compiler.problems:
        raise WorkflowError(compiler.problems)
    return steps


def unknown_nodes(workflow: WorkflowFile, specs: Mapping[str, NodeSpec]) -> list[FileNode]:
    """Nodes that would run but are of types that are not known here."""
    nodes = workflow.nodes.values()
    return [node for node in nodes if _runs(node) and node.type not in specs]


def _runs(node: FileNode) -> bool:
    """Whether a node becomes a step."""
    return node.type not in (*NOTES, REROUTE, PRIMITIVE) and node.mode not in (
        MODE_MUTED,
        MODE_BYPASSED,
    )


def _listed(nodes: Sequence[FileNode]) -> str:
    return ", ".join(f"'{node.type}' (id {node.id}, '{node.title or node.type}')" for node in nodes)


class _Compiler:
    """Collects steps and problems of one workflow."""

    def __init__(
        self,
        workflow: WorkflowFile,
        specs: Mapping[str, NodeSpec],
        check_choice: Callable[[str, str], bool],
    ):
        self.workflow = workflow
        self.specs = specs
        self.check_choice = check_choice
        self.problems: list[str] = []

    def compile(self, settings: Sequence[str]) -> list[Step]:
        self._report_unknown()
        steps: dict[str, Step] = {}
        for node in self.workflow.nodes.values():
            if not _runs(node):
                continue
            spec = self.specs.get(node.type)
            if spec is not None:
                steps[node.id] = self._make_step(node, spec)
        for setting in settings:
            self._apply(setting, steps)
        for step in steps.values():
            self._check(step, steps)
        return self._ordered(steps)

    def _report_unknown(self) -> None:
        """One problem for each kind of remedy."""
        unknown = unknown_nodes(self.workflow, self.specs)
        foreign = [node for node in unknown if not node.type.startswith(OWN_PREFIX)]
        own = [node for node in unknown if node.type.startswith(OWN_PREFIX)]
        if foreign:
            self.problems.append(
                f"The workflow uses nodes that only ComfyUI has: {_listed(foreign)}; run this "
                "workflow in ComfyUI."
            )
        if own:
            self.problems.append(f"These nodes are not known here: {_listed(own)}; update Lift3D.")

    def _make_step(self, node: FileNode, spec: NodeSpec) -> Step:
        step = Step(node.id, node.type, node.title or spec.display_name)
        step.values = self._widget_values(node, spec, step.label)
        for name, _, link in node.inputs:
            if link is None:
                continue
            if spec.input(name) is None:
                self.problems.append(f"{step.label} has no input '{name}'.")
                continue
            source = self._source(link, step.label, name)
            if source is _MISSING:
                step.values.pop(name, None)
            elif isinstance(source, _Constant):
                step.values[name] = source.value
            else:
                step.values.pop(name, None)
                step.links[name] = source
        return step

    def _widget_values(self, node: FileNode, spec: NodeSpec, label: str) -> dict[str, Any]:
        if isinstance(node.widgets_values, dict):
            known = {item.name for item in spec.widgets}
            return {name: value for name, value in node.widgets_values.items() if name in known}
        remaining = list(node.widgets_values or [])
        values: dict[str, Any] = {}
        for item in spec.widgets:
            if not remaining:
                break
            values[item.name] = remaining.pop(0)
            _drop_companion(item, remaining)
        if remaining:
            names = ", ".join(item.name for item in spec.widgets) or "none"
            self.problems.append(
                f"{label} stores {len(node.widgets_values)} widget values, more than its widgets "
                f"({names}); the file was made for another version of this node."
            )
        return values

    def _source(self, link_id: int, label: str, name: str) -> Any:
        """Output that feeds a link: (node id, slot), a constant, or `_MISSING`."""
        seen: set[int] = set()
        current: int | None = link_id
        while current is not None:
            link = self.workflow.links.get(current)
            if link is None or link.origin not in self.workflow.nodes or current in seen:
                self.problems.append(f"Input '{name}' of {label} hangs on a broken link.")
                return _MISSING
            seen.add(current)
            origin = self.workflow.nodes[link.origin]
            if origin.type == PRIMITIVE:
                stored = origin.widgets_values or [_MISSING]
                return _Constant(stored[0]) if stored[0] is not _MISSING else _MISSING
            if origin.mode == MODE_MUTED:
                return _MISSING
            if origin.type == REROUTE:
                current = origin.inputs[0][2] if origin.inputs else None
            elif origin.mode == MODE_BYPASSED:
                current = _bypass_link(origin, link.slot)
            else:
                return (origin.id, link.slot)
        return _MISSING

    def _apply(self, setting: str, steps: Mapping[str, Step]) -> None:
        address, equals, text = setting.partition("=")
        title, dot, name = address.rpartition(".")
        if not equals or not dot or not title:
            self.problems.append(
                f"--set '{setting}' is not of the form 'NODE TITLE.input=VALUE', for example "
                "'Load Mesh.path=cup.glb'."
            )
            return
        matching = [step for step in steps.values() if title in (step.title, step.id)]
        if len(matching) != 1:
            titles = ", ".join(sorted({f"'{step.title}'" for step in steps.values()}))
            count = "no node" if not matching else f"{len(matching)} nodes (use the id instead)"
            self.problems.append(
                f"--set '{setting}': {count} titled '{title}'; there are {titles}."
            )
            return
        step = matching[0]
        spec = self.specs[step.type].input(name)
        if spec is None or not spec.is_widget:
            names = ", ".join(item.name for item in self.specs[step.type].widgets)
            self.problems.append(f"--set '{setting}': {step.label} has only the values {names}.")
            return
        try:
            step.values[name] = parse_value(spec, text)
        except ValueError as error:
            self.problems.append(f"--set '{setting}': {error}.")
        step.links.pop(name, None)

    def _check(self, step: Step, steps: Mapping[str, Step]) -> None:
        spec = self.specs[step.type]
        for item in spec.inputs:
            if item.name in step.links:
                self._check_link(step, item, steps)
            elif item.name in step.values and step.values[item.name] is not None:
                problem = value_problem(
                    item,
                    step.values[item.name],
                    check_choice=self.check_choice(step.type, item.name),
                )
                if problem:
                    self.problems.append(f"'{item.name}' of {step.label} {problem}.")
            elif item.required:
                what = "its value is missing" if item.is_widget else "nothing is connected to it"
                self.problems.append(f"'{item.name}' of {step.label}: {what}.")
            else:
                step.values.pop(item.name, None)

    def _check_link(self, step: Step, item: InputSpec, steps: Mapping[str, Step]) -> None:
        origin_id, slot = step.links[item.name]
        origin = steps.get(origin_id)
        if origin is None:
            return  # an unknown node: reported already
        given = self.specs[origin.type].output_types
        if not 0 <= slot < len(given):
            self.problems.append(
                f"'{item.name}' of {step.label} is linked to output {slot} of {origin.label}, "
                f"which has {len(given)} outputs."
            )
        elif not types_match(given[slot], item.io_type):
            self.problems.append(
                f"'{item.name}' of {step.label} takes {item.io_type}, but is linked to "
                f"{given[slot]} of {origin.label}."
            )

    def _ordered(self, steps: Mapping[str, Step]) -> list[Step]:
        """Steps that an output node needs, sources first."""
        roots = [step for step in steps.values() if self.specs[step.type].is_output_node]
        if not roots and not self.problems:
            self.problems.append(
                "No node of the workflow saves or shows anything; add one that does."
            )
        ordered: dict[str, Step] = {}
        trail: list[str] = []

        def visit(node_id: str) -> None:
            if node_id in ordered or node_id not in steps:
                return
            if node_id in trail:
                cycle = [*trail[trail.index(node_id) :], node_id]
                path = " -> ".join(steps[member].title for member in cycle)
                problem = f"The links form a cycle: {path}."
                if problem not in self.problems:
                    self.problems.append(problem)
                return
            trail.append(node_id)
            for source, _ in steps[node_id].links.values():
                visit(source)
            trail.pop()
            ordered[node_id] = steps[node_id]

        for step in roots:
            visit(step.id)
        needed = list(ordered.values())
        for step in steps.values():  # a cycle is an error wherever it lies
            visit(step.id)
        return needed


@dataclass(frozen=True)
class _Constant:
    value: Any


def _drop_companion(item: InputSpec, remaining: list[Any]) -> None:
    """Drop the values that the front end stores behind seeds and upload choices."""
    if item.has_control and remaining and remaining[0] in CONTROL_VALUES:
        remaining.pop(0)
    elif item.has_upload and remaining and remaining[0] in ("image", "upload", item.name):
        remaining.pop(0)


def _bypass_link(node: FileNode, slot: int) -> int | None:
    """Link of the input that a bypassed node hands on: same type, same slot first."""
    wanted = node.output_types[slot] if slot < len(node.output_types) else "*"
    matching = [
        (index != slot, index)
        for index, (_, kind, _) in enumerate(node.inputs)
        if types_match(kind, wanted)
    ]
    return node.inputs[min(matching)[1]][2] if matching else None
