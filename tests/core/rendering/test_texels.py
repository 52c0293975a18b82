"""Texels know the point of the surface that they colour."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.geometry.uv import unwrap_mesh
from lift3d.core.mesh import Mesh
from lift3d.core.rendering.texels import rasterize_texels
from texture_scenes import make_cube, make_sphere

SQUARE = Mesh(
    torch.tensor([[0.0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]]),
    torch.tensor([[0, 1, 2], [0, 2, 3]]),
    uvs=torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]]),
)


def test_texel_centres_of_a_square_lie_on_a_regular_grid():
    texels = rasterize_texels(SQUARE, 16)
    assert len(texels.index) == 256
    rows, columns = texels.index // 16, texels.index % 16
    expected = torch.stack([(columns + 0.5) / 8, 2 - (rows + 0.5) / 8, 0 * rows], dim=1)
    assert torch.allclose(texels.positions, expected, atol=1e-5)
    assert torch.allclose(texels.normals, torch.tensor([0.0, 0.0, 1.0]))


def test_areas_add_up_to_the_surface():
    texels = rasterize_texels(unwrap_mesh(make_cube()), 128)
    assert float(texels.areas.sum()) == pytest.approx(24.0, rel=1e-4)


def test_normals_are_smooth_but_never_turn_from_their_face():
    texels = rasterize_texels(unwrap_mesh(make_sphere(24)), 128)
    radial = torch.nn.functional.normalize(texels.positions, dim=1)
    assert float((texels.normals * radial).sum(dim=1).min()) > 0.99
    flat = replace(SQUARE, vertex_normals=torch.tensor([[0.0, 0.0, -1.0]]).expand(4, 3))
    assert torch.allclose(rasterize_texels(flat, 16).normals, torch.tensor([0.0, 0.0, 1.0]))


def test_faces_smaller_than_a_texel_get_one_if_it_is_free():
    uvs = torch.tensor([[0.5, 0.5], [0.51, 0.5], [0.51, 0.51], [0.5, 0.51]])
    texels = rasterize_texels(replace(SQUARE, uvs=uvs), 16)
    assert texels.index.tolist() == [8 * 16 + 8]
    assert torch.allclose(texels.weights.sum(dim=1), torch.ones(1))


def test_scattering_and_interpolating_give_pictures_of_vertex_values():
    texels = rasterize_texels(SQUARE, 8)
    image = texels.scatter(texels.interpolate(SQUARE.vertices, SQUARE.faces), 8)
    assert torch.allclose(image.reshape(-1, 3)[texels.index], texels.positions)
    assert image.shape == (8, 8, 3)


def test_meshes_without_coordinates_are_refused():
    with pytest.raises(ValueError, match="no uvs"):
        rasterize_texels(make_cube(), 16)
