"""Contains the nodes that refine the layers of characters on views."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core.camera import make_stdgen_rig
from ..core.pipelines.layer_params import LAYER_KINDS, LayerParams, load_layer_params
from ..core.pipelines.refine_character import (
    LEVEL_OF_PART,
    CharacterLayer,
    LevelViews,
    order_layers,
    read_level,
    refine_character,
)
from .character_views import LEVEL_INPUTS, RIG_TOOLTIP
from .characters import CATEGORY
from .host import (
    ADVANCED,
    compute_device,
    gradient_scope,
    io,
    make_schema,
    make_stoppable_progress,
)
from .sockets import (
    MeshSocket,
    images_from_link,
    masks_from_link,
    mesh_input,
    rig_from_link,
    rig_input,
)
from .sockets_mesh import mesh_to_link, meshes_from_link
from .widgets import choice, seed_input, steps_input, whole

MAX_STEPS = 2000


def refinement_inputs() -> list[Any]:
    """Widgets that both refinements have."""
    return [
        choice(
            "preset",
            ["fast", "published"],
            "fast",
            "'fast': views of 512 pixels and triangles that they can show, minutes on a CPU. "
            "'published': StdGEN's settings, for views of 1024 pixels and a graphics card.",
        ),
        steps_input(
            "shape_steps",
            60,
            "Steps against the normal maps; 200 as published.",
            most=MAX_STEPS,
        ),
        steps_input(
            "detail_steps",
            30,
            "Steps against the normals carried onto the surface; 100 as published.",
            most=MAX_STEPS,
        ),
        choice(
            "loss",
            ["paper", "reference"],
            "paper",
            "'paper' compares silhouettes over the whole picture, 'reference' only on the "
            "background, as the released program does.",
            **ADVANCED,
        ),
        io.Boolean.Input(
            "register",
            default=True,
            tooltip="Shift views sideways by whole pixels to where they fit best.",
            **ADVANCED,
        ),
        io.Boolean.Input(
            "check_mirror",
            default=True,
            tooltip="Swap left and right of the start if that fits the silhouettes clearly better.",
            **ADVANCED,
        ),
        seed_input("Seed of the remeshing: the same seed gives the same mesh.", **ADVANCED),
        whole(
            "texture_px",
            0,
            0,
            4096,
            "Side of a texture that every part gets from its views; 0 gives vertex colours.",
            step=64,
        ),
    ]


class RefineCharacter(io.ComfyNode):
    """Refines body, clothes and hair."""

    @classmethod
    def define_schema(cls) -> Any:
        pictures = []
        for level, words in LEVEL_INPUTS.items():
            pictures += [
                io.Image.Input(
                    f"images_{level}", optional=True, tooltip=f"Square views of {words}, on white."
                ),
                io.Image.Input(
                    f"normals_{level}",
                    optional=True,
                    tooltip=f"Normal maps of {words}: (n + 1) / 2 in the frame of the front view.",
                ),
            ]
        return make_schema(
            node_id="Lift3D_RefineCharacter",
            display_name="Refine Character",
            category=CATEGORY,
            description="Refines the layers of a character on views of its three levels: the "
            "body first, then the clothes round it, then the hair. Stopping keeps the layers that "
            "are finished.",
            search_aliases=["stdgen", "multi-layer refinement", "normal refinement", "isomer"],
            inputs=[
                mesh_input(
                    "parts",
                    tooltip="Meshes named body, clothes and hair in the frame of the views. A "
                    "part whose level has no views is kept.",
                ),
                *refinement_inputs(),
                *pictures,
                io.Mask.Input(
                    "hair_mask", optional=True, tooltip="Where the front view shows hair."
                ),
                mesh_input(
                    "fixed",
                    optional=True,
                    tooltip="Meshes inside all parts, which stay as they are.",
                ),
                rig_input(RIG_TOOLTIP),
            ],
            outputs=[
                MeshSocket.Output("parts", tooltip="The parts, coloured by their views."),
                io.String.Output("report", tooltip="What happened to each part."),
            ],
        )

    @classmethod
    def execute(
        cls,
        parts: Any,
        register: bool,
        check_mirror: bool,
        hair_mask: Any = None,
        fixed: Any = None,
        rig: Any = None,
        **settings: Any,
    ) -> Any:
        with gradient_scope():
            views = {level: _level_views(level, settings, rig) for level in LEVEL_INPUTS}
            layers = [
                CharacterLayer(
                    mesh.to(compute_device("mesh")),
                    views[LEVEL_OF_PART.get(mesh.name, "whole")],
                    _params(mesh.name, settings),
                    _first_mask(hair_mask) if mesh.name == "hair" else None,
                )
                for mesh in order_layers(meshes_from_link(parts, "parts"))
            ]
            return _refined(layers, fixed, register, check_mirror, settings["texture_px"])


class RefinePart(io.ComfyNode):
    """Refines one part round fixed meshes."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_RefinePart",
            display_name="Refine Part",
            category=CATEGORY,
            description="Refines one part of a character on views while other meshes stay as "
            "they are: replace the clothes or the hair and keep the rest.",
            search_aliases=["stdgen edit", "swap outfit", "refine clothes", "normal refinement"],
            inputs=[
                mesh_input("part", tooltip="The part to optimise; its name may be anything."),
                io.Image.Input(
                    "images", tooltip="Square views on white of the part and the fixed meshes."
                ),
                io.Image.Input(
                    "normals",
                    tooltip="Normal maps of these views: (n + 1) / 2 in the frame of the front "
                    "view.",
                ),
                choice(
                    "kind",
                    list(LAYER_KINDS),
                    "clothes",
                    "Whose settings to take; 'whole' for a character in one piece.",
                ),
                *refinement_inputs(),
                mesh_input(
                    "fixed", optional=True, tooltip="Meshes that the part must stay out of."
                ),
                io.Mask.Input("masks", optional=True, tooltip="Silhouettes of the views."),
                io.Mask.Input(
                    "hair_mask", optional=True, tooltip="Where the front view shows this part."
                ),
                rig_input(RIG_TOOLTIP),
            ],
            outputs=[
                MeshSocket.Output("part", tooltip="The refined part, coloured by the views."),
                io.String.Output("report", tooltip="What happened."),
            ],
        )

    @classmethod
    def execute(
        cls,
        part: Any,
        images: Any,
        normals: Any,
        kind: str,
        register: bool,
        check_mirror: bool,
        fixed: Any = None,
        masks: Any = None,
        hair_mask: Any = None,
        rig: Any = None,
        **settings: Any,
    ) -> Any:
        with gradient_scope():
            pictures = {"images_part": images, "normals_part": normals}
            views = _level_views("part", pictures, rig, masks)
            layers = [
                CharacterLayer(
                    mesh.to(compute_device("mesh")),
                    views,
                    _params(kind, settings),
                    _first_mask(hair_mask),
                )
                for mesh in meshes_from_link(part, "part")
            ]
            return _refined(layers, fixed, register, check_mirror, settings["texture_px"])


