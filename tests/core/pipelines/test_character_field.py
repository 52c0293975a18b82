"""Character fields: parts from one evaluation, and what is said of bad views."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.geometry.semantic_parts import StdgenPart, stdgen_part_sdf
from lift3d.core.networks.lrm import make_lrm
from lift3d.core.networks.triplane_decoder import TriplaneDecoderParams
from lift3d.core.pipelines.character_field import (
    CharacterField,
    field_to_parts,
    views_to_field,
)
from lift3d.core.pipelines.lrm_to_mesh import LrmGrid, grid_to_mesh, triplane_to_grid
from lrm_scenes import LABELS, TINY, make_lively_model, make_sphere_model, make_views

HAIR, SKIN, CLOTHES = 0, 1, 3


@pytest.fixture(scope="module")
def field() -> CharacterField:
    return views_to_field(make_lively_model(), make_views(6))


def _ball_field(with_hair: bool = True) -> CharacterField:
    """A ball: hair above, clothes in the middle (all the way through), skin below."""
    model, planes = make_sphere_model(replace(TINY, grid=TINY.grid), radius=0.6)
    grid = triplane_to_grid(model, planes)
    height = model.to_world(model.params.grid.points())[..., 1]
    label = torch.full(height.shape, SKIN)
    label[height > -0.2] = CLOTHES
    if with_hair:
        label[height > 0.3] = HAIR
    logits = 5.0 * torch.nn.functional.one_hot(label, 4).float()
    return CharacterField(model, LrmGrid(planes, grid.sdf, grid.vertices, logits))


def test_parts_lie_where_their_classes_are():
    parts = field_to_parts(_ball_field())
    assert [mesh.name for mesh in parts.meshes] == [
        "body",
        "clothes",
        "hair",
    ] and not parts.warnings
    body, clothes, hair = (mesh.vertices[:, 1] for mesh in parts.meshes)
    cell = TINY.grid.scale[2] / TINY.grid.cells[2]
    assert float(body.max()) < -0.2 + cell and float(hair.min()) > 0.3 - cell
    assert float(clothes.max()) < 0.3 + cell and float(clothes.min()) > -0.2 - cell


def test_classes_at_corners_of_the_grid_are_those_of_the_grid(field):
    places = field.model.params.grid.points()[1:-1:3, 1:-1:3, 2:-2:3].reshape(-1, 3)
    on_grid = field.probabilities()[1:-1:3, 1:-1:3, 2:-2:3].argmax(dim=-1).flatten()
    assert torch.equal(field.labels_at(field.model.to_world(places)), on_grid)
    assert len(on_grid.unique()) > 1


def test_a_part_that_is_nowhere_is_an_empty_mesh_with_a_message():
    parts = field_to_parts(_ball_field(with_hair=False))
    assert parts.meshes[2].is_empty and parts.meshes[2].num_vertices == 0
    assert parts.warnings == ("The character has no part 'hair'.",)
    assert not parts.meshes[1].is_empty


def test_the_field_is_read_once_for_all_parts(field, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the field was evaluated again")

    monkeypatch.setattr(field.model.decoder, "sdf", refuse)
    monkeypatch.setattr(field.model.decoder, "semantic_logits", refuse)
    names = ("whole", "without_hair", "body", "clothes", "hair")
    parts = field_to_parts(field, names, form="reference")
    for code, mesh in zip(StdgenPart, parts.meshes, strict=True):
        sdf = stdgen_part_sdf(field.grid.sdf, field.probabilities(), code)
        single = grid_to_mesh(field.model, field.grid, sdf=sdf)
        assert torch.equal(mesh.vertices, single.vertices) and torch.equal(mesh.faces, single.faces)


def test_any_set_of_classes_can_be_cut_out(field):
    parts = field_to_parts(field, ["hair+skin_1", "clothes+skin_2"])
    assert not any(mesh.is_empty for mesh in parts.meshes)
    with pytest.raises(ValueError, match="no part or class 'wings'"):
        field_to_parts(field, ["wings"])
    for names in ([], [" "], ["hair", "hair"]):
        with pytest.raises(ValueError, match="at least one part"):
            field_to_parts(field, names)


def test_a_missing_view_is_a_warning_and_no_view_at_all_an_error():
    model, views = make_lively_model(), make_views(6)
    views[3] = 1.0
    assert views_to_field(model, views).warnings == (
        "The view 'back' is empty; what only it would show is invented.",
    )
    with pytest.raises(ValueError, match="All views are white"):
        views_to_field(model, torch.ones(6, 8, 8, 3))
    with pytest.raises(ValueError, match="needs 6 views .*got 4"):
        views_to_field(model, views[:4])
    with pytest.raises(ValueError, match="0..1"):
        views_to_field(model, 2 * views)


def test_models_without_classes_or_surface_are_refused():
    plain = replace(TINY, decoder=replace(TINY.decoder, num_labels=0), label_names=())
    with pytest.raises(ValueError, match="no semantic classes"):
        views_to_field(make_lrm(plain), make_views(6))
    nerf = replace(
        TINY, decoder=TriplaneDecoderParams(plane_channels=8, num_labels=4, stage="nerf")
    )
    with pytest.raises(ValueError, match="'nerf' stage"):
        views_to_field(make_lrm(nerf), make_views(6))
    assert nerf.label_names == LABELS


def test_progress_rises_and_interrupts(field):
    steps: list[int] = []
    field_to_parts(field, on_progress=lambda p: steps.append(p.step))
    assert steps == sorted(steps) and steps[-1] == 100

    def stop(progress: object) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        field_to_parts(field, on_progress=stop)
