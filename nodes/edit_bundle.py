"""Contains the nodes that prepare edits of a bundle: controls with pictures, masks, composites."""

from __future__ import annotations

from typing import Any

from ..core.bundle_image import split_bundle
from ..core.pipelines.bundle_masks import (
    composite_bundle,
    feather_mask,
    fit_bundle_mask,
    join_view_masks,
)
from ..core.pipelines.bundle_pixels import resize_bundle
from ..core.pipelines.bundle_presets import PRESET_NAMES, load_control_preset
from ..core.pipelines.control_images import (
    CONTROL_KINDS,
    ControlImageParams,
    make_control_image,
)
from ..core.pipelines.enhance_bundle import ControlRequest
from ..core.pipelines.merge_parts import merge_parts
from ..core.pipelines.mesh_region import REGION_KINDS, labels_of_parts, make_region, project_region
from ..core.pipelines.mesh_to_bundle import BUNDLE_LONGEST_SIDE
from .host import ADVANCED, compute_device, io, make_schema
from .native_attachments import control_from_link
from .sockets import (
    ControlNetSocket,
    ControlsSocket,
    images_to_link,
    masks_from_link,
    masks_to_link,
    mesh_input,
    rig_from_link,
    rig_input,
    single_image_from_link,
)
from .sockets_mesh import mesh_from_link, meshes_from_link
from .widgets import number, tile_input, whole

CATEGORY = "Lift3D/Generate"
CUSTOM = "custom"
BUNDLE_TOOLTIP = "The bundle image: RGB views above their normal maps, on white."
NORMALIZE_TOOLTIP = (
    "Centre the mesh and scale its longest side to 1.8 first, as Render Bundle does by default."
)


