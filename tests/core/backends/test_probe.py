from __future__ import annotations

import pytest
import torch
from lift3d.core.backends import probe


@pytest.mark.parametrize("kind", ["mesh", "splats"])
def test_every_backend_that_is_not_ready_names_a_remedy(kind) -> None:
    for state in probe.backend_status(kind):
        assert state.ready or state.remedy


@pytest.mark.parametrize("kind", ["mesh", "splats"])
def test_without_numba_the_torch_reference_draws(kind, monkeypatch, caplog) -> None:
    monkeypatch.setattr(probe, "numba_problem", lambda: "numba is not installed")
    probe._log_fallback_once.cache_clear()
    assert probe.choose_backend(kind, torch.device("cpu")) == "torch"
    assert "pip install numba" in caplog.text
    caplog.clear()
    probe.choose_backend(kind, torch.device("cpu"))
    assert not caplog.text  # said once, not at every frame


def test_a_backend_that_cannot_run_is_refused_with_the_remedy(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        probe.choose_backend("mesh", torch.device("cpu"), "cuda")


def test_unknown_backend_is_refused(unchecked_shapes) -> None:
    with pytest.raises(ValueError, match="Unknown backend 'vulkan'"):
        probe.choose_backend("mesh", torch.device("cpu"), "vulkan")
