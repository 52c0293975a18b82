"""Contains the nodes that make characters in layers, draw their levels and find their hair."""

from __future__ import annotations

from typing import Any

from ..core.camera import make_stdgen_rig
from ..core.datasets.characters import character_meshes, make_character
from ..core.pipelines.character_framing import LARGEST_PAD, frame_character
from ..core.pipelines.character_levels import render_levels, roughen
from ..core.pipelines.hair_mask import HairMaskParams, make_hair_mask
from .characters import CATEGORY
from .host import ADVANCED, compute_device, io, make_progress, make_schema
from .sockets import (
    MeshSocket,
    RigSocket,
    images_from_link,
    images_to_link,
    masks_from_link,
    masks_to_link,
    mesh_input,
    rig_from_link,
    rig_input,
    single_image_from_link,
)
from .sockets_mesh import mesh_to_link, meshes_from_link
from .views import size_input
from .widgets import number, seed_input

LEVEL_INPUTS = {
    "whole": "the whole character",
    "without_hair": "the character without hair",
    "body": "the body alone",
}
RIG_TOOLTIP = "Cameras of the views; without it the six of StdGEN (orthographic, 2.4 units high)."


class FrameCharacter(io.ComfyNode):
    """Sets a picture of a character into StdGEN's portrait."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_FrameCharacter",
            display_name="Frame Character",
            category=CATEGORY,
            description="Sets a character on white into a portrait of 640 x 1024 pixels, as "
            "StdGEN expects it, and tells when feet or head are cut off.",
            search_aliases=["a-pose input", "stdgen input", "pad character", "outpaint legs"],
            inputs=[
                io.Image.Input("image", tooltip="One picture of a whole character."),
                io.Mask.Input("mask", tooltip="Where the character is, as of Prepare Image."),
                number(
                    "pad_below",
                    0.0,
                    0.0,
                    LARGEST_PAD,
                    "Room to leave below for legs to outpaint, as a share of the character's "
                    "height.",
                ),
            ],
            outputs=[
                io.Image.Output("image", tooltip="The portrait."),
                io.Mask.Output("mask", tooltip="Where the character is."),
                io.Mask.Output("free", tooltip="Where there is room to outpaint; else black."),
                io.String.Output("warnings", tooltip="What seems to be cut off; empty if nothing."),
            ],
        )

    @classmethod
    def execute(cls, image: Any, mask: Any, pad_below: float) -> Any:
        masks = masks_from_link(mask, "mask")
        assert masks is not None  # the socket is required
        made = frame_character(single_image_from_link(image), masks[0], pad_below=pad_below)
        return io.NodeOutput(
            images_to_link(made.image),
            masks_to_link(made.mask),
            masks_to_link(made.free),
            "\n".join(made.warnings),
        )


class MakeCharacter(io.ComfyNode):
    """Makes a character in layers from a seed."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_MakeCharacter",
            display_name="Make Character",
            category=CATEGORY,
            description="Makes a simple character in A-pose from a seed: a body with face and "
            "shoes, hollow clothes, and hair, as three meshes in one frame.",
            search_aliases=["procedural character", "sample character", "test doll", "mannequin"],
            inputs=[
                seed_input("Seed of sizes, outfit, hair and colours."),
                number(
                    "roughness",
                    0.012,
                    0.0,
                    0.1,
                    "Height of the bumps of the second output, in world units.",
                    step=0.001,
                ),
                number(
                    "cell",
                    0.014,
                    0.005,
                    0.03,
                    "Size of the triangles in world units; smaller takes longer.",
                    step=0.001,
                    **ADVANCED,
                ),
            ],
            outputs=[
                MeshSocket.Output("parts", tooltip="Body, clothes and hair, with colours."),
                MeshSocket.Output(
                    "rough_parts", tooltip="The same with bumps and less detail: a start to refine."
                ),
            ],
        )

    @classmethod
    def execute(cls, seed: int, roughness: float, cell: float) -> Any:
        made = character_meshes(make_character(seed), cell=cell, on_progress=make_progress())
        parts = list(made.values())
        rough = [roughen(mesh, roughness, seed=seed) for mesh in parts]
        return io.NodeOutput(mesh_to_link(parts), mesh_to_link(rough))


