"""Contains the nodes that read characters off six views and cut them into parts."""

from __future__ import annotations

from typing import Any

from ..core.networks.lrm import LargeReconstructionModel
from ..core.pipelines.character_field import (
    VIEW_NAMES,
    CharacterField,
    field_to_parts,
    views_to_field,
)
from ..core.pipelines.lrm_to_mesh import LrmToMeshParams
from ..core.pipelines.merge_parts import combine_parts, select_parts
from .host import ADVANCED, io, make_progress, make_schema, network_placement
from .lrm import LrmSocket
from .sockets import MeshSocket, images_from_link, mesh_input
from .sockets_mesh import mesh_to_link, meshes_from_link
from .widgets import choice, whole

FieldSocket = io.Custom("LIFT3D_FIELD")
CATEGORY = "Lift3D/Characters"
PARTS_TOOLTIP = (
    "Names divided by commas: whole, without_hair, body, clothes, hair, or classes of the model "
    "joined by '+', such as hair+clothes."
)


def split_names(text: str) -> list[str]:
    """Names of a list divided by commas or lines, without empty ones."""
    return [name.strip() for name in text.replace("\n", ",").split(",") if name.strip()]


class ReadCharacter(io.ComfyNode):
    """Reads a character off six views."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ReadCharacter",
            display_name="Read Character",
            category=CATEGORY,
            description="Reads shape, colours and semantic classes of a character off six views "
            "by S-LRM. Every part is later cut out of this one reading.",
            search_aliases=["stdgen", "s-lrm", "slrm", "semantic field", "anime character"],
            inputs=[
                LrmSocket.Input("lrm", tooltip="S-LRM of Load LRM: a model with classes."),
                io.Image.Input(
                    "images",
                    tooltip=f"Six square views of the whole character on white: "
                    f"{', '.join(VIEW_NAMES)}.",
                ),
                whole(
                    "chunk_points",
                    1 << 16,
                    1 << 10,
                    1 << 22,
                    "Points evaluated at a time: fewer take less memory, the result is the same.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                FieldSocket.Output("field", tooltip="The character, for Extract Parts."),
                io.String.Output("report", tooltip="Classes of the model, and what was missing."),
            ],
        )

    @classmethod
    def execute(cls, lrm: Any, images: Any, chunk_points: int) -> Any:
        if not isinstance(lrm, LargeReconstructionModel):
            raise ValueError(f"lrm must come from Load LRM, got a {type(lrm).__name__}.")
        with network_placement() as placement:
            placement.prepare(lrm)
            field = views_to_field(
                lrm,
                images_from_link(images),
                params=LrmToMeshParams(chunk_points),
                on_progress=make_progress(),
            ).to("cpu")
        lines = [f"Classes: {', '.join(field.label_names)}.", *field.warnings]
        return io.NodeOutput(field, "\n".join(lines))


class ExtractParts(io.ComfyNode):
    """Cuts parts out of a character."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ExtractParts",
            display_name="Extract Parts",
            category=CATEGORY,
            description="Makes meshes of the parts of a character: body, clothes and hair, or any "
            "other classes. A part that the character lacks is an empty mesh.",
            search_aliases=["stdgen", "semantic parts", "decompose", "layers", "flexicubes"],
            inputs=[
                FieldSocket.Input("field", tooltip="A character of Read Character."),
                io.String.Input("parts", default="body, clothes, hair", tooltip=PARTS_TOOLTIP),
                choice(
                    "form",
                    ["paper", "reference"],
                    "paper",
                    "'paper' cuts along the borders of the classes; 'reference' lets a single "
                    "class keep one more layer of cells, as the released program does, so that "
                    "thin shells do not tear.",
                ),
                whole(
                    "chunk_cells",
                    1 << 13,
                    1 << 8,
                    1 << 20,
                    "Surface cells evaluated at a time: fewer take less memory, the mesh is the "
                    "same.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                MeshSocket.Output("parts", tooltip="One mesh per part, with vertex colours."),
                io.String.Output("labels", tooltip="Names of the parts, divided by commas."),
                io.String.Output("report", tooltip="Sizes of the parts, and which are empty."),
            ],
        )

    @classmethod
    def execute(cls, field: Any, parts: str, form: Any, chunk_cells: int) -> Any:
        if not isinstance(field, CharacterField):
            raise ValueError(f"field must come from Read Character, got a {type(field).__name__}.")
        with network_placement() as placement:
            placement.prepare(field.model)
            made = field_to_parts(
                field.to(placement.device),
                split_names(parts),
                form=form,
                params=LrmToMeshParams(chunk_cells=chunk_cells),
                on_progress=make_progress(),
            )
        sizes = [f"{mesh.name}: {mesh.num_faces} triangles" for mesh in made.meshes]
        labels = ", ".join(mesh.name for mesh in made.meshes)
        return io.NodeOutput(mesh_to_link(made.meshes), labels, "\n".join([*sizes, *made.warnings]))


class SelectPart(io.ComfyNode):
    """Takes one part out of a batch."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_SelectPart",
            display_name="Select Part",
            category=CATEGORY,
            description="Takes parts out of a batch of named meshes, and hands on the others "
            "beside them.",
            search_aliases=["pick mesh", "get part", "mesh from batch", "split parts"],
            inputs=[
                mesh_input("parts", tooltip="A batch of named meshes."),
                io.String.Input(
                    "part",
                    default="body",
                    tooltip="Name of the part or its number from 1; several divided by commas.",
                ),
            ],
            outputs=[
                MeshSocket.Output("part", tooltip="The part, or a batch of those chosen."),
                MeshSocket.Output("others", tooltip="All other parts; an empty mesh if none."),
            ],
        )

    @classmethod
    def execute(cls, parts: Any, part: str) -> Any:
        chosen, others = select_parts(meshes_from_link(parts, "parts"), split_names(part))
        return io.NodeOutput(mesh_to_link(chosen), mesh_to_link(others))


class CombineParts(io.ComfyNode):
    """Puts parts together."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_CombineParts",
            display_name="Combine Parts",
            category=CATEGORY,
            description="Puts named meshes into one batch, so that they are saved as parts of one "
            "file. A new part replaces the one of its name: swap clothes or hair with it.",
            search_aliases=["merge parts", "swap part", "replace part", "mesh batch", "outfit"],
            inputs=[
                mesh_input("parts", tooltip="A mesh or a batch of named meshes."),
                choice(
                    "same_name",
                    ["replace", "keep_both"],
                    "replace",
                    "What an added part of a name that is there already does: take its place, or "
                    "stand beside it with a number.",
                ),
                io.String.Input(
                    "names",
                    default="",
                    tooltip="New names of all parts in order, divided by commas; empty keeps them.",
                ),
                mesh_input("added", optional=True, tooltip="Meshes to add to the batch."),
            ],
            outputs=[
                MeshSocket.Output("parts", tooltip="All parts as one batch."),
                io.String.Output("labels", tooltip="Names of the parts, divided by commas."),
            ],
        )

    @classmethod
    def execute(cls, parts: Any, same_name: Any, names: str, added: Any = None) -> Any:
        combined = combine_parts(
            meshes_from_link(parts, "parts"),
            [] if added is None else meshes_from_link(added, "added"),
            names=split_names(names),
            same_name=same_name,
        )
        return io.NodeOutput(mesh_to_link(combined), ", ".join(mesh.name for mesh in combined))


NODES = [ReadCharacter, ExtractParts, SelectPart, CombineParts]
