"""Contains the nodes that edit finished Gaussians and turn them into a mesh."""

from __future__ import annotations

import math
from typing import Any

from ..core.pipelines.splat_to_mesh import SplatToMeshParams, splat_to_mesh
from ..core.pipelines.splat_tools import (
    PruneParams,
    center_splats,
    crop_splats,
    merge_splats,
    move_splats,
    placement_matrix,
    prune_splats,
)
from .host import ADVANCED, compute_device, io, make_progress, make_schema
from .sockets import MeshSocket, SplatSocket
from .sockets_mesh import mesh_to_link
from .sockets_splat import cloud_from_link, cloud_to_link
from .widgets import choice, number, whole

CATEGORY = "Lift3D/Splats"
SPLAT_TOOLTIP = "The Gaussians."
FRAME = "World axes: +X right, +Y up, +Z towards the viewer of the front."


def splat_input(id: str = "splat", tooltip: str = SPLAT_TOOLTIP, **options: Any) -> Any:
    """Input for Gaussians."""
    return SplatSocket.Input(id, tooltip=tooltip, **options)


def axis_inputs(name: str, default: float, low: float, high: float, what: str) -> list[Any]:
    """Three widgets, one for each axis."""
    return [
        number(f"{name}_{axis}", default, low, high, f"{what} along {axis.upper()}.")
        for axis in "xyz"
    ]


class SplatToMesh(io.ComfyNode):
    """Turns Gaussians into a mesh."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ConvertSplatToMesh",
            display_name="Splat To Coloured Mesh",
            category=CATEGORY,
            description="Closed mesh of the surface that Gaussians show: depth maps from all round "
            "are fused, and the colours of the views are baked onto it.",
            search_aliases=["tsdf", "splat to mesh", "gaussian to mesh", "marching cubes", "2dgs"],
            inputs=[
                splat_input(),
                whole("resolution", 128, 16, 512, "Voxels along the longest side.", step=8),
                whole("views", 48, 4, 500, "Depth maps from all round."),
                whole("size_px", 256, 32, 2048, "Width and height of each in pixels.", step=8),
                whole(
                    "texture_px",
                    0,
                    0,
                    8192,
                    "Side of a texture to bake; 0 gives vertex colours.",
                    step=64,
                ),
                whole("max_faces", 0, 0, 5_000_000, "Reduce to so many faces; 0 keeps all."),
                number(
                    "min_opacity", 0.02, 0.0, 1.0, "Fainter Gaussians are left out.", **ADVANCED
                ),
                number(
                    "min_part",
                    0.02,
                    0.0,
                    1.0,
                    "Loose parts with a smaller share of the area go.",
                    **ADVANCED,
                ),
                whole("smoothing", 3, 0, 100, "Rounds of smoothing without shrinking.", **ADVANCED),
                number(
                    "truncation_voxels",
                    4.0,
                    1.0,
                    50.0,
                    "How far round a surface its depth counts; more closes gaps and blurs detail.",
                    **ADVANCED,
                ),
            ],
            outputs=[MeshSocket.Output("mesh", tooltip="The mesh with its colours.")],
        )

    @classmethod
    def execute(cls, splat: Any, views: int, **settings: Any) -> Any:
        params = SplatToMeshParams(num_views=views, **settings)
        cloud = cloud_from_link(splat).to(compute_device("splats"))
        mesh = splat_to_mesh(cloud, params, on_progress=make_progress())
        return io.NodeOutput(mesh_to_link(mesh))


class CropSplats(io.ComfyNode):
    """Keeps the Gaussians of a region."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_CropSplats",
            display_name="Crop Splat",
            category=CATEGORY,
            description="Keeps the Gaussians inside (or outside) a box or an ellipsoid. " + FRAME,
            search_aliases=["crop gaussians", "cut splat", "bounding box", "trim"],
            inputs=[
                splat_input(),
                choice("shape", ["box", "sphere"], "box", "The region; 'sphere' fits into it."),
                choice("keep", ["inside", "outside"], "inside", "Which Gaussians stay."),
                *axis_inputs("center", 0.0, -1e6, 1e6, "Middle of the region"),
                *axis_inputs("size", 2.0, 1e-6, 1e6, "Full size of the region"),
            ],
            outputs=[SplatSocket.Output("splat", tooltip="What is left.")],
        )

    @classmethod
    def execute(cls, splat: Any, shape: Any, keep: Any, **values: float) -> Any:
        center, size = ([values[f"{name}_{axis}"] for axis in "xyz"] for name in ("center", "size"))
        made = crop_splats(cloud_from_link(splat), center, size, shape=shape, keep=keep)
        return io.NodeOutput(cloud_to_link(made))


