"""Unseen texels take colours from the surface, empty ones from the texture."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.geometry.dilation import dilate_texture, fill_along_surface


def test_empty_texels_take_the_nearest_covered_colour():
    texture = torch.zeros(8, 8, 3)
    texture[2:4, 2:4], texture[5, 7] = 0.25, 0.75
    covered = texture[..., 0] > 0
    padded = dilate_texture(texture, covered)
    assert torch.equal(padded[covered], texture[covered])
    assert float(padded[0, 0, 0]) == 0.25 and float(padded[7, 7, 0]) == 0.75
    rows, columns = covered.nonzero(as_tuple=True)
    for row in range(8):
        for column in range(8):
            distance = (rows - row) ** 2 + (columns - column) ** 2
            nearest = texture[rows, columns][distance == distance.min()]
            assert any(torch.equal(padded[row, column], color) for color in nearest)


def test_padding_stops_after_the_given_number_of_texels():
    texture = torch.zeros(1, 16, 1)
    texture[0, 0], texture[0, 1] = 1.0, 0.0
    covered = torch.zeros(1, 16, dtype=torch.bool)
    covered[0, :2] = True
    padded = dilate_texture(texture, covered, padding_px=3)
    assert padded[0, :5, 0].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert torch.allclose(padded[0, 5:, 0], torch.tensor(0.5))


def test_a_texture_without_surface_is_an_error():
    with pytest.raises(ValueError, match="No texel is covered"):
        dilate_texture(torch.zeros(4, 4, 3), torch.zeros(4, 4, dtype=torch.bool))


def make_plane(count: int, height: float, up: float) -> tuple[torch.Tensor, torch.Tensor]:
    line = torch.linspace(-1, 1, count)
    y, x = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([x, torch.full_like(x, height), y], -1).reshape(-1, 3)
    return points, torch.tensor([0.0, up, 0.0]).expand_as(points)


def even_areas(points: torch.Tensor) -> torch.Tensor:
    return torch.full((len(points),), 4.0 / len(points))


def test_one_colour_fills_everything():
    points, normals = make_plane(80, 0.0, 1.0)
    trust = (points[:, 0] < -0.8).float()
    values = torch.tensor([0.3, 0.6, 0.1]) * trust[:, None]
    filled = fill_along_surface(values, trust, points, normals, even_areas(points))
    assert torch.allclose(filled, torch.tensor([0.3, 0.6, 0.1]).expand_as(filled), atol=1e-5)


def test_trusted_values_stay_and_the_gap_is_bridged_smoothly():
    points, normals = make_plane(80, 0.0, 1.0)
    trust = (points[:, 0].abs() > 0.5).float()
    ramp = (points[:, :1] + 1) / 2
    filled = fill_along_surface(ramp * trust[:, None], trust, points, normals, even_areas(points))
    assert torch.equal(filled[trust == 1], ramp[trust == 1])
    assert float((filled - ramp).abs().max()) < 0.25
    rows = filled.reshape(80, 80)
    assert float((rows[:, 1:] - rows[:, :-1]).abs().max()) < 0.1


def test_the_other_side_of_a_thin_sheet_does_not_bleed_through():
    top, up = make_plane(60, 0.001, 1.0)
    bottom, down = make_plane(60, -0.001, -1.0)
    points, normals = torch.cat([top, bottom]), torch.cat([up, down])
    values = torch.cat([torch.ones(3600, 1), torch.zeros(3600, 1)])
    trust = (points[:, 0].abs() > 0.2).float()
    filled = fill_along_surface(values * trust[:, None], trust, points, normals, even_areas(points))
    assert torch.allclose(filled, values, atol=1e-4)


def test_a_piece_that_nothing_reaches_takes_the_nearest_colour():
    near, normals = make_plane(20, 0.0, 1.0)
    far = near + torch.tensor([50.0, 0, 0])
    trust = torch.cat([torch.ones(400), torch.zeros(400)])
    values = torch.cat([(near[:, :1] > 0).float(), torch.zeros(400, 1)])
    points, normals = torch.cat([near, far]), torch.cat([normals, normals])
    filled = fill_along_surface(values, trust, points, normals, torch.full((800,), 0.01))
    assert torch.allclose(filled[400:], torch.tensor(1.0))
