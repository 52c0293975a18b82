"""Contains image-to-3D as one call: picture, views, first mesh, reference bundle, final mesh.

Between the reference bundle and the final mesh stands the enhancement (`enhance_bundle`), which the
caller brings along.

Reference: Kiss3DGen (Lin et al. 2025), Sec. 3.2 and 3.3; released image-to-3D pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from ..bundle_image import BundleImage
from ..diffusion.placement import Placement
from ..mesh import Mesh
from ..networks.lrm import LargeReconstructionModel
from ..networks.lrm_cameras import FRONT_AZIMUTH_DEG, make_camera_vectors
from ..networks.zero123plus import Zero123Plus
from ..progress import ProgressCallback, ignore_progress, share_progress
from .bundle_to_mesh import ReconstructionParams, ReconstructionResult, reconstruct_from_bundle
from .image_to_multiview import MultiviewImages, MultiviewParams, image_to_multiview
from .lrm_to_mesh import LrmToMeshParams, lrm_to_mesh
from .prepare_image import PreparedImage, PrepareImageParams, prepare_image
from .reference_bundle import ReferenceBundle, ReferenceBundleParams, make_reference_bundle


@dataclass(frozen=True)
class ImageTo3dParams:
    """Settings of all stages.

    Attributes:
        prepare: of the picture.
        multiview: of the views.
        extraction: of the meshes that the reconstruction model makes.
        reference: of the reference bundle.
        reconstruction: of the final mesh; None for the defaults.
    """

    prepare: PrepareImageParams = field(default_factory=PrepareImageParams)
    multiview: MultiviewParams = field(default_factory=MultiviewParams)
    extraction: LrmToMeshParams = field(default_factory=LrmToMeshParams)
    reference: ReferenceBundleParams = field(default_factory=ReferenceBundleParams)
    reconstruction: ReconstructionParams | None = None

    def __post_init__(self) -> None:
        if self.multiview.layout != "flexgen":
            raise ValueError(
                "A bundle needs the four views of the layout 'flexgen', got "
                f"'{self.multiview.layout}'."
            )


@dataclass(frozen=True)
class ImageToBundle:
    """What image-to-3D has before the enhancement.

    Attributes:
        prepared: the picture that the models saw.
        multiview: the views.
        mesh: first mesh, facing +Z.
        reference: the reference bundle.
    """

    prepared: PreparedImage
    multiview: MultiviewImages
    mesh: Mesh
    reference: ReferenceBundle


Enhancer = Callable[[ImageToBundle], BundleImage]
"""Makes the final bundle from everything that is known before it."""


def image_to_bundle(
    multiview_model: Zero123Plus,
    lrm: LargeReconstructionModel,
    image: Float[Tensor, "height width channel"],
    mask: Float[Tensor, "mask_height mask_width"] | None = None,
    params: ImageTo3dParams | None = None,
    *,
    placement: Placement | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> ImageToBundle:
    """Picture to reference bundle.

    Args:
        multiview_model: FlexGen.
        lrm: PRM or another model of the "mesh" stage in Kiss3DGen's frame.
        image: RGB or RGBA.
        mask: 1 on the object; None takes the alpha channel.
        params: None for the defaults of Kiss3DGen.
        placement: brings networks to their device; None leaves them where they are.
        on_progress: called after every step; what it raises stops the run and passes on.

    Raises:
        ValueError: see the stages.
    """
    params = params or ImageTo3dParams()
    prepared = prepare_image(image, mask, params.prepare)
    multiview = image_to_multiview(
        multiview_model,
        prepared.image,
        params.multiview,
        placement=placement,
        on_progress=share_progress(on_progress, 0, 60),
    )
    if placement is not None:
        placement.prepare(lrm)
    mesh = lrm_to_mesh(
        lrm,
        multiview.views,
        make_camera_vectors("flexgen"),
        front_azimuth_deg=FRONT_AZIMUTH_DEG["flexgen"],
        params=params.extraction,
        on_progress=share_progress(on_progress, 60, 90),
    )
    reference = make_reference_bundle(
        mesh, multiview.views, params.reference, on_progress=share_progress(on_progress, 90, 100)
    )
    return ImageToBundle(prepared, multiview, mesh, reference)


def image_to_mesh(
    multiview_model: Zero123Plus,
    lrm: LargeReconstructionModel,
    image: Float[Tensor, "height width channel"],
    mask: Float[Tensor, "mask_height mask_width"] | None = None,
    params: ImageTo3dParams | None = None,
    *,
    enhance: Enhancer | None = None,
    placement: Placement | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> ReconstructionResult:
    """Picture to mesh; see `image_to_bundle`.

    Args:
        multiview_model: FlexGen.
        lrm: the reconstruction model; it also starts the final mesh from an enhanced bundle.
        image: RGB or RGBA.
        mask: 1 on the object; None takes the alpha channel.
        params: None for the defaults of Kiss3DGen.
        enhance: makes the final bundle; None reconstructs the reference bundle itself.
        placement: brings networks to their device; None leaves them where they are.
        on_progress: called after every step.
    """
    params = params or ImageTo3dParams()
    known = image_to_bundle(
        multiview_model, lrm, image, mask, params,
        placement=placement, on_progress=share_progress(on_progress, 0, 50),
    )  # fmt: skip
    bundle, start = known.reference.bundle, known.mesh
    if enhance is not None:
        bundle = enhance(known)
        if placement is not None:
            placement.prepare(lrm)
        start = lrm_to_mesh(
            lrm,
            bundle.rgb_views,
            make_camera_vectors("kiss3dgen"),
            params=params.extraction,
            on_progress=share_progress(on_progress, 50, 60),
        )
    return reconstruct_from_bundle(
        bundle,
        rig=known.reference.rig,
        initial_mesh=start,
        params=params.reconstruction,
        on_progress=share_progress(on_progress, 60, 100),
    )
