import sys

import pytest
import torch
import trimesh
from lift3d.core.geometry.decimate import decimate_mesh
from lift3d.core.geometry.repair import is_manifold, is_watertight, signed_volume
from lift3d.core.mesh import Material, Mesh

pytest.importorskip("fast_simplification")


def _sphere(subdivisions: int = 5) -> Mesh:
    source = trimesh.creation.icosphere(subdivisions=subdivisions)
    vertices = torch.tensor(source.vertices).float()
    return Mesh(vertices, torch.tensor(source.faces).long(), vertex_colors=vertices / 2 + 0.5)


def test_a_sphere_keeps_its_shape_with_a_twentieth_of_its_faces():
    mesh = _sphere()
    reduced = decimate_mesh(mesh, 1000)
    assert 900 <= reduced.num_faces <= 1000
    assert is_watertight(reduced.faces) and is_manifold(reduced.faces)
    volume = float(signed_volume(reduced.vertices, reduced.faces))
    assert volume == pytest.approx(4 / 3 * torch.pi, rel=0.02)


def test_colours_are_those_of_the_nearest_surface():
    reduced = decimate_mesh(_sphere(), 600)
    expected = torch.nn.functional.normalize(reduced.vertices, dim=-1) / 2 + 0.5
    torch.testing.assert_close(reduced.vertex_colors, expected, atol=0.02, rtol=0)


def test_a_texture_becomes_vertex_colours():
    mesh = _sphere(4)
    uvs = mesh.vertices[:, :2] / 2 + 0.5
    ramp = (torch.arange(64) + 0.5) / 64
    texture = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)], dim=-1)
    texture = torch.cat([texture, torch.zeros(64, 64, 1)], dim=-1)
    textured = Mesh(mesh.vertices, mesh.faces, uvs=uvs, texture=texture)
    reduced = decimate_mesh(textured, 500)
    assert reduced.texture is None and reduced.uvs is None
    expected = torch.nn.functional.normalize(reduced.vertices, dim=-1)[:, :2] / 2 + 0.5
    torch.testing.assert_close(reduced.vertex_colors[:, :2], expected, atol=0.03, rtol=0)


def test_separate_triangles_are_welded_first_and_scalars_are_kept():
    mesh = _sphere(4)
    faces = torch.arange(3 * mesh.num_faces).reshape(-1, 3)
    material = Material(roughness=0.25)
    soup = Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), faces, material=material, name="ball")
    reduced = decimate_mesh(soup, 400)
    assert is_watertight(reduced.faces)
    assert reduced.material == material and reduced.name == "ball"
    assert reduced.vertex_colors is None


def test_small_meshes_come_back_and_tiny_targets_are_refused():
    mesh = _sphere(1)
    assert decimate_mesh(mesh, 80) is mesh
    box = trimesh.creation.box()
    tiny = Mesh(torch.tensor(box.vertices).float(), torch.tensor(box.faces).long())
    assert is_watertight(decimate_mesh(tiny, 4).faces)
    empty = Mesh(torch.zeros(0, 3), torch.zeros((0, 3), dtype=torch.int64))
    assert decimate_mesh(empty, 10) is empty
    with pytest.raises(ValueError, match="at least 4"):
        decimate_mesh(mesh, 3)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    with pytest.raises(ImportError, match="pip install fast-simplification"):
        decimate_mesh(_sphere(2), 100)
