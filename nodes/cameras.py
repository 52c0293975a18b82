"""Contains the nodes that make camera rigs and exchange them with ComfyUI's cameras."""

from __future__ import annotations

from typing import Any

from ..core.pipelines.render_views import make_named_rig
from .host import io, make_schema
from .sockets import (
    CameraSocket,
    RigSocket,
    camera_to_link,
    rig_from_cameras,
    rig_from_link,
    rig_input,
)

CATEGORY = "Lift3D/Views"
RIG_OUT_TOOLTIP = "Cameras in order; goes to every node with an input 'rig'."


def orbit_inputs(elevation_deg: float) -> list[Any]:
    """Elevation, distance and opening of cameras on an orbit."""
    return [
        io.Float.Input(
            "elevation_deg",
            default=elevation_deg,
            min=-89.0,
            max=89.0,
            step=1.0,
            tooltip="Height of the cameras in degrees; positive looks down on the object.",
        ),
        io.Float.Input(
            "radius",
            default=4.5,
            min=0.1,
            max=1000.0,
            step=0.05,
            tooltip="Distance of the cameras from the centre, in world units.",
        ),
        io.Float.Input(
            "fov_y_deg",
            default=30.0,
            min=1.0,
            max=150.0,
            step=0.5,
            tooltip="Vertical field of view in degrees.",
        ),
    ]


class MakeRig(io.ComfyNode):
    """Makes a set of cameras."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_MakeRig",
            display_name="Make Camera Rig",
            category=CATEGORY,
            description="Makes an ordered set of cameras round the origin. Azimuth 0 sees the "
            "front (+Z), azimuth 90 the +X side.",
            search_aliases=["cameras", "orbit", "camera poses", "viewpoints"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=["kiss3dgen", "stdgen", "orbit"],
                    default="kiss3dgen",
                    tooltip="'kiss3dgen': the 4 views of the bundle image. 'stdgen': 6 "
                    "orthographic views. 'orbit': as many as 'views', evenly spaced.",
                ),
                io.Int.Input(
                    "views",
                    default=8,
                    min=1,
                    max=360,
                    tooltip="Number of cameras of the preset 'orbit'.",
                ),
                io.Float.Input(
                    "first_azimuth_deg",
                    default=0.0,
                    min=-360.0,
                    max=360.0,
                    step=1.0,
                    tooltip="Azimuth of the first camera of the preset 'orbit', in degrees.",
                ),
                *orbit_inputs(5.0),
            ],
            outputs=[
                RigSocket.Output("rig", tooltip=RIG_OUT_TOOLTIP),
                io.Int.Output("count", tooltip="Number of cameras."),
            ],
        )

    @classmethod
    def execute(
        cls,
        preset: str,
        views: int,
        first_azimuth_deg: float,
        elevation_deg: float,
        radius: float,
        fov_y_deg: float,
    ) -> Any:
        rig = make_named_rig(
            preset,
            num_views=views,
            first_azimuth_deg=first_azimuth_deg,
            elevation_deg=elevation_deg,
            radius=radius,
            fov_y_deg=fov_y_deg,
        )
        return io.NodeOutput(rig, len(rig))


class RigToCameras(io.ComfyNode):
    """Hands out the cameras of a rig one by one."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ConvertRigToCameras",
            display_name="Rig To Cameras",
            category=CATEGORY,
            description="Turns a rig into ComfyUI's camera_info, one per camera: nodes behind it, "
            "such as Render Splat, run once per camera.",
            search_aliases=["camera_info", "load3d camera", "export cameras"],
            inputs=[rig_input("Cameras to hand out.", optional=False)],
            outputs=[
                CameraSocket.Output(
                    "camera_info", tooltip="List of cameras, in the order.", is_output_list=True
                )
            ],
        )

    @classmethod
    def execute(cls, rig: Any) -> Any:
        return io.NodeOutput([camera_to_link(camera) for camera in rig_from_link(rig) or ()])


class CamerasToRig(io.ComfyNode):
    """Makes a rig of ComfyUI cameras."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ConvertCamerasToRig",
            display_name="Cameras To Rig",
            category=CATEGORY,
            description="Makes a rig of one or more camera_info, for example of Load 3D or Create "
            "Camera Info.",
            search_aliases=["camera_info", "load3d camera", "import cameras"],
            is_input_list=True,
            inputs=[
                CameraSocket.Input(
                    "camera_info", tooltip="A camera, or a list of cameras in the wanted order."
                )
            ],
            outputs=[RigSocket.Output("rig", tooltip=RIG_OUT_TOOLTIP)],
        )

    @classmethod
    def execute(cls, camera_info: list[Any]) -> Any:
        return io.NodeOutput(rig_from_cameras(camera_info))


NODES = [MakeRig, RigToCameras, CamerasToRig]