class AddBundleControl(io.ComfyNode):
    """Adds a ControlNet to a list of controls."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_AddBundleControl",
            display_name="Bundle Control",
            category=CATEGORY,
            description="Lets a ControlNet hold Enhance Bundle to the reference. Chain several "
            "of these nodes for several controls at once. Union networks are asked by their true "
            "mode numbers.",
            search_aliases=["controlnet", "apply controlnet", "tile", "canny", "union", "preset"],
            inputs=[
                io.MultiType.Input(
                    "controlnet",
                    types=[ControlNetSocket, io.ControlNet],
                    tooltip="ControlNet from the loader that belongs to the diffusion model: "
                    "Lift3D's own, or ComfyUI's Load ControlNet Model beside Wrap Native Model.",
                ),
                io.Combo.Input(
                    "preset",
                    options=[CUSTOM, *PRESET_NAMES],
                    default=CUSTOM,
                    tooltip="Published settings: 'image' and 'image_app' after image to 3D, "
                    "'mesh' for 3D to 3D. They replace the four settings below; 'custom' uses "
                    "those.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(CONTROL_KINDS),
                    default="tile",
                    tooltip="What the ControlNet follows: kind of the condition picture and mode "
                    "of a union network.",
                ),
                number("scale", 0.6, 0.0, 10.0, "Strength of the control.", step=0.05),
                number("start", 0.0, 0.0, 1.0, "Share of the evaluations before which it is off."),
                number("end", 0.65, 0.0, 1.0, "Share of the evaluations after which it is off."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Condition picture, from Make Control Image or anything of the "
                    "bundle's shape; without it one is made from the reference bundle.",
                ),
                ControlsSocket.Input(
                    "controls", optional=True, tooltip="Controls so far, to add this one to."
                ),
            ],
            outputs=[ControlsSocket.Output("controls", tooltip="For Enhance Bundle.")],
        )

    @classmethod
    def execute(
        cls,
        controlnet: Any,
        preset: str,
        kind: Any,
        scale: float,
        start: float,
        end: float,
        image: Any = None,
        controls: Any = None,
    ) -> Any:
        network = control_from_link(controlnet)
        picture = None if image is None else single_image_from_link(image)[None]
        if preset == CUSTOM:
            request = ControlRequest(network, kind, scale, start, end, picture)
        else:
            request = ControlRequest.from_preset(network, load_control_preset(preset), picture)
        return io.NodeOutput((*(controls or ()), request))


class MakeControlImage(io.ComfyNode):
    """Makes the condition picture of a ControlNet."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_MakeControlImage",
            display_name="Make Control Image",
            category=CATEGORY,
            description="Makes the condition picture of a ControlNet from a bundle image: tile, "
            "blur, edges, depth, normals or grey. Depth comes from the normal maps, or from a "
            "mesh.",
            search_aliases=["preprocessor", "canny", "depth map", "controlnet aux", "hint"],
            inputs=[
                io.Image.Input("bundle", tooltip=BUNDLE_TOOLTIP),
                io.Combo.Input(
                    "kind",
                    options=list(CONTROL_KINDS),
                    default="tile",
                    tooltip="'tile' is the bundle itself; 'canny' white edges on black; 'depth' "
                    "near is white; 'normal' red to the right.",
                ),
                number(
                    "down_scale",
                    1.0,
                    1.0,
                    64.0,
                    "Of 'tile' and 'low quality': shrink by this and enlarge again.",
                    step=0.5,
                ),
                number(
                    "blur_px", 2.0, 0.0, 64.0, "Of 'blur': standard deviation in pixels.", step=0.5
                ),
                number(
                    "canny_low",
                    0.15,
                    0.0,
                    4.0,
                    "Of 'canny': edges above this count when they hang on stronger ones.",
                    **ADVANCED,
                ),
                number(
                    "canny_high",
                    0.3,
                    0.0,
                    4.0,
                    "Of 'canny': edges above this always count.",
                    **ADVANCED,
                ),
                io.Boolean.Input("normalize", default=True, tooltip=NORMALIZE_TOOLTIP, **ADVANCED),
                mesh_input(
                    optional=True,
                    tooltip="The mesh that the bundle shows: depth is then drawn, not guessed.",
                ),
                rig_input("Cameras of the columns; without it the four of the published bundle."),
            ],
            outputs=[
                io.Image.Output("image", tooltip="Condition picture of the size of the bundle.")
            ],
        )

    @classmethod
    def execute(
        cls,
        bundle: Any,
        kind: Any,
        down_scale: float,
        blur_px: float,
        canny_low: float,
        canny_high: float,
        normalize: bool,
        mesh: Any = None,
        rig: Any = None,
    ) -> Any:
        cameras = rig_from_link(rig)
        tiles = split_bundle(
            single_image_from_link(bundle, "bundle"), 4 if cameras is None else len(cameras)
        )
        shown = None if mesh is None else mesh_from_link(mesh)
        if shown is not None and normalize:
            shown = shown.normalized(BUNDLE_LONGEST_SIDE)
        params = ControlImageParams(down_scale, blur_px, canny_low, canny_high)
        picture = make_control_image(tiles, kind, params, mesh=shown, rig=cameras)
        return io.NodeOutput(images_to_link(picture))


