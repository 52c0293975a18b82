"""Contains the link types of the nodes and the converters of images, masks and cameras.

Converters copy: a node's inputs are cached by ComfyUI and shared with other nodes, so nothing here
hands out a tensor of theirs. Meshes and Gaussians have their own files beside this one.

Private link types: LIFT3D_RIG is a `ViewRig`, an ordered set of cameras. ComfyUI's LOAD3D_CAMERA
holds a single camera; the nodes "Rig To Cameras" and "Cameras To Rig" convert. LIFT3D_DIFFUSION is
a `DiffusionModel`, LIFT3D_CONTROLNET a ControlNet that its loader made, LIFT3D_CONTROLS a tuple of
`ControlRequest` and LIFT3D_PROMPT a `BundlePrompt`. LIFT3D_OBJECTIVE is a distillation recipe
(`ObjectiveParams`), LIFT3D_SCHEDULE its cameras (`CameraScheduleParams`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.camera import Camera, ViewRig
from ..core.diffusion.model import LatentFormat
from ..core.geometry.normals import decode_bundle_normals, decode_world_normals
from ..core.geometry.transforms import matrix_to_quat, quat_to_matrix
from .host import io, link_type, output_device

MeshSocket = io.Mesh
SplatSocket = link_type("Splat", "SPLAT")
CameraSocket = link_type("Load3DCamera", "LOAD3D_CAMERA")
RigSocket = io.Custom("LIFT3D_RIG")
DiffusionSocket = io.Custom("LIFT3D_DIFFUSION")
ControlNetSocket = io.Custom("LIFT3D_CONTROLNET")
ControlsSocket = io.Custom("LIFT3D_CONTROLS")
PromptSocket = io.Custom("LIFT3D_PROMPT")
ObjectiveSocket = io.Custom("LIFT3D_OBJECTIVE")
ScheduleSocket = io.Custom("LIFT3D_SCHEDULE")
TrimeshSocket = io.Custom("TRIMESH")
GsPlySocket = io.Custom("GS_PLY")
FileSocket = link_type("File3DAny", "FILE_3D")

MESH_FILE_SOCKETS = [
    FileSocket,
    link_type("File3DGLB", "FILE_3D_GLB"),
    link_type("File3DGLTF", "FILE_3D_GLTF"),
    link_type("File3DOBJ", "FILE_3D_OBJ"),
    link_type("File3DSTL", "FILE_3D_STL"),
    link_type("File3DPLY", "FILE_3D_PLY"),
]
SPLAT_FILE_SOCKETS = [
    FileSocket,
    link_type("File3DSplatAny", "FILE_3D_SPLAT_ANY"),
    link_type("File3DPLY", "FILE_3D_PLY"),
    link_type("File3DSPLAT", "FILE_3D_SPLAT"),
    link_type("File3DSPZ", "FILE_3D_SPZ"),
]
MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".stl", ".ply")
SPLAT_SUFFIXES = (".ply", ".splat", ".spz")

DEFAULT_FOV_Y_DEG = 35.0
"""Field of view of a LOAD3D_CAMERA that names none: the default of ComfyUI's camera nodes."""


def mesh_input(id: str = "mesh", **options: Any) -> Any:
    """Input for a mesh: MESH of any known kind, or TRIMESH."""
    return io.MultiType.Input(id, types=[MeshSocket, TrimeshSocket], **options)


def rig_input(tooltip: str, *, optional: bool = True) -> Any:
    """Input for an ordered set of cameras."""
    return RigSocket.Input("rig", optional=optional, tooltip=tooltip)


# -- images and masks ------------------------------------------------------------------------


def images_from_link(value: Tensor, name: str = "images") -> Tensor:
    """IMAGE batch as [view, height, width, 3]; an alpha channel is composited on white."""
    if not isinstance(value, Tensor) or value.ndim != 4 or value.shape[-1] not in (3, 4):
        raise ValueError(
            f"{name} must be an IMAGE [batch, height, width, 3 or 4], got {_describe(value)}."
        )
    images = value.clone().float()
    if images.shape[-1] == 4:
        alpha = images[..., 3:]
        images = images[..., :3] * alpha + (1 - alpha)
    return images


def single_image_from_link(value: Tensor, name: str = "image") -> Tensor:
    """The only picture of an IMAGE batch as [height, width, 3]."""
    images = images_from_link(value, name)
    if images.shape[0] != 1:
        raise ValueError(
            f"{name} must be one picture, got a batch of {images.shape[0]}; put the node "
            "'Get Image from Batch' in front to choose one."
        )
    return images[0]


def grey_to_link(values: Tensor) -> Tensor:
    """IMAGE batch from one value per pixel [view, height, width]."""
    return images_to_link(values[..., None].expand(*values.shape, 3))


def images_to_link(images: Tensor) -> Tensor:
    """IMAGE batch from [view, height, width, channel] or one picture [height, width, channel]."""
    batch = images if images.ndim == 4 else images[None]
    return batch.detach().float().clamp(0, 1).to(output_device(), copy=True)


def require_same_views(first: Tensor, second: Tensor, first_name: str, second_name: str) -> None:
    """Raise ValueError unless two batches have the same number and size of views."""
    if first.shape[:3] != second.shape[:3]:
        sizes = [
            f"{batch.shape[0]} of {batch.shape[2]} x {batch.shape[1]}" for batch in (first, second)
        ]
        raise ValueError(
            f"{first_name} and {second_name} must have the same number and size of views, got "
            f"{sizes[0]} and {sizes[1]} pixels; scale one of them with 'Upscale Image'."
        )


