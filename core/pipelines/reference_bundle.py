"""Contains the reference bundle: what image-to-3D shows to the enhancement of a bundle image.

The RGB row holds the multi-view pictures (or the colours of the reconstruction model's mesh), the
normal row the normals of that mesh from the same cameras, in the encoding of all bundles. The
released program draws these normals through a camera 26.6 degrees too low; here they are right.

Reference: Kiss3DGen (Lin et al. 2025), Sec. 3.2 and the released image-to-3D pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..bundle_image import BundleImage, masks_from_white
from ..camera import ViewRig, make_kiss3dgen_rig
from ..mesh import Mesh
from ..networks.lrm_cameras import FLEXGEN_RENDER_RADIUS
from ..progress import ProgressCallback, ignore_progress, share_progress
from .camera_fit import fit_camera_radius_to_mesh
from .mesh_to_bundle import render_bundle


@dataclass(frozen=True)
class ReferenceBundleParams:
    """How the bundle is drawn.

    Attributes:
        tile_px: side of a tile.
        radius: distance of the cameras, in units of the mesh.
        fit_radius: search the distance at which the mesh fills the views instead.
        use_views: put the views in the RGB row, where there are any.
    """

    tile_px: int = 512
    radius: float = FLEXGEN_RENDER_RADIUS
    fit_radius: bool = False
    use_views: bool = True

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"radius must be positive, got {self.radius}.")


@dataclass(frozen=True)
class ReferenceBundle:
    """A bundle with what belongs to it.

    Attributes:
        bundle: RGB over normals, columns front, left, rear, right.
        masks: coverage of the mesh, 0..1.
        rig: the cameras.
    """

    bundle: BundleImage
    masks: Float[Tensor, "view height width"]
    rig: ViewRig


def make_reference_bundle(
    mesh: Mesh,
    views: Float[Tensor, "view height width 3"] | None = None,
    params: ReferenceBundleParams = ReferenceBundleParams(),
    *,
    on_progress: ProgressCallback = ignore_progress,
) -> ReferenceBundle:
    """Draw the bundle of a reconstructed mesh that faces +Z, at its own size.

    Args:
        mesh: see `lrm_to_mesh`.
        views: front, left, rear and right of the subject on white (`image_to_multiview`).
        params: settings.
        on_progress: called while cameras are fitted and after each view.

    Raises:
        ValueError: the views are no four square pictures, or a fit is asked for without any.
    """
    rig = make_kiss3dgen_rig(params.radius)
    if views is not None:
        views = _tiles(views, len(rig), params.tile_px)
    if params.fit_radius:
        if views is None:
            raise ValueError("fit_radius needs views to compare the mesh with; connect them.")
        masks = masks_from_white(views)
        fit = fit_camera_radius_to_mesh(
            mesh, masks, rig, on_progress=share_progress(on_progress, 0, 50)
        )
        rig = rig.with_radius(fit.radius)
    bundle, masks, rig = render_bundle(
        mesh,
        tile_px=params.tile_px,
        rig=rig,
        normalize=False,
        on_progress=share_progress(on_progress, 50 if params.fit_radius else 0, 100),
    )
    if views is not None and params.use_views:
        bundle = replace(bundle, rgb_views=views.to(bundle.rgb_views))
    return ReferenceBundle(bundle, masks, rig)


def _tiles(views: Tensor, count: int, tile_px: int) -> Float[Tensor, "view side side 3"]:
    require_shape("views", views, None, None, None, 3)
    require_finite("views", views)
    if len(views) != count or views.shape[1] != views.shape[2]:
        raise ValueError(
            f"views must be {count} square pictures (front, left, rear, right), got "
            f"{list(views.shape)}."
        )
    if views.shape[1] == tile_px:
        return views
    resized = torch.nn.functional.interpolate(
        views.permute(0, 3, 1, 2),
        (tile_px, tile_px),
        mode="bicubic",
        align_corners=False,
        antialias=True,
    )
    return resized.permute(0, 2, 3, 1).clamp(0, 1)
