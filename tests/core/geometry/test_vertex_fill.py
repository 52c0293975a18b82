"""Values spread from seen vertices to all others."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.geometry.vertex_fill import fill_unseen_vertices, spread_values
from lift3d.core.mesh import Mesh
from texture_scenes import make_torus


def make_strip(count: int) -> Mesh:
    """A ribbon along x with vertices (i, 0) and (i, 1)."""
    x = torch.arange(count).float()
    rows = [torch.stack([x, torch.full_like(x, y), 0 * x], -1) for y in (0.0, 1.0)]
    a = torch.arange(count - 1)
    b, c, d = a + 1, a + 1 + count, a + count
    faces = torch.cat([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)])
    return Mesh(torch.cat(rows), faces)


def test_one_colour_spreads_everywhere_unchanged():
    mesh = make_torus()
    colors = torch.tensor([0.2, 0.4, 0.9]).expand(mesh.num_vertices, 3)
    seen = torch.zeros(mesh.num_vertices, dtype=torch.bool)
    seen[7] = True
    filled = fill_unseen_vertices(mesh, torch.where(seen[:, None], colors, 0.0), seen)
    assert torch.allclose(filled, colors, atol=1e-6)


def test_seen_vertices_keep_their_values():
    mesh = make_torus()
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(mesh.num_vertices, 3, generator=generator)
    seen = torch.rand(mesh.num_vertices, generator=generator) > 0.5
    filled = fill_unseen_vertices(mesh, values, seen)
    assert torch.equal(filled[seen], values[seen])
    assert bool((filled >= values[seen].amin(0) - 1e-6).all())
    assert bool((filled <= values[seen].amax(0) + 1e-6).all())


def test_many_rounds_approach_the_straight_line_between_two_ends():
    path = torch.stack([torch.arange(10), torch.arange(1, 11)], dim=1)
    values = torch.zeros(11, 1)
    values[10] = 1.0
    known = torch.tensor([True] + [False] * 9 + [True])
    places = torch.arange(11.0)[:, None]
    filled = spread_values(values, known, path, places, smoothing_rounds=2000)
    assert torch.allclose(filled[:, 0], torch.linspace(0, 1, 11), atol=1e-4)


def test_growing_takes_the_mean_of_the_neighbours_ring_by_ring():
    path = torch.stack([torch.arange(4), torch.arange(1, 5)], dim=1)
    values = torch.tensor([[1.0], [0], [0], [0], [3.0]])
    known = torch.tensor([True, False, False, False, True])
    places = torch.arange(5.0)[:, None]
    grown = spread_values(values, known, path, places, smoothing_rounds=0)
    assert grown[:, 0].tolist() == [1.0, 1.0, 2.0, 3.0, 3.0]


def test_seams_do_not_stop_the_spreading():
    mesh = make_strip(6)
    split = Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), torch.arange(30).reshape(10, 3))
    seen = (split.vertices[:, 0] == 0).clone()
    values = torch.where(seen[:, None], torch.tensor([[0.5, 0.5, 0.5]]), 0.0)
    assert torch.allclose(fill_unseen_vertices(split, values, seen), torch.tensor(0.5))


def test_a_part_that_no_view_sees_takes_the_nearest_colour():
    strip = make_strip(4)
    far = strip.with_vertices(strip.vertices + torch.tensor([10.0, 0, 0]))
    mesh = Mesh(torch.cat([strip.vertices, far.vertices]), torch.cat([strip.faces, far.faces + 8]))
    seen = torch.arange(16) < 8
    values = torch.zeros(16, 3)
    values[3] = values[7] = 1.0  # the right end of the first strip
    filled = fill_unseen_vertices(mesh, values, seen)
    assert torch.equal(filled[8:], torch.ones(8, 3))


def test_nothing_seen_is_an_error():
    mesh = make_strip(3)
    with pytest.raises(ValueError, match="no value to spread"):
        fill_unseen_vertices(mesh, torch.zeros(6, 3), torch.zeros(6, dtype=torch.bool))
