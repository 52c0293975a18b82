"""The health report: a missing library takes down what needs it, and nothing else."""

from __future__ import annotations

import importlib.util

import pytest
from lift3d.core import health


def findings(name: str) -> health.Finding:
    return next(item for item in health.check_health() if item.name == name)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "peft" else find(name)
    )
    loras = findings("Apply LoRAs")
    assert not loras.ready and "pip install peft" in loras.remedy
    assert findings("Run diffusion models").ready
    report = health.check_health()
    assert not health.is_healthy(report)
    broken = {item.name for item in report if item.required and not item.ready}
    assert broken == {"peft", "Apply LoRAs", "Train LoRAs and ControlNets"}
    assert "3 things need attention" in health.health_text(report)


def test_embedded_models_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "list_embedded", lambda kind: [f"a {kind}"])
    assert findings("Embedded models").detail == "a model, a control, a lora"
    monkeypatch.setattr(health, "list_embedded", lambda kind: [])
    absent = findings("Embedded models")
    assert not absent.ready and not absent.required and "models/embedded" in absent.remedy
