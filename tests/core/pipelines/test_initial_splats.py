"""Gaussians to start from: where they are, how big, how grey."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lift3d.core.datasets.procedural_objects import make_object
from lift3d.core.pipelines.initial_splats import (
    InitialSplatParams,
    scattered_points,
    splats_at_points,
    splats_in_shape,
    splats_on_mesh,
)

PARAMS = InitialSplatParams(2000, radius=0.7)


@pytest.mark.parametrize("shape", ["ball", "sphere", "hemisphere"])
def test_gaussians_fill_their_shape(shape) -> None:
    cloud = splats_in_shape(replace(PARAMS, shape=shape))
    distance = cloud.means.norm(dim=1)
    assert cloud.num_gaussians == 2000 and float(distance.max()) <= 0.7001
    if shape == "ball":  # mean distance in a ball is 3/4 of its radius
        assert float(distance.mean()) == pytest.approx(0.75 * 0.7, rel=0.03)
    else:
        torch.testing.assert_close(distance, torch.full_like(distance, 0.7))
    assert (float(cloud.means[:, 1].min()) >= 0) == (shape == "hemisphere")


def test_gaussians_are_grey_faint_and_round() -> None:
    cloud = splats_in_shape(PARAMS)
    torch.testing.assert_close(cloud.opacities, torch.full((2000,), 0.1))
    assert float(cloud.base_colors.mean()) == pytest.approx(0.5, abs=0.01)
    assert 0 < float(cloud.base_colors.std()) < 0.05
    assert bool((cloud.scales == cloud.scales[:, :1]).all())


def test_their_size_is_the_distance_of_the_neighbours() -> None:
    grid = torch.stack(torch.meshgrid(*[torch.arange(5.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    cloud = splats_at_points(grid, None, PARAMS)
    torch.testing.assert_close(cloud.scales, torch.ones(125, 3))  # 3 neighbours at distance 1


def test_points_on_one_spot_keep_a_size() -> None:
    cloud = splats_at_points(torch.zeros(10, 3), None, PARAMS)
    assert float(cloud.scales.min()) > 0


def test_points_keep_their_colours() -> None:
    colors = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    cloud = splats_at_points(points, colors, replace(PARAMS, color_noise=0.0, sh_degree=2))
    torch.testing.assert_close(cloud.base_colors, colors)
    assert cloud.sh_degree == 2 and torch.equal(cloud.means, points)


def test_few_points_are_scattered_to_many() -> None:
    points = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    many = scattered_points(points, 2000, 0.05)
    assert len(many) == 2000
    offsets = (many - points.repeat_interleave(20, dim=0)).norm(dim=1)
    assert float(offsets.max()) <= 0.05 + 1e-6
    assert float(offsets.mean()) == pytest.approx(0.75 * 0.05, rel=0.05)


@pytest.mark.parametrize("keep", [True, False])
def test_gaussians_on_a_mesh_may_keep_its_colours(keep: bool) -> None:
    mesh = make_object("mushroom", 1, hue="red").mesh
    cloud = splats_on_mesh(mesh, replace(PARAMS, num_gaussians=500), keep_colors=keep)
    low, high = mesh.bounds()
    assert bool((cloud.means >= low - 1e-4).all()) and bool((cloud.means <= high + 1e-4).all())
    assert (float(cloud.base_colors.std()) > 0.1) == keep


def test_the_same_seed_repeats() -> None:
    first, again, other = (splats_in_shape(replace(PARAMS, seed=s)).means for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_gaussians": 0}, "at least 1"),
        ({"radius": -1.0}, "radius positive"),
        ({"opacity": 0.0}, "between 0 and 1"),
        ({"opacity": 1.0}, "between 0 and 1"),
        ({"grey": 1.5}, "grey within"),
        ({"sh_degree": 4}, "must be 0..3"),
    ],
)
def test_senseless_starts_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        InitialSplatParams(**change)


def test_bad_points_are_refused(unchecked_shapes) -> None:
    with pytest.raises(ValueError, match="no points"):
        splats_at_points(torch.zeros(0, 3), None, PARAMS)
    with pytest.raises(ValueError, match="NaN"):
        splats_at_points(torch.full((3, 3), math.nan), None, PARAMS)
    with pytest.raises(ValueError, match="must have shape"):
        splats_at_points(torch.zeros(3, 2), None, PARAMS)
