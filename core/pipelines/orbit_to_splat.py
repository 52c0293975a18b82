"""Contains the making of Gaussians from the frames of an orbit by optimisation, untrained.

Where there is no Gaussian decoder, the frames of SV3D and their known cameras already determine an
object. Frames of a video model do not quite agree, so a point belongs to the first guess of the
shape unless several silhouettes speak against it, and the fit is short.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..camera import ViewRig
from ..gaussian_cloud import GaussianCloud
from ..geometry.visual_hull import VisualHullParams, visual_hull_mesh
from ..mesh import NoSurfaceError
from ..progress import ProgressCallback, ignore_progress
from .mesh_to_splat import SHORT_FIT, SplatFitParams, fit_splats, splats_on_surface
from .texture_projection import project_vertex_colors

WHITE_SOFTNESS = 0.1
INSIDE = 0.5
SPECK_SHARE = 0.02
MIN_VIEWS = 3


@dataclass(frozen=True)
class OrbitSplatParams:
    """How the fit is done.

    Attributes:
        num_gaussians: on the first guess of the surface.
        num_steps: of the optimisation, one frame each.
        sh_degree: view dependence of the colours.
        tolerance: share of the frames that may disagree about a point of the shape.
        hull_resolution: cells along the longest side of the first guess.
        seed: decides positions, order of frames and backgrounds.
    """

    num_gaussians: int = 8000
    num_steps: int = 400
    sh_degree: int = 0
    tolerance: float = 0.12
    hull_resolution: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_gaussians < 1 or self.num_steps < 0 or self.seed < 0:
            raise ValueError(
                "num_gaussians must be at least 1, num_steps and seed not negative, got "
                f"{self.num_gaussians}, {self.num_steps} and {self.seed}."
            )
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must lie within 0..1, got {self.tolerance}.")


def orbit_to_splat(
    images: Float[Tensor, "frame height width 3"],
    rig: ViewRig,
    masks: Float[Tensor, "frame height width"] | None = None,
    params: OrbitSplatParams = OrbitSplatParams(),
    *,
    device: torch.device | str = "cpu",
    on_progress: ProgressCallback = ignore_progress,
) -> GaussianCloud:
    """Fit Gaussians to the frames of an orbit.

    Args:
        images: sRGB on white.
        rig: one camera per frame.
        masks: coverage 0..1; None finds it by the distance from white.
        params: settings.
        device: where to optimise.
        on_progress: called after each step.

    Raises:
        ValueError: too few frames, other numbers of cameras, or an empty frame.
    """
    require_shape("images", images, None, None, None, 3)
    require_finite("images", images)
    if len(images) != len(rig):
        raise ValueError(
            f"Got {len(images)} frames for {len(rig)} cameras; connect the rig of the node that "
            "made the frames."
        )
    if len(images) < MIN_VIEWS:
        raise ValueError(f"An orbit needs at least {MIN_VIEWS} frames, got {len(images)}.")
    coverage = masks_on_white(images) if masks is None else masks
    # The optimiser's gradients need plain tensors although hosts run nodes in inference mode.
    with torch.inference_mode(False), torch.no_grad():
        hull = visual_hull_mesh(
            coverage.clone(),
            rig,
            VisualHullParams(
                resolution=params.hull_resolution,
                tolerated_views=int(params.tolerance * len(images)),
            ),
        )
        colored, _ = project_vertex_colors(hull, images.clone(), rig)
        start = splats_on_surface(
            colored, params.num_gaussians, sh_degree=params.sh_degree, seed=params.seed
        )
    return fit_splats(
        images.to(device),
        rig.to(device),
        coverage.to(device),
        initial_cloud=start.to(device),
        params=SplatFitParams(params.num_steps, SHORT_FIT, seed=params.seed),
        on_progress=on_progress,
    )


def masks_on_white(
    images: Float[Tensor, "frame height width 3"],
) -> Float[Tensor, "frame height width"]:
    """Coverage of objects on white: holes are filled, specks left out.

    White parts inside the object count as object, white parts at its border cannot be told from
    the background.

    Raises:
        NoSurfaceError: a frame shows nothing.
    """
    from scipy import ndimage

    soft = ((1 - images).amax(dim=-1) / WHITE_SOFTNESS).clamp(0, 1)
    masks = []
    for index, mask in enumerate(soft):
        inside = (mask > INSIDE).cpu().numpy()
        labels, count = ndimage.label(inside)
        if not count:
            raise NoSurfaceError(
                f"Frame {index + 1} is white all over: there is no object in it. Sample the orbit "
                "again, or give masks."
            )
        sizes = ndimage.sum_labels(inside, labels, range(1, count + 1))
        kept = [i + 1 for i, size in enumerate(sizes) if size >= SPECK_SHARE * sizes.sum()]
        whole = torch.isin(torch.from_numpy(labels), torch.tensor(kept))
        filled = torch.from_numpy(ndimage.binary_fill_holes(whole.numpy())).to(mask.device)
        near = torch.nn.functional.max_pool2d(filled[None, None].to(mask), 3, 1, 1)[0, 0]
        masks.append(torch.where(filled, torch.ones_like(mask), mask * near).clamp(0, 1))
    return torch.stack(masks)
