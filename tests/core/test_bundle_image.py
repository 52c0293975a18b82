from __future__ import annotations

import pytest
import torch
from lift3d.core.bundle_image import BundleImage, join_bundle, masks_from_white, split_bundle


def test_split_then_join_is_bit_exact_and_tiles_are_row_major() -> None:
    # Conformance 1 of the Kiss3DGen page: flat order RGB 0-3, then normals 0-3.
    tile = 64
    image = torch.rand(2 * tile, 4 * tile, 3)
    bundle = split_bundle(image)
    for flat, view in enumerate([*bundle.rgb_views, *bundle.normal_views]):
        row, column = divmod(flat, 4)
        expected = image[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
        assert torch.equal(view, expected)
    assert torch.equal(join_bundle(bundle), image)


def test_published_size_is_2048_by_1024() -> None:
    assert split_bundle(torch.zeros(1024, 2048, 3)).rgb_views.shape == (4, 512, 512, 3)


def test_any_number_of_views_can_be_joined() -> None:
    views = torch.rand(6, 64, 64, 3)
    image = BundleImage(views, views).image()
    assert image.shape == (128, 384, 3)
    assert torch.equal(split_bundle(image, columns=6).normal_views, views)


def test_alpha_is_composited_on_white() -> None:
    image = torch.zeros(128, 256, 4)
    assert torch.equal(split_bundle(image).rgb_views, torch.ones(4, 64, 64, 3))


@pytest.mark.parametrize("shape", [(100, 256, 3), (128, 250, 3), (127, 256, 3), (128, 256, 1)])
def test_wrong_sizes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="bundle"):
        split_bundle(torch.zeros(shape))


def test_batches_are_refused(unchecked_shapes) -> None:
    with pytest.raises(ValueError, match="pick one picture"):
        split_bundle(torch.zeros(2, 128, 256, 3))


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        split_bundle(torch.full((128, 256, 3), float("nan")))


def test_every_unit_normal_is_told_from_the_white_background() -> None:
    normals = torch.nn.functional.normalize(
        torch.randn(1, 100, 100, 3, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    assert masks_from_white((normals + 1) / 2).all()
    assert not masks_from_white(torch.ones(1, 8, 8, 3)).any()
    assert not masks_from_white(torch.full((1, 8, 8, 3), 0.97)).any()  # JPEG noise on white
