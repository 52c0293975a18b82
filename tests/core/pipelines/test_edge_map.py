from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.pipelines.edge_map import find_edges


def disc(radius: float, size: int = 96) -> torch.Tensor:
    """Distance of each pixel centre to the middle, and an anti-aliased disc."""
    axis = torch.arange(size) + 0.5 - size / 2
    distance = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    return distance, (radius + 0.5 - distance).clamp(0, 1)[..., None].expand(size, size, 3)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_step_gives_one_line_of_single_pixels_along_it(axis):
    image = torch.zeros(24, 24, 3)
    image.narrow(axis, 13, 11).fill_(1.0)
    edges = find_edges(image)
    expected = torch.zeros(24, 24, dtype=torch.bool)
    expected.narrow(axis, 12, 1).fill_(True)
    beside = torch.zeros(24, 24, dtype=torch.bool)
    beside.narrow(axis, 13, 1).fill_(True)
    assert torch.equal(edges, expected) or torch.equal(edges, beside)


def test_a_disc_gives_a_thin_closed_ring_on_its_rim():
    distance, image = disc(30.0)
    edges = find_edges(image)
    assert float((distance[edges] - 30).abs().max()) < 1.0
    angles = torch.atan2(*(edges.nonzero().T + 0.5 - 48).float()).sort().values
    assert float(angles.diff().max()) < 3 / 30
    assert edges.sum() < 1.5 * 2 * math.pi * 30


def test_a_step_in_one_channel_is_as_good_as_in_all():
    image = torch.zeros(24, 24, 3)
    image[:, 12:, 2] = 1.0
    white = torch.zeros(24, 24, 3)
    white[:, 12:] = 1.0
    assert torch.equal(find_edges(image), find_edges(white))


def test_a_hard_step_gives_the_gradient_that_is_documented():
    image = torch.zeros(24, 24, 3)
    image[:, 12:] = 0.2
    assert find_edges(image, low=0.4, high=0.4).any()
    assert not find_edges(image, low=0.44, high=0.44).any()
    assert find_edges(image, low=0.79, high=0.79, blur_px=0).any()


def test_weak_edges_count_only_where_they_hang_on_strong_ones():
    # A line that fades from strong to weak, and a weak line of its own.
    image = torch.zeros(40, 60, 3)
    image[:, 15:30] = torch.linspace(1, 0.25, 40)[:, None, None]
    image[:, 45:] = 0.25
    edges = find_edges(image, low=0.3, high=1.5)
    assert bool(edges[2:-2, 12:18].any(dim=1).all()), "connected to the strong end"
    assert not edges[:, 42:48].any()


def test_a_flat_picture_has_no_edges():
    assert not find_edges(torch.full((16, 16, 3), 0.7)).any()


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="0 <= low <= high"):
        find_edges(torch.zeros(8, 8, 3), low=0.9, high=0.1)
