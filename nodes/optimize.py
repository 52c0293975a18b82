"""Contains the nodes that let a text-to-image model shape Gaussians and meshes."""

from __future__ import annotations

from typing import Any

from ..core.pipelines.ge3d_presets import RefineChoices, choose_params, choose_refine_params
from ..core.pipelines.initial_splats import InitialSplatParams, splats_in_shape
from ..core.pipelines.mesh_target import MeshTargetParams
from ..core.pipelines.reconstructive_refine import refine_reconstructively
from ..core.pipelines.text_to_mesh import text_to_mesh
from ..core.pipelines.text_to_splat import text_to_splat
from .distill import CATEGORY
from .host import ADVANCED, compute_device, gradient_scope, io, make_progress, make_schema
from .run_widgets import (
    model_inputs,
    report_text,
    run_checkpoint,
    run_choices,
    run_inputs,
    run_progress,
)
from .sockets import (
    MeshSocket,
    ObjectiveSocket,
    RigSocket,
    ScheduleSocket,
    SplatSocket,
    images_to_link,
    mesh_input,
)
from .sockets_mesh import mesh_from_link, mesh_to_link
from .sockets_splat import cloud_from_link, cloud_to_link
from .widgets import number, seed_input, whole


class OptimizeSplats(io.ComfyNode):
    """Shapes Gaussians until they look like a prompt from all sides."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_OptimizeSplats",
            display_name="Optimise Gaussians",
            category=CATEGORY,
            description="Text to splat: a text-to-image model looks at pictures of the Gaussians "
            "from all sides and says how they should change. Can be watched, interrupted and "
            "resumed.",
            search_aliases=["text to 3d", "text to splat", "ge3d", "dreamfusion", "sds", "distill"],
            inputs=[
                *model_inputs(),
                *run_inputs(),
                whole(
                    "max_gaussians", 0, 0, 5_000_000, "Most Gaussians; 0 takes the preset's.",
                    **ADVANCED,
                ),
                io.Boolean.Input(
                    "densify",
                    default=True,
                    tooltip="Add Gaussians where detail is missing and remove useless ones.",
                    **ADVANCED,
                ),
                SplatSocket.Input(
                    "splat", optional=True, tooltip="Where to start; without it a grey ball."
                ),
                ObjectiveSocket.Input(
                    "objective", optional=True, tooltip="The recipe; without it the preset's."
                ),
                ScheduleSocket.Input(
                    "schedule", optional=True, tooltip="The cameras; without it the preset's."
                ),
            ],
            outputs=[
                SplatSocket.Output("splat", tooltip="The shaped Gaussians."),
                io.String.Output("report", tooltip="What happened in the run."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        diffusion: Any,
        prompt: str,
        preset: Any,
        splat: Any = None,
        objective: Any = None,
        schedule: Any = None,
        **values: Any,
    ) -> Any:
        params = choose_params(preset, run_choices(values), objective=objective, cameras=schedule)
        with gradient_scope():
            start = _start(params.splats.optimizer.densify.max_gaussians, values["seed"], splat)
            cloud, report = text_to_splat(
                prompt,
                diffusion,
                start.to(compute_device("splats")),
                params,
                checkpoint=run_checkpoint(values, "text_to_splat"),
                on_progress=run_progress(values),
            )
            text = report_text(report)
            return io.NodeOutput(cloud_to_link(cloud), text, ui={"text": (text,)})


def _start(most: int, seed: int, splat: Any) -> Any:
    """The linked Gaussians, or a grey ball of a fifth of the allowed number."""
    if splat is not None:
        return cloud_from_link(splat)
    return splats_in_shape(InitialSplatParams(min(max(most // 5, 500), 20_000), seed=seed))


class RefineSplats(io.ComfyNode):
    """Lets the model redraw fixed views and fits the Gaussians to them."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_RefineSplats",
            display_name="Reconstructive Refine",
            category=CATEGORY,
            description="Sharpens Gaussians after text to splat: the model redraws fixed views of "
            "them, which are then taken as the truth and fitted.",
            search_aliases=["refine splat", "reconstructive generation", "sharpen", "dreamscene"],
            inputs=[
                *model_inputs(),
                SplatSocket.Input("splat", tooltip="Gaussians of Optimise Gaussians."),
                whole("views", 36, 4, 500, "Number of views, on four rings."),
                whole("size_px", 512, 16, 2048, "Side of the views in pixels.", step=8),
                whole("steps", 1440, 0, 1_000_000, "Steps of the fit, one view each."),
                whole(
                    "farthest",
                    200,
                    2,
                    999,
                    "How far the views are noised: more redraws more and agrees less.",
                ),
                whole("rounds", 1, 1, 20, "How often the views are redrawn; steps are shared out."),
                seed_input("Seed of noise and fit."),
                number("radius", 3.15, 0.1, 100.0, "Distance of the cameras.", **ADVANCED),
                number("fov_y_deg", 31.5, 1.0, 170.0, "Their field of view.", **ADVANCED),
                number("step_factor", 1.0, 0.01, 100.0, "Factor on all step sizes.", **ADVANCED),
                whole("batch", 4, 1, 64, "Views that the model sees at once.", **ADVANCED),
                whole(
                    "farthest_end",
                    0,
                    0,
                    999,
                    "How far the views are noised in the last round; 0 takes 70 % of farthest.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "preset",
                    options=["paper", "small"],
                    default="paper",
                    tooltip="Step sizes of the fit: paper for big models, small for the embedded "
                    "one, which leaves the number of Gaussians as it is, moves those that fade to "
                    "the object, and cuts the redrawn views out of white; white parts go too.",
                    **ADVANCED,
                ),
                ObjectiveSocket.Input(
                    "objective",
                    optional=True,
                    tooltip="Guidance and view prompts; without it the paper's.",
                ),
            ],
            outputs=[
                SplatSocket.Output("splat", tooltip="The fitted Gaussians."),
                io.Image.Output("images", tooltip="The redrawn views."),
                RigSocket.Output("rig", tooltip="Their cameras."),
            ],
        )

    @classmethod
    def execute(
        cls,
        diffusion: Any,
        prompt: str,
        splat: Any,
        preset: Any = "paper",
        objective: Any = None,
        **values: Any,
    ) -> Any:
        with gradient_scope():
            made = refine_reconstructively(
                prompt,
                diffusion,
                cloud_from_link(splat).to(compute_device("splats")),
                objective,
                choose_refine_params(preset, RefineChoices(**values)),
                on_progress=make_progress(),
            )
            images = images_to_link(made.pictures)
            return io.NodeOutput(cloud_to_link(made.cloud), images, made.rig.to("cpu"))


