"""Calls of nodes as the executor makes them."""

from __future__ import annotations

from typing import Any


def outputs(cls: Any, **inputs: Any) -> Any:
    """Run a node with the defaults of its schema for what is not given."""
    defaults = {item.id: item.default for item in cls.define_schema().inputs if item.is_widget}
    return cls.execute(**{**defaults, **inputs}).args
