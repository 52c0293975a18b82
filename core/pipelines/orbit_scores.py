"""Contains the judging of reconstructed Gaussians by novel views and by their shape."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..evaluation.image_metrics import psnr
from ..evaluation.shape_scores import ShapeConvention, ShapeScores, score_shape
from ..evaluation.view_scores import ViewProtocol, ViewScores, score_views
from ..gaussian_cloud import GaussianCloud
from ..mesh import Mesh, NoSurfaceError
from ..rendering.mesh import render_mesh
from ..rendering.splats import render_splats
from .splat_to_mesh import SplatToMeshParams, splat_to_mesh

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class OrbitScoreParams:
    """How a reconstruction is judged.

    Attributes:
        protocol: views.
        convention: shape.
        mesh: how Gaussians become the mesh whose shape is judged; None judges views only.
    """

    protocol: ViewProtocol = field(default_factory=ViewProtocol)
    convention: ShapeConvention = field(default_factory=ShapeConvention)
    mesh: SplatToMeshParams | None = field(default_factory=SplatToMeshParams)


@dataclass(frozen=True)
class OrbitScores:
    """What came out.

    Attributes:
        views: of the novel views.
        shape: of the mesh; None if it was not judged.
        drawn: the novel views of the Gaussians.
        truth: the true ones.
    """

    views: ViewScores
    shape: ShapeScores | None
    drawn: Float[Tensor, "view height width 3"]
    truth: Float[Tensor, "view height width 3"]

    def columns(self) -> dict[str, float]:
        """Numbers by name, for a table; a miss counts 1."""
        if self.shape is None:
            return self.views.columns()
        missed = {"missed": float(math.isnan(self.shape.chamfer))}
        return {**self.views.columns(), **self.shape.columns(), **missed}


@torch.no_grad()
def score_gaussians(
    cloud: GaussianCloud, truth: Mesh, index: int, params: OrbitScoreParams | None = None
) -> OrbitScores:
    """Judge Gaussians that stand where the true mesh stands.

    Args:
        cloud: in the world frame.
        truth: the object, with a longest side of 1.8.
        index: number of the object, which decides the elevation.
        params: how. Gaussians that show no surface are a miss: `ShapeScores.of_nothing`.
    """
    rules = params or OrbitScoreParams()
    rig = novel_views(rules.protocol, index)
    size = rules.protocol.size_px
    drawn = render_splats(cloud, rig, width=size, height=size, with_normals=False).rgb.clamp(0, 1)
    true = true_views(truth, rig, size)
    views = score_views(drawn, true, rules.protocol.average)
    return OrbitScores(views, _shape_of(cloud, truth, rules), drawn, true)


def _shape_of(cloud: GaussianCloud, truth: Mesh, rules: OrbitScoreParams) -> ShapeScores | None:
    if rules.mesh is None:
        return None
    try:
        mesh = splat_to_mesh(cloud, rules.mesh)
    except NoSurfaceError as error:
        LOGGER.warning("A miss: %s", error)
        return ShapeScores.of_nothing(rules.convention)
    return score_shape(mesh, truth, rules.convention)


@torch.no_grad()
def frame_agreement(
    cloud: GaussianCloud, frames: Float[Tensor, "frame height width 3"], rig: ViewRig
) -> float:
    """How well frames agree in 3D: PSNR in dB of renders of the Gaussians made of them.

    Args:
        cloud: Gaussians made of the frames.
        frames: as they were sampled, on white.
        rig: their cameras.

    Reference: Tao et al. 2025, "GSV3D", Sec. 3.4.2, measures what its stage two improves.
    """
    height, width = (int(side) for side in frames.shape[1:3])
    drawn = render_splats(cloud, rig, width=width, height=height, with_normals=False)
    return psnr(drawn.rgb.clamp(0, 1), frames)


def novel_views(protocol: ViewProtocol, index: int) -> ViewRig:
    """All views of an object but the input."""
    rig = protocol.rig(index)
    return rig.select(range(1, len(rig)))


@torch.no_grad()
def true_views(truth: Mesh, rig: ViewRig, size_px: int) -> Float[Tensor, "view height width 3"]:
    """Pictures of a mesh on white, with its own colours."""
    return render_mesh(truth, rig, width=size_px, height=size_px).rgb.clamp(0, 1)
