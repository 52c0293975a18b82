"""Contains the nodes of the 3D bundle image: RGB views above the normal maps of the same views."""

from __future__ import annotations

from typing import Any

from ..core.bundle_image import (
    BUNDLE_COLUMNS,
    BundleImage,
    join_bundle,
    masks_from_white,
    split_bundle,
)
from ..core.pipelines.mesh_to_bundle import render_bundle
from ..core.pipelines.render_views import make_bundle_rig
from .host import ADVANCED, compute_device, io, make_progress, make_schema
from .sockets import (
    RigSocket,
    images_from_link,
    images_to_link,
    masks_to_link,
    mesh_input,
    require_same_views,
    rig_from_link,
    rig_input,
    single_image_from_link,
)
from .sockets_mesh import mesh_from_link
from .widgets import BUNDLE_RADII, bundle_radius_input, tile_input

CATEGORY = "Lift3D/Bundle"
BUNDLE_TOOLTIP = (
    "The 3D bundle image: one picture, 2 square tiles high and one tile wide per view; RGB above, "
    "normals below, both on white."
)
MASKS_TOOLTIP = "Silhouette of each view: 1 inside the object."
RIG_TOOLTIP = "The cameras of the views, in the order of the columns."


class RenderBundle(io.ComfyNode):
    """Draws the bundle image of a mesh."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_RenderBundle",
            display_name="Render Bundle",
            category=CATEGORY,
            description="Draws the 3D bundle image of a mesh: four RGB views above their normal "
            "maps. Edit it with any image node, then use Reconstruct From Bundle.",
            search_aliases=["3d bundle image", "multiview", "kiss3dgen", "normal maps", "views"],
            inputs=[
                mesh_input(tooltip="The mesh to draw; a batch is drawn as one object."),
                tile_input("Side of one tile in pixels; 512 gives the published 2048 x 1024."),
                io.Boolean.Input(
                    "normalize",
                    default=True,
                    tooltip="Centre the mesh and scale its longest side to 1.8 first, so that it "
                    "fills the tiles. Turn off for a mesh that is placed already.",
                    **ADVANCED,
                ),
                rig_input("Other cameras than the four of the published bundle; one per column."),
            ],
            outputs=[
                io.Image.Output("bundle", tooltip=BUNDLE_TOOLTIP),
                io.Mask.Output("masks", tooltip=MASKS_TOOLTIP),
                RigSocket.Output("rig", tooltip=RIG_TOOLTIP),
            ],
        )

    @classmethod
    def execute(cls, mesh: Any, tile_px: int, normalize: bool, rig: Any = None) -> Any:
        device = compute_device("mesh")
        cameras = rig_from_link(rig)
        bundle, masks, used_rig = render_bundle(
            mesh_from_link(mesh).to(device),
            tile_px=tile_px,
            rig=None if cameras is None else cameras.to(device),
            normalize=normalize,
            on_progress=make_progress(),
        )
        image = images_to_link(join_bundle(bundle))
        return io.NodeOutput(image, masks_to_link(masks), used_rig.to("cpu"))


class SplitBundle(io.ComfyNode):
    """Cuts a bundle image into its views."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_SplitBundle",
            display_name="Split Bundle",
            category=CATEGORY,
            description="Cuts a bundle image into RGB views and normal maps, so that either row "
            "can be edited on its own. Join Bundle puts them back.",
            search_aliases=["cut bundle", "crop views", "untile"],
            inputs=[
                io.Image.Input("bundle", tooltip=BUNDLE_TOOLTIP),
                io.Int.Input(
                    "columns",
                    default=BUNDLE_COLUMNS,
                    min=1,
                    max=16,
                    tooltip="Number of views, 4 in the published bundle.",
                    **ADVANCED,
                ),
                bundle_radius_input(
                    f"Distance of the cameras from the centre, in world units: {BUNDLE_RADII}",
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.Image.Output("rgb_views", tooltip="RGB views: front, left, rear, right."),
                io.Image.Output("normal_views", tooltip="Normal maps of the same views."),
                io.Mask.Output("masks", tooltip=f"{MASKS_TOOLTIP} Taken from the normal row."),
                RigSocket.Output("rig", tooltip=RIG_TOOLTIP),
            ],
        )

    @classmethod
    def execute(cls, bundle: Any, columns: int, radius: float) -> Any:
        tiles = split_bundle(single_image_from_link(bundle, "bundle"), columns)
        masks = masks_from_white(tiles.normal_views)
        return io.NodeOutput(
            images_to_link(tiles.rgb_views),
            images_to_link(tiles.normal_views),
            masks_to_link(masks),
            make_bundle_rig(columns, radius=radius),
        )


class JoinBundle(io.ComfyNode):
    """Puts views together to a bundle image."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_JoinBundle",
            display_name="Join Bundle",
            category=CATEGORY,
            description="Puts RGB views and normal maps together to one bundle image; the "
            "inverse of Split Bundle.",
            search_aliases=["tile views", "make bundle", "grid"],
            inputs=[
                io.Image.Input("rgb_views", tooltip="Square RGB views in the order of columns."),
                io.Image.Input(
                    "normal_views", tooltip="Normal maps of the same views, of the same size."
                ),
            ],
            outputs=[io.Image.Output("bundle", tooltip=BUNDLE_TOOLTIP)],
        )

    @classmethod
    def execute(cls, rgb_views: Any, normal_views: Any) -> Any:
        rgb = images_from_link(rgb_views, "rgb_views")
        normals = images_from_link(normal_views, "normal_views")
        require_same_views(rgb, normals, "rgb_views", "normal_views")
        return io.NodeOutput(images_to_link(join_bundle(BundleImage(rgb, normals))))


NODES = [RenderBundle, SplitBundle, JoinBundle]
