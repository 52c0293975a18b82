import logging

import pytest
import torch
from lift3d.core.pipelines.prepare_image import PrepareImageParams, prepare_image


def make_rgba(height=90, width=160, box=(20, 50, 70, 100)):
    """A red box (top, bottom, left, right) on invisible green."""
    top, bottom, left, right = box
    image = torch.zeros(height, width, 4)
    image[..., 1] = 1.0
    image[top:bottom, left:right] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    return image


def extent(mask):
    """First and one past the last row and column above one half."""
    inside = mask > 0.5
    rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


@pytest.mark.parametrize("share", [0.5, 0.85, 1.0])
@pytest.mark.parametrize("size", [64, 300])
def test_the_object_is_centred_and_has_the_asked_share(share, size):
    made = prepare_image(make_rgba(), params=PrepareImageParams(size, share))
    top, bottom, left, right = extent(made.mask)
    pixel = size / (30 / share)  # of the source, in pixels of the result
    assert abs((bottom - top) - share * size) <= 1.5 * pixel + 1
    assert abs((right - left) - share * size) <= 1.5 * pixel + 1
    assert abs(top - (size - bottom)) <= pixel + 1 and abs(left - (size - right)) <= pixel + 1


def test_no_row_or_column_of_the_object_is_lost():
    image = make_rgba(box=(20, 40, 70, 110))
    image[39, 70:110, :3] = torch.tensor([0.0, 0.0, 1.0])  # the last row
    image[20:40, 109, :3] = torch.tensor([0.0, 0.0, 1.0])  # the last column
    made = prepare_image(image, params=PrepareImageParams(50, 0.8))  # a pixel stays a pixel
    assert extent(made.mask) == (15, 35, 5, 45)
    assert torch.equal(made.image[15:35, 5:45], image[20:40, 70:110, :3])


@pytest.mark.parametrize(("name", "value"), [("white", 1.0), ("grey", 0.5), ("black", 0.0)])
def test_the_background_is_even_and_hides_what_was_invisible(name, value):
    made = prepare_image(make_rgba(), params=PrepareImageParams(64, 0.7, name))
    outside = made.mask == 0
    assert bool(outside.any())
    assert bool((made.image[outside] == value).all())
    # Green never shows: edges mix red and the background only.
    mixed = (
        made.mask[..., None] * torch.tensor([1.0, 0.0, 0.0]) + (1 - made.mask[..., None]) * value
    )
    torch.testing.assert_close(made.image, mixed, atol=1e-5, rtol=0)


def test_a_mask_outweighs_alpha_and_may_be_smaller_than_the_picture():
    image = make_rgba()
    mask = torch.zeros(45, 80)
    mask[30:40, 10:20] = 1.0
    made = prepare_image(image, mask)
    # Only invisible green lies there: it is what the mask chose.
    inside = made.mask > 0.99
    assert float(inside.float().mean()) > 0.4
    green = torch.tensor([0.0, 1.0, 0.0]).expand(int(inside.sum()), 3)
    torch.testing.assert_close(made.image[inside], green, atol=0.011, rtol=0)


def test_inputs_are_left_alone():
    image, mask = make_rgba(), torch.ones(90, 160)
    mask[:, :40] = 0
    copies = image.clone(), mask.clone()
    prepare_image(image, mask)
    assert torch.equal(image, copies[0]) and torch.equal(mask, copies[1])


def test_an_opaque_picture_is_used_whole_with_a_warning(caplog):
    image = torch.ones(40, 60, 4) * 0.25
    image[..., 3] = 1.0
    with caplog.at_level(logging.WARNING):
        made = prepare_image(image, params=PrepareImageParams(60, 1.0))
    assert (
        "alpha channel is opaque everywhere" in made.warnings[0] and made.warnings[0] in caplog.text
    )
    assert extent(made.mask) == (10, 50, 0, 60)


def test_a_cut_off_object_is_told():
    made = prepare_image(make_rgba(box=(0, 30, 70, 90)))
    assert "touches the edge" in made.warnings[0]
    assert not prepare_image(make_rgba()).warnings


@pytest.mark.parametrize(
    ("image", "mask", "part"),
    [
        (torch.rand(8, 8, 3), None, "no alpha channel and no mask"),
        (torch.rand(8, 8, 3), torch.zeros(8, 8), "selects nothing"),
        (torch.cat([torch.rand(8, 8, 3), torch.zeros(8, 8, 1)], -1), None, "selects nothing"),
        (torch.rand(80, 50, 3), torch.zeros(64, 64), "other proportions"),
        (torch.rand(8, 8, 3), torch.ones(2, 8, 8), "mask must have shape"),
        (torch.rand(8, 8, 3), torch.full((8, 8), torch.nan), "mask holds 64 NaN"),
        (torch.rand(8, 8, 2), torch.ones(8, 8), "image must have shape"),
        (torch.rand(2, 8, 8, 3), torch.ones(8, 8), "pick one picture"),
        (torch.rand(8, 8, 3) * 255, torch.ones(8, 8), "within 0..1"),
        (torch.full((8, 8, 3), torch.nan), torch.ones(8, 8), "NaN"),
    ],
)  # fmt: skip
def test_bad_pictures_and_masks_are_refused(unchecked_shapes, image, mask, part):
    with pytest.raises(ValueError, match=part):
        prepare_image(image, mask)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="share must lie within"):
        PrepareImageParams(share=1.5)
    with pytest.raises(ValueError, match="background must be one of"):
        PrepareImageParams(background="plaid")
    with pytest.raises(ValueError, match="at least 16"):
        PrepareImageParams(size_px=4)
