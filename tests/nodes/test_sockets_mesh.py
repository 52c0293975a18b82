"""The four kinds of mesh objects that travel on MESH and TRIMESH links."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from lift3d.core.mesh import Material, Mesh
from lift3d.nodes import sockets_mesh
from lift3d.nodes.sockets_mesh import (
    mesh_from_link,
    mesh_to_link,
    mesh_to_trimesh,
    meshes_from_link,
)


def test_a_colored_mesh_survives_the_native_round_trip(tetrahedron: Mesh) -> None:
    back = mesh_from_link(mesh_to_link(tetrahedron))
    assert torch.equal(back.vertices, tetrahedron.vertices)
    assert torch.equal(back.faces, tetrahedron.faces)
    assert torch.allclose(back.vertex_colors, tetrahedron.vertex_colors, atol=1e-6)
    assert back.name == "tetra"


def test_a_textured_mesh_survives_the_native_round_trip(textured_quad: Mesh) -> None:
    back = mesh_from_link(mesh_to_link(textured_quad))
    assert torch.equal(back.texture, textured_quad.texture)
    assert torch.equal(back.uvs, textured_quad.uvs)


def test_vertex_colors_are_linear_on_the_link(tetrahedron: Mesh) -> None:
    link = mesh_to_link(replace(tetrahedron, vertex_colors=torch.full((4, 3), 0.5)))
    # IEC 61966-2-1: ((0.5 + 0.055) / 1.055) ** 2.4
    assert torch.allclose(link.vertex_colors, torch.full((1, 4, 3), 0.21404), atol=1e-5)


def test_parts_of_different_size_travel_as_a_padded_batch(tetrahedron, textured_quad) -> None:
    link = mesh_to_link([tetrahedron, textured_quad, tetrahedron])
    assert link.vertices.shape == (3, 4, 3) and link.faces.shape == (3, 4, 3)
    assert link.face_counts.tolist() == [4, 2, 4]
    parts = meshes_from_link(link)
    assert [part.num_faces for part in parts] == [4, 2, 4]
    assert [part.name for part in parts] == ["tetra", "quad", "tetra"]
    assert torch.equal(parts[1].faces, textured_quad.faces)


def test_colours_of_a_part_survive_beside_a_textured_one(tetrahedron, textured_quad) -> None:
    plain, textured = meshes_from_link(mesh_to_link([tetrahedron, textured_quad]))
    assert plain.texture is None and textured.texture is not None
    assert torch.allclose(plain.vertex_colors, tetrahedron.vertex_colors, atol=1e-6)


def test_a_batch_is_merged_when_one_mesh_is_wanted(tetrahedron, textured_quad) -> None:
    merged = mesh_from_link(mesh_to_link([tetrahedron, textured_quad]))
    assert merged.num_faces == 6 and merged.vertex_colors is not None and merged.texture is None


def test_a_color_factor_is_baked_in_linear_light(tetrahedron: Mesh) -> None:
    red = Material(base_color=(0.5, 0.5, 0.5), metallic=0.7)
    plain = replace(tetrahedron, vertex_colors=None, material=red)
    back = mesh_from_link(mesh_to_link(plain))
    assert torch.allclose(back.vertex_colors, torch.full((4, 3), 0.5), atol=1e-6)
    assert back.material.base_color == (1.0, 1.0, 1.0) and back.material.metallic == 0.7


def test_converters_never_touch_or_share_the_link_value(
    tetrahedron, textured_quad, snapshot
) -> None:
    link = mesh_to_link([tetrahedron, textured_quad])
    before = snapshot(link)
    for part in meshes_from_link(link):
        part.vertices.zero_()
        part.faces.zero_()
    for now, then in zip(snapshot(link), before, strict=True):
        assert torch.equal(now, then)
    mesh_to_link(tetrahedron).vertices.zero_()
    assert float(tetrahedron.vertices.abs().sum()) > 0


def test_a_native_mesh_of_another_pack_needs_positions_and_faces_only(tetrahedron: Mesh) -> None:
    bare = SimpleNamespace(
        vertices=tetrahedron.vertices[None], faces=tetrahedron.faces[None].float()
    )
    assert torch.equal(mesh_from_link(bare).faces, tetrahedron.faces)


def test_rgba_vertex_colors_are_accepted(tetrahedron: Mesh) -> None:
    link = mesh_to_link(tetrahedron)
    link.vertex_colors = torch.cat([link.vertex_colors, torch.ones(1, 4, 1)], dim=-1)
    assert mesh_from_link(link).vertex_colors.shape == (4, 3)


def test_the_mesh_of_3d_pack_is_recognised(textured_quad: Mesh) -> None:
    foreign = SimpleNamespace(
        v=textured_quad.vertices,
        f=textured_quad.faces.int(),
        vn=None,
        vc=None,
        vt=textured_quad.uvs,
        ft=textured_quad.faces.int(),
        albedo=textured_quad.texture,
    )
    mesh = mesh_from_link(foreign)
    assert torch.allclose(mesh.uvs[mesh.faces], textured_quad.uvs[textured_quad.faces])
    assert torch.equal(mesh.texture, textured_quad.texture)


def test_seams_of_3d_pack_split_vertices() -> None:
    foreign = SimpleNamespace(
        v=torch.rand(4, 3),
        f=torch.tensor([[0, 1, 2], [0, 2, 3]]),
        vc=None,
        vt=torch.rand(6, 2),
        ft=torch.tensor([[0, 1, 2], [3, 4, 5]]),
        albedo=torch.rand(2, 2, 3),
    )
    mesh = mesh_from_link(foreign)
    assert mesh.num_vertices == 6
    assert torch.allclose(mesh.vertices[mesh.faces], foreign.v[foreign.f])


def test_trimesh_round_trip_keeps_colors_to_8_bits(tetrahedron: Mesh) -> None:
    back = mesh_from_link(mesh_to_trimesh(tetrahedron))
    assert torch.allclose(back.vertices, tetrahedron.vertices)
    assert torch.allclose(back.vertex_colors, tetrahedron.vertex_colors, atol=1 / 255)
    assert back.name == "tetra"


def test_trimesh_round_trip_keeps_the_texture_upright(textured_quad: Mesh) -> None:
    back = mesh_from_link(mesh_to_trimesh(textured_quad))
    assert torch.allclose(back.uvs, textured_quad.uvs, atol=1e-6)
    assert torch.allclose(back.texture, textured_quad.texture, atol=1 / 255)


def test_trimesh_scenes_and_lists_become_parts(tetrahedron: Mesh) -> None:
    part = mesh_to_trimesh(tetrahedron)
    scene = trimesh.Scene()
    scene.add_geometry(part, transform=trimesh.transformations.translation_matrix([1, 0, 0]))
    scene.add_geometry(part)
    parts = meshes_from_link(scene)
    assert len(parts) == 2
    shifts = sorted(float((p.vertices - tetrahedron.vertices)[:, 0].mean()) for p in parts)
    assert np.allclose(shifts, [0, 1], atol=1e-6)
    assert len(meshes_from_link([part, part, part])) == 3


@pytest.mark.parametrize("bad", [torch.rand(3, 3), 5, {"v": 1}])
def test_unknown_objects_are_named_by_their_type(bad) -> None:
    with pytest.raises(
        ValueError, match=f"mesh is a .*{type(bad).__name__}, which Lift3D does not"
    ):
        meshes_from_link(bad)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no mesh"):
        meshes_from_link([])


def test_hosts_without_newer_fields_get_what_they_know(tetrahedron, monkeypatch) -> None:
    class Old:
        def __init__(self, vertices, faces, uvs=None, vertex_colors=None, texture=None,
                     vertex_counts=None, face_counts=None, unlit=False):  # fmt: skip
            self.vertices, self.faces, self.vertex_colors = vertices, faces, vertex_colors
            self.uvs, self.texture, self.unlit = uvs, texture, unlit
            self.vertex_counts, self.face_counts = vertex_counts, face_counts

    monkeypatch.setattr(sockets_mesh, "Types", SimpleNamespace(MESH=Old))
    link = mesh_to_link(tetrahedron)
    assert type(link) is Old
    assert mesh_from_link(link).num_faces == 4


def test_hosts_with_bare_meshes_get_our_own_class(tetrahedron, monkeypatch) -> None:
    class Bare:
        def __init__(self, vertices, faces):
            raise AssertionError("would lose colours")

    monkeypatch.setattr(sockets_mesh, "Types", SimpleNamespace(MESH=Bare))
    assert mesh_to_link(tetrahedron).vertex_colors is not None


def test_meshes_of_inference_mode_can_be_differentiated(tetrahedron: Mesh) -> None:
    with torch.inference_mode():
        link = mesh_to_link(tetrahedron)
    with torch.inference_mode(False), torch.enable_grad():
        vertices = mesh_from_link(link).vertices.requires_grad_()
        (vertices**2).sum().backward()
    assert vertices.grad is not None
