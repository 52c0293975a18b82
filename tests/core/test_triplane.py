from __future__ import annotations

import pytest
import torch
from lift3d.core.triplane import Triplane


def test_planes_keep_their_channels_and_device() -> None:
    triplane = Triplane(torch.zeros(1, 3, 80, 64, 64), bound=1.0)
    assert triplane.num_channels == 80
    assert triplane.to("cpu").bound == 1.0


@pytest.mark.parametrize(
    "planes, bound, message",
    [
        (torch.zeros(1, 2, 8, 4, 4), 1.0, r"\[any, 3, any, any, any\]"),
        (torch.zeros(1, 3, 8, 4, 4), 0.0, "bound must be positive"),
        (torch.full((1, 3, 1, 2, 2), float("nan")), 1.0, "NaN"),
        (torch.zeros(1, 3, 8, 4, 4, dtype=torch.int64), 1.0, "floating point"),
    ],
)
def test_broken_triplanes_are_refused(planes, bound, message, unchecked_shapes) -> None:
    with pytest.raises(ValueError, match=message):
        Triplane(planes, bound)
