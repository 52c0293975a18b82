"""Pixels are trusted where they show one surface, well inside the object."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.geometry.normals import face_normals
from lift3d.core.mesh import merge_meshes
from lift3d.core.rendering import visibility
from lift3d.core.rendering.visibility import (
    dilate_square,
    dot_rows,
    erode_masks,
    gaussian_blur,
    hidden_points,
    project_visible_candidates,
    soften_masks,
    view_geometry,
)
from texture_scenes import make_plates, make_sphere


@pytest.mark.parametrize("radius_px", [0, 1, 3])
def test_dilation_marks_the_squares_round_all_marks(radius_px):
    from scipy.ndimage import maximum_filter

    marks = torch.rand(2, 17, 23, generator=torch.Generator().manual_seed(0)) > 0.97
    side = 2 * radius_px + 1
    expected = [maximum_filter(m.numpy(), size=side, mode="constant", cval=False) for m in marks]
    found = dilate_square(marks, radius_px=radius_px)
    assert torch.equal(found, torch.stack([torch.as_tensor(m) for m in expected]))


def test_erosion_shrinks_opaque_areas_but_not_at_the_picture_border():
    masks = torch.ones(1, 9, 9)
    masks[0, 4, 4] = 0.5
    eroded = erode_masks(masks, radius_px=1)
    assert int((eroded == 0).sum()) == 9 and float(eroded[0, 0, 0]) == 1


def test_blur_keeps_flat_areas_and_spreads_as_a_gaussian():
    image = torch.zeros(1, 41, 41)
    image[0, 20, 20] = 1.0
    blurred = gaussian_blur(image, sigma_px=3.0)
    ratio = float(blurred[0, 20, 23] / blurred[0, 20, 20])
    assert ratio == pytest.approx(0.60653, rel=1e-4)
    assert torch.allclose(gaussian_blur(torch.ones(1, 8, 8), sigma_px=3.0), torch.ones(1, 8, 8))


def test_row_products_are_dot_products():
    a, b = torch.rand(5, 4, 3), torch.rand(5, 4, 3)
    assert torch.allclose(dot_rows(a, b), (a * b).sum(dim=-1))


def test_softened_masks_vanish_outside_the_eroded_mask_and_are_one_deep_inside():
    masks = torch.zeros(1, 512, 512)
    masks[:, 100:400, 100:400] = 1
    soft = soften_masks(masks, erosion_px=10, blur_px=5)
    assert float(soft[0, 104, 250]) == 0 and float(soft[0, 105, 250]) > 0.4
    assert float(soft[0, 250, 250]) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.slow
def test_pixels_beside_a_depth_jump_are_not_trusted_but_creases_are():
    mesh, rig = make_plates(), make_orbit_rig([0.0], 0.0, radius=5.0)
    view = view_geometry(mesh, rig, width=512, height=512)[0]
    normals = face_normals(mesh.vertices, mesh.faces)[view.face_index.clamp(min=0)]
    assert torch.allclose(view.planes[256, 256, :3], normals[256, 256])
    front = view.face_index >= mesh.num_faces // 2
    left = int(front[256].nonzero().min())
    assert float(view.confidence[256, left]) == 0 and float(view.confidence[256, left - 1]) == 0
    assert float(view.pure[256, left + 2]) == 1
    box = make_sphere(2)  # an octahedron-like solid: sharp creases, no jumps
    solid = view_geometry(box, rig, width=512, height=512, erosion_px=0, blur_px=0)[0]
    assert torch.equal(solid.pure, (solid.face_index >= 0).float())


@pytest.mark.parametrize("ortho_height", [None, 2.5])
def test_compiled_and_plain_searches_find_the_same_depth_jumps(ortho_height, monkeypatch):
    ball = make_sphere(12, radius=0.3)
    mesh = merge_meshes([make_sphere(12), ball.with_vertices(ball.vertices + 0.6)])
    rig = make_orbit_rig([30.0], 20.0, radius=3.0, ortho_height=ortho_height)
    fast = view_geometry(mesh, rig, width=96, height=80)[0].jumps
    monkeypatch.setattr(visibility, "_depth_jumps_compiled", visibility._depth_jumps_plain)
    slow = view_geometry(mesh, rig, width=96, height=80)[0].jumps
    assert 20 < int(slow.sum()) < 2000
    assert int((fast != slow).sum()) <= 2  # float32 against float64 at the limit


@pytest.mark.parametrize("ortho_height", [None, 3.0])
def test_a_slanted_surface_does_not_hide_itself(ortho_height):
    mesh = make_plates()
    half = mesh.num_vertices // 2
    rig = make_orbit_rig([76.0], 0.0, radius=6.0, ortho_height=ortho_height)
    view = view_geometry(mesh, rig, width=128, height=128)[0]
    points = mesh.vertices[half:]  # seen at a grazing angle
    pixels, depth, inside = project_visible_candidates(points, view)
    assert bool(inside.all())
    assert not bool(hidden_points(points, pixels, depth, view, bias_px=0.5).any())
    behind = points - torch.tensor([0.0, 0.0, 0.03])  # just behind the small plate
    pixels, depth, _ = project_visible_candidates(behind, view)
    covered = view.face_index[pixels[:, 1].long(), pixels[:, 0].long()] >= mesh.num_faces // 2
    hidden = hidden_points(behind, pixels, depth, view, bias_px=0.5)
    assert bool(hidden[covered].all()) and bool(covered.any())
