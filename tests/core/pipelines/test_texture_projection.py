"""Pictures of a mesh become its texture or its vertex colours, and nothing else gets in."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig, make_orbit_rig
from lift3d.core.mesh import Material, Mesh
from lift3d.core.pipelines.texture_projection import (
    TextureParams,
    project_texture,
    project_vertex_colors,
)
from lift3d.core.rendering.mesh import render_mesh
from lift3d.core.rendering.projection import VertexProjectionParams
from lift3d.core.rendering.texels import rasterize_texels
from texture_scenes import make_cube, make_sphere

SIZE = 128
SMALL = TextureParams(size_px=256)


def waves(points: torch.Tensor) -> torch.Tensor:
    return 0.5 + 0.4 * torch.sin(3 * points + torch.tensor([0.0, 1.0, 2.0]))


def make_waves(rings: int = 48) -> Mesh:
    mesh = make_sphere(rings)
    return replace(mesh, vertex_colors=waves(mesh.vertices))


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(-10 * torch.log10(((first - second) ** 2).mean()))


@pytest.fixture(scope="module")
def wavy():
    mesh, rig = make_waves(), make_kiss3dgen_rig()
    return mesh, rig, render_mesh(mesh, rig, width=512, height=512)


@pytest.mark.parametrize("mode", ["blend", "best_view"])
def test_one_colour_covers_the_whole_texture(mode):
    mesh, rig = make_sphere(12), make_kiss3dgen_rig()
    color = torch.tensor([0.2, 0.55, 0.8])
    views = color.expand(4, SIZE, SIZE, 3)
    result = project_texture(mesh, views, rig, params=replace(SMALL, mode=mode))
    assert result.mesh.texture.shape == (256, 256, 3)
    assert float((result.mesh.texture - color).abs().max()) < 1e-4
    colored, _ = project_vertex_colors(mesh, views, rig)
    assert float((colored.vertex_colors - color).abs().max()) < 1e-4


@pytest.mark.parametrize("mode", ["blend", "best_view"])
def test_a_colour_function_of_space_comes_back(mode, wavy):
    mesh, rig, render = wavy
    bare = replace(mesh, vertex_colors=None)
    params = TextureParams(size_px=512, mode=mode)
    result = project_texture(bare, render.rgb, rig, params=params)
    texels = rasterize_texels(result.mesh, 512)
    seen = result.coverage.reshape(-1)[texels.index] > 0.1
    error = (result.mesh.texture.reshape(-1, 3)[texels.index] - waves(texels.positions)).abs()
    assert float(error[seen].quantile(0.99)) < 0.01
    assert float(error[seen].max()) < 0.06
    assert float(error.max()) < 0.35  # poles, which no view sees, bridge the gap smoothly
    again = render_mesh(result.mesh, rig, width=512, height=512)
    assert psnr(again.rgb, render.rgb) > 40
    novel = make_orbit_rig([45.0, 135.0, 225.0, 315.0], 5.0, radius=4.5)
    first = render_mesh(mesh, novel, width=256, height=256)
    second = render_mesh(result.mesh, novel, width=256, height=256)
    assert psnr(first.rgb, second.rgb) > 35
    assert 0.75 < result.seen_fraction < 1.0


def test_front_and_side_mix_two_to_one_at_45_degrees():
    mesh, rig = make_sphere(), make_orbit_rig([0.0, 90.0], 0.0, radius=4.5)
    views = torch.zeros(2, SIZE, SIZE, 3)
    views[0] = 1.0
    projection = VertexProjectionParams(view_weights=(1.0, 0.5), cos_power=2.0)
    result = project_texture(mesh, views, rig, params=replace(SMALL, projection=projection))
    texels = rasterize_texels(result.mesh, 256)
    diagonal = (texels.positions[:, 0] - texels.positions[:, 2]).abs() < 0.005
    diagonal &= (texels.positions[:, 0] > 0.1) & (texels.positions[:, 1].abs() < 0.3)
    values = result.mesh.texture.reshape(-1, 3)[texels.index[diagonal]]
    assert len(values) > 10 and float((values - 2 / 3).abs().max()) < 0.02


def test_a_black_object_on_white_stays_black():
    mesh, rig = make_sphere(), make_kiss3dgen_rig()
    black = replace(mesh, vertex_colors=torch.zeros_like(mesh.vertices))
    small = replace(SMALL, size_px=128)
    for size in (64, 200):
        render = render_mesh(black, rig, width=size, height=size)
        for masks in (None, render.alpha):
            result = project_texture(mesh, render.rgb, rig, masks=masks, params=small)
            assert float(result.mesh.texture.max()) < 0.02
            colored, _ = project_vertex_colors(mesh, render.rgb, rig, masks=masks)
            assert float(colored.vertex_colors.max()) < 0.02


def test_what_stands_behind_does_not_take_the_colour_of_what_stands_in_front():
    back = make_cube().normalized(1.6)
    front = make_sphere(16, radius=0.25)
    front = front.with_vertices(front.vertices + torch.tensor([0.0, 0.0, 1.3]))
    mesh = Mesh(
        torch.cat([back.vertices, front.vertices]), torch.cat([back.faces, front.faces + 8])
    )
    colors = torch.zeros(mesh.num_vertices, 3)
    colors[:8, 2], colors[8:, 0] = 1.0, 1.0
    rig = make_orbit_rig([-20.0, 0.0, 20.0, 180.0], 5.0, radius=5.0)
    views = render_mesh(replace(mesh, vertex_colors=colors), rig, width=256, height=256).rgb
    for mode in ("blend", "best_view"):
        result = project_texture(mesh, views, rig, params=replace(SMALL, mode=mode))
        texels = rasterize_texels(result.mesh, 256)
        values = result.mesh.texture.reshape(-1, 3)[texels.index]
        is_back = texels.positions.abs().amax(dim=1) < 0.81
        seen = result.coverage.reshape(-1)[texels.index] > 0.1
        assert float(values[is_back & seen, 0].max()) < 0.03
        assert float(values[~is_back & seen, 2].max()) < 0.03


def test_usable_coordinates_are_kept_and_others_replaced(caplog):
    mesh, rig = make_sphere(12), make_kiss3dgen_rig()
    views = torch.full((4, SIZE, SIZE, 3), 0.5)
    own = project_texture(mesh, views, rig, params=SMALL).mesh
    again = project_texture(own, views, rig, params=SMALL).mesh
    assert torch.equal(again.uvs, own.uvs) and torch.equal(again.faces, own.faces)
    stacked = replace(mesh, uvs=mesh.vertices[:, :2] / 2 + 0.5)  # front and rear on each other
    with caplog.at_level(logging.WARNING):
        fresh = project_texture(stacked, views, rig, params=SMALL).mesh
    assert "several places" in caplog.text and fresh.num_vertices > mesh.num_vertices
    with pytest.raises(ValueError, match="cannot hold a baked texture"):
        project_texture(stacked, views, rig, params=replace(SMALL, uvs="keep"))
    with pytest.raises(ValueError, match="no uvs to keep"):
        project_texture(mesh, views, rig, params=replace(SMALL, uvs="keep"))


def test_unseen_texels_can_show_the_original_texture():
    mesh = project_texture(
        make_sphere(), torch.full((4, SIZE, SIZE, 3), 0.8), make_kiss3dgen_rig(), params=SMALL
    ).mesh
    front = make_orbit_rig([0.0], 0.0, radius=4.5)
    views = torch.full((1, SIZE, SIZE, 3), 0.1)
    for uvs in ("keep", "unwrap"):
        params = replace(SMALL, keep_original=True, uvs=uvs)
        result = project_texture(mesh, views, front, params=params)
        texels = rasterize_texels(result.mesh, 256)
        values = result.mesh.texture.reshape(-1, 3)[texels.index]
        z = texels.positions[:, 2]
        assert torch.allclose(values[z > 0.5], torch.tensor(0.1), atol=1e-3)
        assert torch.allclose(values[z < -0.1], torch.tensor(0.8), atol=1e-3)


def test_unseen_vertices_can_keep_their_colours():
    mesh = make_sphere()
    mesh = replace(mesh, vertex_colors=torch.full_like(mesh.vertices, 0.8))
    front = make_orbit_rig([0.0], 0.0, radius=4.5)
    views = torch.full((1, SIZE, SIZE, 3), 0.1)
    colored, coverage = project_vertex_colors(mesh, views, front, keep_original=True)
    z = mesh.vertices[:, 2]
    assert torch.allclose(colored.vertex_colors[z > 0.5], torch.tensor(0.1), atol=1e-3)
    assert torch.allclose(colored.vertex_colors[z < -0.1], torch.tensor(0.8), atol=1e-3)
    assert float(coverage[z < -0.1].max()) == 0 and float(coverage[z > 0.75].min()) > 0.8


def test_the_kiss3dgen_projection_colours_every_vertex():
    mesh, rig = make_waves(24), make_kiss3dgen_rig()
    views = render_mesh(mesh, rig, width=512, height=512).rgb
    params = VertexProjectionParams.kiss3dgen_colors()
    colored, coverage = project_vertex_colors(mesh, views, rig, params=params)
    seen = coverage > 0.5
    assert float((colored.vertex_colors - waves(mesh.vertices))[seen].abs().max()) < 0.03
    assert float(colored.vertex_colors.min()) > 0.05  # nothing stays black


def test_alpha_of_rgba_views_is_the_mask():
    mesh, rig = make_sphere(), make_kiss3dgen_rig()
    views = torch.full((4, SIZE, SIZE, 4), 0.4)
    views[..., 3] = 0.0
    views[0, ..., 3] = 1.0
    result = project_texture(mesh, views, rig, params=SMALL)
    assert set(result.best_view.unique().tolist()) == {-1, 0}


def test_best_view_and_coverage_tell_which_view_sees_a_place_and_how_well():
    mesh, rig = make_sphere(), make_orbit_rig([0.0, 90, 180, 270], 0.0, radius=4.5)
    result = project_texture(mesh, torch.full((4, SIZE, SIZE, 3), 0.4), rig, params=SMALL)
    texels = rasterize_texels(result.mesh, 256)
    best = result.best_view.reshape(-1)[texels.index]
    for view, axis in enumerate([(0, 0, 1.0), (1.0, 0, 0), (0, 0, -1.0), (-1.0, 0, 0)]):
        along = texels.normals @ torch.tensor(axis, dtype=torch.float32)
        assert bool((best[along > 0.8] == view).all())
    coverage = result.coverage.reshape(-1)
    assert float(coverage[texels.index][texels.normals[:, 2] > 0.95].min()) > 0.85
    empty = torch.ones(256 * 256, dtype=torch.bool)
    empty[texels.index] = False
    assert float(coverage[empty].max()) == 0
    picture = result.best_view_picture()
    assert float(picture[result.best_view < 0].max()) == 0
    assert len(torch.unique(picture.reshape(-1, 3), dim=0)) == 5


def test_a_hidden_part_takes_the_colour_of_its_surroundings(wavy):
    mesh, rig, render = wavy
    result = project_texture(replace(mesh, vertex_colors=None), render.rgb, rig, params=SMALL)
    below = make_orbit_rig([0.0], -90.0, radius=4.5)
    picture = render_mesh(result.mesh, below, width=128, height=128)
    inside = picture.rgb[picture.alpha > 0.99]
    assert float(inside.min()) > 0.05 and float(inside.max()) < 0.95
    both = (picture.alpha[0, :, 1:] > 0.99) & (picture.alpha[0, :, :-1] > 0.99)
    step = (picture.rgb[0, :, 1:] - picture.rgb[0, :, :-1]).abs()[both]
    assert float(step.max()) < 0.12  # no seam


def test_material_scalars_stay_and_the_base_colour_is_baked_in():
    material = Material(base_color=(1.0, 0.5, 0.5), metallic=0.7, roughness=0.2)
    mesh = replace(make_sphere(12), material=material, name="ball")
    views = torch.full((4, SIZE, SIZE, 3), 0.5)
    baked = project_texture(mesh, views, make_kiss3dgen_rig(), params=SMALL).mesh
    assert baked.material == replace(material, base_color=(1.0, 1.0, 1.0))
    assert baked.name == "ball"
    colored, _ = project_vertex_colors(mesh, views, make_kiss3dgen_rig())
    assert colored.material.metallic == 0.7 and colored.texture is None


def test_progress_counts_up_and_an_interruption_passes_through():
    mesh, rig = make_sphere(8), make_kiss3dgen_rig()
    views = torch.full((4, 64, 64, 3), 0.5)
    steps = []
    project_texture(mesh, views, rig, params=SMALL, on_progress=lambda p: steps.append(p))
    assert [p.step for p in steps] == list(range(8)) and steps[-1].total == 7

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        project_texture(mesh, views, rig, params=SMALL, on_progress=stop)


def test_the_input_is_not_changed():
    mesh, rig = make_waves(8), make_kiss3dgen_rig()
    before, views = mesh.clone(), torch.full((4, 64, 64, 3), 0.5)
    project_texture(mesh, views, rig, params=SMALL)
    assert torch.equal(mesh.vertices, before.vertices) and mesh.texture is None
    assert torch.equal(mesh.vertex_colors, before.vertex_colors)
    assert float(views.min()) == float(views.max()) == 0.5


def test_huge_and_tiny_meshes_bake_alike():
    for scale in (1e-2, 1e3):
        mesh = make_sphere(12)
        mesh = mesh.with_vertices(mesh.vertices * scale)
        rig = make_orbit_rig([0.0, 180.0], 0.0, radius=4.5 * scale)
        cameras = tuple(replace(c, near=0.01 * scale, far=100 * scale) for c in rig)
        rig = replace(rig, cameras=cameras)
        result = project_texture(mesh, torch.full((2, 64, 64, 3), 0.3), rig, params=SMALL)
        assert result.seen_fraction > 0.6
        assert float((result.mesh.texture - 0.3).abs().max()) < 1e-4


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named():
    mesh, rig = make_sphere(4), make_kiss3dgen_rig()
    views = torch.ones(4, 32, 32, 3)
    with pytest.raises(ValueError, match="2 views for a rig of 4"):
        project_texture(mesh, views[:2], rig)
    with pytest.raises(ValueError, match="no faces"):
        project_texture(replace(mesh, faces=mesh.faces[:0]), views, rig)
    with pytest.raises(ValueError, match="RGB or RGBA"):
        project_texture(mesh, views[..., :1], rig)
    with pytest.raises(ValueError, match="masks must have shape"):
        project_texture(mesh, views, rig, masks=torch.ones(4, 16, 16))
    with pytest.raises(ValueError, match="NaN"):
        project_texture(mesh, views * math.nan, rig)
    with pytest.raises(ValueError, match="masks of all views are empty"):
        project_texture(mesh, views, rig, masks=torch.zeros(4, 32, 32))
    away = mesh.with_vertices(mesh.vertices + torch.tensor([0.0, 50.0, 0.0]))
    with pytest.raises(ValueError, match="No view sees"):
        project_texture(away, views, rig, params=SMALL)
    with pytest.raises(ValueError, match="no value to spread"):
        project_vertex_colors(away, views, rig)
    for bad in ({"size_px": 4}, {"mode": "magic"}, {"uvs": "none"}, {"seam_padding_px": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            TextureParams(**bad)


def test_a_textured_asset_is_retextured_from_its_own_views(shared_dir):
    from lift3d.core.formats import read_mesh

    mesh = read_mesh(shared_dir / "meshes" / "Duck.glb")[0].normalized(1.8)
    rig = make_kiss3dgen_rig()
    render = render_mesh(mesh, rig, width=512, height=512)
    result = project_texture(
        replace(mesh, texture=None), render.rgb, rig, params=TextureParams(size_px=512)
    )
    again = render_mesh(result.mesh, rig, width=512, height=512)
    assert psnr(again.rgb, render.rgb) > 35
    novel = make_orbit_rig([45.0, 225.0], 30.0, radius=4.5)
    first = render_mesh(mesh, novel, width=256, height=256)
    second = render_mesh(result.mesh, novel, width=256, height=256)
    assert psnr(first.rgb, second.rgb) > 30