class OptimizeMesh(io.ComfyNode):
    """Reshapes and recolours a mesh until it looks like a prompt."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_OptimizeMesh",
            display_name="Optimise Mesh By Text",
            category=CATEGORY,
            description="Text to mesh: changes the vertices and the colours or the texture of a "
            "mesh until a text-to-image model finds the prompt in it from all sides.",
            search_aliases=["text to texture", "text to 3d", "mesh sds", "fantasia3d", "ge3d"],
            inputs=[
                *model_inputs(),
                mesh_input(
                    tooltip="Where to start. A textured mesh gets a new texture, another one new "
                    "vertex colours."
                ),
                *run_inputs(),
                number(
                    "vertex_step",
                    0.05,
                    0.0,
                    10.0,
                    "First step of the vertices in mean edge lengths; 0 keeps the shape and "
                    "paints only.",
                ),
                number("color_step", 0.02, 1e-4, 1.0, "First step of colours within 0..1."),
                number("smoothness", 1.0, 0.0, 1e4, "How smooth the surface stays.", step=0.1),
                ObjectiveSocket.Input(
                    "objective", optional=True, tooltip="The recipe; without it the preset's."
                ),
                ScheduleSocket.Input(
                    "schedule", optional=True, tooltip="The cameras; without it the preset's."
                ),
            ],
            outputs=[
                MeshSocket.Output("mesh", tooltip="The changed mesh."),
                io.String.Output("report", tooltip="What happened in the run."),
            ],
        )

    @classmethod
    def execute(
        cls,
        diffusion: Any,
        prompt: str,
        mesh: Any,
        preset: Any,
        objective: Any = None,
        schedule: Any = None,
        **values: Any,
    ) -> Any:
        params = choose_params(preset, run_choices(values), objective=objective, cameras=schedule)
        with gradient_scope():
            made, report = text_to_mesh(
                prompt,
                diffusion,
                mesh_from_link(mesh).to(compute_device("mesh")),
                params.objective,
                params.run,
                _mesh_target(values),
                checkpoint=run_checkpoint(values, "text_to_mesh"),
                on_progress=run_progress(values),
            )
            text = report_text(report)
            return io.NodeOutput(mesh_to_link(made), text, ui={"text": (text,)})


def _mesh_target(values: dict[str, Any]) -> MeshTargetParams:
    vertex, color = values["vertex_step"], values["color_step"]
    return MeshTargetParams((vertex, vertex / 10), (color, color / 5), values["smoothness"])


NODES = [OptimizeSplats, RefineSplats, OptimizeMesh]
