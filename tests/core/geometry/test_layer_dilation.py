"""Dilation of layers: published moves, the fade, and a loop of the definition."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lift3d.core.geometry.collision import InnerSurface, make_inner_surface, points_inside
from lift3d.core.geometry.layer_dilation import DilationParams, dilate_layer, push_out
from mesh_scenes import make_sphere

REFERENCE = DilationParams(fade=None)


def flat_inner(side: int = 21, spacing: float = 0.02) -> InnerSurface:
    ticks = (torch.arange(side) - side // 2) * spacing
    x, y = torch.meshgrid(ticks, ticks, indexing="ij")
    vertices = torch.stack([x, y, torch.zeros_like(x)], dim=-1).reshape(-1, 3)
    i = torch.arange(side * side).reshape(side, side)
    a, b, c = i[:-1, :-1].reshape(-1), i[1:, :-1].reshape(-1), i[:-1, 1:].reshape(-1)
    return make_inner_surface(vertices, torch.stack([a, b, c], dim=1))


def patch(height: float, side: int = 7, spacing: float = 0.02) -> torch.Tensor:
    ticks = (torch.arange(side) - side // 2) * spacing
    x, y = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, height)], dim=-1).reshape(-1, 3)


@pytest.mark.parametrize("params", [REFERENCE, DilationParams()], ids=["reference", "paper"])
def test_a_patch_below_the_surface_comes_out_by_the_margin(params):
    moved = dilate_layer(patch(-0.02), flat_inner(), params)
    torch.testing.assert_close(moved, patch(0.01), atol=1e-6, rtol=0)


def test_far_patches_move_by_the_margin_in_the_reference_and_stay_in_the_paper():
    torch.testing.assert_close(
        dilate_layer(patch(0.5), flat_inner(), REFERENCE), patch(0.51), atol=1e-6, rtol=0
    )
    assert torch.equal(dilate_layer(patch(0.5), flat_inner()), patch(0.5))


def test_moves_are_the_weighted_mean_of_the_definition():
    generator = torch.Generator().manual_seed(3)
    points = patch(0.0) + 0.02 * torch.randn(49, 3, generator=generator)
    params = replace(REFERENCE, neighbours=6, reach=0.03)
    moved = dilate_layer(points, flat_inner(), params)
    for i, point in enumerate(points):
        distances = (points - point).norm(dim=1)
        total, push = 0.0, torch.zeros(3)
        for j in distances.argsort(stable=True)[:6]:
            if float(distances[j]) > 0.03:
                continue
            weight = math.exp(-float(distances[j]))
            push[2] += weight * (max(-float(points[j, 2]), 0.0) + 0.01)
            total += weight
        torch.testing.assert_close(moved[i], point + push / total, atol=1e-5, rtol=0)


def test_weights_are_the_published_ones():
    weights = [math.exp(-distance) for distance in (0.0, 0.01, 0.03, 0.06)]
    assert weights == pytest.approx([1, 0.9900, 0.9704, 0.9418], abs=1e-4)


def test_a_dented_shell_leaves_the_ball_and_keeps_its_far_end():
    vertices, faces = make_sphere(1200)
    inner = make_inner_surface(0.9 * vertices, faces)
    dented = vertices.clone()
    dented[vertices[:, 1] > 0.5] *= 0.88  # pressed into the ball
    dented[vertices[:, 1] < -0.9] *= 1.4
    assert int(points_inside(dented, 0.9 * vertices, faces).sum()) > 50
    moved = dilate_layer(dented, inner)
    assert int(points_inside(moved, 0.9 * vertices, faces).sum()) == 0
    assert torch.equal(moved[vertices[:, 1] < -0.93], dented[vertices[:, 1] < -0.93])


def test_empty_layers_stay_empty_and_senseless_settings_are_refused():
    assert len(dilate_layer(torch.zeros(0, 3), flat_inner())) == 0
    with pytest.raises(ValueError, match="at least 1"):
        DilationParams(neighbours=0)
    with pytest.raises(ValueError, match="growing distances"):
        DilationParams(fade=(0.2, 0.1))


def test_what_lies_inside_is_set_above_the_surface_and_the_rest_stays():
    vertices, faces = make_sphere(1200)
    vertices = vertices / vertices.norm(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(4)
    points = torch.randn(400, 3, generator=generator)
    radius = 0.6 + 0.8 * torch.rand(400, 1, generator=generator)
    points = radius * points / points.norm(dim=1, keepdim=True)
    before = points.clone()
    moved = push_out(points, vertices, faces, 0.01)
    inside = points_inside(points, vertices, faces)
    assert 50 < int(inside.sum()) < 350 and not bool(points_inside(moved, vertices, faces).any())
    assert torch.equal(moved[~inside], points[~inside]) and torch.equal(points, before)
    heights = moved[inside].norm(dim=1)
    assert 0.995 < float(heights.min()) and float(heights.max()) < 1.0101  # facets sag a little
