from __future__ import annotations

import pytest
import torch
import trimesh
from lift3d.core.bundle_image import BundleImage, split_bundle
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.control_images import (
    CONTROL_KINDS,
    ControlImageParams,
    depth_from_bundle,
    make_control_image,
)
from lift3d.core.pipelines.mesh_to_bundle import render_bundle
from lift3d.core.rendering.mesh import render_mesh

TILE = 96


@pytest.fixture(scope="module")
def sphere() -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=4, radius=0.9)
    return Mesh(torch.tensor(shape.vertices).float(), torch.tensor(shape.faces).long())


@pytest.fixture(scope="module")
def bundle(sphere: Mesh) -> BundleImage:
    return render_bundle(sphere, tile_px=TILE)[0]


@pytest.mark.parametrize("kind", CONTROL_KINDS)
def test_every_kind_has_the_size_of_the_bundle(bundle, kind):
    picture = make_control_image(bundle, kind)
    assert picture.shape == (2 * TILE, 4 * TILE, 3)
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1


def test_the_tile_picture_is_the_bundle_itself_unless_it_is_scaled_down(bundle):
    assert torch.equal(make_control_image(bundle, "tile"), bundle.image())
    coarse = make_control_image(bundle, "tile", ControlImageParams(down_scale=8))
    assert 0.005 < float((coarse - bundle.image()).abs().mean()) < 0.1


def test_the_blur_is_a_gaussian_of_its_width():
    views = torch.zeros(4, 32, 32, 3)
    views[0, 16, 16] = 1.0
    blurred = make_control_image(BundleImage(views, views), "blur", ControlImageParams(blur_px=2.0))
    across = (torch.arange(32) - 16).float()
    spot = blurred[:32, :32, 0]
    assert float(spot.sum()) == pytest.approx(1, abs=1e-3)
    assert float((spot.sum(0) * across**2).sum()) == pytest.approx(4, rel=0.05)


def test_edges_lie_on_the_silhouettes_of_both_rows(bundle):
    tiles = split_bundle(make_control_image(bundle, "canny"))
    assert set(tiles.rgb_views.unique().tolist()) == {0.0, 1.0}
    for views in (tiles.rgb_views, tiles.normal_views):
        rows, columns = (views[0, ..., 0] > 0.5).nonzero().T + 0.5 - TILE / 2
        radius = (rows**2 + columns**2).sqrt()
        assert float(radius.max() - radius.min()) < 3


def test_grey_is_the_luma_of_the_colours():
    views = torch.tensor([1.0, 0.5, 0.0]).expand(4, 8, 8, 3)
    picture = make_control_image(BundleImage(views, views), "gray")
    torch.testing.assert_close(picture, torch.full((16, 32, 3), 0.299 + 0.587 / 2))


def test_normals_are_red_to_the_right_and_flat_on_the_background(bundle):
    for views in (
        split_bundle(make_control_image(bundle, "normal")).rgb_views,
        split_bundle(make_control_image(bundle, "normal")).normal_views,
    ):
        assert (
            float(views[1, TILE // 2, TILE - 20, 0]) > 0.7 > 0.3 > float(views[1, TILE // 2, 20, 0])
        )
        assert views[0, 0, 0].tolist() == [0.5, 0.5, 1.0]
        middle = views[0, TILE // 2, TILE // 2]
        torch.testing.assert_close(middle, torch.tensor([0.5, 0.5, 1.0]), atol=0.03, rtol=0)


def test_integrated_depth_is_that_of_the_true_surface(bundle, sphere):
    rig = make_kiss3dgen_rig()
    depth = depth_from_bundle(bundle, rig)
    true = render_mesh(sphere, rig, width=TILE, height=TILE, antialias=False).depth
    inside = (depth > 0) & (true > 0)
    assert float(inside.float().sum() / (true > 0).float().sum()) > 0.95
    off = (depth - true)[inside]
    # Normals leave a constant per view free; what remains is the form.
    assert float(off.mean().abs()) < 0.1
    assert float((off - off.mean()).abs().mean()) < 0.02


def test_drawn_and_integrated_depth_pictures_agree(bundle, sphere):
    drawn = make_control_image(bundle, "depth", mesh=sphere)
    found = make_control_image(bundle, "depth")
    assert bool((drawn[0, 0] == 0).all()) and bool((found[0, 0] == 0).all())
    assert float((drawn - found).abs().mean()) < 0.05
    assert float(drawn[TILE // 2, TILE // 2, 0]) > float(drawn[TILE // 2, 20, 0]) > 0
    assert torch.equal(drawn[:TILE], drawn[TILE:])


def test_unknown_kinds_and_settings_are_refused(bundle, unchecked_shapes):
    with pytest.raises(ValueError, match="Unknown kind of control 'scribble'"):
        make_control_image(bundle, "scribble")
    with pytest.raises(ValueError, match="down_scale must be at least 1"):
        ControlImageParams(down_scale=0.5)
