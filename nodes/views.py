"""Contains the nodes that draw pictures of meshes and Gaussians."""

from __future__ import annotations

from typing import Any

from ..core.camera import ViewRig
from ..core.pipelines.render_views import (
    ViewImages,
    ViewsParams,
    make_named_rig,
    make_turntable_rig,
    render_mesh_views,
    render_splat_views,
)
from .cameras import orbit_inputs
from .host import ADVANCED, compute_device, io, make_progress, make_schema
from .sockets import (
    RigSocket,
    SplatSocket,
    grey_to_link,
    images_to_link,
    masks_to_link,
    mesh_input,
    rig_from_link,
    rig_input,
)
from .sockets_mesh import mesh_from_link
from .sockets_splat import cloud_from_link
from .widgets import normal_encoding_input

CATEGORY = "Lift3D/Views"
MASK_TOOLTIP = "Coverage of each view: 1 inside the object."
IMAGE_TOOLTIP = "Views in the order of the rig."


def size_input(default: int = 512) -> Any:
    """Side of square pictures."""
    return io.Int.Input(
        "size_px",
        default=default,
        min=16,
        max=4096,
        step=8,
        tooltip="Width and height of each picture in pixels.",
    )


def background_input() -> Any:
    """Colour behind the object."""
    return io.Combo.Input(
        "background",
        options=["white", "grey", "black"],
        default="white",
        tooltip="Colour behind the object. Bundles and reconstruction expect white.",
    )


def _all_outputs(views: ViewImages, rig: ViewRig) -> Any:
    return io.NodeOutput(
        images_to_link(views.rgb),
        masks_to_link(views.masks),
        images_to_link(views.normals),
        grey_to_link(views.depth),
        rig.to("cpu"),
    )


def shading_input() -> Any:
    """How a mesh is lit."""
    return io.Combo.Input(
        "shading",
        options=["flat_color", "headlight"],
        default="flat_color",
        tooltip="'flat_color' shows colours without lights, as reconstruction and texturing need "
        "them; 'headlight' lights the shape from the camera.",
    )


class RenderMesh(io.ComfyNode):
    """Draws a mesh from the cameras of a rig."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_RenderMesh",
            display_name="Render Mesh Views",
            category=CATEGORY,
            description="Draws a mesh from every camera of a rig: colours, coverage, normals and "
            "depth.",
            search_aliases=["render views", "multiview", "depth map", "normal map", "rasterize"],
            inputs=[
                mesh_input(tooltip="The mesh to draw; a batch is drawn as one object."),
                size_input(),
                shading_input(),
                background_input(),
                normal_encoding_input(**ADVANCED),
                rig_input("Cameras; without them the four of the bundle image."),
            ],
            outputs=[
                io.Image.Output("images", tooltip=IMAGE_TOOLTIP),
                io.Mask.Output("masks", tooltip=MASK_TOOLTIP),
                io.Image.Output("normals", tooltip="Normal map of each view on white."),
                io.Image.Output("depth", tooltip="Depth of each view: near is white, far black."),
                RigSocket.Output("rig", tooltip="The cameras that were used."),
            ],
        )

    @classmethod
    def execute(
        cls,
        mesh: Any,
        size_px: int,
        shading: str,
        background: str,
        normal_encoding: str,
        rig: Any = None,
    ) -> Any:
        device = compute_device("mesh")
        params = ViewsParams(size_px, background, shading, normal_encoding)
        cameras = (rig_from_link(rig) or make_named_rig("kiss3dgen")).to(device)
        views = render_mesh_views(
            mesh_from_link(mesh).to(device), cameras, params=params, on_progress=make_progress()
        )
        return _all_outputs(views, cameras)


class RenderMeshTurntable(io.ComfyNode):
    """Draws a mesh from all round."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_RenderMeshTurntable",
            display_name="Mesh Turntable",
            category=CATEGORY,
            description="Draws a mesh while a camera goes once round it; feed the frames to a "
            "video node.",
            search_aliases=["spin", "360", "orbit video", "turntable"],
            inputs=[
                mesh_input(tooltip="The mesh to draw; a batch is drawn as one object."),
                io.Int.Input(
                    "frames", default=24, min=1, max=720, tooltip="Number of pictures of one turn."
                ),
                size_input(),
                shading_input(),
                background_input(),
                *orbit_inputs(15.0),
            ],
            outputs=[
                io.Image.Output("images", tooltip="Frames of one turn, azimuth growing."),
                io.Mask.Output("masks", tooltip=MASK_TOOLTIP),
            ],
        )

    @classmethod
    def execute(
        cls, mesh: Any, frames: int, size_px: int, shading: str, background: str, **orbit: float
    ) -> Any:
        device = compute_device("mesh")
        params = ViewsParams(size_px, background, shading)
        rig = make_turntable_rig(frames, **orbit).to(device)
        views = render_mesh_views(
            mesh_from_link(mesh).to(device), rig, params=params, on_progress=make_progress()
        )
        return io.NodeOutput(images_to_link(views.rgb), masks_to_link(views.masks))


