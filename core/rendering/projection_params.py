"""Contains the weights and thresholds of projections, with the published sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KISS3DGEN_COLOR_WEIGHTS = (1.0, 0.5, 1.0, 0.5)
EXPLICIT_TARGET_WEIGHTS = (1.0, 0.9, 1.0, 0.9)


@dataclass(frozen=True)
class VertexProjectionParams:
    """How views are weighed. Pixel widths hold for tiles of 512 pixels and scale with the tile.

    Attributes:
        cos_power: exponent of the cosine between surface normal and viewing direction.
        view_weights: how much each view counts; None counts all alike.
        direction: ``ray`` takes the direction from each point to the camera, ``axis`` (the
            reference) one optical axis for the whole picture.
        cos_threshold: surfaces seen at a smaller cosine are ignored.
        confidence: summed weight from which on a point counts as fully seen.
        erosion_px: side of the window that shrinks the masks.
        blur_px: width of the fade inside the shrunken masks.
        rim_weight: relative weight of the rim that erosion took away, so that parts thinner than
            the erosion still get their own colour where no view sees them better; 0 ignores it.
        jump_margin_px: pixels this close to a depth jump are ignored; 0 ignores none.
        bias_px: how far behind the visible surface a point may lie, in pixel sizes.
        visibility: ``points`` tests each vertex against the visible surface, ``faces`` (the
            reference) takes the vertices of all faces that own a pixel.
        raster_px: rows of the visibility raster; None takes those of the views.
        two_sided: let faces count from behind; None does so if views show back faces.

    Reference: Kiss3DGen (Lin et al. 2025), released colour projection (defaults), see also
    `kiss3dgen_colors` and `explicit_target`.
    """

    cos_power: float = 2.0
    view_weights: tuple[float, ...] | None = None
    direction: Literal["ray", "axis"] = "ray"
    cos_threshold: float = 0.05
    confidence: float = 0.1
    erosion_px: float = 10.0
    blur_px: float = 5.0
    rim_weight: float = 0.02
    jump_margin_px: float = 2.0
    bias_px: float = 0.5
    visibility: Literal["points", "faces"] = "points"
    raster_px: int | None = None
    two_sided: bool | None = None

    def __post_init__(self) -> None:
        if self.view_weights is not None and (
            any(weight < 0 for weight in self.view_weights) or sum(self.view_weights) <= 0
        ):
            raise ValueError(
                f"view_weights must be at least 0 and not all 0, got {self.view_weights}."
            )
        for name in ("cos_power", "erosion_px", "blur_px", "rim_weight", "jump_margin_px"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if not self.confidence > 0:
            raise ValueError(f"confidence must be positive, got {self.confidence}.")
        if not 0 <= self.cos_threshold < 1:
            raise ValueError(f"cos_threshold must lie within 0..1, got {self.cos_threshold}.")
        if self.raster_px is not None and self.raster_px < 1:
            raise ValueError(f"raster_px must be at least 1, got {self.raster_px}.")

    @staticmethod
    def kiss3dgen_colors() -> VertexProjectionParams:
        """The colour projection of Kiss3DGen: front and rear favoured, one axis per camera."""
        return VertexProjectionParams(
            view_weights=KISS3DGEN_COLOR_WEIGHTS,
            direction="axis",
            rim_weight=0.0,
            jump_margin_px=0.0,
            visibility="faces",
            two_sided=False,
        )

    @staticmethod
    def explicit_target() -> VertexProjectionParams:
        """The projection of normals in ISOMER's ExplicitTarget: linear cosine, raster of 1024."""
        return VertexProjectionParams(
            cos_power=1.0, view_weights=EXPLICIT_TARGET_WEIGHTS, rim_weight=0.0, raster_px=1024
        )
