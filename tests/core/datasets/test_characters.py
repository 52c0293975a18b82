"""Procedural characters: closed layers that do not touch, classes, colours, determinism."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.datasets.character_style import draw_style
from lift3d.core.datasets.characters import (
    CHARACTER_PARTS,
    GAP,
    LABEL_NAMES,
    LOWER,
    UPPER,
    CharacterLabel,
    character_meshes,
    make_character,
)
from lift3d.core.geometry.collision import points_inside
from lift3d.core.geometry.repair import is_manifold, is_watertight, signed_volume
from lift3d.core.geometry.semantic_parts import StdgenLabel

CELL = 0.028


@pytest.fixture(scope="module")
def layers():
    return character_meshes(make_character(1), cell=CELL)


def _points(count: int = 4000, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(LOWER), torch.tensor(UPPER)
    return low + (high - low) * torch.rand(count, 3, generator=generator)


def test_layers_are_closed_outward_and_inside_their_box(layers):
    assert tuple(layers) == CHARACTER_PARTS
    for mesh in layers.values():
        assert is_watertight(mesh.faces) and is_manifold(mesh.faces)
        assert float(signed_volume(mesh.vertices, mesh.faces)) > 0
        assert bool((mesh.vertices >= torch.tensor(LOWER)).all())
        assert bool((mesh.vertices <= torch.tensor(UPPER)).all())
    body = layers["body"].vertices
    assert float(body[:, 1].amin()) == pytest.approx(-1.0, abs=0.03)
    assert 1.8 < float(body[:, 1].amax() - body[:, 1].amin()) < 2.0


def test_layers_stay_out_of_each_other(layers):
    body = layers["body"]
    for part in ("clothes", "hair"):
        inside = points_inside(layers[part].vertices, body.vertices, body.faces, tolerance=0.003)
        assert float(inside.float().mean()) < 0.005


@pytest.mark.parametrize("seed", range(6))
def test_distances_of_layers_do_not_overlap_and_clothes_are_hollow(seed):
    layers = make_character(seed).distances(_points())
    inside = torch.stack([layers[part] < 0 for part in CHARACTER_PARTS])
    assert int(inside.sum(dim=0).max()) == 1 and bool(inside.any(dim=1).all())
    assert bool((layers["clothes"][layers["body"] < 0.9 * GAP] >= 0).all())


def test_the_grid_near_the_surface_is_exact(layers):
    distances = make_character(1).distances(layers["body"].vertices)["body"]
    assert float(distances.abs().max()) < 0.5 * CELL
    assert float(distances.abs().mean()) < 0.1 * CELL


def test_the_solid_is_the_union_without_gaps_and_its_classes_are_those_of_the_layers():
    character, points = make_character(2), _points(20_000)
    sdf, labels = character.solid(points)
    layers = character.distances(points)
    for part, classes in {
        "body": {CharacterLabel.FACE, CharacterLabel.SKIN},
        "clothes": {CharacterLabel.CLOTHES},
        "hair": {CharacterLabel.HAIR},
    }.items():
        within = layers[part] < 0
        assert bool((sdf[within] < 0).all())
        assert set(labels[within].tolist()) <= {int(label) for label in classes}
    assert set(labels[sdf < 0].tolist()) == {0, 1, 2, 3}


def test_classes_have_the_order_of_the_published_model():
    assert LABEL_NAMES == ("hair", "face", "skin", "clothes")
    assert int(CharacterLabel.HAIR) == StdgenLabel.HAIR
    assert int(CharacterLabel.CLOTHES) == StdgenLabel.CLOTHES


def test_colours_are_those_of_the_style():
    character = make_character(1)
    cheek = torch.tensor([[0.0, 0.72, 0.2]])
    skin = character.colors(cheek, torch.tensor([int(CharacterLabel.FACE)]))
    torch.testing.assert_close(skin[0], torch.tensor(character.style.skin))
    hem = torch.tensor([[0.1, -0.5, 0.0]])
    cloth = character.colors(hem, torch.tensor([int(CharacterLabel.CLOTHES)]))
    torch.testing.assert_close(cloth[0], torch.tensor(character.style.bottom))


def test_the_same_seed_gives_the_same_character(layers):
    again = character_meshes(make_character(1), cell=CELL)
    for part, mesh in layers.items():
        assert torch.equal(mesh.vertices, again[part].vertices)
        assert torch.equal(mesh.vertex_colors, again[part].vertex_colors)
    assert draw_style(1) != draw_style(2)


def test_senseless_settings_are_refused():
    with pytest.raises(ValueError, match="seed must not be negative"):
        make_character(-1)
    with pytest.raises(ValueError, match="cell must lie within"):
        character_meshes(make_character(0), cell=0.1)
