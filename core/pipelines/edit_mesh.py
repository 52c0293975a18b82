"""Contains 3D to 3D: a mesh becomes a bundle, the bundle is enhanced or edited, and a mesh again.

Reference: Kiss3DGen (Lin et al. 2025), Sec. 3.4, "3D enhancement" and "3D editing"; its mixed
generation is this with a mesh that came from a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor

from ..bundle_image import BundleImage
from ..diffusion.model import DiffusionModel
from ..mesh import Mesh
from ..progress import Progress, ProgressCallback, ignore_progress
from .bundle_prompt import BundlePrompt
from .bundle_to_mesh import ReconstructionParams, ReconstructionResult, reconstruct_from_bundle
from .enhance_bundle import ENHANCEMENT, ControlRequest, enhance_bundle
from .mesh_region import MeshRegion, project_region
from .mesh_to_bundle import BUNDLE_LONGEST_SIDE, render_bundle
from .text_to_bundle import BundleSampleParams


@dataclass(frozen=True)
class EditMeshParams:
    """Settings of the three steps.

    Attributes:
        sampling: of the bundle; ``strength`` is the denoise strength, ``batch`` must be 1.
        reconstruction: of the new mesh.
        keep_shape_start: start the reconstruction from the given mesh instead of a hull.
    """

    sampling: BundleSampleParams = ENHANCEMENT
    reconstruction: ReconstructionParams = field(default_factory=ReconstructionParams)
    keep_shape_start: bool = False

    def __post_init__(self) -> None:
        if self.sampling.batch != 1:
            raise ValueError(
                f"One mesh is made at a time, but batch is {self.sampling.batch}; set it to 1."
            )


@dataclass(frozen=True)
class EditedMesh:
    """What 3D to 3D gives.

    Attributes:
        mesh: the new mesh, in the frame of the bundle (longest side about 1.8).
        reference: bundle of the given mesh.
        bundle: bundle that the new mesh was made from.
        reconstruction: the reconstruction with its warnings.
        warnings: of all steps.
    """

    mesh: Mesh
    reference: BundleImage
    bundle: BundleImage
    reconstruction: ReconstructionResult
    warnings: tuple[str, ...]


def edit_mesh(
    model: DiffusionModel,
    mesh: Mesh,
    prompt: BundlePrompt,
    params: EditMeshParams | None = None,
    *,
    controls: Sequence[ControlRequest] = (),
    region: MeshRegion | None = None,
    face_labels: Tensor | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> EditedMesh:
    """Enhance a mesh, or edit it by words.

    Args:
        model: of either family.
        mesh: any mesh; it is centred and scaled first.
        prompt: what it shows (enhancement), or what it should show (editing).
        params: settings.
        controls: ControlNets; their pictures come from the mesh.
        region: only this part of the surface is edited.
        face_labels: part of each face, for regions of parts.
        on_progress: called after every step of sampling and reconstruction.
    """
    params = EditMeshParams() if params is None else params
    tile_px = params.sampling.resolved(model).tile_px
    mesh = mesh.normalized(BUNDLE_LONGEST_SIDE)
    reference, _, rig = render_bundle(mesh, tile_px=tile_px, normalize=False)
    mask: Float[Tensor, "view height width"] | None = None
    if region is not None:
        mask = project_region(
            mesh, region, tile_px=tile_px, rig=rig, normalize=False, face_labels=face_labels
        )
    samples = enhance_bundle(
        model,
        reference,
        prompt,
        params.sampling,
        controls=controls,
        mask=mask,
        mesh=mesh,
        rig=rig,
        on_progress=_stage("bundle", on_progress),
    )
    made = reconstruct_from_bundle(
        samples.bundles[0],
        rig=rig,
        initial_mesh=mesh if params.keep_shape_start else None,
        params=params.reconstruction,
        on_progress=_stage("mesh", on_progress),
    )
    warnings = (*samples.warnings, *made.warnings)
    return EditedMesh(made.mesh, reference, samples.bundles[0], made, warnings)


def _stage(name: str, on_progress: ProgressCallback) -> ProgressCallback:
    def report(progress: Progress) -> None:
        on_progress(replace(progress, message=f"{name}: {progress.message}"))

    return report