class PruneSplats(io.ComfyNode):
    """Removes useless Gaussians."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_PruneSplats",
            display_name="Prune Splat",
            category=CATEGORY,
            description="Removes faint, huge, tiny and stretched Gaussians, floaters, and whatever "
            "is beyond a number.",
            search_aliases=["clean splat", "remove floaters", "reduce gaussians", "filter"],
            inputs=[
                splat_input(),
                number("min_opacity", 0.02, 0.0, 1.0, "Fainter ones go."),
                number("max_scale", 0.0, 0.0, 1e6, "Larger ones go; 0 keeps all."),
                number("min_scale", 0.0, 0.0, 1e6, "Smaller ones go.", step=0.001),
                number(
                    "max_stretch",
                    0.0,
                    0.0,
                    1e6,
                    "Needles go: longest axis over the middle one; 0 keeps all.",
                ),
                number(
                    "floaters",
                    0.0,
                    0.0,
                    100.0,
                    "Ones farther from their neighbours than the mean by so many standard "
                    "deviations go; 3 is usual, 0 keeps all.",
                    step=0.1,
                ),
                whole("max_gaussians", 0, 0, 100_000_000, "The ones that show most; 0 for all."),
            ],
            outputs=[
                SplatSocket.Output("splat", tooltip="What is left."),
                io.Int.Output("count", tooltip="How many that are."),
            ],
        )

    @classmethod
    def execute(
        cls, splat: Any, max_scale: float, max_stretch: float, floaters: float, **settings: Any
    ) -> Any:
        params = PruneParams(
            max_scale=max_scale or math.inf,
            max_stretch=max_stretch or math.inf,
            neighbour_distance=floaters or math.inf,
            **settings,
        )
        made = prune_splats(cloud_from_link(splat), params)
        return io.NodeOutput(cloud_to_link(made), made.num_gaussians)


class TransformSplats(io.ComfyNode):
    """Moves, turns and scales Gaussians."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_TransformSplats",
            display_name="Transform Splat",
            category=CATEGORY,
            description="Scales, turns (about X, then Y, then Z) and moves Gaussians; colours that "
            "depend on the view turn along. " + FRAME,
            search_aliases=["rotate splat", "move gaussians", "scale", "upright"],
            inputs=[
                splat_input(),
                *axis_inputs("move", 0.0, -1e6, 1e6, "Shift"),
                *axis_inputs("rotate", 0.0, -360.0, 360.0, "Angle in degrees about the axis"),
                number("scale", 1.0, 1e-6, 1e6, "Factor of size."),
                io.Boolean.Input(
                    "about_center",
                    default=False,
                    tooltip="Turn and scale about the middle of the splat instead of the origin.",
                ),
                number(
                    "fit_to",
                    0.0,
                    0.0,
                    1e6,
                    "First centre it and give its longest side this length; 0 leaves it. Bundles "
                    "and view sets of this pack expect 1.8.",
                ),
            ],
            outputs=[SplatSocket.Output("splat", tooltip="The moved Gaussians.")],
        )

    @classmethod
    def execute(
        cls, splat: Any, scale: float, about_center: bool, fit_to: float, **values: float
    ) -> Any:
        move, turn = ([values[f"{name}_{axis}"] for axis in "xyz"] for name in ("move", "rotate"))
        matrix = placement_matrix(translation=move, rotation_deg=turn, scale=scale)
        cloud = cloud_from_link(splat)
        cloud = center_splats(cloud, fit_to) if fit_to else cloud
        return io.NodeOutput(cloud_to_link(move_splats(cloud, matrix, about_center=about_center)))


class MergeSplats(io.ComfyNode):
    """Joins several splats into one."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_MergeSplats",
            display_name="Merge Splats",
            category=CATEGORY,
            description="Joins up to four splats into one, each where it is.",
            search_aliases=["join gaussians", "combine splats", "scene"],
            inputs=[
                splat_input("splat_1", "The first splat; a batch is joined too."),
                splat_input("splat_2", "The second splat."),
                splat_input("splat_3", "A third one.", optional=True),
                splat_input("splat_4", "A fourth one.", optional=True),
            ],
            outputs=[SplatSocket.Output("splat", tooltip="All Gaussians together.")],
        )

    @classmethod
    def execute(cls, splat_1: Any, splat_2: Any, splat_3: Any = None, splat_4: Any = None) -> Any:
        given = [splat for splat in (splat_1, splat_2, splat_3, splat_4) if splat is not None]
        return io.NodeOutput(cloud_to_link(merge_splats([cloud_from_link(s) for s in given])))


NODES = [SplatToMesh, CropSplats, PruneSplats, TransformSplats, MergeSplats]
