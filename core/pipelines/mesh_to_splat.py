"""Contains the fitting of Gaussians to pictures, and the conversion of a mesh to Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..camera import Camera, ViewRig, make_orbit_pose
from ..evaluation.mesh_metrics import sample_surface
from ..gaussian_cloud import GaussianCloud, color_to_harmonic
from ..geometry.harmonics import resize_harmonics
from ..geometry.transforms import matrix_to_quat, normalize
from ..mesh import Mesh
from ..progress import Progress, ProgressCallback, ignore_progress
from ..rendering.mesh import render_mesh
from ..rendering.splats import render_splats
from ..rendering.texture import sample_texture
from .splat_optimizer import DensifyParams, LearningRates, SplatOptimizer, SplatOptimizerParams


@dataclass(frozen=True)
class SplatFitParams:
    """How Gaussians are fitted to pictures.

    Attributes:
        num_steps: optimisation steps, one picture each.
        optimizer: step sizes and densification.
        square_weight: weight of the squared colour error.
        absolute_weight: weight of the absolute colour error.
        mask_weight: weight of the absolute error of alpha, where masks are given.
        random_background: with masks, draw before a new random colour in each step, so that the
            background cannot be imitated by Gaussians.
        views_background: colour behind the object in the given pictures.
        preview_every: steps between pictures in the progress reports; 0 sends none.
        seed: decides the order of pictures, the backgrounds and the positions of splits.
    """

    num_steps: int = 3000
    optimizer: SplatOptimizerParams = field(default_factory=SplatOptimizerParams)
    square_weight: float = 0.0
    mask_weight: float = 0.2
    random_background: bool = True
    views_background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    preview_every: int = 50
    seed: int = 0
    absolute_weight: float = 1.0


# On the surface from the start, Gaussians need few steps: these settings are for 300 to 1000.
SHORT_FIT = SplatOptimizerParams(
    rates=LearningRates(
        means=(1.5e-3, 1.5e-4),
        base=(0.02, 0.004),
        rest=(2e-3, 4e-4),
        opacity_logits=(0.05, 0.02),
        log_scales=(0.02, 0.004),
        quats=(0.01, 0.002),
    ),
    densify=DensifyParams(every=0),
)


@dataclass(frozen=True)
class MeshToSplatParams:
    """How a mesh becomes Gaussians.

    Attributes:
        num_gaussians: on the surface, evenly by area.
        num_views: cameras spread over a sphere.
        size_px: width and height of the pictures.
        sh_degree: view dependence of the colours; 0 suits unlit meshes.
        fov_y_deg: of the cameras.
        margin: free border round the object, as a share of its bounding sphere.
        fit: the optimisation that follows; 0 steps leave the Gaussians as they were laid out.
    """

    num_gaussians: int = 10_000
    num_views: int = 24
    size_px: int = 256
    sh_degree: int = 0
    fov_y_deg: float = 30.0
    margin: float = 0.1
    fit: SplatFitParams = field(
        default_factory=lambda: SplatFitParams(num_steps=400, optimizer=SHORT_FIT)
    )


def mesh_to_splat(
    mesh: Mesh,
    params: MeshToSplatParams | None = None,
    *,
    on_progress: ProgressCallback = ignore_progress,
) -> GaussianCloud:
    """Lay Gaussians on a mesh's surface and fit them to pictures of it from all sides.

    Args:
        mesh: colours come from its texture, vertex colours or material, unlit.
        params: settings.
        on_progress: called after each step.

    Returns:
        Gaussians in the frame of the mesh.
    """
    params = params or MeshToSplatParams()
    cloud = splats_on_surface(
        mesh, params.num_gaussians, sh_degree=params.sh_degree, seed=params.fit.seed
    )
    if params.fit.num_steps == 0:
        return cloud
    rig = make_sphere_rig(mesh, params)
    with torch.no_grad():
        pictures = render_mesh(
            mesh, rig, width=params.size_px, height=params.size_px,
            background=params.fit.views_background,
        )  # fmt: skip
    return fit_splats(
        pictures.rgb,
        rig,
        pictures.alpha,
        initial_cloud=cloud,
        params=params.fit,
        on_progress=on_progress,
    )


def fit_splats(
    views: Float[Tensor, "view height width 3"],
    rig: ViewRig,
    masks: Float[Tensor, "view height width"] | None = None,
    *,
    initial_cloud: GaussianCloud,
    params: SplatFitParams | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> GaussianCloud:
    """Optimise Gaussians until they look like the given pictures.

    Args:
        views: sRGB pictures over ``params.views_background``.
        rig: their cameras.
        masks: coverage 0..1 of the object; None if the pictures have no background.
        initial_cloud: where to start.
        params: settings.
        on_progress: called after each step; it may raise to stop.

    Returns:
        The optimised cloud. Same inputs and seed: same result on the same device.

    Reference: Kerbl et al. 2023, "3D Gaussian Splatting", Sec. 5.
    """
    params = params or SplatFitParams()
    _check_pictures(views, rig, masks)
    with torch.inference_mode(False), torch.enable_grad():  # hosts run nodes under inference_mode
        like = initial_cloud.means
        return _fit(
            views.detach().to(like).clone(),
            rig,
            None if masks is None else masks.detach().to(like).clone(),
            initial_cloud.clone(),
            params,
            on_progress,
        )


def _fit(
    views: Tensor,
    rig: ViewRig,
    masks: Tensor | None,
    initial_cloud: GaussianCloud,
    params: SplatFitParams,
    on_progress: ProgressCallback,
) -> GaussianCloud:
    generator = torch.Generator().manual_seed(params.seed)
    optimizer = SplatOptimizer(
        initial_cloud,
        params.optimizer,
        num_steps=max(params.num_steps, 1),
        extent=_extent(initial_cloud),
        generator=generator,
    )
    order: list[int] = []
    for step in range(params.num_steps):
        order = order or torch.randperm(len(rig), generator=generator).tolist()
        index = order.pop()
        loss, picture = _fit_step(optimizer, views, rig, masks, index, params, generator)
        show = bool(params.preview_every) and step % params.preview_every == 0
        on_progress(
            Progress(
                step + 1,
                params.num_steps,
                f"Fitting {optimizer.num_gaussians} Gaussians, loss {loss:.4f}",
                picture if show else None,
            )
        )
    return optimizer.detached_cloud()


def splats_on_surface(
    mesh: Mesh, num_gaussians: int, *, sh_degree: int = 0, seed: int = 0
) -> GaussianCloud:
    """Flat discs spread over a mesh's surface, with its colours and normals.

    Each disc reaches about as far as its nearest neighbours.
    """
    samples = sample_surface(mesh, num_gaussians, seed=seed)
    colors = _surface_colors(mesh, samples.points, samples.face_index)
    radii = neighbour_distances(samples.points)
    scales = torch.stack([radii, radii, 0.1 * radii], dim=1).clamp(min=1e-6)
    return GaussianCloud(
        means=samples.points.detach().clone(),
        scales=scales,
        quats=_quats_from_normals(samples.normals.detach()),
        opacities=torch.full_like(radii, 0.9),
        harmonics=resize_harmonics(color_to_harmonic(colors), sh_degree),
    )


def make_sphere_rig(mesh: Mesh, params: MeshToSplatParams) -> ViewRig:
    """Cameras spread evenly over a sphere round the mesh, all of which see it whole."""
    return make_enclosing_rig(
        *mesh.bounds(),
        num_views=params.num_views,
        fov_y_deg=params.fov_y_deg,
        margin=params.margin,
        device=mesh.vertices.device,
    )


def make_enclosing_rig(
    low: Float[Tensor, 3],
    high: Float[Tensor, 3],
    *,
    num_views: int,
    fov_y_deg: float = 30.0,
    margin: float = 0.1,
    device: torch.device | str = "cpu",
) -> ViewRig:
    """Cameras spread evenly over a sphere round a box, all of which see it whole.

    Args:
        low: lowest corner of the box.
        high: highest corner.
        num_views: number of cameras.
        fov_y_deg: of each.
        margin: free border round the object, as a share of its bounding sphere.
        device: of the poses.
    """
    center, radius = (low + high) / 2, float((high - low).norm()) / 2
    half_fov = math.radians(fov_y_deg) / 2
    distance = max(radius, 1e-6) * (1 + margin) / math.sin(half_fov)
    cameras = []
    for index in range(num_views):
        height = 1 - 2 * (index + 0.5) / num_views  # Fibonacci spiral
        azimuth_deg = math.degrees(index * math.pi * (3 - math.sqrt(5)))
        pose = make_orbit_pose(azimuth_deg, math.degrees(math.asin(height)), distance)
        pose[:3, 3] += center.detach().cpu()
        near = min(0.1, 0.1 * distance)
        far = max(1000.0, 10 * distance)
        cameras.append(Camera(pose, fov_y_deg=fov_y_deg, near=near, far=far))
    names = tuple(f"sphere {index}" for index in range(num_views))
    return ViewRig(tuple(cameras), names).to(device)


def _check_pictures(views: Tensor, rig: ViewRig, masks: Tensor | None) -> None:
    require_shape("views", views, len(rig), None, None, 3)
    require_finite("views", views)
    if masks is not None:
        require_shape("masks", masks, *views.shape[:3])
        require_finite("masks", masks)


def _extent(cloud: GaussianCloud) -> float:
    """Radius of the cloud's bounding box, 1 for a cloud without extent."""
    if not cloud.num_gaussians:
        raise ValueError("There are no Gaussians to fit: the initial cloud is empty.")
    means = cloud.means.detach()
    radius = float((means.amax(dim=0) - means.amin(dim=0)).norm()) / 2
    return radius if radius > 0 else 1.0


