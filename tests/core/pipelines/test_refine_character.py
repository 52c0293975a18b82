"""Refinement of characters: order, colours, what is kept, and bad input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.camera import make_stdgen_rig
from lift3d.core.mesh import Mesh, merge_meshes
from lift3d.core.pipelines import refine_character as module
from lift3d.core.pipelines.align_levels import mirrored
from lift3d.core.pipelines.character_levels import render_levels
from lift3d.core.pipelines.initial_mesh import icosphere
from lift3d.core.pipelines.layer_params import load_layer_params
from lift3d.core.pipelines.refine_character import (
    LEVEL_OF_PART,
    CharacterLayer,
    LevelViews,
    order_layers,
    read_level,
    refine_character,
)
from lift3d.core.progress import Progress, StopEarly
from lift3d.core.rendering.texture import sample_texture

PX = 48
RIG = make_stdgen_rig()
COLORS = {"body": (0.9, 0.7, 0.6), "clothes": (0.2, 0.3, 0.8), "hair": (0.6, 0.1, 0.1)}


def ball(name: str, radius: float, place=(0.0, 0.0, 0.0)) -> Mesh:
    vertices, faces = icosphere(3)
    colors = torch.tensor(COLORS[name]).expand(len(vertices), 3)
    return Mesh(vertices * radius + torch.tensor(place), faces, vertex_colors=colors, name=name)


GOAL = [
    ball("body", 0.5),
    ball("clothes", 0.4, (0.3, -0.4, 0.0)),
    ball("hair", 0.35, (0.0, 0.45, 0.0)),
]


@pytest.fixture(scope="module")
def levels() -> dict[str, LevelViews]:
    drawn = render_levels(GOAL, RIG, size_px=PX)
    return {
        images.level: read_level(images.views.rgb, images.views.normals, RIG) for images in drawn
    }


def layer(mesh: Mesh, views: LevelViews | None, steps=(3, 1)) -> CharacterLayer:
    params = load_layer_params(mesh.name).with_steps(*steps)
    coarse = replace(params.isomer.coarse, edge_length_limits=(0.05, 0.2), initial_edge_length=0.1)
    fine = replace(params.isomer.fine, edge_length_limits=(0.05, 0.1), initial_edge_length=0.08)
    isomer = replace(params.isomer, coarse=coarse, fine=fine, target_raster_px=PX)
    return CharacterLayer(mesh, views, replace(params, isomer=isomer))


def starts(levels: dict[str, LevelViews], **changes) -> list[CharacterLayer]:
    return [
        layer(replace(mesh, vertex_colors=None, **changes), levels[LEVEL_OF_PART[mesh.name]])
        for mesh in GOAL
    ]


def clear_of(inner: list[Mesh], vertices: torch.Tensor, pixels: float = 2.0) -> torch.Tensor:
    """Which vertices lie so far outside the inner balls that no pixel mixes both."""
    clear = torch.ones(len(vertices), dtype=torch.bool)
    for goal in inner:
        center = goal.vertices.mean(dim=0)
        radius = (goal.vertices - center).norm(dim=1).max()
        clear &= (vertices - center).norm(dim=1) > radius + pixels * 2.4 / PX
    return clear


def test_all_layers_are_refined_and_take_the_colours_of_their_level(levels):
    made = refine_character(starts(levels), register=False)
    assert made.refined == ("body", "clothes", "hair")
    assert [mesh.name for mesh in made.parts] == ["body", "clothes", "hair"]
    for index, mesh in enumerate(made.parts):
        off = (mesh.vertex_colors - torch.tensor(COLORS[mesh.name])).abs().amax(dim=1)
        seen = clear_of(GOAL[:index], mesh.vertices)
        assert float(off[seen].max()) < 0.05 and float(seen.float().mean()) > 0.4
    assert "body: " in made.lines[0] and "of its vertices in body" in made.lines[1]


def test_every_part_gets_a_texture_from_the_views_of_its_level(levels):
    layers = starts(levels)
    layers[2] = layer(GOAL[2], None)  # kept, and its vertex colours become its texture
    made = refine_character(layers, register=False, check_mirror=False, texture_px=128)
    assert made.refined == ("body", "clothes")
    for index, mesh in enumerate(made.parts):
        assert mesh.texture.shape == (128, 128, 3) and mesh.vertex_colors is None
        off = sample_texture(mesh.texture, mesh.uvs) - torch.tensor(COLORS[mesh.name])
        seen = clear_of(GOAL[:index] if index < 2 else [], mesh.vertices)
        assert float(off[seen].abs().max()) < 0.06
    bare = refine_character(layers, register=False, check_mirror=False)
    assert all(mesh.texture is None for mesh in bare.parts)


def test_an_interruption_keeps_finished_layers(levels):
    def stop(progress: Progress) -> None:
        if "clothes" in progress.message:
            raise StopEarly

    layers = starts(levels)
    made = refine_character(layers, register=False, check_mirror=False, on_progress=stop)
    assert made.refined == ("body",) and made.parts[0].vertex_colors is not None
    assert made.parts[1] is layers[1].mesh and made.parts[2] is layers[2].mesh
    assert made.lines[-1] == "Stopped during clothes; finished layers are kept."


def test_other_interruptions_pass(levels):
    def stop(progress: Progress) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        refine_character(starts(levels), check_mirror=False, on_progress=stop)


def test_what_goes_wrong_with_one_layer_does_not_lose_the_others(levels, monkeypatch):
    real = module.refine_layer

    def breaking(mesh, *arguments, **options):
        if mesh.name == "clothes":
            raise ValueError("The gradient is not finite.")
        return real(mesh, *arguments, **options)

    monkeypatch.setattr(module, "refine_layer", breaking)
    made = refine_character(starts(levels), register=False, check_mirror=False)
    assert made.refined == ("body", "hair")
    assert made.lines[1] == "clothes: not refined. The gradient is not finite."


def test_parts_without_triangles_or_views_are_kept_and_named(levels):
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), name="clothes")
    layers = [
        layer(GOAL[0], None),
        layer(empty, levels["without_hair"]),
        layer(GOAL[2], levels["whole"], (1, 0)),
    ]
    made = refine_character(layers, register=False, check_mirror=False)
    assert made.refined == ("hair",) and made.parts[0] is GOAL[0]
    assert "no views of its level" in made.lines[0] and "no triangles" in made.lines[1]
    with pytest.raises(ValueError, match="nothing to refine"):
        refine_character([layer(GOAL[0], None), layer(empty, levels["whole"])])


def test_mirrored_parts_are_turned_round(levels):
    swapped = [layer(mirrored(mesh), levels[LEVEL_OF_PART[mesh.name]], (1, 0)) for mesh in GOAL]
    made = refine_character(swapped, register=False)
    assert "left and right were swapped" in made.lines[0]
    assert float(made.parts[1].vertices[:, 0].mean()) == pytest.approx(0.3, abs=0.03)


def test_shifted_views_are_registered(levels):
    views = levels["body"].shifted(torch.tensor([4, -3, 0, 2, 1, -2]))
    made = refine_character([layer(GOAL[0], views, (2, 0))], check_mirror=False)
    low, high = made.parts[0].bounds()
    torch.testing.assert_close((low + high) / 2, torch.zeros(3), atol=0.02, rtol=0)


def test_unseen_vertices_keep_the_colours_of_the_start(levels):
    """The ball lies in the cavity of a fixed hollow one, which covers it in all views."""
    cavity = ball("body", 0.5)
    cavity = replace(cavity, faces=cavity.faces.flip(1))
    shell = merge_meshes([ball("body", 0.6), cavity], "body")
    hidden = ball("clothes", 0.3)
    made = refine_character(
        [layer(hidden, levels["body"], (1, 0))], fixed=[shell], register=False, check_mirror=False
    )
    torch.testing.assert_close(
        made.parts[0].vertex_colors.mean(dim=0), torch.tensor(COLORS["clothes"]), atol=0.02, rtol=0
    )


def test_an_empty_view_is_left_out_and_bad_pictures_are_refused(levels):
    (drawn,) = render_levels(GOAL[:1], RIG, size_px=32, levels=["body"])
    rgb, normals = drawn.views.rgb.clone(), drawn.views.normals.clone()
    normals[4] = 1.0
    views = read_level(rgb, normals, RIG)
    assert len(views.rig) == 5 and "left" not in views.rig.names
    made = refine_character([layer(GOAL[0], views, (1, 1))])
    assert made.refined == ("body",)
    with pytest.raises(ValueError, match="all masks are empty"):
        read_level(rgb, torch.ones_like(normals), RIG)
    with pytest.raises(ValueError, match="no background"):
        read_level(rgb, normals, RIG, masks=torch.ones(6, 32, 32))
    portrait = read_level(rgb[:, :, 4:28], normals[:, :, 4:28], RIG)
    assert torch.equal(portrait.masks, views.masks) and torch.equal(portrait.rgb, views.rgb)
    with pytest.raises(ValueError, match=r"normals must have shape \[6"):
        read_level(rgb[:4], normals[:4], RIG)
    with pytest.raises(ValueError, match="NaN"):
        read_level(rgb * torch.nan, normals, RIG)


def test_layers_are_ordered_from_the_inside_out():
    names = [
        mesh.name
        for mesh in order_layers([GOAL[2], GOAL[1], replace(GOAL[0], name="hat"), GOAL[0]])
    ]
    assert names == ["body", "clothes", "hair", "hat"]
