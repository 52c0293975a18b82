from __future__ import annotations

import torch
import trimesh
from lift3d.core.bundle_image import BundleImage, join_bundle
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.bundle_pixels import clean_bundle, resize_bundle, resize_views
from lift3d.core.pipelines.mesh_to_bundle import render_bundle


def sphere_bundle(tile_px: int = 96) -> tuple[BundleImage, torch.Tensor]:
    shape = trimesh.creation.icosphere(subdivisions=4)
    mesh = Mesh(torch.tensor(shape.vertices).float(), torch.tensor(shape.faces).long())
    bundle, masks, _ = render_bundle(mesh, tile_px=tile_px)
    return bundle, masks


def angles_deg(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    cosine = torch.cosine_similarity(2 * first.double() - 1, 2 * second.double() - 1, dim=-1)
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


def test_a_rendered_bundle_is_clean_already():
    bundle, masks = sphere_bundle()
    cleaned = clean_bundle(bundle)
    inside = masks > 0.99
    assert float((cleaned.normal_views - bundle.normal_views)[inside].abs().max()) < 0.01
    assert float((cleaned.normal_views - bundle.normal_views).abs().max()) < 0.12
    torch.testing.assert_close(cleaned.rgb_views, bundle.rgb_views)


def test_lengths_are_repaired_and_directions_kept():
    bundle, masks = sphere_bundle()
    faded = torch.where(masks[..., None] > 0.99, 0.5 + 0.85 * (bundle.normal_views - 0.5), 1.0)
    cleaned = clean_bundle(BundleImage(bundle.rgb_views, faded)).normal_views
    # The outermost pixels may be mixtures with white and are not judged.
    core = -torch.nn.functional.max_pool2d(-masks, 5, stride=1, padding=2) > 0.99
    lengths = (2 * cleaned - 1).norm(dim=-1)[core]
    assert float((lengths - 1).abs().max()) < 1e-4
    assert float(angles_deg(cleaned, bundle.normal_views)[core].max()) < 0.1


def test_an_off_white_background_becomes_pure_white_in_both_rows():
    bundle, masks = sphere_bundle()
    generator = torch.Generator().manual_seed(0)
    noise = 0.03 * torch.rand(2, *bundle.rgb_views.shape, generator=generator)
    outside = (masks == 0)[..., None]
    grey = BundleImage(
        bundle.rgb_views - noise[0] * outside, bundle.normal_views - noise[1] * outside
    )
    cleaned = clean_bundle(grey)
    beyond = outside[..., 0]
    assert bool((cleaned.rgb_views[beyond] == 1).all())
    assert bool((cleaned.normal_views[beyond] == 1).all())


def test_cleaning_twice_changes_nothing_more():
    bundle, _ = sphere_bundle()
    noisy = BundleImage(bundle.rgb_views, (bundle.normal_views * 0.97).clamp(0, 1))
    once = clean_bundle(noisy)
    twice = clean_bundle(once)
    assert float((once.normal_views - twice.normal_views).abs().mean()) < 1e-3


def test_an_empty_view_stays_as_it_is():
    bundle, _ = sphere_bundle()
    rgb, normals = bundle.rgb_views.clone(), bundle.normal_views.clone()
    rgb[2], normals[2] = 0.7, 0.99
    cleaned = clean_bundle(BundleImage(rgb, normals))
    assert torch.equal(cleaned.rgb_views[2], rgb[2])
    assert torch.equal(cleaned.normal_views[2], normals[2])


def test_tiles_do_not_run_into_each_other_when_resized():
    tiles = torch.ones(8, 32, 32, 3)
    tiles[1] = tiles[6] = 0.0
    for size in (8, 16, 128):
        resized = resize_bundle(BundleImage(tiles[:4], tiles[4:]), size)
        assert resized.rgb_views.shape == (4, size, size, 3)
        assert float(resized.rgb_views[1].max()) < 1e-6
        assert float(resized.normal_views[2].max()) < 1e-6
        assert bool((join_bundle(resized)[:size, :size] == 1).all())


def test_an_enlarged_bundle_is_as_sharp_as_a_drawn_one():
    small, _ = sphere_bundle(64)
    true, masks = sphere_bundle(192)
    sharp = resize_bundle(small, 192)
    for drawn, found, plain in (
        (true.rgb_views, sharp.rgb_views, resize_views(small.rgb_views, 192)),
        (true.normal_views, sharp.normal_views, resize_views(small.normal_views, 192)),
    ):
        assert float((drawn - found).abs().mean()) < 0.5 * float((drawn - plain).abs().mean())
    outside = torch.nn.functional.max_pool2d(masks, 5, stride=1, padding=2) == 0
    assert bool((sharp.rgb_views[outside] == 1).all())
    assert bool((sharp.normal_views[outside] == 1).all())


def test_an_enlarged_view_without_an_object_is_only_enlarged():
    bundle, _ = sphere_bundle(64)
    rgb, normals = bundle.rgb_views.clone(), bundle.normal_views.clone()
    rgb[1], normals[1] = 0.3, 1.0
    large = resize_bundle(BundleImage(rgb, normals), 128)
    torch.testing.assert_close(large.rgb_views[1], torch.full((128, 128, 3), 0.3))


def test_the_same_size_hands_the_same_pixels_on():
    views = torch.rand(4, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    assert resize_views(views, 8) is views


def test_a_linear_ramp_stays_one_when_enlarged():
    ramp = torch.linspace(0, 1, 16)[None, :, None, None].expand(1, 16, 16, 3)
    large = resize_views(ramp, 64)[0, :, 32, 0]
    rows = (torch.arange(64) + 0.5) / 4 - 0.5
    torch.testing.assert_close(large[12:-12], (rows / 15)[12:-12], atol=2e-3, rtol=0)