def _fit_step(
    optimizer: SplatOptimizer,
    views: Tensor,
    rig: ViewRig,
    masks: Tensor | None,
    index: int,
    params: SplatFitParams,
    generator: torch.Generator,
) -> tuple[float, Tensor]:
    """One picture: draw, compare, move. Returns the loss and what was drawn."""
    target = views[index]
    behind = views.new_tensor(params.views_background)
    if masks is not None and params.random_background:
        backdrop = torch.rand(3, generator=generator).to(views)
        target = target + (1 - masks[index])[..., None] * (backdrop - behind)
        behind = backdrop
    render = render_splats(
        optimizer.cloud(), rig.select([index]), width=views.shape[2], height=views.shape[1],
        background=behind, with_normals=False,
    )  # fmt: skip
    difference = render.rgb[0] - target
    loss = params.absolute_weight * difference.abs().mean()
    if params.square_weight:
        loss = loss + params.square_weight * difference.square().mean()
    if masks is not None and params.mask_weight:
        loss = loss + params.mask_weight * (render.alpha[0] - masks[index]).abs().mean()
    loss.backward()
    optimizer.observe(render)
    optimizer.step()
    return float(loss.detach()), render.rgb[0].detach().clamp(0, 1)


def _surface_colors(mesh: Mesh, points: Tensor, face_index: Tensor) -> Float[Tensor, "point 3"]:
    """Unlit sRGB colour of points on faces: texture, else vertex colours, else white."""
    corners = mesh.faces[face_index]
    weights = _barycentric(points, mesh.vertices[corners])[..., None]
    factor = points.new_tensor(mesh.material.base_color)
    if mesh.texture is not None and mesh.uvs is not None:
        colors = sample_texture(mesh.texture, (weights * mesh.uvs[corners]).sum(dim=1))
    elif mesh.vertex_colors is not None:
        colors = (weights * mesh.vertex_colors[corners]).sum(dim=1)
    else:
        colors = torch.ones_like(points)
    return (colors[:, :3] * factor).detach()


