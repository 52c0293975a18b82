import pytest
import torch
from lift3d.core.camera import Camera, make_orbit_pose
from lift3d.core.geometry.normal_integration import NormalIntegrationParams, integrate_normals
from lift3d.core.geometry.transforms import pixel_rays

SIZE = 64
PERSPECTIVE = Camera(make_orbit_pose(0, 0, 4.0), fov_y_deg=30.0)
ORTHOGRAPHIC = Camera(make_orbit_pose(0, 0, 4.0), fov_y_deg=None, ortho_height=2.4)
CAMERAS = pytest.mark.parametrize("camera", [PERSPECTIVE, ORTHOGRAPHIC], ids=["persp", "ortho"])


def sphere_view(camera: Camera, radius: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Depth, camera-space normals and mask of the analytic sphere; azimuth 0: camera axes = world."""
    origins, directions = pixel_rays(camera, width=SIZE, height=SIZE)
    along = -(origins * directions).sum(-1)
    squared = radius**2 - (origins + along[..., None] * directions).square().sum(-1)
    mask = squared > 0
    distance = along - squared.clamp(min=0).sqrt()
    points = origins + distance[..., None] * directions
    depth = torch.where(mask, 4.0 - points[..., 2], torch.ones(()))
    return depth, points / radius * mask[..., None], mask


def plane_view(camera: Camera, normal: torch.Tensor) -> torch.Tensor:
    """Depth of the plane through the origin."""
    origins, directions = pixel_rays(camera, width=SIZE, height=SIZE)
    distance = -(origins @ normal) / (directions @ normal)
    return 4.0 - (origins + distance[..., None] * directions)[..., 2]


@CAMERAS
def test_a_tilted_plane_is_exact_where_it_touches_the_bound(camera):
    normal = torch.nn.functional.normalize(torch.tensor([0.4, 0.3, 1.0]), dim=0)
    depth = plane_view(camera, normal)
    bound = depth - 0.3
    bound[28:36, 28:36] = depth[28:36, 28:36]
    solved = integrate_normals(
        normal.expand(SIZE, SIZE, 3),
        torch.ones(SIZE, SIZE, dtype=torch.bool),
        camera,
        bound,
        depth + 1.0,
        params=NormalIntegrationParams(pull=1e-7),
    )
    assert float((solved - depth).abs().max()) < 5e-3


@CAMERAS
def test_a_sphere_is_found_from_a_flat_bound(camera):
    depth, normals, mask = sphere_view(camera, 0.8)
    bound = torch.full_like(depth, 3.2)  # touches the sphere at its nearest point only
    free = NormalIntegrationParams(pull=1e-7)
    solved = integrate_normals(normals, mask, camera, bound, bound + 2.0, params=free)
    inner = mask & (normals[..., 2] > 0.4)
    error = (solved - depth)[inner]
    assert float((error - error.mean()).abs().mean()) < 0.01
    assert float(error.abs().mean()) < 0.03


def test_a_step_in_depth_is_not_bridged():
    """Two facing planes; the bounds put one in front of the other, the normals cannot tell."""
    normals = torch.tensor([0.0, 0.0, 1.0]).expand(SIZE, SIZE, 3)
    bound = torch.full((SIZE, SIZE), 3.5)
    bound[:, SIZE // 2 :] = 4.2
    far = torch.where(bound < 4, bound + 0.05, bound + 1.0)
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
    solved = integrate_normals(normals, mask, ORTHOGRAPHIC, bound, far)
    assert float((solved - bound)[:, 4:-4].abs().max()) < 0.1


@CAMERAS
def test_depth_stays_within_its_bounds(camera):
    depth, normals, mask = sphere_view(camera, 0.8)
    near, far = depth - 0.01, depth + 0.01
    wrong = torch.nn.functional.normalize(normals + torch.tensor([0.5, 0.0, 0.0]), dim=-1)
    solved = integrate_normals(wrong, mask, camera, near, far)
    assert bool(((solved >= near - 1e-4) & (solved <= far + 1e-4))[mask].all())


def test_an_empty_mask_gives_the_bound_back():
    bound = torch.full((SIZE, SIZE), 2.0)
    normals = torch.zeros(SIZE, SIZE, 3)
    empty = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    assert torch.equal(integrate_normals(normals, empty, PERSPECTIVE, bound, bound), bound)
