"""Contains what a workflow file is checked against: the inputs and outputs of each node type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
CONTROL_VALUES = ("fixed", "increment", "decrement", "randomize")
UPLOAD_FLAGS = ("image_upload", "mesh_upload", "file_upload", "video_upload", "audio_upload")


@dataclass(frozen=True)
class InputSpec:
    """One input of a node type.

    Attributes:
        name: its id.
        io_type: accepted link types, separated by commas.
        required: whether the node needs it.
        is_widget: whether the workflow stores a value for it.
        options: limits, default and choices.
    """

    name: str
    io_type: str
    required: bool
    is_widget: bool
    options: Mapping[str, Any]

    @property
    def value_type(self) -> str:
        """Type of the widget's value."""
        return str(self.options.get("widgetType") or self.io_type.split(",")[0])

    @property
    def has_control(self) -> bool:
        """Whether the front end stores a "control after generate" value behind this one."""
        return self.value_type == "INT" and (
            bool(self.options.get("control_after_generate")) or self.name in ("seed", "noise_seed")
        )

    @property
    def has_upload(self) -> bool:
        """Whether the front end may store the name of an upload button behind this value."""
        return any(self.options.get(flag) for flag in UPLOAD_FLAGS)


@dataclass(frozen=True)
class NodeSpec:
    """One node type: its inputs in order, and the link types of its outputs."""

    node_id: str
    display_name: str
    inputs: tuple[InputSpec, ...]
    output_types: tuple[str, ...]
    is_output_node: bool = False

    def input(self, name: str) -> InputSpec | None:
        """The input called ``name``, or None."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    @property
    def widgets(self) -> tuple[InputSpec, ...]:
        """Inputs whose values the workflow stores, in the order of storage."""
        return tuple(spec for spec in self.inputs if spec.is_widget)


def spec_from_schema(schema: Any) -> NodeSpec:
    """Spec of a schema of the stand-in interface (`comfy_api.Schema`)."""
    inputs = tuple(
        InputSpec(
            name=item.id,
            io_type=item.get_io_type(),
            required=not item.optional,
            is_widget=item.is_widget,
            options=item.options,
        )
        for item in schema.inputs
    )
    return NodeSpec(
        node_id=schema.node_id,
        display_name=schema.display_name or schema.node_id,
        inputs=inputs,
        output_types=tuple(output.io_type for output in schema.outputs),
        is_output_node=schema.is_output_node,
    )


def spec_from_info(node_id: str, info: Mapping[str, Any]) -> NodeSpec:
    """Spec of an entry of ComfyUI's ``/object_info``."""
    inputs = []
    for section in ("required", "optional"):
        for name, entry in (info["input"].get(section) or {}).items():
            kind, options = entry[0], dict(entry[1]) if len(entry) > 1 else {}
            if isinstance(kind, (list, tuple)):
                kind, options = "COMBO", {**options, "options": list(kind)}
            first = str(options.get("widgetType") or kind.split(",")[0])
            is_widget = first in WIDGET_TYPES and not options.get("forceInput")
            inputs.append(InputSpec(name, kind, section == "required", is_widget, options))
    return NodeSpec(
        node_id=node_id,
        display_name=info.get("display_name") or node_id,
        inputs=tuple(inputs),
        output_types=tuple("COMBO" if isinstance(o, list) else o for o in info["output"]),
        is_output_node=bool(info.get("output_node")),
    )


def types_match(given: str, accepted: str) -> bool:
    """Whether an output of type ``given`` may be linked to an input that accepts ``accepted``."""
    if "*" in (given, accepted):
        return True
    return bool(set(given.split(",")) & set(accepted.split(",")))


def value_problem(spec: InputSpec, value: Any, *, check_choice: bool = True) -> str:
    """Empty when ``value`` suits the widget, else what is wrong with it."""
    kind, options = spec.value_type, spec.options
    if kind == "INT" and (isinstance(value, bool) or not isinstance(value, int)):
        return f"must be a whole number, got {value!r}"
    if kind == "FLOAT":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"must be a number, got {value!r}"
        if not math.isfinite(value):
            return f"must be finite, got {value!r}"
    if kind == "STRING" and not isinstance(value, str):
        return f"must be text, got {value!r}"
    if kind == "BOOLEAN" and not isinstance(value, bool):
        return f"must be true or false, got {value!r}"
    if kind in ("INT", "FLOAT"):
        low, high = options.get("min"), options.get("max")
        if (low is not None and value < low) or (high is not None and value > high):
            return f"must lie within {low}..{high}, got {value!r}"
    if kind == "COMBO" and check_choice and value not in options.get("options", []):
        listed = ", ".join(map(str, options.get("options", [])))
        return f"must be one of {listed}; got {value!r}"
    return ""


def parse_value(spec: InputSpec, text: str) -> Any:
    """Value of a widget from the text of a command line.

    Raises:
        ValueError: the text is no value of the widget's type.
    """
    kind = spec.value_type
    if kind == "INT":
        return int(text, 0)
    if kind == "FLOAT":
        return float(text)
    if kind == "BOOLEAN":
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in words:
            raise ValueError(f"'{text}' is neither true nor false")
        return words[text.lower()]
    return text
