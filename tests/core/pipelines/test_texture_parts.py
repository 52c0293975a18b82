"""Every part of a scene gets a texture of its own; parts hide each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.mesh import Material, Mesh
from lift3d.core.pipelines.merge_parts import merge_parts
from lift3d.core.pipelines.texture_parts import bake_own_texture, color_parts, texture_parts
from lift3d.core.pipelines.texture_projection import TextureParams
from lift3d.core.rendering.mesh import render_mesh
from lift3d.core.rendering.texture import sample_texture
from texture_scenes import make_cube, make_sphere

SIZE = 96
SMALL = TextureParams(size_px=96)
RED, BLUE, GREEN = ((0.8, 0.2, 0.1), (0.1, 0.2, 0.8), (0.2, 0.7, 0.2))


def colored(mesh: Mesh, color: tuple[float, float, float], name: str) -> Mesh:
    return replace(mesh, vertex_colors=torch.tensor(color).expand(mesh.num_vertices, 3), name=name)


def moved(mesh: Mesh, x: float, scale: float) -> Mesh:
    return mesh.with_vertices(mesh.vertices * scale + torch.tensor([x, 0.0, 0.0]))


@pytest.fixture(scope="module")
def scene() -> tuple[list[Mesh], torch.Tensor]:
    """Two balls side by side, a third inside the first, and a part without faces."""
    ball = make_sphere(12)
    parts = [
        colored(moved(ball, -0.4, 0.4), RED, "left"),
        colored(moved(ball, 0.4, 0.4), BLUE, "right"),
        colored(moved(ball, -0.4, 0.1), GREEN, "hidden"),
        Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), name="nothing"),
    ]
    drawn = render_mesh(merge_parts(parts[:3]), make_kiss3dgen_rig(), width=SIZE, height=SIZE)
    return parts, drawn.rgb


def test_parts_take_the_views_that_show_them_and_nothing_of_each_other(scene, caplog) -> None:
    parts, views = scene
    made = texture_parts(parts, views, make_kiss3dgen_rig(), params=SMALL)
    assert made[3] is None
    for color, part, one in zip((RED, BLUE, GREEN), parts, made, strict=False):
        assert one.mesh.name == part.name and one.mesh.num_faces == part.num_faces
        assert one.mesh.texture.shape == (96, 96, 3) and one.mesh.vertex_colors is None
        shown = sample_texture(one.mesh.texture, one.mesh.uvs)
        assert float((shown - torch.tensor(color)).abs().max()) < 0.02
    assert made[0].seen_fraction > 0.5 and made[2].seen_fraction == 0
    assert "No view shows 'hidden'" in caplog.text


def test_a_scene_that_no_view_sees_is_refused(scene) -> None:
    parts, views = scene
    with pytest.raises(ValueError, match="None of the parts has faces"):
        texture_parts(parts[3:], views, make_kiss3dgen_rig())
    for some in (parts[:1], parts[:2]):
        away = [part.with_vertices(part.vertices + 50.0) for part in some]
        with pytest.raises(ValueError, match="No view sees any part"):
            texture_parts(
                away, views, make_kiss3dgen_rig(), masks=torch.ones(views.shape[:3]), params=SMALL
            )


@pytest.mark.parametrize("make", [make_cube, make_sphere])
def test_vertex_colors_become_a_texture_that_looks_the_same(make) -> None:
    mesh = make()
    mesh = replace(mesh, vertex_colors=0.5 + 0.4 * mesh.vertices.clamp(-1, 1), name="part")
    baked = bake_own_texture(mesh, replace(SMALL, size_px=256))
    assert baked.name == "part" and baked.vertex_colors is None
    centers = baked.uvs[baked.faces].mean(dim=1)
    wanted = mesh.vertex_colors[mesh.faces].mean(dim=1)
    assert float((sample_texture(baked.texture, centers) - wanted).abs().max()) < 0.03


def test_a_texture_moves_to_new_coordinates() -> None:
    mesh = make_sphere(12)
    first = bake_own_texture(replace(mesh, vertex_colors=0.5 + 0.4 * mesh.vertices), SMALL)
    again = bake_own_texture(first, replace(SMALL, uvs="unwrap", size_px=256))
    wanted = sample_texture(first.texture, first.uvs[first.faces].mean(dim=1))
    shown = sample_texture(again.texture, again.uvs[again.faces].mean(dim=1))
    assert float((shown - wanted).abs().max()) < 0.05


def test_vertex_colors_are_those_of_the_views_part_by_part(scene) -> None:
    parts, views = scene
    grey = [
        replace(
            part, vertex_colors=None, material=Material(base_color=(0.5, 0.5, 0.5), roughness=0.3)
        )
        for part in parts
    ]
    colored, seen = color_parts(grey, views, make_kiss3dgen_rig())
    assert [part.name for part in colored] == ["left", "right", "hidden", "nothing"]
    assert len(seen) == sum(part.num_vertices for part in parts)
    for color, before, part in zip((RED, BLUE), grey, colored, strict=False):
        assert torch.equal(part.vertices, before.vertices) and torch.equal(part.faces, before.faces)
        assert part.material == Material(roughness=0.3)
        middle = part.vertex_colors.median(dim=0).values
        assert torch.allclose(middle, torch.tensor(color), atol=0.03)
    first = parts[0].num_vertices + parts[1].num_vertices
    assert float(seen[first:].max()) == 0.0, "the ball inside the left one is seen by nobody"