class RenderCharacterLevels(io.ComfyNode):
    """Draws the levels of a character."""

    @classmethod
    def define_schema(cls) -> Any:
        outputs = []
        for level, words in LEVEL_INPUTS.items():
            outputs += [
                io.Image.Output(f"images_{level}", tooltip=f"Views of {words}, on white."),
                io.Image.Output(f"normals_{level}", tooltip=f"Normal maps of {words}, on white."),
            ]
        return make_schema(
            node_id="Lift3D_RenderCharacterLevels",
            display_name="Render Character Levels",
            category=CATEGORY,
            description="Draws a character in layers three times: whole, without hair, and the "
            "body alone, with normal maps, as StdGEN's multi-view model paints them.",
            search_aliases=["stdgen views", "multiview levels", "semantic levels"],
            inputs=[
                mesh_input(
                    "parts", tooltip="Meshes named body, clothes and hair; others count as body."
                ),
                size_input(),
                rig_input(RIG_TOOLTIP),
            ],
            outputs=[*outputs, RigSocket.Output("rig", tooltip="The cameras that were used.")],
        )

    @classmethod
    def execute(cls, parts: Any, size_px: int, rig: Any = None) -> Any:
        device = compute_device("mesh")
        cameras = (rig_from_link(rig) or make_stdgen_rig()).to(device)
        meshes = [mesh.to(device) for mesh in meshes_from_link(parts, "parts")]
        drawn = render_levels(
            meshes, cameras, size_px=size_px, levels=tuple(LEVEL_INPUTS),
            on_progress=make_progress(),
        )  # fmt: skip
        pictures = [
            images_to_link(picture)
            for level in drawn
            for picture in (level.views.rgb, level.views.normals)
        ]
        return io.NodeOutput(*pictures, cameras.to("cpu"))


class MakeHairMask(io.ComfyNode):
    """Finds the hair in the front view."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_MakeHairMask",
            display_name="Make Hair Mask",
            category=CATEGORY,
            description="Finds where the front view shows hair: what changes when the hair is "
            "left out. Segments of any segmentation node make its border sharper.",
            search_aliases=["hair segmentation", "level difference", "sam", "distract mask"],
            inputs=[
                io.Image.Input(
                    "images_whole", tooltip="Views of the whole character; the first one counts."
                ),
                io.Image.Input("images_without_hair", tooltip="The same views without hair."),
                number(
                    "difference",
                    0.25,
                    0.01,
                    3.0,
                    "Change of colour, summed over red, green and blue, that counts as hair.",
                ),
                number(
                    "outside_ratio",
                    0.2,
                    0.0,
                    1.0,
                    "Largest unchanged share of a segment that is taken as hair.",
                ),
                io.Mask.Input(
                    "segments",
                    optional=True,
                    tooltip="Masks of pieces of the first view, one per piece.",
                ),
            ],
            outputs=[io.Mask.Output("mask", tooltip="Where hair is; black if nothing changes.")],
        )

    @classmethod
    def execute(
        cls,
        images_whole: Any,
        images_without_hair: Any,
        difference: float,
        outside_ratio: float,
        segments: Any = None,
    ) -> Any:
        mask = make_hair_mask(
            images_from_link(images_whole, "images_whole")[0],
            images_from_link(images_without_hair, "images_without_hair")[0],
            segments=masks_from_link(segments, "segments"),
            params=HairMaskParams(difference=difference, outside_ratio=outside_ratio),
        )
        return io.NodeOutput(masks_to_link(mask.float()))


NODES = [FrameCharacter, MakeCharacter, RenderCharacterLevels, MakeHairMask]
