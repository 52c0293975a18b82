"""Contains the conversion of Gaussians to a coloured mesh: depth maps from all round, fused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..gaussian_cloud import GaussianCloud
from ..geometry.components import drop_small_components
from ..geometry.decimate import decimate_mesh
from ..geometry.isosurface import extract_isosurface
from ..geometry.smoothing import taubin_smooth
from ..geometry.tsdf import fuse_depth_maps
from ..mesh import Mesh, NoSurfaceError
from ..progress import Progress, ProgressCallback, ignore_progress
from ..rendering.splats import render_splats
from .mesh_to_splat import make_enclosing_rig
from .texture_projection import TextureParams, project_texture, project_vertex_colors

MARGIN_VOXELS = 3


@dataclass(frozen=True)
class SplatToMeshParams:
    """How Gaussians become a mesh.

    Attributes:
        resolution: voxels along the longest side, 16..512; memory grows with its cube.
        num_views: depth maps from all round.
        size_px: their side.
        truncation_voxels: how far round a surface its depth counts.
        min_opacity: fainter Gaussians are left out.
        min_part: parts with a smaller share of the area go.
        smoothing: rounds of Taubin smoothing.
        max_faces: the mesh is reduced to so many; 0 keeps all.
        texture_px: side of a texture to bake; 0 colours the vertices.
    """

    resolution: int = 128
    num_views: int = 48
    size_px: int = 256
    truncation_voxels: float = 4.0
    min_opacity: float = 0.02
    min_part: float = 0.02
    smoothing: int = 3
    max_faces: int = 0
    texture_px: int = 0

    def __post_init__(self) -> None:
        if not 16 <= self.resolution <= 512:
            raise ValueError(f"resolution must lie within 16..512, got {self.resolution}.")
        if self.num_views < 4 or self.size_px < 32:
            raise ValueError(
                "num_views must be at least 4 and size_px at least 32, got "
                f"{self.num_views} and {self.size_px}."
            )


@torch.no_grad()
def splat_to_mesh(
    cloud: GaussianCloud,
    params: SplatToMeshParams | None = None,
    *,
    on_progress: ProgressCallback = ignore_progress,
) -> Mesh:
    """Closed mesh of the surface that Gaussians show, with their colours.

    Depth is that at which half of the light is absorbed; what lets more than half of it pass is
    not there.

    Args:
        cloud: in the world frame.
        params: settings.
        on_progress: called after each view and step.

    Returns:
        Mesh with vertex colours, or with a texture.

    Raises:
        NoSurfaceError: no Gaussian is opaque enough, or nothing solid is seen.

    Reference: TSDF fusion of rendered depth as in Huang et al. 2024, "2D Gaussian Splatting".
    """
    params = params or SplatToMeshParams()
    visible = cloud.select(cloud.opacities >= params.min_opacity)
    if not visible.num_gaussians:
        raise NoSurfaceError(
            f"None of the {cloud.num_gaussians} Gaussians has an opacity of {params.min_opacity} "
            "or more; lower min_opacity or check the splat."
        )
    low, high = solid_bounds(visible)
    rig = make_enclosing_rig(low, high, num_views=params.num_views, device=cloud.means.device)
    total = 2 * len(rig) + 3
    rgb, alpha, depth = _draw(visible, rig, params, on_progress, total)
    if not bool((depth > 0).any()):
        raise NoSurfaceError(
            "The Gaussians are too transparent for a surface: no view is more than half covered."
        )
    margin = MARGIN_VOXELS * float((high - low).max()) / params.resolution
    volume = fuse_depth_maps(
        depth, rig, low - margin, high + margin,
        resolution=params.resolution, truncation_voxels=params.truncation_voxels,
        on_view=lambda view: on_progress(Progress(len(rig) + view + 1, total, "fusing depth")),
    )  # fmt: skip
    vertices, faces = extract_isosurface(volume.sdf, volume.lower, volume.upper)
    if not len(faces):
        raise NoSurfaceError("No surface was found; raise resolution or num_views.")
    mesh = drop_small_components(Mesh(vertices, faces), min_area_fraction=params.min_part)
    if params.smoothing:
        smooth = taubin_smooth(mesh.vertices, mesh.faces, iterations=params.smoothing)
        mesh = mesh.with_vertices(smooth)
    if params.max_faces:
        mesh = decimate_mesh(mesh, params.max_faces)
    on_progress(Progress(total - 2, total, f"colouring {mesh.num_faces} faces"))
    colored = _colored(mesh, rgb, alpha, rig, params)
    on_progress(Progress(total, total, f"{colored.num_faces} faces"))
    return replace(colored, name="splat")


def solid_bounds(
    cloud: GaussianCloud, *, share: float = 0.999
) -> tuple[Float[Tensor, 3], Float[Tensor, 3]]:
    """Box round nearly all Gaussians, two standard deviations beyond their centres.

    Args:
        cloud: at least one Gaussian.
        share: of the total opacity times size that lies inside along each axis; leaves strays out.
    """
    weight = cloud.opacities * cloud.scales.amax(dim=1).clamp(min=1e-9)
    lows, highs = [], []
    for axis in range(3):
        reach = 2 * cloud.scales.amax(dim=1)
        lows.append(_weighted_quantile(cloud.means[:, axis] - reach, weight, 1 - share))
        highs.append(_weighted_quantile(cloud.means[:, axis] + reach, weight, share))
    low, high = torch.stack(lows), torch.stack(highs)
    return low, torch.maximum(high, low + 1e-3)


def _weighted_quantile(values: Tensor, weights: Tensor, share: float) -> Tensor:
    order = values.argsort()
    sums = weights[order].double().cumsum(0)
    index = torch.searchsorted(sums, share * sums[-1]).clamp(max=len(values) - 1)
    return values[order][index]


def _draw(
    cloud: GaussianCloud,
    rig: ViewRig,
    params: SplatToMeshParams,
    on_progress: ProgressCallback,
    total: int,
) -> tuple[Tensor, Tensor, Tensor]:
    rgb, alpha, depth = [], [], []
    for index in range(len(rig)):
        render = render_splats(
            cloud, rig.select([index]), width=params.size_px, height=params.size_px,
            with_normals=False,
        )  # fmt: skip
        rgb.append(render.rgb.clamp(0, 1))
        alpha.append(render.alpha)
        depth.append(torch.where(render.alpha > 0.5, render.median_depth, 0.0))
        on_progress(Progress(index + 1, total, "drawing depth", rgb[-1][0]))
    return torch.cat(rgb), torch.cat(alpha), torch.cat(depth)


def _colored(
    mesh: Mesh, rgb: Tensor, alpha: Tensor, rig: ViewRig, params: SplatToMeshParams
) -> Mesh:
    """The mesh with the colours of the pictures; half-covered border pixels are left out."""
    masks = (alpha > 0.9).to(rgb)
    if params.texture_px:
        settings = TextureParams(size_px=params.texture_px)
        return project_texture(mesh, rgb, rig, masks=masks, params=settings).mesh
    return project_vertex_colors(mesh, rgb, rig, masks=masks)[0]
