"""A builder of small workflow documents in the editor's format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class DocumentBuilder:
    """Collects nodes and links, then writes format 0.4."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []

    def node(
        self,
        type: str,
        values: Any = (),
        *,
        title: str = "",
        inputs: tuple[tuple[str, str], ...] = (),
        outputs: tuple[str, ...] = (),
        mode: int = 0,
    ) -> int:
        """Add a node and return its id; inputs are (name, type)."""
        self.nodes.append(
            {
                "id": len(self.nodes) + 1,
                "type": type,
                "title": title or type,
                "pos": [0, 0],
                "size": [200, 100],
                "flags": {},
                "order": len(self.nodes),
                "mode": mode,
                "inputs": [{"name": n, "type": t, "link": None} for n, t in inputs],
                "outputs": [{"name": t, "type": t, "links": []} for t in outputs],
                "properties": {},
                "widgets_values": values if isinstance(values, dict) else list(values),
            }
        )
        return len(self.nodes)

    def link(self, origin: int, slot: int, target: int, name: str, type: str = "*") -> None:
        """Connect an output to a named input, which is added when missing."""
        inputs = self.nodes[target - 1]["inputs"]
        names = [item["name"] for item in inputs]
        if name not in names:
            inputs.append({"name": name, "type": type, "link": None})
            names.append(name)
        link_id = len(self.links) + 1
        inputs[names.index(name)]["link"] = link_id
        self.links.append([link_id, origin, slot, target, names.index(name), type])

    def document(self) -> dict[str, Any]:
        return {
            "id": "00000000-0000-4000-8000-000000000000",
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": [],
            "definitions": {},
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def write(self, folder: Path) -> Path:
        path = folder / "workflow.json"
        path.write_text(json.dumps(self.document()), encoding="utf-8")
        return path


@pytest.fixture
def builder() -> DocumentBuilder:
    return DocumentBuilder()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def say(lines: list[str]) -> Callable[[str], None]:
    return lines.append
