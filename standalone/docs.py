"""Writes help pages (``web/docs/<NodeId>.md``), the locale and the README's node table.

The source is the schemas.

Tables of inputs and outputs are made anew; everything else in a page is written by hand and kept.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .runner import own_node_classes

SECTIONS = ("Inputs", "Outputs")


def write_docs(root: Path) -> list[Path]:
    """Update all pages and the locale below ``root``; returns the files that changed."""
    wanted = {root / "locales" / "en" / "nodeDefs.json": locale_text()}
    for node_id, cls in own_node_classes().items():
        page = root / "web" / "docs" / f"{node_id}.md"
        wanted[page] = page_text(cls.define_schema(), _read(page))
    readme = root / "README.md"
    wanted[readme] = readme_text(_read(readme))
    changed = [path for path, text in wanted.items() if _read(path) != text]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8", newline="\n")
    return changed


def page_text(schema: Any, old: str) -> str:
    """Help page of a node: the hand-written text of ``old`` with new tables."""
    text = old or f"# {schema.display_name}\n\n{schema.description}\n\n## Example\n"
    tables = {"Inputs": _input_table(schema), "Outputs": _output_table(schema)}
    for title in SECTIONS:
        section = f"## {title}\n\n{tables[title]}\n"
        pattern = rf"## {title}\n.*?(?=\n## |\Z)"
        if re.search(pattern, text, flags=re.DOTALL):
            text = re.sub(pattern, lambda _, new=section: new, text, flags=re.DOTALL)
        else:
            text = text.replace("## Example", f"{section}\n## Example")
    return text.rstrip() + "\n"


def readme_text(old: str) -> str:
    """The README with a new node table between its markers."""
    rows = [
        (f"[{schema.display_name}](web/docs/{node_id}.md)", schema.category, schema.description)
        for node_id, cls in own_node_classes().items()
        for schema in [cls.define_schema()]
    ]
    table = _table(("Node", "Menu", "What it does"), rows)
    pattern = r"<!-- nodes:begin -->.*?<!-- nodes:end -->"
    new = f"<!-- nodes:begin -->\n{table}\n<!-- nodes:end -->"
    return re.sub(pattern, lambda _: new, old, flags=re.DOTALL)


def locale_text() -> str:
    """``nodeDefs.json`` in English: what the schemas say."""
    entries = {
        node_id: _locale_entry(cls.define_schema()) for node_id, cls in own_node_classes().items()
    }
    return json.dumps(dict(sorted(entries.items())), indent=2, ensure_ascii=False) + "\n"


def _locale_entry(schema: Any) -> dict[str, Any]:
    inputs = {
        item.id: {"name": item.display_name or item.id, "tooltip": item.tooltip or ""}
        for item in schema.inputs
    }
    outputs = {
        str(index): {"name": item.display_name, "tooltip": item.tooltip or ""}
        for index, item in enumerate(schema.outputs)
    }
    entry = {"display_name": schema.display_name, "description": schema.description}
    return (
        entry | ({"inputs": inputs} if inputs else {}) | ({"outputs": outputs} if outputs else {})
    )


def _input_table(schema: Any) -> str:
    if not schema.inputs:
        return "None."
    rows = [
        (f"`{item.id}`", _types(item), _default(item), item.tooltip or "") for item in schema.inputs
    ]
    return _table(("Input", "Type", "Default", "Meaning"), rows)


def _output_table(schema: Any) -> str:
    if not schema.outputs:
        return "None."
    rows = [
        (
            f"`{item.display_name}`",
            item.io_type + (" list" if item.is_output_list else ""),
            item.tooltip or "",
        )
        for item in schema.outputs
    ]
    return _table(("Output", "Type", "Meaning"), rows)


def _types(item: Any) -> str:
    kind = item.get_io_type()
    if kind == "COMBO":
        if "lift3d_weights" in item.options:
            return "weights"
        return "file or sample" if "mesh_upload" in item.options else _choices(item)
    low, high = item.options.get("min"), item.options.get("max")
    limits = f", {low:g}..{high:g}" if low is not None and high is not None else ""
    return kind.replace(",", ", ") + limits


def _choices(item: Any) -> str:
    return " / ".join(f"`{choice}`" for choice in item.options["options"])


def _default(item: Any) -> str:
    if not item.is_widget:
        return "optional" if item.optional else "required"
    if "mesh_upload" in item.options and item.default is None:
        return "-"
    return f"`{item.default}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
