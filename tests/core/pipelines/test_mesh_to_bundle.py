from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from lift3d.core.bundle_image import join_bundle, masks_from_white, split_bundle
from lift3d.core.camera import make_stdgen_rig
from lift3d.core.mesh import Mesh, merge_meshes
from lift3d.core.pipelines.mesh_to_bundle import render_bundle


def from_trimesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(
        torch.tensor(np.asarray(shape.vertices), dtype=torch.float32),
        torch.tensor(np.asarray(shape.faces), dtype=torch.int64),
    )


def flat_box(*extents: float) -> Mesh:
    """A box whose faces share no vertices, so that it has flat normals."""
    box = from_trimesh(trimesh.creation.box(extents=extents))
    return Mesh(box.vertices[box.faces].reshape(-1, 3), torch.arange(36).reshape(12, 3))


def sphere() -> Mesh:
    return from_trimesh(trimesh.creation.icosphere(subdivisions=4))


def to_u8(color: torch.Tensor) -> list[int]:
    return (color * 255).round().int().tolist()


def test_faces_of_a_box_have_the_published_colours():
    slab = flat_box(1.0, 0.2, 1.0)  # flat, so that the camera at +5 degrees sees its top
    bundle, _, _ = render_bundle(slab, tile_px=128)
    front = bundle.normal_views[0]
    colors = {tuple(to_u8(pixel)) for pixel in front.reshape(-1, 3)}

    def near(want: tuple[int, int, int]) -> bool:
        return any(
            max(abs(a - b) for a, b in zip(color, want, strict=True)) <= 1 for color in colors
        )

    assert near((128, 116, 255)), "front face"
    assert near((128, 255, 139)), "top face"
    assert not any(color[1] < 100 for color in colors), "column 0 shows no underside"


def test_left_side_of_a_sphere_is_red():
    bundle, _, _ = render_bundle(sphere(), tile_px=64)
    for view in bundle.normal_views:
        assert float(view[32, 14, 0]) > 0.7 > 0.3 > float(view[32, 49, 0])


def test_background_is_pure_white_in_both_rows_and_outside_the_masks():
    bundle, masks, _ = render_bundle(sphere(), tile_px=96)
    outside = masks == 0
    assert bool((bundle.normal_views[outside] == 1).all())
    assert bool((bundle.rgb_views[outside] == 1).all())
    assert bool(outside[:, 0].all())


def test_a_nose_on_plus_z_points_left_in_column_1_and_right_in_column_3():
    body = flat_box(0.6, 0.6, 0.6)
    nose = flat_box(0.1, 0.1, 0.1)
    nose = nose.with_vertices(nose.vertices + torch.tensor([0.0, 0.0, 0.6]))
    head = merge_meshes([body, nose])
    _, masks, _ = render_bundle(head, tile_px=64, normalize=False)
    columns = torch.arange(64) + 0.5
    middle = [float((mask.sum(0) * columns).sum() / mask.sum()) for mask in masks]
    assert middle[1] < 31.7 and middle[3] > 32.3
    assert middle[0] == pytest.approx(32, abs=0.2)


def test_masks_are_the_coverage_and_agree_with_the_distance_from_white():
    bundle, masks, _ = render_bundle(sphere(), tile_px=128)
    found = masks_from_white(bundle.normal_views)
    differs = (found > 0.5) != (masks > 0)
    assert float(differs.double().mean()) < 2e-3
    soft = (masks > 0) & (masks < 1)
    assert bool(soft.any())


def test_disc_of_the_sphere_has_the_area_of_perspective():
    _, masks, rig = render_bundle(sphere(), tile_px=256)
    distance = 4.5
    sine = 0.9 / distance
    focal = rig[0].focal_px(256)
    radius_px = focal * sine / (1 - sine**2) ** 0.5
    assert float(masks[0].sum()) == pytest.approx(np.pi * radius_px**2, rel=3e-3)


def test_splitting_the_joined_picture_gives_the_tiles_back():
    bundle, _, _ = render_bundle(sphere(), tile_px=64)
    again = split_bundle(join_bundle(bundle))
    assert torch.equal(again.rgb_views, bundle.rgb_views)
    assert torch.equal(again.normal_views, bundle.normal_views)


def test_an_inside_out_mesh_gives_the_same_normals():
    shape = sphere()
    turned = Mesh(shape.vertices, shape.faces.flip(1))
    first = render_bundle(shape, tile_px=64)[0].normal_views
    second = render_bundle(turned, tile_px=64)[0].normal_views
    assert float((first - second).abs().max()) < 0.02


def test_six_orthographic_views_are_drawn_as_well():
    bundle, masks, rig = render_bundle(sphere(), tile_px=64, rig=make_stdgen_rig())
    assert bundle.num_views == len(rig) == 6
    radius_px = 0.9 * 64 / 2.4
    assert float(masks[3].sum()) == pytest.approx(np.pi * radius_px**2, rel=0.01)


@pytest.mark.parametrize("tile_px", [32, 2048])
def test_tile_sizes_out_of_range_are_refused(tile_px):
    with pytest.raises(ValueError, match="64..1024"):
        render_bundle(sphere(), tile_px=tile_px)


def test_an_empty_mesh_is_refused():
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="no faces"):
        render_bundle(empty)


def test_a_mesh_without_colour_is_grey_and_white_paint_stays_white():
    plain = sphere()
    bundle, _, _ = render_bundle(plain, tile_px=64)
    assert to_u8(bundle.rgb_views[0, 32, 32]) == [204, 204, 204]
    painted = replace(plain, vertex_colors=torch.ones_like(plain.vertices))
    bundle, _, _ = render_bundle(painted, tile_px=64)
    assert to_u8(bundle.rgb_views[0, 32, 32]) == [255, 255, 255]
    assert plain.material.base_color == (1.0, 1.0, 1.0)
