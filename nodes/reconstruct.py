"""Contains the nodes that make a mesh from a bundle image or from views with normals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core.bundle_image import split_bundle
from ..core.pipelines.bundle_to_mesh import (
    ReconstructionParams,
    reconstruct_from_bundle,
    reconstruct_from_views,
)
from ..core.pipelines.camera_fit import fit_camera_radius, fit_camera_radius_to_mesh
from ..core.pipelines.initial_mesh import InitialMeshParams
from ..core.pipelines.isomer_params import load_isomer_params
from ..core.pipelines.render_views import make_bundle_rig
from .host import ADVANCED, gradient_scope, io, make_progress, make_schema
from .sockets import (
    MeshSocket,
    RigSocket,
    images_from_link,
    masks_from_link,
    mesh_input,
    normals_from_link,
    require_rig_of,
    rig_from_link,
    rig_input,
    single_image_from_link,
)
from .sockets_mesh import mesh_from_link, mesh_to_link
from .widgets import (
    BUNDLE_RADII,
    bundle_radius_input,
    normal_encoding_input,
    seed_input,
    steps_input,
)

CATEGORY = "Lift3D/Reconstruct"
MAX_STEPS = 2000


def refinement_inputs() -> list[Any]:
    """Inputs that both reconstructions have."""
    return [
        io.Combo.Input(
            "start",
            options=["carved_hull", "visual_hull", "sphere"],
            default="carved_hull",
            tooltip="First solid: 'carved_hull' cuts it out of the silhouettes and hollows it by "
            "the normals, 'visual_hull' by the silhouettes alone, 'sphere' starts from a ball "
            "(give it 200 and 100 steps).",
        ),
        steps_input(
            "coarse_steps",
            50,
            "Steps of the first stage, which finds the shape. 200 from a sphere.",
            most=MAX_STEPS,
        ),
        steps_input(
            "fine_steps",
            50,
            "Steps of the second stage, which finds the detail. 100 from a sphere.",
            most=MAX_STEPS,
        ),
        seed_input("Seed of the remeshing: the same seed gives the same mesh.", **ADVANCED),
    ]


def initial_mesh_input() -> Any:
    """Mesh to refine, which both reconstructions take last."""
    return mesh_input(
        "initial_mesh",
        optional=True,
        tooltip="Start from this mesh, placed as in the views, instead of 'start'.",
    )


class ReconstructFromBundle(io.ComfyNode):
    """Makes a mesh from a bundle image."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ReconstructFromBundle",
            display_name="Reconstruct From Bundle",
            category=CATEGORY,
            description="Makes a closed, coloured mesh from a 3D bundle image: a first solid from "
            "the silhouettes, refined by the normal maps, coloured by the views.",
            search_aliases=["isomer", "bundle to mesh", "image to 3d", "normals to mesh"],
            inputs=[
                io.Image.Input(
                    "bundle",
                    tooltip="One picture, 2 square tiles high and 4 wide: RGB views above their "
                    "normal maps, both on white.",
                ),
                *refinement_inputs(),
                bundle_radius_input(
                    f"Distance of the cameras when no rig is connected: {BUNDLE_RADII}", **ADVANCED
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="Silhouettes of the views; without them what is not white in the "
                    "normal row.",
                ),
                rig_input("Cameras of the columns; without it the four of the published bundle."),
                initial_mesh_input(),
            ],
            outputs=[
                MeshSocket.Output("mesh", tooltip="The mesh, with vertex colours of the views."),
                RigSocket.Output("rig", tooltip="The cameras that were used."),
            ],
        )

    @classmethod
    def execute(
        cls,
        bundle: Any,
        start: str,
        coarse_steps: int,
        fine_steps: int,
        seed: int,
        radius: float,
        masks: Any = None,
        rig: Any = None,
        initial_mesh: Any = None,
    ) -> Any:
        with gradient_scope():
            cameras = rig_from_link(rig) or make_bundle_rig(4, radius=radius)
            tiles = split_bundle(single_image_from_link(bundle, "bundle"), len(cameras))
            made = reconstruct_from_bundle(
                tiles,
                rig=cameras,
                masks=masks_from_link(masks),
                initial_mesh=None if initial_mesh is None else mesh_from_link(initial_mesh),
                params=_params(start, coarse_steps, fine_steps, seed),
                on_progress=make_progress(),
            )
            return io.NodeOutput(mesh_to_link(made.mesh), cameras)


