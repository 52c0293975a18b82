"""Contains the fitting of Gaussians to views without any to start from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..gaussian_cloud import GaussianCloud
from ..mesh import Mesh
from ..progress import ProgressCallback, ignore_progress
from .mesh_to_splat import SplatFitParams, fit_splats, splats_on_surface


@dataclass(frozen=True)
class ViewsToSplatParams:
    """How Gaussians are made of views.

    Attributes:
        num_gaussians: on the surface to start from.
        sh_degree: view dependence of the colours.
        fit: the optimisation.
    """

    num_gaussians: int = 10_000
    sh_degree: int = 0
    fit: SplatFitParams = field(default_factory=lambda: SplatFitParams(num_steps=600))


def views_to_splat(
    views: Float[Tensor, "view height width 3"],
    rig: ViewRig,
    masks: Float[Tensor, "view height width"] | None = None,
    *,
    initial_mesh: Mesh | None = None,
    initial_cloud: GaussianCloud | None = None,
    params: ViewsToSplatParams | None = None,
    device: torch.device | str = "cpu",
    on_progress: ProgressCallback = ignore_progress,
) -> GaussianCloud:
    """Fit Gaussians to views, from a cloud, a mesh or the visual hull of the masks.

    Args:
        views: sRGB pictures on white.
        rig: their cameras.
        masks: coverage 0..1 of the object.
        initial_mesh: Gaussians start on its surface, in white; its colours are not needed.
        initial_cloud: Gaussians to start with; takes precedence over the mesh.
        params: settings.
        device: where to optimise.
        on_progress: called after each step.

    Raises:
        ValueError: there is neither a cloud nor a mesh nor masks.
    """
    params = params or ViewsToSplatParams()
    rig = rig.to(device)
    masks = None if masks is None else masks.to(device)
    if initial_cloud is None:
        surface = initial_mesh if initial_mesh is not None else _hull(masks, rig)
        initial_cloud = splats_on_surface(
            surface.to(device),
            params.num_gaussians,
            sh_degree=params.sh_degree,
            seed=params.fit.seed,
        )
    return fit_splats(
        views.to(device),
        rig,
        masks,
        initial_cloud=initial_cloud.to(device),
        params=params.fit,
        on_progress=on_progress,
    )


def _hull(masks: Tensor | None, rig: ViewRig) -> Mesh:
    from ..geometry.visual_hull import visual_hull_mesh

    if masks is None:
        raise ValueError(
            "Gaussians need a place to start: connect masks (their visual hull is used), a mesh, "
            "or a splat."
        )
    return visual_hull_mesh(masks, rig)
