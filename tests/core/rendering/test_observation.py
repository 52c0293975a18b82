"""One view sees the points that face it and that nothing hides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.geometry.normals import vertex_normals
from lift3d.core.mesh import merge_meshes
from lift3d.core.rendering import observation
from lift3d.core.rendering.observation import (
    facing_faces,
    observe_points,
    sample_pure,
    sample_view,
)
from lift3d.core.rendering.projection_params import VertexProjectionParams
from lift3d.core.rendering.visibility import view_geometry
from texture_scenes import make_cube, make_sphere


@pytest.mark.parametrize("ortho_height", [None, 2.5])
@pytest.mark.parametrize(
    "changes",
    [{}, {"direction": "axis"}, {"rim_weight": 0.0}, {"bias_px": 2.0, "cos_threshold": 0.3}],
)
def test_compiled_and_plain_observations_agree(ortho_height, changes, monkeypatch):
    ball = make_sphere(20, radius=0.3)
    mesh = merge_meshes([make_sphere(20), ball.with_vertices(ball.vertices + 0.6)])
    rig = make_orbit_rig([30.0], 20.0, radius=3.0, ortho_height=ortho_height)
    view = view_geometry(mesh, rig, width=160, height=120)[0]
    params = replace(VertexProjectionParams(), **changes)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    for two_sided in (False, True):
        for test_hidden in (False, True):
            options = {"two_sided": two_sided, "test_hidden": test_hidden, "view_weight": 0.5}
            fast = observe_points(mesh.vertices, normals, view, params, **options)
            with monkeypatch.context() as patch:
                patch.setattr(observation, "_compiled_kernels_fit", lambda points: False)
                slow = observe_points(mesh.vertices, normals, view, params, **options)
            assert len(slow.index) > 100
            assert torch.equal(fast.index, slow.index)
            assert torch.allclose(fast.weight, slow.weight, atol=1e-5)
            assert torch.allclose(fast.support, slow.support, atol=1e-5)
            assert torch.allclose(fast.image_xy, slow.image_xy, atol=1e-5)


def test_three_sides_of_a_cube_face_a_camera_at_its_corner():
    mesh = make_cube().normalized(1.0)
    view = view_geometry(mesh, make_orbit_rig([45.0], 35.0, radius=4.0), width=32, height=32)[0]
    assert int(facing_faces(mesh, view).sum()) == 6


def test_impure_pixels_have_no_part_in_samples():
    image = torch.ones(4, 4, 1)
    image[:, :2] = 0.25
    pure = torch.zeros(4, 4)
    pure[:, :2] = 1
    between = torch.tensor([[-0.1, 0.0], [0.1, 0.0]])
    assert torch.allclose(sample_pure(image, pure, between), torch.tensor(0.25))


def test_sampling_at_pixel_centres_returns_the_pixels():
    image = torch.rand(5, 7, 2)
    y, x = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    xy = torch.stack([(x + 0.5) / 7 * 2 - 1, (y + 0.5) / 5 * 2 - 1], dim=-1).reshape(-1, 2)
    assert torch.allclose(sample_view(image, xy), image.reshape(-1, 2), atol=1e-5)
