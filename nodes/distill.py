"""Contains the nodes that prepare text to Gaussians: the prompt and the start."""

from __future__ import annotations

from typing import Any

from ..core.diffusion.view_prompts import VIEW_TEMPLATE, VIEWS, write_view_prompt
from ..core.formats.point_cloud import POINT_SUFFIXES, read_point_cloud
from ..core.pipelines.initial_splats import (
    InitialSplatParams,
    scattered_points,
    splats_at_points,
    splats_in_shape,
    splats_on_mesh,
)
from .host import ADVANCED, file_fingerprint, io, make_schema, resolve_input_file
from .sockets import SplatSocket, mesh_input
from .sockets_mesh import mesh_from_link
from .sockets_splat import cloud_from_link, cloud_to_link
from .widgets import choice, number, seed_input, whole

CATEGORY = "Lift3D/Text To Splat"
POINT_SPREAD = 0.05


class WriteViewPrompt(io.ComfyNode):
    """Writes the prompt of an object and shows how it is said for each view."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_WriteViewPrompt",
            display_name="View Prompt",
            category=CATEGORY,
            description="Takes the description of one object for text to splat, and shows how it "
            "is said for the front, the side and the back.",
            search_aliases=["text prompt", "text to 3d", "view dependent prompt", "janus"],
            inputs=[
                io.String.Input(
                    "prompt",
                    default="a red mug",
                    multiline=True,
                    tooltip="The object, such as 'a blue chair with a yellow seat'. Do not name a "
                    "view; that is added.",
                ),
                io.String.Input(
                    "view_template",
                    default=VIEW_TEMPLATE,
                    tooltip="How a view is named: {text} stands for the prompt, {view} for front, "
                    "side, back or overhead. Only shown here; the objective has its own.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.String.Output("prompt", tooltip="The description, for Optimise Gaussians."),
                io.String.Output("front", tooltip="As it is said for the front."),
                io.String.Output("side", tooltip="As it is said for both sides."),
                io.String.Output("back", tooltip="As it is said for the back."),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        return prompt is None or bool(prompt.strip()) or "The prompt is empty"

    @classmethod
    def execute(cls, prompt: str, view_template: str) -> Any:
        said = [write_view_prompt(prompt, view, view_template) for view in VIEWS[:3]]
        return io.NodeOutput(prompt.strip(), *said)


class InitializeSplats(io.ComfyNode):
    """Makes the Gaussians that an optimisation starts from."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_InitializeSplats",
            display_name="Initialise Gaussians",
            category=CATEGORY,
            description="Makes grey, faint Gaussians to start text to splat from: in a ball or "
            "sphere, on a mesh, at the points of a file, or where an existing splat has them.",
            search_aliases=["point cloud", "point-e", "gaussian init", "sphere", "start splat"],
            inputs=[
                choice(
                    "shape",
                    ["ball", "sphere", "hemisphere"],
                    "ball",
                    "First shape, unless a mesh, a splat or points are given.",
                ),
                whole(
                    "gaussians",
                    20_000,
                    10,
                    2_000_000,
                    "Number of Gaussians; 3000 suits the embedded model, 80000 the paper's "
                    "settings.",
                ),
                number("radius", 0.7, 0.01, 100.0, "Radius of the shape in world units."),
                number(
                    "opacity",
                    0.1,
                    0.001,
                    0.999,
                    "Opacity of each Gaussian; faint ones can vanish where they are not wanted.",
                ),
                io.Boolean.Input(
                    "keep_colors",
                    default=False,
                    tooltip="Keep the colours of the mesh, the splat or the points; else all are "
                    "grey.",
                ),
                whole("sh_degree", 0, 0, 3, "View dependence of colours: 0 none."),
                seed_input("The same seed gives the same Gaussians."),
                io.String.Input(
                    "points_file",
                    default="",
                    tooltip="Point cloud below the input folder: a .ply, or the .npz that Point-E "
                    "saves. Empty for none.",
                    **ADVANCED,
                ),
                mesh_input(optional=True, tooltip="Put the Gaussians on this surface."),
                SplatSocket.Input(
                    "splat",
                    optional=True,
                    tooltip="Put the Gaussians where this splat has its own; their number stays.",
                ),
            ],
            outputs=[SplatSocket.Output("splat", tooltip="Gaussians, for Optimise Gaussians.")],
        )

    @classmethod
    def validate_inputs(cls, points_file: str | None = None) -> bool | str:
        try:
            if points_file:
                resolve_input_file(points_file, POINT_SUFFIXES)
        except (ValueError, OSError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, points_file: str | None = None, **_: Any) -> str:
        """Run again when the file changes."""
        if not points_file:
            return ""
        return file_fingerprint(resolve_input_file(points_file, POINT_SUFFIXES))

    @classmethod
    def execute(
        cls,
        keep_colors: bool,
        points_file: str,
        gaussians: int,
        mesh: Any = None,
        splat: Any = None,
        **settings: Any,
    ) -> Any:
        params = InitialSplatParams(gaussians, **settings)
        if splat is not None:
            old = cloud_from_link(splat)
            colors = old.base_colors.clamp(0, 1) if keep_colors else None
            return io.NodeOutput(cloud_to_link(splats_at_points(old.means, colors, params)))
        if mesh is not None:
            made = splats_on_mesh(mesh_from_link(mesh), params, keep_colors=keep_colors)
            return io.NodeOutput(cloud_to_link(made))
        made = _from_file(points_file, params, keep_colors) if points_file else None
        return io.NodeOutput(cloud_to_link(made or splats_in_shape(params)))


def _from_file(name: str, params: InitialSplatParams, keep_colors: bool) -> Any:
    """Gaussians at the points of a file, several at each to make up the number."""
    cloud = read_point_cloud(resolve_input_file(name, POINT_SUFFIXES))
    points = scattered_points(cloud.points, params.num_gaussians, POINT_SPREAD, params.seed)
    colors = None
    if keep_colors and cloud.colors is not None:
        colors = cloud.colors.repeat_interleave(len(points) // len(cloud.points), dim=0)
    return splats_at_points(points, colors, params)


NODES = [WriteViewPrompt, InitializeSplats]
