"""Texels blend their views, or take fine detail from the best of them."""

from __future__ import annotations

import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.geometry.uv import unwrap_mesh
from lift3d.core.mesh import merge_meshes
from lift3d.core.rendering.projection import VertexProjectionParams
from lift3d.core.rendering.texel_projection import coarse_colors, project_views_to_texels
from lift3d.core.rendering.texels import rasterize_texels
from lift3d.core.rendering.visibility import view_geometry
from texture_scenes import make_sphere


def bake(views: torch.Tensor, separate_detail: bool):
    mesh = unwrap_mesh(make_sphere(24))
    rig = make_orbit_rig([0.0, 60.0], 0.0, radius=4.5)
    texels = rasterize_texels(mesh, 128)
    colors = project_views_to_texels(
        mesh,
        texels,
        views,
        view_geometry(mesh, rig, width=256, height=256),
        VertexProjectionParams(cos_power=4.0),
        view_weights=[1.0, 1.0],
        two_sided=False,
        separate_detail=separate_detail,
    )
    return texels, colors


def test_detail_of_disagreeing_views_survives_in_the_best_view_only():
    checks = (torch.arange(256)[:, None] // 4 + torch.arange(256)[None] // 4) % 2
    views = torch.stack([checks, 1 - checks])[..., None].expand(-1, -1, -1, 3).float() * 0.5 + 0.25
    texels, blended = bake(views, separate_detail=False)
    _, separated = bake(views, separate_detail=True)
    middle = torch.nn.functional.normalize(torch.tensor([0.5, 0.0, 0.866]), dim=0)
    between = texels.normals @ middle > 0.97  # seen equally well by both
    assert float(blended.values[between].std()) < 0.85 * float(separated.values[between].std())


def test_gain_differences_fade_over_instead_of_leaving_a_step():
    views = torch.full((2, 256, 256, 3), 0.3)
    views[1] = 0.6
    texels, colors = bake(views, separate_detail=True)
    order = torch.argsort(texels.positions[:, 0])
    belt = order[texels.positions[order, 1].abs() < 0.02]
    belt = belt[(colors.support[belt] > 0.3) & (texels.positions[belt, 2] > 0)]
    values = colors.values[belt, 0]
    assert float(values.min()) < 0.35 and float(values.max()) > 0.55
    assert float((values[1:] - values[:-1]).abs().max()) < 0.05


def test_coarse_colours_ignore_the_background_and_stop_at_depth_jumps():
    back, front = make_sphere(16, radius=0.8), make_sphere(16, radius=0.3)
    front = front.with_vertices(front.vertices + torch.tensor([0.0, 0.0, 1.2]))
    mesh = merge_meshes([back, front])
    rig = make_orbit_rig([0.0], 0.0, radius=4.5)
    seen = view_geometry(mesh, rig, width=256, height=256)[0]
    is_front = seen.face_index >= back.num_faces
    view = torch.where(is_front[..., None], 0.9, 0.2).expand(-1, -1, 3).clone()
    view[seen.face_index < 0] = 1.0
    coarse = coarse_colors(view, seen)
    inside = seen.pure > 0
    assert torch.allclose(coarse[inside], view[inside], atol=0.02)


def test_unseen_texels_have_no_view():
    texels, colors = bake(torch.full((2, 256, 256, 3), 0.5), separate_detail=False)
    behind = texels.normals[:, 2] < -0.9
    assert bool((colors.best_view[behind] == -1).all())
    assert float(colors.support[behind].max()) == 0
