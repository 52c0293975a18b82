"""Contains the contact sheet: many labelled pictures laid out in one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_floating

INK = 0.15


def make_contact_sheet(
    rows: Sequence[Sequence[Tensor]],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    tile_labels: Sequence[Sequence[str]] | None = None,
    title: str = "",
    gap_px: int = 4,
    text_px: int = 13,
    background: float = 1.0,
) -> Float[Tensor, "height width 3"]:
    """Lay out pictures in rows; each column is as wide as its widest picture.

    Args:
        rows: pictures [height, width, 1, 3 or 4] in 0..1, or masks [height, width]; rows may
            have different lengths. Alpha is laid over the background.
        row_labels: text left of each row.
        column_labels: text above each column.
        tile_labels: text under each picture.
        title: text above everything.
        gap_px: space between pictures and round the sheet.
        text_px: height of the letters.
        background: grey value behind the pictures; the ink keeps its distance from it.

    Returns:
        The sheet, display-referred sRGB 0..1, on the CPU.

    Raises:
        ValueError: no picture, a wrong shape, or labels that do not match.
    """
    tiles = [[_as_rgb(tile, background) for tile in row] for row in rows]
    if not any(tiles):
        raise ValueError("A contact sheet needs at least one picture, got none.")
    columns = max(len(row) for row in tiles)
    _require_labels(rows, row_labels, column_labels, tile_labels, columns)
    font = _Font(text_px, INK if background > 0.5 else 1 - INK)
    left = gap_px + max((font.width(text) for text in row_labels or ()), default=-gap_px) + gap_px
    top = gap_px + font.line * (bool(title) + (column_labels is not None))
    caption = font.line if tile_labels is not None else 0
    heights = [max((tile.shape[0] for tile in row), default=0) for row in tiles]
    widths = [max(row[i].shape[1] for row in tiles if len(row) > i) for i in range(columns)]
    starts_x = [left + sum(widths[:i]) + i * gap_px for i in range(columns)]
    starts_y = [top + sum(heights[:i]) + i * (gap_px + caption) for i in range(len(tiles))]
    width = max(starts_x[-1] + widths[-1], gap_px + font.width(title)) + gap_px
    height = starts_y[-1] + heights[-1] + caption + gap_px
    sheet = torch.full((height, width, 3), float(background))

    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            x = starts_x[j] + (widths[j] - tile.shape[1]) // 2
            y = starts_y[i] + (heights[i] - tile.shape[0]) // 2
            sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    font.draw(sheet, title, gap_px, gap_px // 2)
    for text, x, room in zip(column_labels or (), starts_x, widths, strict=False):
        font.draw(sheet, text, x, top - font.line, room)
    for text, y, room in zip(row_labels or (), starts_y, heights, strict=False):
        font.draw(sheet, text, gap_px, y + (room - font.line) // 2, left - 2 * gap_px)
    for texts, y, room in zip(tile_labels or (), starts_y, heights, strict=False):
        for text, x, cut in zip(texts, starts_x, widths, strict=False):
            font.draw(sheet, text, x, y + room, cut)
    return sheet


class _Font:
    """Letters of one size and grey, drawn with PIL's built-in font."""

    def __init__(self, size_px: int, ink: float) -> None:
        from PIL import ImageFont

        self._font = ImageFont.load_default(size_px)
        self._ink = ink
        self.line = size_px + size_px // 3

    def width(self, text: str) -> int:
        return int(self._font.getlength(text)) + 1 if text else 0

    def draw(self, sheet: Tensor, text: str, x: int, y: int, room: int | None = None) -> None:
        """Write one line onto the sheet in place, cut to ``room`` pixels."""
        import numpy as np
        from PIL import Image, ImageDraw

        room = min(self.width(text) if room is None else room, sheet.shape[1] - x)
        if not text or room < 1:
            return
        while self.width(text) > room and len(text) > 1:
            text = text.rstrip("…")[:-1] + "…" if len(text.rstrip("…")) > 1 else "…"
        y = min(max(y, 0), sheet.shape[0] - 1)
        letters = Image.new("L", (room, self.line))
        ImageDraw.Draw(letters).text((0, 0), text, fill=255, font=self._font)
        coverage = torch.from_numpy(np.asarray(letters).copy()).to(sheet)[..., None] / 255
        area = sheet[y : y + self.line, x : x + room]
        coverage = coverage[: area.shape[0]]
        area.copy_(area * (1 - coverage) + self._ink * coverage)


def _as_rgb(tile: Tensor, background: float) -> Float[Tensor, "height width 3"]:
    require_floating("picture", tile)
    picture = tile.detach().cpu().float()
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "A picture must be [height, width, 1, 3 or 4] or a mask [height, width], got "
            f"{list(tile.shape)}; pass the pictures of a batch one by one."
        )
    if picture.shape[-1] == 4:
        alpha = picture[..., 3:]
        picture = picture[..., :3] * alpha + background * (1 - alpha)
    return picture.expand(-1, -1, 3).clamp(0, 1)


def _require_labels(
    rows: Sequence[Sequence[Tensor]],
    row_labels: Sequence[str] | None,
    column_labels: Sequence[str] | None,
    tile_labels: Sequence[Sequence[str]] | None,
    columns: int,
) -> None:
    if row_labels is not None and len(row_labels) != len(rows):
        raise ValueError(f"Got {len(row_labels)} row labels for {len(rows)} rows.")
    if column_labels is not None and len(column_labels) != columns:
        raise ValueError(f"Got {len(column_labels)} column labels for {columns} columns.")
    if tile_labels is not None and [len(row) for row in tile_labels] != [len(row) for row in rows]:
        raise ValueError("tile_labels must have one text for each picture of each row.")