def masks_from_link(value: Tensor | None, name: str = "masks") -> Tensor | None:
    """MASK batch as [view, height, width], 1 inside the object; None stays None."""
    if value is None:
        return None
    if not isinstance(value, Tensor) or value.ndim not in (2, 3):
        raise ValueError(f"{name} must be a MASK [batch, height, width], got {_describe(value)}.")
    masks = value.clone().float()
    return masks if masks.ndim == 3 else masks[None]


def normals_from_link(value: Tensor, rig: ViewRig, encoding: str) -> Tensor:
    """Unit world normals [view, height, width, 3] of an IMAGE batch of normal maps."""
    colors = images_from_link(value, "normals")
    require_rig_of(rig, colors, "normals")
    return (
        decode_world_normals(colors) if encoding == "world" else decode_bundle_normals(colors, rig)
    )


def latents_to_link(latents: Tensor, latent_format: LatentFormat) -> dict[str, Tensor]:
    """LATENT of network latents, as ComfyUI's VAE Decode takes it."""
    encoded = latent_format.from_network(latents.detach().float())
    return {"samples": encoded.to(output_device(), copy=True)}


def masks_to_link(masks: Tensor) -> Tensor:
    """MASK batch from [view, height, width]."""
    batch = masks if masks.ndim == 3 else masks[None]
    return batch.detach().float().clamp(0, 1).to(output_device(), copy=True)


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return f"a {type(value).__name__}"


# -- cameras ---------------------------------------------------------------------------------


def rig_from_link(value: ViewRig | None) -> ViewRig | None:
    """Own copy of a rig, usable with gradients; None stays None."""
    if value is None:
        return None
    if not isinstance(value, ViewRig):
        raise ValueError(
            f"rig must come from a Lift3D node such as 'Make Camera Rig', got {_describe(value)}."
        )
    cameras = tuple(
        Camera(
            camera_to_world=camera.camera_to_world.clone().float(),
            fov_y_deg=camera.fov_y_deg,
            ortho_height=camera.ortho_height,
            near=camera.near,
            far=camera.far,
        )
        for camera in value
    )
    return ViewRig(cameras, value.names)


def require_rig_of(rig: ViewRig, views: Tensor, what: str = "images") -> None:
    """Raise ValueError unless there is one camera per view."""
    if len(rig) != views.shape[0]:
        raise ValueError(
            f"Got {views.shape[0]} {what} for {len(rig)} cameras; connect the rig that these "
            "views were made with, in the same order."
        )


def camera_to_link(camera: Camera) -> dict[str, Any]:
    """LOAD3D_CAMERA dictionary: right-handed, Y up, looking down -Z, like our world frame."""
    pose = camera.camera_to_world.detach().double().cpu()
    position, backward = pose[:3, 3], pose[:3, 2]
    distance = max(float(position @ backward), camera.near)  # the orbit pivot nearest the origin
    quat = matrix_to_quat(pose[:3, :3])
    info = {
        "position": _xyz(position),
        "target": _xyz(position - distance * backward),
        "zoom": 1.0,
        "cameraType": "perspective" if camera.is_perspective else "orthographic",
        "quaternion": {**_xyz(quat[1:]), "w": float(quat[0])},
        "near": camera.near,
        "far": camera.far,
    }
    if camera.fov_y_deg is not None:
        info |= {"fov": camera.fov_y_deg, "aspect": 1.0}
    else:
        half = camera.focal_px(1) ** -1 / 2
        info["frustum"] = {"left": -half, "right": half, "top": half, "bottom": -half}
    return info


def camera_from_link(value: dict[str, Any]) -> Camera:
    """Camera of a LOAD3D_CAMERA dictionary; zoom narrows the view, roll is kept."""
    if not isinstance(value, dict) or "position" not in value:
        raise ValueError(
            f"camera_info must be a LOAD3D_CAMERA with a position, got {_describe(value)}."
        )
    zoom = float(value.get("zoom") or 1.0)
    near = max(float(value.get("near") or 0.1), 1e-4)
    far = max(float(value.get("far") or 1000.0), near * 2)
    pose = _pose_from_link(value)
    if value.get("cameraType") == "orthographic":
        frustum = value.get("frustum") or {"top": 1.2, "bottom": -1.2}
        height = (float(frustum["top"]) - float(frustum["bottom"])) / zoom
        return Camera(pose, fov_y_deg=None, ortho_height=height, near=near, far=far)
    tangent = math.tan(math.radians(float(value.get("fov") or DEFAULT_FOV_Y_DEG)) / 2) / zoom
    return Camera(pose, fov_y_deg=math.degrees(2 * math.atan(tangent)), near=near, far=far)


def _pose_from_link(value: dict[str, Any]) -> Tensor:
    from ..core.camera import make_look_at_pose

    eye = [float(value["position"][axis]) for axis in "xyz"]
    quaternion = value.get("quaternion")
    if not quaternion:
        target = value.get("target") or {"x": 0.0, "y": 0.0, "z": 0.0}
        return make_look_at_pose(eye, [float(target[axis]) for axis in "xyz"])
    quat = torch.tensor([float(quaternion[name]) for name in "wxyz"], dtype=torch.float64)
    if float(quat.norm()) < 1e-6:
        raise ValueError("The quaternion of camera_info has length zero; set its rotation.")
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = quat_to_matrix(quat)
    pose[:3, 3] = torch.tensor(eye, dtype=torch.float64)
    return pose.float()


def rig_from_cameras(values: Sequence[dict[str, Any]]) -> ViewRig:
    """Rig of several LOAD3D_CAMERA dictionaries, in their order."""
    cameras = tuple(camera_from_link(value) for value in values)
    return ViewRig(cameras, tuple(f"camera {index + 1}" for index in range(len(cameras))))


def _xyz(vector: Tensor) -> dict[str, float]:
    return {axis: float(value) for axis, value in zip("xyz", vector, strict=True)}
