from __future__ import annotations

import numpy as np
import pytest
from lift3d.core.formats.color_space import linear_to_srgb, srgb_to_linear


def test_known_values():
    linear = srgb_to_linear(np.array([0.0, 0.5, 1.0, 0.02, 7.0, -1.0]))
    assert linear == pytest.approx([0.0, 0.21404114, 1.0, 0.02 / 12.92, 1.0, 0.0], abs=1e-8)
    assert linear_to_srgb(np.array([1.0]))[0] == 1.0  # exactly: white stays white


def test_each_undoes_the_other_and_eight_bits_survive():
    values = np.linspace(0, 1, 256)
    assert np.abs(linear_to_srgb(srgb_to_linear(values)) - values).max() < 1e-7
    stored = srgb_to_linear(values).astype(np.float32)
    assert (np.rint(linear_to_srgb(stored) * 255) == np.arange(256)).all()
