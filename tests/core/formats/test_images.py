from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from lift3d.core.formats import images
from lift3d.core.formats.images import decode_image, encode_image
from PIL import Image


def _encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def test_png_keeps_eight_bits_exactly():
    image = torch.randint(0, 256, (5, 7, 3), generator=torch.Generator().manual_seed(0)) / 255
    assert torch.equal(decode_image(encode_image(image)), image)


def test_jpeg_is_close():
    image = torch.full((16, 16, 3), 0.5)
    image[:, :8] = torch.tensor([0.8, 0.2, 0.3])
    assert (decode_image(encode_image(image, "jpeg")) - image).abs().mean() < 0.02


def test_values_outside_the_range_are_clipped():
    image = torch.tensor([[[-1.0, 2.0, 0.5]]])
    assert decode_image(encode_image(image))[0, 0].tolist() == pytest.approx([0, 1, 128 / 255])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_picture_mode_becomes_rgb(mode):
    grey = Image.fromarray(np.full((3, 4), 255, np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(np.full((3, 4), 65535, np.uint16))
    else:
        picture = grey.convert("RGB").convert(mode)
    data = _encoded(picture, "JPEG" if mode == "CMYK" else "PNG")
    assert decode_image(data).shape == (3, 4, 3)
    assert decode_image(data).min() > 0.98


def test_alpha_is_dropped_and_the_colour_under_it_kept():
    picture = Image.fromarray(np.array([[[200, 100, 50, 0]]], np.uint8))
    assert decode_image(_encoded(picture))[0, 0].mul(255).round().tolist() == [200, 100, 50]


def test_damaged_truncated_and_foreign_images_are_refused():
    good = encode_image(torch.rand(32, 32, 3))
    for bad in (b"", b"hello", good[:40], good[:-30], b"<svg></svg>", good[8:]):
        with pytest.raises(ValueError, match="the texture"):
            decode_image(bad)


def test_picture_with_too_many_pixels_is_refused_before_it_is_unpacked(monkeypatch):
    data = encode_image(torch.zeros(20, 20, 3))
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 399)
    with pytest.raises(ValueError, match="pixels of the texture: 400"):
        decode_image(data)