class ReconstructFromViews(io.ComfyNode):
    """Makes a mesh from views with normals and cameras."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ReconstructFromViews",
            display_name="Reconstruct From Views",
            category=CATEGORY,
            description="Makes a closed, coloured mesh from any number of views with normal maps, "
            "silhouettes and cameras.",
            search_aliases=["isomer", "multiview to mesh", "normals to mesh", "photometric"],
            inputs=[
                io.Image.Input("images", tooltip="RGB views on white, in the order of the rig."),
                io.Image.Input("normals", tooltip="Normal maps of the same views on white."),
                io.Mask.Input("masks", tooltip="Silhouettes of the same views, 1 inside."),
                rig_input("Cameras of the views.", optional=False),
                normal_encoding_input(),
                *refinement_inputs(),
                initial_mesh_input(),
            ],
            outputs=[MeshSocket.Output("mesh", tooltip="The mesh, with vertex colours.")],
        )

    @classmethod
    def execute(
        cls,
        images: Any,
        normals: Any,
        masks: Any,
        rig: Any,
        normal_encoding: str,
        start: str,
        coarse_steps: int,
        fine_steps: int,
        seed: int,
        initial_mesh: Any = None,
    ) -> Any:
        with gradient_scope():
            views, cameras = images_from_link(images), rig_from_link(rig)
            require_rig_of(cameras, views)
            made = reconstruct_from_views(
                views,
                normals_from_link(normals, cameras, normal_encoding),
                masks_from_link(masks),
                cameras,
                initial_mesh=None if initial_mesh is None else mesh_from_link(initial_mesh),
                params=_params(start, coarse_steps, fine_steps, seed),
                on_progress=make_progress(),
            )
            return io.NodeOutput(mesh_to_link(made.mesh))


class FitCameraRadius(io.ComfyNode):
    """Finds how far the cameras of views were."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_FitCameraRadius",
            display_name="Fit Camera Radius",
            category=CATEGORY,
            description="Finds the distance of the cameras of views that another model made, from "
            "the size that the object has, or from a mesh of it.",
            search_aliases=["camera distance", "calibrate", "unknown cameras"],
            inputs=[
                io.Mask.Input("masks", tooltip="Silhouettes of the views, 1 inside the object."),
                io.Float.Input(
                    "longest_side",
                    default=1.8,
                    min=0.01,
                    max=100.0,
                    step=0.05,
                    tooltip="Longest side of the object in world units; 1.8 in bundle images.",
                ),
                io.Image.Input(
                    "normals",
                    optional=True,
                    tooltip="Normal maps of the views in the encoding of bundles; they make the "
                    "answer more exact.",
                ),
                mesh_input(
                    optional=True,
                    tooltip="A mesh of the object at its own size; then its silhouettes decide "
                    "and 'longest_side' has no effect.",
                ),
                rig_input("Directions and field of view; without it those of the bundle image."),
            ],
            outputs=[
                RigSocket.Output("rig", tooltip="The rig at the distance that fits best."),
                io.Float.Output("radius", tooltip="That distance, in world units."),
                io.Float.Output(
                    "score",
                    tooltip="How well the silhouettes fit there, 0..1; well below 0.95 the views "
                    "or cameras do not belong together.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, masks: Any, longest_side: float, normals: Any = None, mesh: Any = None, rig: Any = None
    ) -> Any:
        silhouettes = masks_from_link(masks)
        cameras = rig_from_link(rig) or make_bundle_rig(silhouettes.shape[0])
        require_rig_of(cameras, silhouettes, "masks")
        if mesh is not None:
            found = fit_camera_radius_to_mesh(
                mesh_from_link(mesh), silhouettes, cameras, on_progress=make_progress()
            )
        else:
            known = None if normals is None else normals_from_link(normals, cameras, "bundle")
            found = fit_camera_radius(
                silhouettes, cameras, normals_world=known, longest_side=longest_side
            )
        return io.NodeOutput(cameras.with_radius(found.radius), found.radius, found.score)


def _params(start: Any, coarse_steps: int, fine_steps: int, seed: int) -> ReconstructionParams:
    """The preset that suits the start, with the steps and the seed of the node."""
    isomer = load_isomer_params("from_sphere" if start == "sphere" else "from_hull")
    isomer = replace(
        isomer,
        coarse=replace(isomer.coarse, steps=coarse_steps),
        fine=replace(isomer.fine, steps=fine_steps),
        seed=seed,
    )
    return ReconstructionParams(initial=InitialMeshParams(shape=start), isomer=isomer)


NODES = [ReconstructFromBundle, ReconstructFromViews, FitCameraRadius]
