"""The face of the pack: ids, widgets, tooltips, help pages. What workflows rely on is frozen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from lift3d.standalone.docs import locale_text, page_text
from lift3d.standalone.runner import node_specs, own_node_classes

ROOT = Path(__file__).resolve().parents[2]
FROZEN = Path(__file__).with_name("frozen_widgets.json")
CLASSES = own_node_classes()
NODE_IDS = sorted(CLASSES)


def test_ids_are_prefixed_and_named_verb_noun() -> None:
    assert all(re.fullmatch(r"Lift3D_[A-Z][A-Za-z0-9]+", node_id) for node_id in NODE_IDS)
    assert len(CLASSES) >= 25


def test_display_names_are_unique() -> None:
    names = [cls.define_schema().display_name for cls in CLASSES.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_every_node_explains_itself(node_id: str) -> None:
    schema = CLASSES[node_id].define_schema()
    assert schema.display_name and schema.category.startswith("Lift3D")
    assert len(schema.description) > 30 and schema.search_aliases
    for item in (*schema.inputs, *schema.outputs):
        assert item.tooltip and item.tooltip.rstrip().endswith("."), f"{node_id}.{item.id}"
        assert re.fullmatch(r"[a-z][a-z0-9_]*", item.id), f"{node_id}.{item.id}"


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_every_widget_has_a_default_within_its_limits(node_id: str) -> None:
    from lift3d.standalone.specs import value_problem

    for spec in node_specs(CLASSES)[node_id].widgets:
        if spec.has_upload:
            continue
        assert "default" in spec.options, f"{node_id}.{spec.name}"
        assert not value_problem(spec, spec.options["default"]), f"{node_id}.{spec.name}"


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_execute_takes_exactly_the_inputs(node_id: str) -> None:
    import inspect

    schema = CLASSES[node_id].define_schema()
    parameters = inspect.signature(CLASSES[node_id].execute).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    assert set(parameters) == {item.id for item in schema.inputs}
    for item in schema.inputs:
        has_default = parameters[item.id].default is not inspect.Parameter.empty
        assert has_default == item.optional, f"{node_id}.{item.id}"


def test_widgets_and_sockets_keep_their_order() -> None:
    """Workflows store values by position. A new widget goes to the end; change this file knowingly."""
    now = {
        node_id: {
            "widgets": [item.name for item in spec.widgets],
            "outputs": list(spec.output_types),
        }
        for node_id, spec in sorted(node_specs(CLASSES).items())
    }
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    assert now == frozen


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_help_pages_agree_with_the_schemas(node_id: str) -> None:
    page = ROOT / "web" / "docs" / f"{node_id}.md"
    assert page.is_file(), "run `python run.py docs` and write the page's text"
    text = page.read_text(encoding="utf-8")
    assert text == page_text(CLASSES[node_id].define_schema(), text), "run `python run.py docs`"
    example = text.partition("## Example")[2]
    assert len(example.strip()) > 40, "the page needs an example"


def test_no_help_page_is_left_over() -> None:
    assert {path.stem for path in (ROOT / "web" / "docs").glob("*.md")} == set(NODE_IDS)


def test_the_locale_agrees_with_the_schemas() -> None:
    path = ROOT / "locales" / "en" / "nodeDefs.json"
    assert path.read_text(encoding="utf-8") == locale_text(), "run `python run.py docs`"
