"""Contains the preparation of pictures for vision encoders, as `preprocessor_config.json` asks.

The published processors need torchvision or go through 8-bit pictures; this one works on tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

Filter = Literal["nearest", "bilinear", "bicubic"]

CONFIG_NAME = "preprocessor_config.json"
MAX_CONFIG_BYTES = 1 << 20
MAX_SIDE_PX = 4096
# Numbers of Pillow's filters, as the files store them.
_FILTERS: dict[int, Filter] = {0: "nearest", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class ImageProcessor:
    """Resize, crop and normalise, in this order.

    Attributes:
        shortest_side_px: length that the shortest side is resized to; None leaves the size.
        size_px: (height, width) to resize to instead.
        crop_px: (height, width) that is cut out of the middle, or None.
        resample: filter.
        mean: per channel, of pixels 0..1.
        std: per channel.
    """

    shortest_side_px: int | None = None
    size_px: tuple[int, int] | None = None
    crop_px: tuple[int, int] | None = None
    resample: Filter = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        sides = (self.shortest_side_px or 1, *(self.size_px or ()), *(self.crop_px or ()))
        if not all(1 <= side <= MAX_SIDE_PX for side in sides):
            raise ValueError(f"Sides must lie within 1..{MAX_SIDE_PX} pixels, got {sides}.")
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise ValueError(
                f"mean and std need 3 numbers, std positive ones, got {self.mean}, {self.std}."
            )

    def __call__(
        self, images: Float[Tensor, "image height width 3"]
    ) -> Float[Tensor, "image 3 new_height new_width"]:
        """Pixels for the encoder from pictures 0..1."""
        pixels = self._resize(images.permute(0, 3, 1, 2).float())
        if self.crop_px is not None:
            pixels = _center_crop(pixels, *self.crop_px)
        mean, std = (pixels.new_tensor(value)[:, None, None] for value in (self.mean, self.std))
        return (pixels - mean) / std

    def _resize(self, pixels: Tensor) -> Tensor:
        size = self.size_px
        if self.shortest_side_px is not None:
            height, width = pixels.shape[-2:]
            scale = self.shortest_side_px / min(height, width)
            size = (int(height * scale), int(width * scale))
        if size is None or size == tuple(pixels.shape[-2:]):
            return pixels
        if self.resample == "nearest":
            return torch.nn.functional.interpolate(pixels, size, mode="nearest-exact")
        resized = torch.nn.functional.interpolate(
            pixels, size, mode=self.resample, align_corners=False, antialias=True
        )
        return resized.clamp(0, 1)


def read_image_processor(path: Path | str) -> ImageProcessor:
    """Processor of a ``preprocessor_config.json``, or of the folder that holds one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such configuration.
    """
    path = Path(path)
    path = path / CONFIG_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; download the whole model folder.")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path} is too large for a configuration.")
    try:
        return processor_from_config(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no usable image processor: {error}.") from error


def processor_from_config(config: Mapping[str, Any]) -> ImageProcessor:
    """Processor of the settings of a `CLIPImageProcessor`; what they omit is off."""
    shortest, size = None, None
    if config.get("do_resize", False):
        shortest, size = _shortest_or_size(config["size"])
    crop = _pair(config["crop_size"]) if config.get("do_center_crop", False) else None
    normalizes = config.get("do_normalize", False)
    mean, std = (config["image_mean"], config["image_std"]) if normalizes else ([0] * 3, [1] * 3)
    return ImageProcessor(
        shortest_side_px=shortest,
        size_px=size,
        crop_px=crop,
        resample=_FILTERS[int(config.get("resample", 3))],
        mean=tuple(float(value) for value in mean),  # type: ignore[arg-type]
        std=tuple(float(value) for value in std),  # type: ignore[arg-type]
    )


def _shortest_or_size(size: Any) -> tuple[int | None, tuple[int, int] | None]:
    if isinstance(size, int):
        return size, None
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), None
    return None, _pair(size)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return int(size["height"]), int(size["width"])


def _center_crop(pixels: Tensor, height: int, width: int) -> Tensor:
    """The middle of the pictures, black where they are smaller."""
    top = (pixels.shape[-2] - height) // 2
    left = (pixels.shape[-1] - width) // 2
    # Negative margins of `pad` crop.
    margins = (-left, width + left - pixels.shape[-1], -top, height + top - pixels.shape[-2])
    return torch.nn.functional.pad(pixels, margins)
