"""Contains the preparation of a picture for image-to-3D: cut out, centred, on an even background.

Kiss3DGen's own preparation crops to the whole frame because its matting leaves a trace of alpha
everywhere, and loses the last row and column; here the object decides.

Reference: Kiss3DGen (Lin et al. 2025), released input preparation: content 0.85 of a square.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite
from .render_views import BACKGROUNDS

LOGGER = logging.getLogger(__name__)

INSIDE = 0.5
OPAQUE = 0.99
VALUE_TOLERANCE = 1e-3
PUBLISHED_SHARE = 0.85


@dataclass(frozen=True)
class PrepareImageParams:
    """How the object is placed.

    Attributes:
        size_px: side of the square that comes out.
        share: longest side of the object as a part of the square's side.
        background: name of the colour behind the object: "white", "grey" or "black".
    """

    size_px: int = 512
    share: float = PUBLISHED_SHARE
    background: str = "white"

    def __post_init__(self) -> None:
        if self.size_px < 16:
            raise ValueError(f"size_px must be at least 16 pixels, got {self.size_px}.")
        if not 0.05 <= self.share <= 1.0:
            raise ValueError(f"share must lie within 0.05..1, got {self.share}.")
        if self.background not in BACKGROUNDS:
            raise ValueError(
                f"background must be one of {', '.join(BACKGROUNDS)}, got '{self.background}'."
            )


@dataclass(frozen=True)
class PreparedImage:
    """A picture that image-to-3D models understand.

    Attributes:
        image: sRGB, the object centred on the background.
        mask: coverage of the object, 0..1.
        warnings: lines for people, such as a cut-off object.
    """

    image: Float[Tensor, "side side 3"]
    mask: Float[Tensor, "side side"]
    warnings: tuple[str, ...] = ()


def prepare_image(
    image: Float[Tensor, "height width channel"],
    mask: Float[Tensor, "mask_height mask_width"] | None = None,
    params: PrepareImageParams = PrepareImageParams(),
) -> PreparedImage:
    """Cut an object out, centre its bounding box in a square and put a colour behind it.

    Args:
        image: RGB or RGBA, 0..1, straight (not premultiplied) alpha.
        mask: 1 on the object; of the picture's proportions. Without it the alpha channel counts.
        params: size and placement.

    Raises:
        ValueError: neither alpha nor mask, a mask that selects nothing or does not fit, values
            out of range.
    """
    _check_image(image)
    coverage, warnings = _coverage(image, mask)
    box = _bounding_box(coverage > INSIDE)
    if not warnings and box.touches_edge_of(coverage):
        warnings.append(
            "The object touches the edge of the picture; what lies beyond it will be invented. "
            "A picture that shows the whole object works better."
        )
    color = image.new_tensor(BACKGROUNDS[params.background])
    layers = torch.cat([image[..., :3] * coverage[..., None], coverage[..., None]], dim=-1)
    layers = _resample(layers, box, params).clamp(0, 1)
    covered = layers[..., 3:]
    for line in warnings:
        LOGGER.warning(line)
    return PreparedImage(
        image=(layers[..., :3] + (1 - covered) * color).clamp(0, 1),
        mask=covered[..., 0],
        warnings=tuple(warnings),
    )


def _check_image(image: Tensor) -> None:
    if image.ndim != 3 or image.shape[2] not in (3, 4) or image.numel() == 0:
        raise ValueError(
            f"image must have shape [height, width, 3 or 4], got {list(image.shape)}; pick one "
            "picture of a batch first."
        )
    require_finite("image", image)
    low, high = float(image.min()), float(image.max())
    if low < -VALUE_TOLERANCE or high > 1 + VALUE_TOLERANCE:
        raise ValueError(f"image must lie within 0..1, got values from {low:.3g} to {high:.3g}.")


def _coverage(
    image: Tensor, mask: Tensor | None
) -> tuple[Float[Tensor, "height width"], list[str]]:
    """Coverage per pixel of the picture, and warnings about it."""
    source = "mask"
    if mask is not None:
        coverage = _fitted_mask(mask.to(image), int(image.shape[0]), int(image.shape[1]))
    elif image.shape[2] == 4:
        coverage, source = image[..., 3], "alpha channel"
    else:
        raise ValueError(
            "The picture has no alpha channel and no mask is given, so nothing says what the "
            "object is. Connect a mask, for example of a background removal node."
        )
    coverage = coverage.clamp(0, 1)
    if bool((coverage > OPAQUE).all()):
        return coverage, [
            f"The {source} is opaque everywhere, so the whole picture counts as the object, its "
            "background included. Remove the background first if it has one."
        ]
    return coverage, []


def _fitted_mask(mask: Tensor, height: int, width: int) -> Float[Tensor, "height width"]:
    """The mask at the picture's size."""
    if mask.ndim != 2 or mask.numel() == 0:
        raise ValueError(f"mask must have shape [height, width], got {list(mask.shape)}.")
    require_finite("mask", mask)
    if tuple(mask.shape) == (height, width):
        return mask
    # Rounding may move the longer side by a pixel.
    if abs(mask.shape[0] * width - mask.shape[1] * height) > max(height, width):
        raise ValueError(
            f"The mask ({mask.shape[1]} x {mask.shape[0]} pixels) has other proportions than the "
            f"picture ({width} x {height}); use the mask of this picture. (Load Image hands out "
            "an empty 64 x 64 mask for pictures without alpha.)"
        )
    resized = torch.nn.functional.interpolate(
        mask[None, None], (height, width), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0, 0]


@dataclass(frozen=True)
class _Box:
    """Bounding box in pixels; ``bottom`` and ``right`` are one past the last."""

    top: int
    bottom: int
    left: int
    right: int

    def touches_edge_of(self, picture: Tensor) -> bool:
        height, width = picture.shape
        return min(self.top, self.left) == 0 or self.bottom == height or self.right == width


def _bounding_box(inside: Tensor) -> _Box:
    if not bool(inside.any()):
        raise ValueError(
            "The mask selects nothing: no pixel of it is above 0.5. Check that the object is "
            "white in the mask and not the background, or choose another background removal."
        )
    rows, columns = inside.any(dim=1).nonzero()[:, 0], inside.any(dim=0).nonzero()[:, 0]
    return _Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _resample(
    layers: Tensor, box: _Box, params: PrepareImageParams
) -> Float[Tensor, "side side channel"]:
    """The square round the box at the asked size: zero outside the picture, averaged if smaller."""
    height, width, _ = layers.shape
    side = max(1, round(max(box.bottom - box.top, box.right - box.left) / params.share))
    top = round((box.top + box.bottom - side) / 2)
    left = round((box.left + box.right - side) / 2)
    margins = (-left, left + side - width, -top, top + side - height)
    # Negative margins crop, positive ones add zeros.
    square = torch.nn.functional.pad(layers.permute(2, 0, 1)[None], margins)
    if side != params.size_px:
        size = (params.size_px, params.size_px)
        square = torch.nn.functional.interpolate(
            square, size, mode="bicubic", align_corners=False, antialias=True
        )
    return square[0].permute(1, 2, 0)