def _barycentric(points: Tensor, triangles: Tensor) -> Float[Tensor, "point 3"]:
    a, b, c = triangles.unbind(dim=1)
    normal = torch.linalg.cross(b - a, c - a)
    area = (normal * normal).sum(dim=1).clamp(min=1e-30)
    of_b = (torch.linalg.cross(points - a, c - a) * normal).sum(dim=1) / area
    of_c = (torch.linalg.cross(b - a, points - a) * normal).sum(dim=1) / area
    return torch.stack([1 - of_b - of_c, of_b, of_c], dim=1)


def neighbour_distances(points: Tensor) -> Float[Tensor, " point"]:
    """Root mean square distance to the three nearest neighbours, as in 3D Gaussian Splatting."""
    from scipy.spatial import cKDTree

    if len(points) < 2:
        return torch.full_like(points[:, 0], 0.05)
    array = points.detach().cpu().double().numpy()
    distances, _ = cKDTree(array).query(array, k=min(4, len(points)), workers=-1)
    mean_square = (distances[:, 1:] ** 2).mean(axis=1)
    return torch.from_numpy(mean_square).sqrt().to(points)


def _quats_from_normals(normals: Tensor) -> Float[Tensor, "point 4"]:
    """Rotations that turn the Z axis to unit normals."""
    helper = torch.zeros_like(normals)
    helper.scatter_(1, normals.abs().argmin(dim=1, keepdim=True), 1.0)
    first = normalize(torch.linalg.cross(helper, normals))
    second = torch.linalg.cross(normals, first)
    return matrix_to_quat(torch.stack([first, second, normals], dim=2))
