"""Contains the nodes that make Gaussians: from a mesh, and from views."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core.pipelines.mesh_to_splat import MeshToSplatParams, SplatFitParams, mesh_to_splat
from ..core.pipelines.views_to_splat import ViewsToSplatParams, views_to_splat
from .host import ADVANCED, compute_device, gradient_scope, io, make_progress, make_schema
from .sockets import (
    SplatSocket,
    images_from_link,
    masks_from_link,
    mesh_input,
    require_rig_of,
    rig_from_link,
    rig_input,
)
from .sockets_mesh import mesh_from_link
from .sockets_splat import cloud_from_link, cloud_to_link
from .widgets import seed_input, steps_input

CATEGORY = "Lift3D/Splats"


def fit_inputs(gaussians: int, steps: int) -> list[Any]:
    """Inputs that all fits have."""
    return [
        io.Int.Input(
            "gaussians",
            default=gaussians,
            min=100,
            max=2_000_000,
            step=100,
            tooltip="Number of Gaussians to start with; more show finer detail and take longer.",
        ),
        steps_input("steps", steps, "Steps of optimisation, one view each."),
        io.Int.Input(
            "sh_degree",
            default=0,
            min=0,
            max=3,
            tooltip="View dependence of colours: 0 none, 3 as in published splats.",
        ),
        seed_input("The same seed gives the same Gaussians on the same machine."),
    ]


class MeshToSplat(io.ComfyNode):
    """Turns a mesh into Gaussians."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ConvertMeshToSplat",
            display_name="Mesh To Splat",
            category=CATEGORY,
            description="Lays Gaussians on the surface of a mesh and fits them to pictures of it "
            "from all sides. They stay where the mesh is.",
            search_aliases=["gaussian splatting", "3dgs", "mesh2splat", "convert to splat"],
            inputs=[
                mesh_input(tooltip="The mesh; texture or vertex colours become the colours."),
                *fit_inputs(10_000, 400),
                io.Int.Input(
                    "views",
                    default=24,
                    min=1,
                    max=500,
                    tooltip="Number of pictures taken of the mesh.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "size_px",
                    default=256,
                    min=32,
                    max=2048,
                    step=8,
                    tooltip="Width and height of these pictures in pixels.",
                    **ADVANCED,
                ),
            ],
            outputs=[SplatSocket.Output("splat", tooltip="The Gaussians.")],
        )

    @classmethod
    def execute(
        cls,
        mesh: Any,
        gaussians: int,
        steps: int,
        sh_degree: int,
        seed: int,
        views: int,
        size_px: int,
    ) -> Any:
        defaults = MeshToSplatParams(gaussians, views, size_px, sh_degree)
        params = replace(defaults, fit=replace(defaults.fit, num_steps=steps, seed=seed))
        with gradient_scope():
            source = mesh_from_link(mesh).to(compute_device("splats"))
            cloud = mesh_to_splat(source, params, on_progress=make_progress())
            return io.NodeOutput(cloud_to_link(cloud))


class FitSplats(io.ComfyNode):
    """Fits Gaussians to views."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_FitSplats",
            display_name="Fit Splats To Views",
            category=CATEGORY,
            description="Fits Gaussians to pictures with known cameras. They start from a splat, "
            "from a mesh, or from the visual hull of the masks.",
            search_aliases=["gaussian splatting", "3dgs", "train splat", "multiview to splat"],
            inputs=[
                io.Image.Input("images", tooltip="Views on white, in the order of the rig."),
                rig_input("Cameras of the views.", optional=False),
                *fit_inputs(10_000, 600),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="Silhouettes, 1 inside the object. Needed unless a mesh or a splat "
                    "to start from is connected.",
                ),
                mesh_input(
                    optional=True, tooltip="Start with Gaussians on the surface of this mesh."
                ),
                SplatSocket.Input(
                    "splat",
                    optional=True,
                    tooltip="Start with these Gaussians; 'gaussians' and 'sh_degree' then have no "
                    "effect.",
                ),
            ],
            outputs=[SplatSocket.Output("splat", tooltip="The fitted Gaussians.")],
        )

    @classmethod
    def execute(
        cls,
        images: Any,
        rig: Any,
        gaussians: int,
        steps: int,
        sh_degree: int,
        seed: int,
        masks: Any = None,
        mesh: Any = None,
        splat: Any = None,
    ) -> Any:
        params = ViewsToSplatParams(gaussians, sh_degree, SplatFitParams(steps, seed=seed))
        with gradient_scope():
            views, cameras = images_from_link(images), rig_from_link(rig)
            require_rig_of(cameras, views)
            cloud = views_to_splat(
                views,
                cameras,
                masks_from_link(masks),
                initial_mesh=None if mesh is None else mesh_from_link(mesh),
                initial_cloud=None if splat is None else cloud_from_link(splat),
                params=params,
                device=compute_device("splats"),
                on_progress=make_progress(),
            )
            return io.NodeOutput(cloud_to_link(cloud))


NODES = [MeshToSplat, FitSplats]
