"""Contains the nodes that give a character a skeleton, pose it, and save it ready to animate."""

from __future__ import annotations

from typing import Any

from ..core.pipelines.rig_character import (
    POSES,
    RiggedCharacter,
    pose_character,
    rig_character,
    write_rigged,
)
from .assets import PREFIX_TOOLTIP, file_outputs, saved_output
from .characters import CATEGORY
from .host import io, make_progress, make_schema, save_path, workflow_metadata
from .sockets import MeshSocket, mesh_input
from .sockets_mesh import mesh_to_link, meshes_from_link
from .widgets import choice

CharacterSocket = io.Custom("LIFT3D_CHARACTER")
CHARACTER_TOOLTIP = "A character of Rig Character."


class RigCharacter(io.ComfyNode):
    """Gives a character a skeleton."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_RigCharacter",
            display_name="Rig Character",
            category=CATEGORY,
            description="Fits a humanoid skeleton to a body in A-pose and binds the body, the "
            "clothes and the hair to it.",
            search_aliases=["auto rig", "skeleton", "armature", "skin weights", "bones", "vrm"],
            inputs=[
                mesh_input("parts", tooltip="Named meshes in one frame, arms 45 degrees down."),
                io.String.Input(
                    "body",
                    default="body",
                    tooltip="Name of the part that the skeleton is fitted to, or its number from "
                    "1. It should be closed and without clothes.",
                ),
            ],
            outputs=[
                CharacterSocket.Output("character", tooltip="For Pose and Save Character."),
                io.String.Output("report", tooltip="Joints, and what was bound."),
            ],
        )

    @classmethod
    def execute(cls, parts: Any, body: str) -> Any:
        made = rig_character(
            meshes_from_link(parts, "parts"), body=body, on_progress=make_progress()
        )
        return io.NodeOutput(made, "\n".join(made.lines))


class PoseCharacter(io.ComfyNode):
    """Moves a rigged character into a pose."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_PoseCharacter",
            display_name="Pose Character",
            category=CATEGORY,
            description="Moves a rigged character into a pose, to see how it deforms or to draw "
            "it.",
            search_aliases=["t-pose", "walk", "skinning", "deform", "animate"],
            inputs=[
                CharacterSocket.Input("character", tooltip=CHARACTER_TOOLTIP),
                choice("pose", list(POSES), "t_pose", "Which pose; 'rest' is the start."),
            ],
            outputs=[MeshSocket.Output("parts", tooltip="The parts in this pose.")],
        )

    @classmethod
    def execute(cls, character: Any, pose: Any) -> Any:
        return io.NodeOutput(mesh_to_link(pose_character(_character(character), pose)))


class SaveCharacter(io.ComfyNode):
    """Writes a rigged character."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_SaveCharacter",
            display_name="Save Character",
            category=CATEGORY,
            description="Writes a rigged character as GLB: named parts, a humanoid skeleton and "
            "skin weights, ready for Blender and game engines.",
            search_aliases=["export rigged glb", "save skinned mesh", "armature", "unity", "vrm"],
            is_output_node=True,
            inputs=[
                CharacterSocket.Input("character", tooltip=CHARACTER_TOOLTIP),
                io.String.Input(
                    "filename_prefix", default="3d/Lift3D_character", tooltip=PREFIX_TOOLTIP
                ),
            ],
            outputs=file_outputs(),
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, character: Any, filename_prefix: str) -> Any:
        path = save_path(filename_prefix, ".glb")
        write_rigged(path, _character(character), metadata=workflow_metadata(cls))
        return saved_output([path])


def _character(value: Any) -> RiggedCharacter:
    if not isinstance(value, RiggedCharacter):
        raise ValueError(f"character must come from Rig Character, got a {type(value).__name__}.")
    return value


NODES = [RigCharacter, PoseCharacter, SaveCharacter]
