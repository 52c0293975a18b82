"""Contains the reading of ComfyUI workflow files (editor format 0.4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT_VERSION = 0.4


class WorkflowError(ValueError):
    """A workflow that cannot be run; ``problems`` lists everything that is wrong with it."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n".join(f"- {problem}" for problem in self.problems))


@dataclass(frozen=True)
class FileNode:
    """One node as the file has it."""

    id: str
    type: str
    title: str
    mode: int
    inputs: tuple[tuple[str, str, int | None], ...]  # name, type, link id
    output_types: tuple[str, ...]
    widgets_values: Any

    def link_of(self, name: str) -> int | None:
        """Id of the link that ends at input ``name``."""
        return next((link for key, _, link in self.inputs if key == name), None)


@dataclass(frozen=True)
class FileLink:
    """One link as the file has it."""

    id: int
    origin: str
    slot: int
    target: str


@dataclass(frozen=True)
class WorkflowFile:
    """Nodes and links of a file, not yet checked against any node type."""

    nodes: Mapping[str, FileNode]
    links: Mapping[int, FileLink]


def read_workflow(path: Path) -> WorkflowFile:
    """Parse a workflow file.

    Raises:
        WorkflowError: no JSON, no workflow of format 0.4, or a feature that cannot be run here.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkflowError([f"{path} cannot be read: {error.strerror or error}."]) from error
    except ValueError as error:  # bad UTF-8 or bad JSON
        raise WorkflowError([f"{path} is no JSON file: {error}."]) from error
    return parse_workflow(document)


def parse_workflow(document: Any) -> WorkflowFile:
    """Nodes and links of a parsed workflow document."""
    problem = _document_problem(document)
    if problem:
        raise WorkflowError([problem])
    try:
        links = [_parse_link(entry) for entry in document.get("links") or []]
        nodes = [_parse_node(entry) for entry in document["nodes"]]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise WorkflowError([f"A node or link of the file is malformed: {error!r}."]) from error
    ids = [node.id for node in nodes]
    doubles = sorted({node_id for node_id in ids if ids.count(node_id) > 1})
    if doubles:
        raise WorkflowError([f"Node ids must be unique; these repeat: {', '.join(doubles)}."])
    return WorkflowFile(
        nodes={node.id: node for node in nodes}, links={link.id: link for link in links}
    )


def _document_problem(document: Any) -> str:
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
        if isinstance(document, dict) and any(
            isinstance(value, dict) and "class_type" in value for value in document.values()
        ):
            return "This is an API-format prompt; save the workflow from the editor instead."
        return "The file holds no workflow: a list called 'nodes' is missing."
    if document.get("version") != FORMAT_VERSION:
        return (
            f"The workflow format is {document.get('version')!r}, expected {FORMAT_VERSION}; open "
            "the file in ComfyUI and save it again."
        )
    if (document.get("definitions") or {}).get("subgraphs"):
        return (
            "The workflow contains subgraphs, which run in ComfyUI only; unpack them in the editor."
        )
    return ""


def _parse_link(entry: Any) -> FileLink:
    if isinstance(entry, dict):
        return FileLink(
            int(entry["id"]),
            str(entry["origin_id"]),
            int(entry["origin_slot"]),
            str(entry["target_id"]),
        )
    return FileLink(int(entry[0]), str(entry[1]), int(entry[2]), str(entry[3]))


def _parse_node(entry: Any) -> FileNode:
    inputs = tuple(
        (str(item["name"]), str(item.get("type", "*")), item.get("link"))
        for item in entry.get("inputs") or []
    )
    return FileNode(
        id=str(entry["id"]),
        type=str(entry["type"]),
        title=str(entry.get("title") or ""),
        mode=int(entry.get("mode") or 0),
        inputs=inputs,
        output_types=tuple(str(item.get("type", "*")) for item in entry.get("outputs") or []),
        widgets_values=entry.get("widgets_values"),
    )
