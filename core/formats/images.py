"""Contains textures as PNG or JPEG bytes."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .limits import MAX_IMAGE_PIXELS, require_at_most

LOGGER = logging.getLogger(__name__)

ImageFormat = Literal["png", "jpeg"]

_READABLE = ("PNG", "JPEG", "WEBP", "BMP", "TGA")
_DECODER_ERRORS = (
    OSError, SyntaxError, EOFError, KeyError, IndexError, TypeError, OverflowError, ArithmeticError,
    NotImplementedError, struct.error, zlib.error,
)  # fmt: skip


def encode_image(
    image: Float[Tensor, "height width 3"], image_format: ImageFormat = "png", *, quality: int = 92
) -> bytes:
    """Encode an image 0..1 with 8 bits per channel; values outside are clipped.

    Args:
        image: any three channels; no colour conversion takes place.
        image_format: "png" (exact) or "jpeg" (smaller).
        quality: 1..100, of JPEG only.
    """
    from PIL import Image

    pixels = image.detach().cpu().float().clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    stream = io.BytesIO()
    picture = Image.fromarray(pixels)
    if image_format == "png":
        picture.save(stream, "PNG", compress_level=4)
    else:
        picture.save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def decode_image(data: bytes, what: str = "texture") -> Float[Tensor, "height width 3"]:
    """Decode PNG, JPEG, WebP, BMP or TGA bytes to 0..1; an alpha channel is dropped.

    Raises:
        ValueError: the bytes are no such image, are damaged, or hold too many pixels.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=_READABLE) as picture:
            require_at_most(
                f"pixels of the {what}", picture.width * picture.height, MAX_IMAGE_PIXELS
            )
            pixels = _to_rgb(picture, what)
    except (*_DECODER_ERRORS, Image.DecompressionBombError) as error:
        raise ValueError(
            f"the {what} is not a readable PNG, JPEG, WebP, BMP or TGA image: {error}"
        ) from error
    return torch.from_numpy(pixels)


def _to_rgb(picture, what: str) -> Float[np.ndarray, "height width 3"]:
    if picture.mode.startswith("I"):  # 16-bit grey, which convert("RGB") would clip
        grey = np.asarray(picture).astype(np.float32) / 65535.0
        return np.repeat(np.clip(grey, 0.0, 1.0)[..., None], 3, axis=-1)
    has_alpha = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa")
    if has_alpha or "transparency" in picture.info:
        LOGGER.info("The %s has an alpha channel, which meshes do not keep.", what)
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB")).astype(np.float32) / 255.0
