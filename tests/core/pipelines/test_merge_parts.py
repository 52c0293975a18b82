"""Batches of named parts: order, names, replacement and what is refused."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.mesh import Material, Mesh
from lift3d.core.pipelines.merge_parts import (
    bake_vertex_colors,
    combine_parts,
    find_part,
    merge_parts,
    normalize_parts,
    select_parts,
)


def _triangle(name: str, at: float = 0.0, **attributes: object) -> Mesh:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]) + at
    return Mesh(vertices, torch.tensor([[0, 1, 2]]), name=name, **attributes)


def test_an_added_part_takes_the_place_of_the_one_of_its_name():
    old = [_triangle("body"), _triangle("hair")]
    new = _triangle("body", at=2.0)
    combined = combine_parts(old, [new, _triangle("hat")])
    assert [mesh.name for mesh in combined] == ["body", "hair", "hat"]
    assert torch.equal(combined[0].vertices, new.vertices)
    assert torch.equal(old[0].vertices, _triangle("body").vertices)


def test_parts_of_one_name_may_stand_side_by_side_with_numbers():
    twins = [_triangle("hair"), _triangle("hair 2")]
    combined = combine_parts(twins, [_triangle("hair", at=1.0)], same_name="keep_both")
    assert [mesh.name for mesh in combined] == ["hair", "hair 2", "hair 3"]


def test_parts_can_be_renamed_together():
    combined = combine_parts([_triangle("a")], [_triangle("b")], names=["body", "coat"])
    assert [mesh.name for mesh in combined] == ["body", "coat"]


def test_parts_are_found_by_name_before_number():
    parts = [_triangle("body"), _triangle("1"), _triangle("hair")]
    assert [find_part(parts, text) for text in ("hair", " 3 ", "1", "2")] == [2, 2, 1, 1]
    with pytest.raises(ValueError, match="no part 'coat'; the mesh has body, 1, hair"):
        find_part(parts, "coat")
    with pytest.raises(ValueError, match="no part '4'"):
        find_part(parts, "4")


def test_chosen_parts_and_the_others_are_all_parts():
    parts = [_triangle("body"), _triangle("clothes"), _triangle("hair")]
    chosen, others = select_parts(parts, ["hair", "1"])
    assert [mesh.name for mesh in chosen] == ["hair", "body"]
    assert [mesh.name for mesh in others] == ["clothes"]
    assert select_parts(parts, ["1", "2", "3"])[1][0].is_empty
    with pytest.raises(ValueError, match="Name a part; the mesh has body, clothes, hair"):
        select_parts(parts, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": []}, "no part to combine"),
        ({"parts": [_triangle("a")], "names": ["x", "y"]}, "2 names for 1 parts"),
        ({"parts": [_triangle("a")], "same_name": "merge"}, "same_name must be"),
    ],
)
def test_senseless_combinations_are_refused(unchecked_shapes, arguments, message):
    with pytest.raises(ValueError, match=message):
        combine_parts(**arguments)


def test_a_colour_factor_becomes_vertex_colours_when_parts_are_merged():
    red = _triangle("red", material=Material(base_color=(1.0, 0.5, 0.0)))
    merged = merge_parts([red, _triangle("plain", at=1.0)])
    assert torch.equal(merged.vertex_colors[:3], torch.tensor([[1.0, 0.5, 0.0]]).expand(3, 3))
    assert torch.equal(merged.vertex_colors[3:], torch.ones(3, 3))
    assert bake_vertex_colors(red).material.base_color == (1.0, 1.0, 1.0)


def test_parts_keep_their_places_to_each_other_when_normalised():
    parts = normalize_parts([_triangle("a"), _triangle("b", at=4.0)], longest_side=2.0)
    everything = torch.cat([mesh.vertices for mesh in parts])
    assert float((everything.amax(0) - everything.amin(0)).max()) == pytest.approx(2.0)
    torch.testing.assert_close(
        parts[1].vertices - parts[0].vertices, torch.full((3, 3), 4.0 * 2.0 / 5.0)
    )
