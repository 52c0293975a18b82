"""Pictures land on the vertices that they show, and nowhere else."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from lift3d.core.camera import ViewRig, make_kiss3dgen_rig, make_orbit_rig
from lift3d.core.geometry.normals import vertex_normals
from lift3d.core.mesh import Mesh
from lift3d.core.rendering.mesh import interpolate, rasterize, world_to_clip
from lift3d.core.rendering.projection import (
    VertexProjectionParams,
    project_views_to_vertices,
)
from texture_scenes import make_plates, make_sphere

SIZE = 128
PLAIN = VertexProjectionParams(erosion_px=0, blur_px=0, rim_weight=0, jump_margin_px=0)


def draw(mesh: Mesh, values: torch.Tensor, rig: ViewRig, size: int = SIZE) -> torch.Tensor:
    """Vertex values over a white background."""
    rast = rasterize(
        world_to_clip(mesh.vertices, rig, width=size, height=size),
        mesh.faces,
        width=size,
        height=size,
    )
    return torch.where(rast[..., 3:] > 0, interpolate(values, rast, mesh.faces), 1.0)


@pytest.mark.parametrize("params", [VertexProjectionParams(), replace(PLAIN, visibility="faces")])
def test_constant_views_give_that_constant_on_every_seen_vertex(params):
    mesh, rig = make_sphere(), make_kiss3dgen_rig()
    views = torch.tensor([0.2, 0.5, 0.7]).expand(4, SIZE, SIZE, 3)
    values, weight = project_views_to_vertices(mesh, views, rig, params=params)
    seen = weight > 0
    assert seen.float().mean() > 0.7
    assert torch.allclose(values[seen], torch.tensor([0.2, 0.5, 0.7]), atol=1e-5)
    assert torch.equal(values[~seen], torch.zeros_like(values[~seen]))


@pytest.mark.parametrize("direction", ["ray", "axis"])
def test_front_and_side_mix_two_to_one_at_45_degrees(direction):
    # Conformance 20: weights 1 and .5 on a surface that both views see at 45 degrees.
    mesh = make_sphere()
    rig = make_orbit_rig([0.0, 90.0], 0.0, radius=4.5)
    views = torch.zeros(2, SIZE, SIZE, 1)
    views[0] = 1.0
    params = replace(PLAIN, view_weights=(1.0, 0.5), direction=direction)
    values, _ = project_views_to_vertices(mesh, views, rig, params=params)
    diagonal = (mesh.vertices[:, 0] - mesh.vertices[:, 2]).abs() < 1e-4
    diagonal &= (mesh.vertices[:, 0] > 0.1) & (mesh.vertices[:, 1].abs() < 0.3)
    assert int(diagonal.sum()) >= 5
    assert torch.allclose(values[diagonal], torch.tensor(2 / 3), atol=2e-3)


@pytest.mark.parametrize(("cos_power", "expected"), [(1.0, 1.0), (1.5, 1.5), (4.0, 2.0)])
def test_vertices_are_seen_as_well_as_the_cosine_to_the_camera_says(cos_power, expected):
    mesh, rig = make_sphere(), make_orbit_rig([0.0], 0.0, radius=3.0)
    params = replace(PLAIN, cos_power=cos_power)
    _, weight = project_views_to_vertices(mesh, torch.ones(1, SIZE, SIZE, 1), rig, params=params)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    to_camera = torch.nn.functional.normalize(torch.tensor([0.0, 0, 3]) - mesh.vertices, dim=1)
    cosine = (normals * to_camera).sum(dim=1)
    seen = cosine > 0.2
    assert torch.allclose(weight[seen], cosine[seen] ** expected, atol=1e-4)


def test_position_colours_come_back_from_four_views():
    mesh, rig = make_sphere(), make_kiss3dgen_rig()
    colors = (mesh.vertices / 0.8 + 1) / 2
    values, weight = project_views_to_vertices(mesh, draw(mesh, colors, rig), rig)
    seen = weight > 0.1
    assert seen.float().mean() > 0.6
    assert float((values - colors)[seen].abs().max()) < 0.02


def test_world_normals_come_back_with_the_explicit_target_weights():
    # Conformance 19: consistent normal views give the analytic normals.
    mesh, rig = make_sphere(), make_kiss3dgen_rig(radius=4.15)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    params = VertexProjectionParams.explicit_target()
    views = draw(mesh, normals, rig)
    values, weight = project_views_to_vertices(mesh, views, rig, params=params)
    seen = weight > params.confidence
    found = torch.nn.functional.normalize(values[seen], dim=1)
    degrees = torch.rad2deg(torch.acos((found * normals[seen]).sum(dim=1).clamp(-1, 1)))
    assert float(degrees.max()) < 2.0


def test_a_plate_behind_another_does_not_take_its_colour():
    mesh, rig = make_plates(), make_orbit_rig([0.0, 20.0], [0.0, 15.0], radius=5.0)
    count = mesh.num_vertices // 2
    colors = torch.zeros(mesh.num_vertices, 3)
    colors[:count, 0], colors[count:, 1] = 1.0, 1.0  # red behind, green in front
    views = draw(mesh, colors, rig, size=256)
    values, weight = project_views_to_vertices(mesh, views, rig)
    seen = weight > 0
    inner = (mesh.vertices[count:, :2].abs() < 0.39).all(dim=1)  # off the edge: pixels mix there
    assert bool(seen[count:][inner].all())
    assert torch.allclose(values[seen], colors[seen], atol=1e-5)
    one = project_views_to_vertices(mesh, views[:1], rig.select([0]))[1]
    shadow = (mesh.vertices[:count, :2].abs() < 0.4).all(dim=1)
    assert not bool((one[:count][shadow] > 0).any())


def test_hidden_vertices_agree_with_brute_force_rays():
    generator = np.random.default_rng(0)
    base = make_sphere(rings=12, radius=0.5)
    bumps = torch.as_tensor(generator.normal(size=(base.num_vertices, 1)), dtype=torch.float32)
    part = base.with_vertices(base.vertices * (1 + 0.15 * bumps))
    mesh = Mesh(
        torch.cat([part.vertices + torch.tensor(shift) for shift in ([0.3, 0, 0], [-0.3, 0, 0.5])]),
        torch.cat([part.faces, part.faces + part.num_vertices]),
    )
    rig = make_orbit_rig([25.0], 10.0, radius=4.0)
    everywhere = torch.ones(1, 512, 512)
    _, weight = project_views_to_vertices(
        mesh, everywhere[..., None], rig, masks=everywhere, params=replace(PLAIN, cos_power=0.0)
    )
    origin = rig[0].position.double()
    expected = _visible_by_rays(mesh, origin)
    normals = vertex_normals(mesh.vertices, mesh.faces).double()
    to_camera = torch.nn.functional.normalize(origin - mesh.vertices.double(), dim=1)
    facing = (normals * to_camera).sum(dim=1) > 0.05
    agree = (weight > 0)[facing] == expected[facing]
    assert agree.float().mean() > 0.96  # the rest lie within a pixel of an occluding edge


def _visible_by_rays(mesh: Mesh, origin: torch.Tensor) -> torch.Tensor:
    """Moller-Trumbore against every face not touching the vertex, float64."""
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    visible = torch.ones(mesh.num_vertices, dtype=torch.bool)
    for v, point in enumerate(mesh.vertices.double()):
        direction = point - origin
        p = torch.linalg.cross(direction.expand_as(c), c - a)
        det = ((b - a) * p).sum(1)
        s = origin - a
        u = (s * p).sum(1) / det
        q = torch.linalg.cross(s, b - a)
        w = (q @ direction) / det
        t = ((c - a) * q).sum(1) / det
        hit = (u >= 0) & (w >= 0) & (u + w <= 1) & (t > 0) & (t < 0.999)
        visible[v] = not bool((hit & ~(mesh.faces == v).any(dim=1)).any())
    return visible


def test_an_inside_out_mesh_is_coloured_too():
    mesh, rig = make_sphere(), make_kiss3dgen_rig()
    turned = replace(mesh, faces=mesh.faces.flip(1))
    views = torch.full((4, SIZE, SIZE, 3), 0.3)
    _, expected = project_views_to_vertices(mesh, views, rig)
    _, weight = project_views_to_vertices(turned, views, rig)
    assert float((weight - expected).abs().mean()) < 0.02
    _, weight = project_views_to_vertices(
        turned, views, rig, params=replace(PLAIN, two_sided=False)
    )
    assert float((weight > 0.05).float().mean()) < 0.01


def test_parts_thinner_than_the_erosion_keep_their_colour():
    line = torch.linspace(-0.8, 0.8, 9)
    columns = [torch.stack([torch.full((9,), x), line, 0 * line], 1) for x in (-0.02, 0.0, 0.02)]
    quads = [(9 * c + i, 9 * c + i + 9) for c in range(2) for i in range(8)]
    faces = torch.tensor([f for a, b in quads for f in ([a, b, b + 1], [a, b + 1, a + 1])])
    mesh, rig = Mesh(torch.cat(columns), faces), make_orbit_rig([0.0], 0.0, radius=4.5)
    views = draw(mesh, torch.zeros(27, 3), rig, size=512)
    values, weight = project_views_to_vertices(mesh, views, rig)
    inner = (mesh.vertices[:, 1].abs() < 0.7) & (mesh.vertices[:, 0] == 0)
    assert bool((weight[inner] > 0).all())
    assert float(values[inner].max()) < 1e-6  # black, no white of the background


def test_orthographic_cameras_work():
    mesh = make_sphere()
    rig = make_orbit_rig([0, 90, 180, 270], 0.0, radius=4.5, ortho_height=2.0)
    colors = (mesh.vertices / 0.8 + 1) / 2
    values, weight = project_views_to_vertices(mesh, draw(mesh, colors, rig), rig)
    seen = weight > 0.1
    assert seen.float().mean() > 0.6
    assert float((values - colors)[seen].abs().max()) < 0.02


def test_wide_pictures_and_another_raster_size_give_the_same_values():
    mesh, rig = make_sphere(), make_kiss3dgen_rig()
    colors = (mesh.vertices / 0.8 + 1) / 2
    width, height = 192, 128
    clip = world_to_clip(mesh.vertices, rig, width=width, height=height)
    rast = rasterize(clip, mesh.faces, width=width, height=height)
    views = torch.where(rast[..., 3:] > 0, interpolate(colors, rast, mesh.faces), 1.0)
    for raster_px in (None, 100, 300):
        params = VertexProjectionParams(raster_px=raster_px)
        values, weight = project_views_to_vertices(mesh, views, rig, params=params)
        seen = weight > 0.1
        assert seen.float().mean() > 0.6
        assert float((values - colors)[seen].abs().max()) < 0.03


def test_gradients_flow_to_the_views():
    mesh, rig = make_sphere(8), make_kiss3dgen_rig()
    views = torch.rand(4, 64, 64, 3, requires_grad=True)
    values, _ = project_views_to_vertices(mesh, views, rig)
    values.sum().backward()
    assert views.grad is not None
    assert bool(torch.isfinite(views.grad).all()) and float(views.grad.abs().sum()) > 0


def test_an_empty_mask_skips_the_view_with_a_warning(caplog):
    mesh, rig = make_sphere(8), make_orbit_rig([0.0, 180.0], 0.0, radius=4.5)
    masks = torch.ones(2, SIZE, SIZE)
    masks[1] = 0
    views = torch.ones(2, SIZE, SIZE, 3)
    with caplog.at_level(logging.WARNING):
        _, weight = project_views_to_vertices(mesh, views, rig, masks=masks)
    assert "mask is empty" in caplog.text
    assert not bool((weight[mesh.vertices[:, 2] < -0.1] > 0).any())
    with pytest.raises(ValueError, match="masks of all views are empty"):
        project_views_to_vertices(mesh, views, rig, masks=torch.zeros(2, SIZE, SIZE))


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named():
    mesh, rig = make_sphere(4), make_kiss3dgen_rig()
    views = torch.ones(4, 32, 32, 3)
    with pytest.raises(ValueError, match="3 views for a rig of 4"):
        project_views_to_vertices(mesh, views[:3], rig)
    with pytest.raises(ValueError, match="no faces"):
        project_views_to_vertices(replace(mesh, faces=mesh.faces[:0]), views, rig)
    with pytest.raises(ValueError, match="masks must have shape"):
        project_views_to_vertices(mesh, views, rig, masks=torch.ones(4, 16, 16))
    with pytest.raises(ValueError, match="NaN"):
        project_views_to_vertices(mesh, views * torch.nan, rig)
    with pytest.raises(ValueError, match="2 view weights for 4 views"):
        params = VertexProjectionParams(view_weights=(1.0, 1.0))
        project_views_to_vertices(mesh, views, rig, params=params)
    with pytest.raises(ValueError, match="not all 0"):
        VertexProjectionParams(view_weights=(0.0, 0.0))
    with pytest.raises(ValueError, match="confidence must be positive"):
        VertexProjectionParams(confidence=0)
