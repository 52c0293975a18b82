"""Contains the framing of a character's picture, and the padding of its views to squares.

StdGEN expects a whole character on white in a portrait of 640 x 1024 pixels whose longer side fills
1 / 1.2 of the height; its views are 576 x 1024 and are padded with white to squares.

Reference: He et al. 2025, "StdGEN", Sec. 3.1; released program (whose crop leaves out the last row
and column of the character; here they are kept).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape

LOGGER = logging.getLogger(__name__)

WIDTH_PX, HEIGHT_PX = 640, 1024
VIEW_WIDTH_PX = 576
EMPTY_BELOW, FULL_ABOVE = 0.1, 0.9
"""Coverage that soft mattes leave on the background, and that they lack inside."""
MARGIN = 1.2
LEAST_ALPHA = 0.1
LEAST_TALLNESS = 1.25
"""A whole character in A-pose is at least this many times as high as wide."""
TOUCH_SHARE = 0.05
WHITE_ABOVE = 0.9
LARGEST_PAD = 2.0


@dataclass(frozen=True)
class FramedCharacter:
    """A portrait of a character.

    Attributes:
        image: on white, sRGB.
        mask: coverage of the character.
        free: 1 where a padded picture has room for what was cut off; all 0 without padding.
        warnings: lines for people: what seems to be cut off.
    """

    image: Float[Tensor, "height width 3"]
    mask: Float[Tensor, "height width"]
    free: Float[Tensor, "height width"]
    warnings: tuple[str, ...] = ()


def frame_character(
    picture: Float[Tensor, "height width 3"],
    mask: Float[Tensor, "height width"],
    *,
    pad_below: float = 0.0,
) -> FramedCharacter:
    """Cut a character out of a picture and set it into StdGEN's portrait.

    Args:
        picture: sRGB.
        mask: coverage of the character, 0..1; what is nearly empty or nearly full counts as such.
        pad_below: room to leave below, as a share of the character's height, for legs that an
            outpainting shall add.

    Raises:
        ValueError: the mask is empty, or covers the whole picture.
    """
    require_shape("picture", picture, None, None, 3)
    require_shape("mask", mask, *picture.shape[:2])
    require_finite("picture", picture)
    require_finite("mask", mask)
    if not 0 <= pad_below <= LARGEST_PAD:
        raise ValueError(f"pad_below must lie within 0..{LARGEST_PAD}, got {pad_below}.")
    if bool((mask > LEAST_ALPHA).all()):
        raise ValueError(
            "The mask covers the whole picture: there is no background. Cut the character out "
            "first (Prepare Image)."
        )
    mask = clean_matte(mask)
    rows, columns = (mask > 0).any(dim=1).nonzero()[:, 0], (mask > 0).any(dim=0).nonzero()[:, 0]
    if not len(rows):
        raise ValueError("The mask is empty: there is no character in the picture.")
    warnings = _cut_off(mask, rows, columns)
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    alpha = mask[box].clamp(0, 1)
    content = picture[box] * alpha[..., None] + (1 - alpha[..., None])
    spare = round(pad_below * content.shape[0])
    canvas, top, left = place_on_canvas(content.shape[1], content.shape[0] + spare)
    layers = torch.cat([torch.ones(*canvas, 3), torch.zeros(*canvas, 2)], dim=-1).to(picture)
    height, width = content.shape[:2]
    layers[top : top + height, left : left + width, :3] = content
    layers[top : top + height, left : left + width, 3] = alpha
    layers[top + height :, :, 4] = 1.0 if spare else 0.0
    framed = torch.nn.functional.interpolate(
        layers.permute(2, 0, 1)[None], (HEIGHT_PX, WIDTH_PX), mode="bicubic", antialias=True
    )[0].permute(1, 2, 0)
    framed = framed.clamp(0, 1)
    return FramedCharacter(framed[..., :3], framed[..., 3], framed[..., 4].round(), warnings)


def place_on_canvas(width: int, height: int) -> tuple[tuple[int, int], int, int]:
    """Height and width of the canvas for content of a size, and where its top left corner goes."""
    longest = max(width, height)
    canvas = (int(longest * MARGIN), int(longest / (HEIGHT_PX / WIDTH_PX) * MARGIN))
    if canvas[1] < width:  # wider than any A-pose: keep it whole
        canvas = (int(width * MARGIN * HEIGHT_PX / WIDTH_PX), int(width * MARGIN))
    return canvas, (canvas[0] - height) // 2, (canvas[1] - width) // 2


def _cut_off(mask: Tensor, rows: Tensor, columns: Tensor) -> tuple[str, ...]:
    """What the mask says about missing feet, head or arms."""
    found = []
    width = float(columns[-1] - columns[0] + 1)
    edges = {
        "below: the feet or legs seem to be missing": mask[-1],
        "above: the head seems to be missing": mask[0],
    }
    for words, edge in edges.items():
        if float((edge > LEAST_ALPHA).sum()) > TOUCH_SHARE * width:
            found.append(f"The character is cut off {words}.")
    if float(rows[-1] - rows[0] + 1) < LEAST_TALLNESS * width:
        found.append(
            "The character is hardly higher than wide: the model was made for whole bodies. Pad "
            "the picture below and outpaint the legs first."
        )
    for line in found:
        LOGGER.warning(line)
    return tuple(found)


def clean_matte(mask: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """A matte without the traces that background removal leaves, as in the released program."""
    return torch.where(mask < EMPTY_BELOW, 0.0, torch.where(mask > FULL_ABOVE, 1.0, mask))


def fit_portrait(
    image: Float[Tensor, "height width 3"], height_px: int = HEIGHT_PX
) -> Float[Tensor, "{height_px} new_width 3"]:
    """A portrait of 5 : 8 at another size.

    Raises:
        ValueError: the picture has other proportions.
    """
    require_shape("image", image, None, None, 3)
    height, width = image.shape[:2]
    if abs(width * HEIGHT_PX - height * WIDTH_PX) > HEIGHT_PX:
        raise ValueError(
            f"The picture must be a portrait of 5 : 8 such as {WIDTH_PX} x {HEIGHT_PX} pixels, got "
            f"{width} x {height}; Frame Character makes it so."
        )
    return _resize(image, height_px, height_px * WIDTH_PX // HEIGHT_PX)


def fit_view(
    image: Float[Tensor, "height width 3"], height_px: int = HEIGHT_PX
) -> Float[Tensor, "{height_px} view_width 3"]:
    """A picture as the multi-view model takes it: scaled to the height, the middle 9 : 16 kept.

    A portrait of 640 x 1024 pixels loses 32 columns on each side; narrower ones gain white.

    Raises:
        ValueError: the picture is wider than high.
    """
    require_shape("image", image, None, None, 3)
    height, width = image.shape[:2]
    if width > height:
        raise ValueError(
            f"The picture must not be wider than high, got {width} x {height} pixels; Frame "
            "Character makes a portrait of it."
        )
    scaled = _resize(image, height_px, max(round(width * height_px / height), 1))
    view_width = height_px * VIEW_WIDTH_PX // HEIGHT_PX
    left = (view_width - scaled.shape[1]) // 2  # negative: columns are cut off
    right = view_width - scaled.shape[1] - left
    lost = scaled[:, : max(-left, 0)], scaled[:, scaled.shape[1] - max(-right, 0) :]
    if any(bool((part < WHITE_ABOVE).any()) for part in lost):
        LOGGER.warning(
            "The character is wider than the %d columns of a view; its sides are cut off.",
            view_width,
        )
    return torch.nn.functional.pad(scaled, (0, 0, left, right), value=1.0)


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    if tuple(image.shape[:2]) == (height, width):
        return image.float()
    pixels = torch.nn.functional.interpolate(
        image.float().permute(2, 0, 1)[None], (height, width), mode="bicubic", antialias=True
    )
    return pixels[0].permute(1, 2, 0).clamp(0, 1)


def pad_to_square(
    views: Float[Tensor, "view height width channel"], fill: float = 1.0
) -> Float[Tensor, "view side side channel"]:
    """Views made square by equal borders, 224 pixels each for 576 x 1024; squares stay as they are.

    Args:
        views: pictures of any number of channels.
        fill: value of the borders; 1 is white.
    """
    height, width = views.shape[1:3]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    if side == height == width:
        return views
    padding = (0, 0, left, side - width - left, top, side - height - top)
    return torch.nn.functional.pad(views, padding, value=fill)
