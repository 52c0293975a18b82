"""The protocol of novel views, and its two means."""

from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.evaluation.view_scores import ViewProtocol, score_views


def test_views_are_even_at_one_height_per_object() -> None:
    protocol = ViewProtocol()
    rig = protocol.rig(3)
    assert len(rig) == 21
    heights = {round(float(camera.position[1]), 5) for camera in rig}
    assert len(heights) == 1
    torch.testing.assert_close(rig[0].position[0], torch.tensor(0.0), atol=1e-6, rtol=0)
    elevations = [protocol.elevation_of(index) for index in range(50)]
    assert len(set(elevations)) == 50 and all(-5 <= value <= 30 for value in elevations)
    assert protocol.elevation_of(3) == ViewProtocol().elevation_of(3)
    assert protocol.elevation_of(3) != ViewProtocol(seed=1).elevation_of(3)


def test_psnr_is_a_mean_of_views_or_of_pixels() -> None:
    truth = torch.full((2, 16, 16, 3), 0.5)
    views = truth.clone()
    views[0] += 0.1
    views[1] += 0.01
    expected = {"views": (20 + 40) / 2, "pixels": -10 * math.log10((0.1**2 + 0.01**2) / 2)}
    for average, value in expected.items():
        scores = score_views(views, truth, average)
        assert scores.psnr == pytest.approx(value, abs=1e-3)
        assert scores.columns().keys() == {"PSNR", "SSIM"}
    assert "mean of" not in ViewProtocol().text() and "mean over the views" in ViewProtocol().text()


def test_what_lies_outside_the_range_of_colours_is_cut_off() -> None:
    truth = torch.ones(1, 16, 16, 3)
    assert score_views(truth + 0.3, truth).psnr == math.inf


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"num_views": 1}, {"elevation_deg": (20.0, 10.0)}):
        with pytest.raises(ValueError, match="at least 2 and elevations rise"):
            ViewProtocol(**wrong)
