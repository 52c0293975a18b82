"""Surfaces fall into connected parts that look one way."""

from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.geometry.chart_segmentation import (
    connected_labels,
    link_faces,
    mean_directions,
    segment_surface,
    weld_positions,
)
from lift3d.core.geometry.normals import face_normals
from texture_scenes import make_cube, make_torus


def test_a_cube_has_six_parts():
    mesh = make_cube()
    labels = segment_surface(mesh.vertices, mesh.faces)
    assert int(labels.max()) == 5
    for part in range(6):
        normals = face_normals(mesh.vertices, mesh.faces)[labels == part]
        assert len(normals) == 2 and torch.allclose(normals[0], normals[1])


@pytest.mark.parametrize("max_angle_deg", [30.0, 50.0])
def test_parts_are_connected_and_stay_within_their_cone(max_angle_deg):
    mesh = make_torus()
    labels = segment_surface(mesh.vertices, mesh.faces, max_angle_deg=max_angle_deg)
    pairs = link_faces(mesh.vertices, mesh.faces).pairs
    assert int(connected_labels(labels, pairs).max()) == int(labels.max())
    normals = face_normals(mesh.vertices, mesh.faces)
    axes = mean_directions(labels, normals, torch.ones(len(labels)))
    cosine = (normals * axes[labels]).sum(dim=1)
    assert float(cosine.min()) > math.cos(math.radians(80))
    assert (cosine > math.cos(math.radians(max_angle_deg + 5))).float().mean() > 0.95


def test_sheets_on_each_other_are_not_linked():
    mesh = make_cube()
    both = torch.cat([mesh.faces, mesh.faces.flip(1)])
    links = link_faces(mesh.vertices, both)
    front = links.pairs < len(mesh.faces)
    assert torch.equal(front[:, 0], front[:, 1])
    assert len(links.pairs) == 12  # one diagonal per side, front and back


def test_links_know_the_length_of_their_edge():
    mesh = make_cube()
    assert torch.allclose(link_faces(mesh.vertices, mesh.faces).lengths, torch.tensor(8.0).sqrt())


def test_vertices_at_one_place_are_one_position():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 0]])
    first, second, third = weld_positions(vertices).tolist()
    assert first == third != second
