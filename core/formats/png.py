"""Contains PNG files of image tensors: 8 bits per channel, grey, colour or colour with alpha."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .atomic import atomic_write
from .limits import MAX_IMAGE_PIXELS, require_at_most

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def write_png(
    path: str | Path,
    image: Float[Tensor, "height width channel"],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write an image 0..1; values outside are clipped. The file appears whole or not at all.

    Args:
        path: file to write; missing folders are made.
        image: one (grey), three (sRGB) or four (with straight alpha) channels.
        metadata: text entries, such as the prompt.

    Raises:
        ValueError: another number of channels, no pixels, or NaN.
    """
    from PIL import Image, PngImagePlugin

    if image.ndim != 3 or image.shape[-1] not in MODES or 0 in image.shape:
        raise ValueError(
            f"image must be [height, width, 1, 3 or 4] with at least one pixel, got "
            f"{list(image.shape)}; write the pictures of a batch one by one."
        )
    if not bool(torch.isfinite(image).all()):
        raise ValueError("image holds NaN or infinite values; a PNG cannot keep them.")
    pixels = image.detach().cpu().float().clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    entries = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        entries.add_text(key, value)
    picture = Image.fromarray(pixels[..., 0] if image.shape[-1] == 1 else pixels)
    with atomic_write(path) as temporary:
        picture.save(temporary, "PNG", pnginfo=entries, compress_level=6)


def read_png(path: str | Path) -> Float[Tensor, "height width channel"]:
    """Read a PNG as float 0..1 with one, three or four channels, as the file has them.

    Palettes become colours; 16-bit grey keeps its precision.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no PNG, is damaged, or holds too many pixels.
    """
    from PIL import Image

    data = Path(path).read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            require_at_most("pixels", picture.width * picture.height, MAX_IMAGE_PIXELS)
            if picture.mode.startswith("I"):
                deep = np.asarray(picture).astype(np.float32) / 65535.0
                return torch.from_numpy(np.clip(deep, 0.0, 1.0))[..., None]
            has_alpha = "A" in picture.getbands() or "transparency" in picture.info
            grey = picture.mode in ("1", "L") and not has_alpha
            mode = "L" if grey else ("RGBA" if has_alpha else "RGB")
            pixels = np.asarray(picture.convert(mode)).astype(np.float32) / 255.0
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable PNG file: {error}") from error
    return torch.from_numpy(pixels[..., None] if grey else pixels)
