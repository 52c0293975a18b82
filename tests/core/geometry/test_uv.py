"""Unwrapped meshes keep their faces and put no two places of the surface on one texel."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.geometry.normals import vertex_normals
from lift3d.core.geometry.uv import UnwrapParams, unwrap_mesh
from lift3d.core.geometry.uv_coverage import count_layers, inspect_uvs
from lift3d.core.mesh import Mesh
from texture_scenes import make_cube, make_helicoid, make_torus


def uv_area(mesh: Mesh) -> torch.Tensor:
    corners = mesh.uvs[mesh.faces]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2


@pytest.mark.parametrize("method", ["xatlas", "parts"])
@pytest.mark.parametrize("make", [make_cube, make_torus, make_helicoid])
def test_every_face_gets_its_own_place_in_the_texture(method, make):
    mesh = make()
    unwrapped = unwrap_mesh(mesh, UnwrapParams(method=method, resolution_px=512))
    assert torch.equal(unwrapped.vertices[unwrapped.faces], mesh.vertices[mesh.faces])
    assert float(unwrapped.uvs.min()) >= 0 and float(unwrapped.uvs.max()) <= 1
    assert bool((uv_area(unwrapped).abs() > 1e-8).all())
    report = inspect_uvs(unwrapped, resolution=512)
    assert report.overlap_share < 1e-3 and not report.problems()
    layers = count_layers(unwrapped.uvs, unwrapped.faces, width=512, height=512)
    assert (layers > 0).float().mean() > 0.3


@pytest.mark.parametrize("method", ["xatlas", "parts"])
def test_texel_density_is_even(method):
    mesh = unwrap_mesh(make_torus(), UnwrapParams(method=method))
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    density = uv_area(mesh).abs() / area.norm(dim=1)
    assert float(density.quantile(0.95) / density.quantile(0.05)) < 2.5


def test_parts_of_a_cube_are_its_six_sides():
    mesh = unwrap_mesh(make_cube(), UnwrapParams(method="parts"))
    assert mesh.num_vertices == 24


def test_charts_are_not_mirrored():
    mesh = unwrap_mesh(make_cube(), UnwrapParams(method="parts", rotate_charts=False))
    # v points down, so counter-clockwise faces run clockwise in (u, v).
    assert bool((uv_area(mesh) < 0).all())


@pytest.mark.parametrize("method", ["xatlas", "parts"])
def test_seam_vertices_keep_colours_and_smooth_normals(method):
    mesh = make_torus()
    mesh = replace(mesh, vertex_colors=(mesh.vertices + 1) / 2)
    unwrapped = unwrap_mesh(mesh, UnwrapParams(method=method))
    assert unwrapped.num_vertices > mesh.num_vertices
    assert torch.allclose(unwrapped.vertex_colors, (unwrapped.vertices + 1) / 2)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    assert torch.equal(unwrapped.vertex_normals[unwrapped.faces], normals[mesh.faces])


def test_charts_keep_their_distance():
    from scipy.ndimage import distance_transform_edt, label

    params = UnwrapParams(method="parts", resolution_px=512, padding_px=6)
    mesh = unwrap_mesh(make_cube(), params)
    covered = count_layers(mesh.uvs, mesh.faces, width=512, height=512).numpy() > 0
    from scipy.ndimage import binary_closing

    charts, count = label(binary_closing(covered))  # the diagonals count for no triangle
    assert count == 6
    for chart in range(1, 7):
        away = distance_transform_edt(charts != chart)
        assert away[(charts > 0) & (charts != chart)].min() >= 5


def test_faces_without_area_and_loose_vertices_survive():
    mesh = make_torus()
    degenerate = torch.tensor([[0, 0, 1], [2, 3, 2], [5, 5, 5]])
    extra = torch.tensor([[9.0, 9.0, 9.0]])
    mesh = Mesh(torch.cat([mesh.vertices, extra]), torch.cat([mesh.faces, degenerate]))
    for method in ("xatlas", "parts"):
        unwrapped = unwrap_mesh(mesh, UnwrapParams(method=method))
        assert torch.equal(unwrapped.vertices[unwrapped.faces], mesh.vertices[mesh.faces])
        assert bool(torch.isfinite(unwrapped.uvs).all())


@pytest.mark.parametrize("scale", [1e-4, 1e5])
def test_tiny_and_huge_meshes_unwrap_alike(scale):
    mesh = make_torus()
    mesh = mesh.with_vertices(mesh.vertices * scale)
    for method in ("xatlas", "parts"):
        unwrapped = unwrap_mesh(mesh, UnwrapParams(method=method))
        assert inspect_uvs(unwrapped).overlap_share < 1e-3


def test_the_same_mesh_unwraps_the_same_way():
    first = unwrap_mesh(make_torus(), UnwrapParams(method="parts"))
    second = unwrap_mesh(make_torus(), UnwrapParams(method="parts"))
    assert torch.equal(first.uvs, second.uvs) and torch.equal(first.faces, second.faces)


def test_the_input_is_not_changed():
    mesh = make_torus()
    before = mesh.clone()
    unwrap_mesh(mesh, UnwrapParams(method="parts"))
    assert torch.equal(mesh.vertices, before.vertices) and mesh.uvs is None


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named():
    mesh = make_cube()
    with pytest.raises(ValueError, match="no faces"):
        unwrap_mesh(replace(mesh, faces=mesh.faces[:0]))
    with pytest.raises(ValueError, match="zero area"):
        unwrap_mesh(mesh.with_vertices(torch.zeros_like(mesh.vertices)))
    with pytest.raises(ValueError, match="method must be"):
        UnwrapParams(method="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="padding_px"):
        UnwrapParams(padding_px=600)
