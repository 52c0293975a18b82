"""Contains the cameras: one view (`Camera`) and a set of views in a documented order (`ViewRig`).

World and camera axes are those of CONVENTIONS.md: right-handed, +Y up, +Z front; a camera looks
along its own -Z (columns of ``camera_to_world`` are right, up, backward, position).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ._checks import require_finite, require_floating, require_shape

DEFAULT_NEAR = 0.1
DEFAULT_FAR = 1000.0


@dataclass(frozen=True)
class Camera:
    """One view: pose, projection and clipping range.

    Attributes:
        camera_to_world: rigid transform; columns right, up, backward, position (OpenGL).
        fov_y_deg: vertical field of view in degrees; None for an orthographic camera.
        ortho_height: height of the orthographic view volume in world units; None for perspective.
        near: distance of the near plane, > 0.
        far: distance of the far plane, > near.
    """

    camera_to_world: Float[Tensor, "4 4"]
    fov_y_deg: float | None = 30.0
    ortho_height: float | None = None
    near: float = DEFAULT_NEAR
    far: float = DEFAULT_FAR

    def __post_init__(self) -> None:
        require_shape("camera_to_world", self.camera_to_world, 4, 4)
        require_floating("camera_to_world", self.camera_to_world)
        require_finite("camera_to_world", self.camera_to_world)
        _require_rigid(self.camera_to_world.detach())
        if (self.fov_y_deg is None) == (self.ortho_height is None):
            raise ValueError(
                "Give exactly one of fov_y_deg (perspective) and ortho_height (orthographic), got "
                f"fov_y_deg={self.fov_y_deg}, ortho_height={self.ortho_height}."
            )
        if self.fov_y_deg is not None and not 0.0 < self.fov_y_deg < 180.0:
            raise ValueError(f"fov_y_deg must lie between 0 and 180, got {self.fov_y_deg}.")
        if self.ortho_height is not None and not 0.0 < self.ortho_height < math.inf:
            raise ValueError(f"ortho_height must be positive, got {self.ortho_height}.")
        if not 0.0 < self.near < self.far:
            raise ValueError(
                f"Clipping range must satisfy 0 < near < far, got near={self.near}, far={self.far}."
            )

    @property
    def is_perspective(self) -> bool:
        """True for a perspective camera, False for an orthographic one."""
        return self.fov_y_deg is not None

    @property
    def world_to_camera(self) -> Float[Tensor, "4 4"]:
        """Inverse of ``camera_to_world``, differentiable with respect to it."""
        rotation = self.camera_to_world[:3, :3].T
        translation = -rotation @ self.camera_to_world[:3, 3]
        bottom = self.camera_to_world.new_tensor([[0.0, 0.0, 0.0, 1.0]])
        return torch.cat([torch.cat([rotation, translation[:, None]], dim=1), bottom])

    @property
    def position(self) -> Float[Tensor, 3]:
        """Camera centre in world space."""
        return self.camera_to_world[:3, 3]

    def focal_px(self, height: int) -> float:
        """Focal length in pixels for an image of ``height`` rows (pixels are square).

        For an orthographic camera: pixels per world unit.
        """
        if self.fov_y_deg is not None:
            return 0.5 * height / math.tan(math.radians(self.fov_y_deg) / 2)
        assert self.ortho_height is not None
        return height / self.ortho_height

    def intrinsics(self, width: int, height: int) -> Float[Tensor, "3 3"]:
        """Pinhole matrix in pixels (x right, y down, centre of the image at width/2, height/2)."""
        focal = self.focal_px(height)
        rows = [[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]]
        return self.camera_to_world.new_tensor(rows)

    def projection(self, width: int, height: int) -> Float[Tensor, "4 4"]:
        """OpenGL projection matrix: camera space to clip space (y up, z in [-w, w])."""
        aspect = width / height
        near, far = self.near, self.far
        if self.fov_y_deg is not None:
            scale = 1.0 / math.tan(math.radians(self.fov_y_deg) / 2)
            rows = [
                [scale / aspect, 0.0, 0.0, 0.0],
                [0.0, scale, 0.0, 0.0],
                [0.0, 0.0, -(far + near) / (far - near), -2.0 * far * near / (far - near)],
                [0.0, 0.0, -1.0, 0.0],
            ]
        else:
            assert self.ortho_height is not None
            scale = 2.0 / self.ortho_height
            rows = [
                [scale / aspect, 0.0, 0.0, 0.0],
                [0.0, scale, 0.0, 0.0],
                [0.0, 0.0, -2.0 / (far - near), -(far + near) / (far - near)],
                [0.0, 0.0, 0.0, 1.0],
            ]
        return self.camera_to_world.new_tensor(rows)

    def world_to_clip(self, width: int, height: int) -> Float[Tensor, "4 4"]:
        """World space to clip space; differentiable with respect to ``camera_to_world``."""
        return self.projection(width, height) @ self.world_to_camera

    def to(self, device: torch.device | str) -> Camera:
        """Copy of the camera with its pose on ``device``."""
        return replace(self, camera_to_world=self.camera_to_world.to(device))


@dataclass(frozen=True)
class ViewRig:
    """An ordered set of cameras; image batches that go with it have the same order.

    Attributes:
        cameras: at least one camera.
        names: one name per camera, such as ``front``.
    """

    cameras: tuple[Camera, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ValueError("A view rig needs at least one camera, got none.")
        if len(self.names) != len(self.cameras):
            raise ValueError(
                f"A view rig needs one name per camera, got {len(self.names)} names for "
                f"{len(self.cameras)} cameras."
            )

    def __len__(self) -> int:
        return len(self.cameras)

    def __iter__(self) -> Iterator[Camera]:
        return iter(self.cameras)

    def __getitem__(self, index: int) -> Camera:
        return self.cameras[index]

    def select(self, indices: Sequence[int]) -> ViewRig:
        """Rig of the views at ``indices``, in that order."""
        return ViewRig(
            tuple(self.cameras[i] for i in indices), tuple(self.names[i] for i in indices)
        )

    def with_radius(self, radius: float) -> ViewRig:
        """Same viewing directions, every camera moved to ``radius`` from the origin.

        Orthographic cameras keep their view volume: only their distance changes.
        """
        if not radius > 0:
            raise ValueError(f"radius must be positive, got {radius}.")
        moved = []
        for camera in self.cameras:
            pose = camera.camera_to_world.clone()
            pose[:3, 3] = radius * pose[:3, 2]
            moved.append(replace(camera, camera_to_world=pose))
        return ViewRig(tuple(moved), self.names)

    def to(self, device: torch.device | str) -> ViewRig:
        """Copy of the rig with every pose on ``device``."""
        return ViewRig(tuple(camera.to(device) for camera in self.cameras), self.names)


def _require_rigid(camera_to_world: Tensor) -> None:
    rotation = camera_to_world[:3, :3].double()
    residual = float(
        (rotation.T @ rotation - torch.eye(3, device=rotation.device).double()).abs().max()
    )
    if residual > 1e-3 or float(torch.linalg.det(rotation)) < 0:
        raise ValueError(
            "camera_to_world must hold a right-handed rotation without scale or mirroring; "
            f"R^T R differs from the identity by {residual:.2g}, "
            f"det = {float(torch.linalg.det(rotation)):.3g}."
        )


def make_orbit_pose(
    azimuth_deg: float, elevation_deg: float, radius: float
) -> Float[Tensor, "4 4"]:
    """Pose of a camera on an orbit round the origin, looking at it with +Y up.

    eye = radius * (cos el sin az, sin el, cos el cos az): azimuth 0 sees +Z, azimuth 90 sees +X.
    """
    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}.")
    if not -90.0 <= elevation_deg <= 90.0:
        raise ValueError(f"elevation_deg must lie within -90..90, got {elevation_deg}.")
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    sin_az, cos_az = math.sin(azimuth), math.cos(azimuth)
    sin_el, cos_el = math.sin(elevation), math.cos(elevation)
    right = [cos_az, 0.0, -sin_az]
    up = [-sin_el * sin_az, cos_el, -sin_el * cos_az]
    backward = [cos_el * sin_az, sin_el, cos_el * cos_az]
    rows = [[right[i], up[i], backward[i], radius * backward[i]] for i in range(3)] + [
        [0.0, 0.0, 0.0, 1.0]
    ]
    return torch.tensor(rows, dtype=torch.float32)


def make_orbit_rig(
    azimuths_deg: Sequence[float],
    elevations_deg: Sequence[float] | float,
    *,
    radius: float,
    fov_y_deg: float | None = 30.0,
    ortho_height: float | None = None,
    names: Sequence[str] | None = None,
) -> ViewRig:
    """Cameras on an orbit round the origin, one per azimuth (degrees)."""
    azimuths = list(azimuths_deg)
    if isinstance(elevations_deg, (int, float)):
        elevations = [float(elevations_deg)] * len(azimuths)
    else:
        elevations = list(elevations_deg)
    if len(elevations) != len(azimuths):
        raise ValueError(
            f"Give one elevation per azimuth or a single number, got {len(elevations)} elevations "
            f"for {len(azimuths)} azimuths."
        )
    if ortho_height is not None:
        fov_y_deg = None
    cameras = tuple(
        Camera(make_orbit_pose(az, el, radius), fov_y_deg=fov_y_deg, ortho_height=ortho_height)
        for az, el in zip(azimuths, elevations, strict=True)
    )
    if names is None:
        names = [
            f"azimuth {az:g}, elevation {el:g}" for az, el in zip(azimuths, elevations, strict=True)
        ]
    return ViewRig(cameras, tuple(names))


def make_look_at_pose(
    eye: Sequence[float], target: Sequence[float], up: Sequence[float] = (0.0, 1.0, 0.0)
) -> Float[Tensor, "4 4"]:
    """Pose of a camera at ``eye`` that looks at ``target``; ``up`` need not be orthogonal."""
    eye_t = torch.tensor(list(eye), dtype=torch.float64)
    backward = eye_t - torch.tensor(list(target), dtype=torch.float64)
    distance = float(backward.norm())
    if distance < 1e-9:
        raise ValueError(f"The camera sits on its target {list(target)}; move one of them.")
    backward = backward / distance
    up_t = torch.tensor(list(up), dtype=torch.float64)
    right = torch.linalg.cross(up_t, backward)
    if float(right.norm()) < 1e-6:  # looking along `up`: any perpendicular will do
        fallback = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
        if abs(float(fallback @ backward)) > 0.9:
            fallback = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        right = torch.linalg.cross(fallback, backward)
    right = right / right.norm()
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 0] = right
    pose[:3, 1] = torch.linalg.cross(backward, right)
    pose[:3, 2] = backward
    pose[:3, 3] = eye_t
    return pose.float()


KISS3DGEN_AZIMUTHS_DEG = (0.0, 90.0, 180.0, 270.0)
KISS3DGEN_ELEVATION_DEG = 5.0
KISS3DGEN_FOV_Y_DEG = 30.0
KISS3DGEN_RADIUS = 4.5
STDGEN_AZIMUTHS_DEG = (0.0, 45.0, 90.0, 180.0, 270.0, 315.0)


def make_kiss3dgen_rig(radius: float = KISS3DGEN_RADIUS) -> ViewRig:
    """The four cameras of the 3D bundle image: front, left, rear, right of the subject.

    Reference: Kiss3DGen (Lin et al. 2025), released data renderer: FOV 30, elevation 5, radius 4.5.
    """
    return make_orbit_rig(
        KISS3DGEN_AZIMUTHS_DEG,
        KISS3DGEN_ELEVATION_DEG,
        radius=radius,
        fov_y_deg=KISS3DGEN_FOV_Y_DEG,
        names=("front", "left", "rear", "right"),
    )


def make_stdgen_rig(ortho_height: float = 2.4, radius: float = 4.5) -> ViewRig:
    """The six orthographic cameras of StdGEN at elevation 0: 0, 45, 90, 180, 270, 315 degrees.

    Reference: StdGEN (He et al. 2025), Sec. 3.2; half-extent 1.2 as in the released refinement.
    """
    return make_orbit_rig(
        STDGEN_AZIMUTHS_DEG,
        0.0,
        radius=radius,
        ortho_height=ortho_height,
        names=("front", "front_right", "right", "back", "left", "front_left"),
    )