def _level_views(
    level: str, pictures: dict[str, Any], rig: Any, masks: Any = None
) -> LevelViews | None:
    rgb, normals = pictures.get(f"images_{level}"), pictures.get(f"normals_{level}")
    if rgb is None and normals is None:
        return None
    if rgb is None or normals is None:
        missing = "images" if rgb is None else "normals"
        raise ValueError(f"Connect {missing}_{level} too; a level needs views and normal maps.")
    device = compute_device("mesh")
    found = masks_from_link(masks)
    return read_level(
        images_from_link(rgb, f"images_{level}").to(device),
        images_from_link(normals, f"normals_{level}").to(device),
        (rig_from_link(rig) or make_stdgen_rig()).to(device),
        masks=None if found is None else found.to(device),
    )


def _params(kind: str, settings: dict[str, Any]) -> LayerParams:
    params = load_layer_params(kind, settings["preset"])
    params = params.with_steps(settings["shape_steps"], settings["detail_steps"])
    isomer = replace(params.isomer, seed=settings["seed"])
    return replace(params, loss=settings["loss"], isomer=isomer)


def _first_mask(hair_mask: Any) -> Any:
    masks = masks_from_link(hair_mask, "hair_mask")
    return None if masks is None else masks[0].to(compute_device("mesh"))


def _refined(
    layers: list[CharacterLayer], fixed: Any, register: bool, check_mirror: bool, texture_px: int
) -> Any:
    device = compute_device("mesh")
    inner = [] if fixed is None else [mesh.to(device) for mesh in meshes_from_link(fixed, "fixed")]
    made = refine_character(
        layers,
        fixed=inner,
        register=register,
        check_mirror=check_mirror,
        texture_px=texture_px,
        on_progress=make_stoppable_progress(),
    )
    return io.NodeOutput(mesh_to_link(made.parts), "\n".join(made.lines))


NODES = [RefineCharacter, RefinePart]
