from __future__ import annotations

import pytest
import torch
import trimesh
from lift3d.core.camera import ViewRig, make_kiss3dgen_rig, make_stdgen_rig
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.bundle_views import ShapeViews, read_bundle_views
from lift3d.core.pipelines.enlarge_views import enlarge_views, pixel_size
from lift3d.core.pipelines.mesh_to_bundle import render_bundle


@pytest.fixture(scope="module")
def ball() -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=5)
    vertices = torch.tensor(shape.vertices).float()
    return Mesh(
        vertices,
        torch.tensor(shape.faces).long(),
        vertex_colors=torch.tensor([0.8, 0.1, 0.2]).expand(len(vertices), 3),
    )


def read(mesh: Mesh, tile_px: int) -> tuple[ShapeViews, torch.Tensor]:
    bundle, _, rig = render_bundle(mesh, tile_px=tile_px, supersampling=4)
    return read_bundle_views(bundle, rig), bundle.rgb_views


def test_silhouettes_lie_where_a_larger_picture_has_them(ball):
    small, rgb = read(ball, 64)
    true, _ = read(ball, 192)
    large, _ = enlarge_views(small, rgb, 192)
    assert large.masks.shape == (4, 192, 192)
    off = (large.masks - true.masks).abs()
    assert float(off.sum() / true.masks.sum()) < 0.01
    nearest = small.masks.repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert float(off.sum()) < 0.4 * float((nearest - true.masks).abs().sum())
    soft = ((large.masks > 0.02) & (large.masks < 0.98)).sum()
    assert int(soft) < 2.5 * int(((true.masks > 0.02) & (true.masks < 0.98)).sum())


def test_normals_are_those_of_a_larger_picture(ball):
    small, rgb = read(ball, 64)
    true, _ = read(ball, 192)
    large, _ = enlarge_views(small, rgb, 192)
    inside = (true.masks > 0.99) & (large.masks > 0.99)
    cosine = (large.normals_world * true.normals_world).sum(dim=-1)[inside].clamp(-1, 1)
    assert float(torch.rad2deg(torch.acos(cosine)).mean()) < 1.0
    lengths = large.normals_world.norm(dim=-1)[large.masks > 0]
    assert float((lengths - 1).abs().max()) < 1e-4
    assert not large.normals_world[large.masks == 0].any()


def test_colours_keep_the_background_out(ball):
    small, rgb = read(ball, 64)
    large, colors = enlarge_views(small, rgb, 192)
    inside = colors[large.masks > 0.5]
    assert float((inside - torch.tensor([0.8, 0.1, 0.2])).abs().max()) < 0.05


def test_large_views_stay_as_they_are(ball):
    shape, rgb = read(ball, 64)
    same, colors = enlarge_views(shape, rgb, 64)
    assert same is shape and colors is rgb
    assert enlarge_views(shape, rgb, 0)[0] is shape


def test_views_that_are_not_square_keep_their_shape():
    rig = make_kiss3dgen_rig().select([0])
    shape = ShapeViews(torch.zeros(1, 20, 40, 3), torch.zeros(1, 20, 40), rig)
    large, colors = enlarge_views(shape, torch.ones(1, 20, 40, 3), 100)
    assert large.masks.shape == (1, 50, 100) and colors.shape == (1, 50, 100, 3)


@pytest.mark.parametrize(
    ("rig", "expected"),
    [(make_kiss3dgen_rig(), 2 * 4.5 * 0.26794919 / 64), (make_stdgen_rig(2.4), 2.4 / 64)],
)
def test_the_size_of_a_pixel_follows_from_the_camera(rig: ViewRig, expected: float):
    count = len(rig)
    shape = ShapeViews(torch.zeros(count, 64, 64, 3), torch.zeros(count, 64, 64), rig)
    assert pixel_size(shape) == pytest.approx(expected, rel=1e-5)
