"""Contains regions of a mesh and their projection into the pixels of a bundle.

A region is a test of the surface: where it lies, what colour it has or which part it belongs to.
It is asked at the visible point of every pixel, so a large face may lie in it partly, and what is
hidden from a view is not marked there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..bundle_image import MAX_TILE_PX, MIN_TILE_PX
from ..camera import ViewRig, make_kiss3dgen_rig
from ..mesh import Mesh
from ..rendering.mesh import interpolate, rasterize, render_mesh, world_to_clip
from ..rendering.visibility import dilate_square
from .mesh_to_bundle import BUNDLE_LONGEST_SIDE, SUPERSAMPLING

VISIBLE = 0.5


@dataclass(frozen=True)
class SurfacePoints:
    """What is known of the visible points of pixels.

    Attributes:
        positions: in the world, in the frame of the bundle's cameras.
        colors: sRGB 0..1.
        labels: part of the face; 0 where the mesh has no parts.
    """

    positions: Float[Tensor, "point 3"]
    colors: Float[Tensor, "point 3"]
    labels: Int64[Tensor, " point"]


@dataclass(frozen=True)
class BoxRegion:
    """What lies within an axis-aligned box.

    Attributes:
        center: of the box, world units.
        size: its three sides.
    """

    center: tuple[float, float, float]
    size: tuple[float, float, float]

    def __post_init__(self) -> None:
        if min(self.size) <= 0:
            raise ValueError(f"The sides of the box must be positive, got {self.size}.")

    def holds(self, points: SurfacePoints) -> Bool[Tensor, " point"]:
        """True for points inside the box."""
        center, half = (points.positions.new_tensor(v) for v in (self.center, self.size))
        return ((points.positions - center).abs() <= half / 2).all(dim=1)


@dataclass(frozen=True)
class SphereRegion:
    """What lies within a ball.

    Attributes:
        center: of the ball, world units.
        radius: world units.
    """

    center: tuple[float, float, float]
    radius: float

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"The radius of the sphere must be positive, got {self.radius}.")

    def holds(self, points: SurfacePoints) -> Bool[Tensor, " point"]:
        """True for points inside the ball."""
        center = points.positions.new_tensor(self.center)
        return (points.positions - center).norm(dim=1) <= self.radius


@dataclass(frozen=True)
class ColorRegion:
    """What has about a given colour.

    Attributes:
        color: sRGB 0..1.
        tolerance: largest difference of a channel, 0..1.
    """

    color: tuple[float, float, float]
    tolerance: float = 0.15

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise ValueError(f"tolerance must lie within 0..1, got {self.tolerance}.")

    def holds(self, points: SurfacePoints) -> Bool[Tensor, " point"]:
        """True for points of that colour."""
        wanted = points.colors.new_tensor(self.color)
        return ((points.colors - wanted).abs() <= self.tolerance + 1e-6).all(dim=1)


@dataclass(frozen=True)
class PartRegion:
    """What belongs to given parts.

    Attributes:
        labels: numbers of the parts.
    """

    labels: tuple[int, ...]

    def holds(self, points: SurfacePoints) -> Bool[Tensor, " point"]:
        """True for points of those parts."""
        return torch.isin(points.labels, points.labels.new_tensor(self.labels))


MeshRegion = BoxRegion | SphereRegion | ColorRegion | PartRegion
"""A test of the surface: its method ``holds`` says which points belong to the region."""

RegionKind = Literal["box", "sphere", "color", "part"]
REGION_KINDS: tuple[RegionKind, ...] = ("box", "sphere", "color", "part")


def make_region(
    kind: RegionKind,
    *,
    center_x: float,
    center_y: float,
    center_z: float,
    size_x: float,
    size_y: float,
    size_z: float,
    radius: float,
    color: str,
    tolerance: float,
    part: int,
) -> MeshRegion:
    """Region of a kind from single numbers; each kind looks at its own ones.

    Args:
        kind: which test.
        center_x: centre of box and sphere, and so on.
        center_y: see ``center_x``.
        center_z: see ``center_x``.
        size_x: sides of the box, and so on.
        size_y: see ``size_x``.
        size_z: see ``size_x``.
        radius: of the sphere.
        color: sRGB as #rrggbb.
        tolerance: of the colour.
        part: number of the part.
    """
    center = (center_x, center_y, center_z)
    if kind == "box":
        return BoxRegion(center, (size_x, size_y, size_z))
    if kind == "sphere":
        return SphereRegion(center, radius)
    if kind == "color":
        return ColorRegion(parse_color(color), tolerance)
    if kind == "part":
        return PartRegion((part,))
    raise ValueError(f"Unknown kind of region '{kind}'; choose {', '.join(REGION_KINDS)}.")


def parse_color(text: str) -> tuple[float, float, float]:
    """Channels 0..1 of an sRGB colour written as #rrggbb.

    Raises:
        ValueError: it is written otherwise.
    """
    digits = text.strip().removeprefix("#")
    if len(digits) != 6 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        raise ValueError(f"A colour is written as #rrggbb, for example #c83232; got {text!r}.")
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


@torch.no_grad()
def project_region(
    mesh: Mesh,
    region: MeshRegion,
    *,
    tile_px: int = 512,
    rig: ViewRig | None = None,
    normalize: bool = True,
    face_labels: Int64[Tensor, " face"] | None = None,
    grow_px: int = 0,
) -> Float[Tensor, "view height width"]:
    """Mask of the visible part of a region in every view of a bundle.

    Args:
        mesh: as given to `mesh_to_bundle.render_bundle`.
        region: which part; its numbers hold after the normalisation.
        tile_px: side of a tile, 64..1024.
        rig: cameras; None takes the four of Kiss3DGen.
        normalize: centre the mesh and scale its longest side to 1.8 first.
        face_labels: part of each face, for `PartRegion`.
        grow_px: the masks are widened by so many pixels, over the silhouette too.

    Returns:
        Coverage 0..1 per view.

    Raises:
        ValueError: the region holds nothing that any view sees.
    """
    if not MIN_TILE_PX <= tile_px <= MAX_TILE_PX:
        raise ValueError(
            f"tile_px must lie within {MIN_TILE_PX}..{MAX_TILE_PX} pixels, got {tile_px}."
        )
    if mesh.is_empty:
        raise ValueError("The mesh has no faces, so it has no regions; load another one.")
    rig = (make_kiss3dgen_rig() if rig is None else rig).to(mesh.vertices.device)
    mesh = mesh.normalized(BUNDLE_LONGEST_SIDE) if normalize else mesh
    labels = torch.zeros_like(mesh.faces[:, 0]) if face_labels is None else face_labels
    if len(labels) != mesh.num_faces:
        raise ValueError(f"Got {len(labels)} face labels for {mesh.num_faces} faces.")
    size = tile_px * SUPERSAMPLING
    masks = torch.cat(
        [_draw_region(mesh, region, labels, rig.select([i]), size) for i in range(len(rig))]
    )
    masks = torch.nn.functional.avg_pool2d(masks[:, None], SUPERSAMPLING)[:, 0]
    if not bool((masks > VISIBLE).any()):
        raise ValueError(
            "No view of the bundle sees any of the chosen region. The mesh reaches from "
            f"{_rounded(mesh.vertices.amin(dim=0))} to {_rounded(mesh.vertices.amax(dim=0))}; "
            "move or enlarge the region, raise its tolerance, or choose another part."
        )
    if grow_px:
        masks = torch.maximum(masks, dilate_square(masks > VISIBLE, radius_px=grow_px).to(masks))
    return masks


def labels_of_parts(parts: Sequence[Mesh]) -> Int64[Tensor, " face"]:
    """Number of its part for each face of a mesh that `merge_parts` made from ``parts``."""
    return torch.cat([torch.full_like(part.faces[:, 0], i) for i, part in enumerate(parts)])


def _draw_region(
    mesh: Mesh, region: MeshRegion, labels: Tensor, rig: ViewRig, size_px: int
) -> Float[Tensor, "view height width"]:
    """1 where the visible point of a pixel lies in the region."""
    drawn = render_mesh(mesh, rig, width=size_px, height=size_px, antialias=False)
    clip = world_to_clip(mesh.vertices, rig, width=size_px, height=size_px)
    rast = rasterize(clip, mesh.faces, width=size_px, height=size_px)
    positions = interpolate(mesh.vertices, rast, mesh.faces)
    seen = drawn.face_index >= 0
    points = SurfacePoints(positions[seen], drawn.rgb[seen], labels[drawn.face_index[seen]])
    mask = torch.zeros_like(drawn.alpha)
    mask[seen] = region.holds(points).to(mask)
    return mask


def _rounded(point: Tensor) -> list[float]:
    return [round(float(value), 2) for value in point]