class RenderSplat(io.ComfyNode):
    """Draws Gaussians from the cameras of a rig."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_RenderSplat",
            display_name="Render Splat Views",
            category=CATEGORY,
            description="Draws Gaussians from every camera of a rig, with view-dependent colour.",
            search_aliases=["gaussian splat", "render 3dgs", "multiview"],
            inputs=[
                SplatSocket.Input("splat", tooltip="The Gaussians to draw."),
                size_input(),
                background_input(),
                rig_input("Cameras; without them the four of the bundle image."),
            ],
            outputs=[
                io.Image.Output("images", tooltip=IMAGE_TOOLTIP),
                io.Mask.Output("masks", tooltip=MASK_TOOLTIP),
                io.Image.Output("normals", tooltip="Normal map of each view on white."),
                io.Image.Output("depth", tooltip="Depth of each view: near is white, far black."),
                RigSocket.Output("rig", tooltip="The cameras that were used."),
            ],
        )

    @classmethod
    def execute(cls, splat: Any, size_px: int, background: str, rig: Any = None) -> Any:
        device = compute_device("splats")
        cameras = (rig_from_link(rig) or make_named_rig("kiss3dgen")).to(device)
        views = render_splat_views(
            cloud_from_link(splat).to(device),
            cameras,
            params=ViewsParams(size_px, background),
            on_progress=make_progress(),
        )
        return _all_outputs(views, cameras)


class RenderSplatTurntable(io.ComfyNode):
    """Draws Gaussians from all round."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_RenderSplatTurntable",
            display_name="Splat Turntable",
            category=CATEGORY,
            description="Draws Gaussians while a camera goes once round them; feed the frames to "
            "a video node.",
            search_aliases=["spin", "360", "orbit video", "gaussian splat"],
            inputs=[
                SplatSocket.Input("splat", tooltip="The Gaussians to draw."),
                io.Int.Input(
                    "frames", default=24, min=1, max=720, tooltip="Number of pictures of one turn."
                ),
                size_input(),
                background_input(),
                *orbit_inputs(15.0),
            ],
            outputs=[
                io.Image.Output("images", tooltip="Frames of one turn, azimuth growing."),
                io.Mask.Output("masks", tooltip=MASK_TOOLTIP),
            ],
        )

    @classmethod
    def execute(cls, splat: Any, frames: int, size_px: int, background: str, **orbit: float) -> Any:
        device = compute_device("splats")
        views = render_splat_views(
            cloud_from_link(splat).to(device),
            make_turntable_rig(frames, **orbit).to(device),
            params=ViewsParams(size_px, background),
            on_progress=make_progress(),
        )
        return io.NodeOutput(images_to_link(views.rgb), masks_to_link(views.masks))


NODES = [RenderMesh, RenderMeshTurntable, RenderSplat, RenderSplatTurntable]
