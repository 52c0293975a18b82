"""Contains the 3D bundle image: RGB views above the normal maps of the same views.

One picture of 2 rows and as many columns as views; flat tile order is row-major, so RGB views come
first and then the normal views. Both rows have a white background.

Reference: Kiss3DGen (Lin et al. 2025), Sec. 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ._checks import require_finite, require_floating, require_shape

BUNDLE_COLUMNS = 4
MIN_TILE_PX = 64
MAX_TILE_PX = 1024
WHITE_DISTANCE = 12.0 / 255.0


@dataclass(frozen=True)
class BundleImage:
    """The tiles of one bundle, display-referred 0..1.

    Attributes:
        rgb_views: sRGB views on white.
        normal_views: encoded camera-space normals on white (see `geometry.normals`).
    """

    rgb_views: Float[Tensor, "view height width 3"]
    normal_views: Float[Tensor, "view height width 3"]

    def __post_init__(self) -> None:
        require_shape("rgb_views", self.rgb_views, None, None, None, 3)
        require_shape("normal_views", self.normal_views, *self.rgb_views.shape)
        for name, value in (("rgb_views", self.rgb_views), ("normal_views", self.normal_views)):
            require_floating(name, value)
            require_finite(name, value)
        if self.rgb_views.shape[0] < 1:
            raise ValueError("A bundle needs at least one view, got none.")

    @property
    def num_views(self) -> int:
        """Number of columns."""
        return int(self.rgb_views.shape[0])

    def image(self) -> Float[Tensor, "height width 3"]:
        """The bundle as one picture."""
        return join_bundle(self)


def split_bundle(
    image: Float[Tensor, "height width channel"], columns: int = BUNDLE_COLUMNS
) -> BundleImage:
    """Cut one picture into its RGB and normal tiles, bit-exactly.

    Args:
        image: 2 square tiles high and ``columns`` wide; an alpha channel is composited on white.
        columns: number of views.
    """
    if image.ndim != 3 or image.shape[2] not in (3, 4):
        raise ValueError(
            "A bundle image must have shape [height, width, 3 or 4], got "
            f"{list(image.shape)}; pick one picture of the batch first."
        )
    height, width = int(image.shape[0]), int(image.shape[1])
    if columns < 1 or height % 2 or width != columns * (height // 2):
        raise ValueError(
            f"A bundle of {columns} views is 2 square tiles high and {columns} wide, for example "
            f"{columns * 512} x 1024 pixels; got {width} x {height}. Resize or crop the picture."
        )
    if image.shape[2] == 4:
        alpha = image[..., 3:]
        image = image[..., :3] * alpha + (1 - alpha)
    tile = height // 2
    tiles = image.reshape(2, tile, columns, tile, 3).permute(0, 2, 1, 3, 4)
    return BundleImage(rgb_views=tiles[0].contiguous(), normal_views=tiles[1].contiguous())


def join_bundle(bundle: BundleImage) -> Float[Tensor, "height width 3"]:
    """Put the tiles of a bundle into one picture; inverse of `split_bundle`."""
    rows = torch.stack([bundle.rgb_views, bundle.normal_views])  # [2, view, h, w, 3]
    _, view, height, width, _ = rows.shape
    return rows.permute(0, 2, 1, 3, 4).reshape(2 * height, view * width, 3)


def masks_from_white(
    views: Float[Tensor, "view height width 3"], threshold: float = WHITE_DISTANCE
) -> Float[Tensor, "view height width"]:
    """Foreground masks (1 inside) from the distance to the white background.

    A pixel is foreground where any channel is darker than 1 by more than ``threshold``. On the
    normal row this is sound: no unit normal is encoded near white.

    Reference: kiss3dgen data, white backgrounds in both rows.
    """
    require_shape("views", views, None, None, None, 3)
    return ((1.0 - views).amax(dim=-1) > threshold).to(views.dtype)