class MaskMeshRegion(io.ComfyNode):
    """Projects a region of a mesh into the pixels of a bundle."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_MaskMeshRegion",
            display_name="Mask Mesh Region",
            category=CATEGORY,
            description="Marks a part of a mesh in every view of its bundle image, so that "
            "Enhance Bundle changes that part only: what lies in a box or ball, has a colour, or "
            "belongs to a part. Only what a view sees is marked there.",
            search_aliases=["inpaint mask", "select faces", "region", "segment mesh", "box mask"],
            inputs=[
                mesh_input(tooltip="The mesh as given to Render Bundle."),
                io.Combo.Input(
                    "region",
                    options=list(REGION_KINDS),
                    default="box",
                    tooltip="How the part is chosen; each kind uses its own widgets below.",
                ),
                *_region_inputs(),
                whole(
                    "grow_px",
                    0,
                    0,
                    256,
                    "Widen the masks by so many pixels, over the silhouette too: gives an edit "
                    "room to grow.",
                ),
                tile_input(
                    "Side of a tile in pixels; masks are fitted to any bundle later.", **ADVANCED
                ),
                io.Boolean.Input("normalize", default=True, tooltip=NORMALIZE_TOOLTIP, **ADVANCED),
                rig_input("Cameras of the columns; without it the four of the published bundle."),
            ],
            outputs=[
                io.Mask.Output("mask", tooltip="One mask of the whole bundle, both rows."),
                io.Mask.Output("view_masks", tooltip="The same as one mask per view."),
            ],
        )

    @classmethod
    def execute(
        cls,
        mesh: Any,
        region: Any,
        grow_px: int,
        tile_px: int,
        normalize: bool,
        rig: Any = None,
        **settings: Any,
    ) -> Any:
        parts, device = meshes_from_link(mesh), compute_device("mesh")
        masks = project_region(
            merge_parts(parts).to(device),
            make_region(region, **settings),
            tile_px=tile_px,
            rig=rig_from_link(rig),
            normalize=normalize,
            face_labels=labels_of_parts(parts).to(device),
            grow_px=grow_px,
        )
        return io.NodeOutput(masks_to_link(join_view_masks(masks)), masks_to_link(masks))


def _region_inputs() -> list[Any]:
    def place(id: str, default: float, tooltip: str) -> Any:
        return number(id, default, -100.0, 100.0, f"Of box and sphere: centre, {tooltip}")

    def length(id: str, default: float, tooltip: str) -> Any:
        return number(id, default, 0.001, 100.0, tooltip)

    return [
        place("center_x", 0.0, "+X is the subject's left."),
        place("center_y", 0.5, "+Y is up."),
        place("center_z", 0.0, "+Z is the front."),
        length("size_x", 2.0, "Of the box: width. The mesh is 1.8 on its longest side."),
        length("size_y", 1.0, "Of the box: height."),
        length("size_z", 2.0, "Of the box: depth."),
        length("radius", 0.5, "Of the sphere."),
        io.String.Input("color", default="#c83232", tooltip="Of 'color': sRGB as #rrggbb."),
        number("tolerance", 0.15, 0.0, 1.0, "Of 'color': largest difference of a channel, 0..1."),
        whole("part", 0, 0, 4096, "Of 'part': number of the mesh in the batch, 0 is the first."),
    ]


class CompositeBundle(io.ComfyNode):
    """Lays an edited bundle over the original."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_CompositeBundle",
            display_name="Composite Bundle",
            category=CATEGORY,
            description="Lays an edited bundle over the original where a mask says so. Outside "
            "the mask and its soft seam the original stays as it is, bit by bit; the seam never "
            "crosses from one tile into the next.",
            search_aliases=["paste", "blend bundles", "feather", "inpaint composite"],
            inputs=[
                io.Image.Input("original", tooltip="Bundle image to keep outside the mask."),
                io.Image.Input(
                    "edited", tooltip="Bundle image to take inside it; brought to the same size."
                ),
                io.Mask.Input(
                    "mask",
                    tooltip="1 where the edit shows: one picture of the whole bundle, or one mask "
                    "per view (both rows) or per tile.",
                ),
                number(
                    "feather_px",
                    8.0,
                    0.0,
                    256.0,
                    "Width of the soft seam round the mask, in pixels.",
                    step=0.5,
                ),
            ],
            outputs=[io.Image.Output("bundle", tooltip="The composite, as large as the original.")],
        )

    @classmethod
    def execute(cls, original: Any, edited: Any, mask: Any, feather_px: float) -> Any:
        below = split_bundle(single_image_from_link(original, "original"))
        tile = int(below.rgb_views.shape[1])
        above = resize_bundle(split_bundle(single_image_from_link(edited, "edited")), tile)
        fitted = fit_bundle_mask(masks_from_link(mask, "mask"), below.num_views, tile)
        weights = feather_mask(fitted, below.num_views, feather_px)
        return io.NodeOutput(images_to_link(composite_bundle(below, above, weights).image()))


NODES = [AddBundleControl, MakeControlImage, MaskMeshRegion, CompositeBundle]
