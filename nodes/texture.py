"""Contains the nodes that colour meshes: projection of views, unwrapping, materials."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..core.geometry.uv import UnwrapParams, unwrap_mesh
from ..core.mesh import Mesh
from ..core.pipelines.texture_parts import bake_own_texture, color_parts, texture_parts
from ..core.pipelines.texture_projection import TextureParams
from ..core.rendering.projection import VertexProjectionParams
from .host import ADVANCED, compute_device, io, make_progress, make_schema
from .sockets import (
    MeshSocket,
    grey_to_link,
    images_from_link,
    images_to_link,
    masks_from_link,
    mesh_input,
    require_rig_of,
    rig_from_link,
    rig_input,
)
from .sockets_mesh import mesh_to_link, meshes_from_link
from .widgets import share_input, texture_size_input

CATEGORY = "Lift3D/Texture"


def view_inputs() -> list[Any]:
    """Pictures and cameras, which both projections take first."""
    return [
        io.Image.Input(
            "images", tooltip="Pictures of the mesh, one per camera of the rig and in its order."
        ),
        rig_input("The cameras that the pictures were made with.", optional=False),
    ]


def projection_inputs() -> list[Any]:
    """Inputs that both projections take last."""
    return [
        io.Float.Input(
            "angle_falloff",
            default=4.0,
            min=0.5,
            max=16.0,
            step=0.5,
            tooltip="How strongly views that look squarely at the surface are preferred: the power "
            "of the cosine between them.",
            **ADVANCED,
        ),
        io.Boolean.Input(
            "keep_original",
            default=False,
            tooltip="What no view sees keeps the colours that the mesh has; off, it takes those "
            "of its neighbours.",
        ),
        io.Mask.Input(
            "masks",
            optional=True,
            tooltip="Where the pictures show the object, 1 inside; without masks the silhouette "
            "of the mesh counts.",
        ),
    ]


class ProjectTexture(io.ComfyNode):
    """Bakes views onto a UV texture."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ProjectTexture",
            display_name="Project Texture",
            category=CATEGORY,
            description="Projects pictures of a mesh onto a UV texture: any mesh, any number of "
            "views, any cameras. Uses the mesh's own UVs when they can hold a texture, else "
            "unwraps it.",
            search_aliases=["bake texture", "texture projection", "multiview bake", "retexture"],
            inputs=[
                mesh_input(
                    tooltip="Mesh to texture, or a batch of parts, each of which gets a texture "
                    "of its own; shapes and names stay as they are."
                ),
                *view_inputs(),
                texture_size_input("size_px", "Side of the square texture in pixels."),
                io.Combo.Input(
                    "mode",
                    options=["blend", "best_view"],
                    default="blend",
                    tooltip="'blend' mixes all views that see a place; 'best_view' takes fine "
                    "detail from the best one, which stays sharp when views do not quite agree.",
                ),
                io.Combo.Input(
                    "uvs",
                    options=["auto", "keep", "unwrap"],
                    default="auto",
                    tooltip="'auto' keeps usable UVs and unwraps otherwise; 'keep' insists on the "
                    "mesh's own, 'unwrap' always makes new ones.",
                ),
                *projection_inputs(),
            ],
            outputs=[
                MeshSocket.Output("mesh", tooltip="The mesh with UVs and texture."),
                io.Image.Output("texture", tooltip="The texture as a picture, one per part."),
                io.Image.Output("coverage", tooltip="How well each texel was seen: white is well."),
                io.Image.Output(
                    "best_view", tooltip="One colour per view that counts most; black is unseen."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        mesh: Any,
        images: Any,
        rig: Any,
        size_px: int,
        mode: str,
        uvs: str,
        angle_falloff: float,
        keep_original: bool,
        masks: Any = None,
    ) -> Any:
        params = TextureParams(
            size_px=size_px,
            mode=mode,
            uvs=uvs,
            projection=VertexProjectionParams(cos_power=angle_falloff),
            keep_original=keep_original,
        )
        parts, *scene, silhouettes = _on_device(meshes_from_link(mesh), images, rig, masks)
        made = texture_parts(
            parts, *scene, masks=silhouettes, params=params, on_progress=make_progress()
        )
        meshes = [part if one is None else one.mesh for part, one in zip(parts, made, strict=True)]
        baked = [one for one in made if one is not None]
        return io.NodeOutput(
            mesh_to_link(meshes),
            images_to_link(torch.stack([one.mesh.texture for one in baked])),
            grey_to_link(torch.stack([one.coverage for one in baked])),
            images_to_link(torch.stack([one.best_view_picture() for one in baked])),
        )


class ProjectVertexColors(io.ComfyNode):
    """Colours vertices from views."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ProjectVertexColors",
            display_name="Project Vertex Colors",
            category=CATEGORY,
            description="Colours the vertices of a mesh with pictures of it; quick, needs no UVs, "
            "and as fine as the mesh.",
            search_aliases=["vertex colours", "color mesh", "multiview bake"],
            inputs=[
                mesh_input(
                    tooltip="Mesh to colour, or a batch of parts, which stay apart; a texture that "
                    "it has is dropped."
                ),
                *view_inputs(),
                *projection_inputs(),
            ],
            outputs=[
                MeshSocket.Output("mesh", tooltip="The mesh with vertex colours."),
                io.Float.Output("seen", tooltip="Share of the vertices that some view sees well."),
            ],
        )

    @classmethod
    def execute(
        cls,
        mesh: Any,
        images: Any,
        rig: Any,
        angle_falloff: float,
        keep_original: bool,
        masks: Any = None,
    ) -> Any:
        params = VertexProjectionParams(cos_power=angle_falloff)
        parts, *scene, silhouettes = _on_device(meshes_from_link(mesh), images, rig, masks)
        colored, coverage = color_parts(
            parts, *scene, masks=silhouettes, params=params, keep_original=keep_original
        )
        seen = float((coverage >= params.confidence).float().mean())
        return io.NodeOutput(mesh_to_link(colored), seen)


class UnwrapMesh(io.ComfyNode):
    """Gives a mesh texture coordinates."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_UnwrapMesh",
            display_name="Unwrap Mesh",
            category=CATEGORY,
            description="Gives a mesh UVs without overlaps. Project Texture does this by itself; "
            "use the node to keep the same UVs over several bakes.",
            search_aliases=["uv unwrap", "xatlas", "texture coordinates", "uv map"],
            inputs=[
                mesh_input(
                    tooltip="Mesh to unwrap, or a batch of parts, each for itself; a texture that "
                    "it has is dropped unless colours are baked."
                ),
                io.Combo.Input(
                    "method",
                    options=["auto", "xatlas", "parts"],
                    default="auto",
                    tooltip="'xatlas' gives the best charts, 'parts' is quick for big meshes, "
                    "'auto' decides by size.",
                ),
                texture_size_input(
                    "resolution_px", "Side of the texture that the padding is meant for."
                ),
                io.Int.Input(
                    "padding_px",
                    default=4,
                    min=0,
                    max=64,
                    tooltip="Empty texels between charts.",
                    **ADVANCED,
                ),
                io.Boolean.Input(
                    "bake_colors",
                    default=False,
                    tooltip="Turn vertex colours, or the texture on old UVs, into a texture on the "
                    "new ones.",
                ),
            ],
            outputs=[MeshSocket.Output("mesh", tooltip="The mesh with UVs.")],
        )

    @classmethod
    def execute(
        cls, mesh: Any, method: str, resolution_px: int, padding_px: int, bake_colors: bool
    ) -> Any:
        unwrap = UnwrapParams(method, resolution_px, padding_px)
        baking = TextureParams(size_px=resolution_px, uvs="unwrap", unwrap=unwrap)
        parts = meshes_from_link(mesh)
        if all(part.is_empty for part in parts):
            raise ValueError("The mesh has no faces; there is nothing to unwrap.")

        def unwrapped(part: Mesh) -> Mesh:
            return bake_own_texture(part, baking) if bake_colors else unwrap_mesh(part, unwrap)

        made = [part if part.is_empty else unwrapped(part) for part in parts]
        return io.NodeOutput(mesh_to_link(made))


class SetMaterial(io.ComfyNode):
    """Sets the physically based scalars of a mesh."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_SetMaterial",
            display_name="Set Material",
            category=CATEGORY,
            description="Sets how metallic and rough a mesh is, and how viewers light it; Save "
            "Mesh writes it into the GLB.",
            search_aliases=["pbr", "metallic", "roughness", "unlit"],
            inputs=[
                mesh_input(tooltip="Mesh, or batch of parts, to change."),
                share_input("metallic", 0.0, "0 is plastic or wood, 1 is metal."),
                share_input("roughness", 0.9, "0 is a mirror, 1 is matte."),
                io.Boolean.Input(
                    "double_sided", default=True, tooltip="Draw the inside of open surfaces too."
                ),
                io.Boolean.Input(
                    "unlit", default=False, tooltip="Show colours as they are, without lights."
                ),
            ],
            outputs=[MeshSocket.Output("mesh", tooltip="The mesh with its new material.")],
        )

    @classmethod
    def execute(
        cls, mesh: Any, metallic: float, roughness: float, double_sided: bool, unlit: bool
    ) -> Any:
        changes = {
            "metallic": metallic,
            "roughness": roughness,
            "double_sided": double_sided,
            "unlit": unlit,
        }
        parts = meshes_from_link(mesh)
        changed = [replace(part, material=replace(part.material, **changes)) for part in parts]
        return io.NodeOutput(mesh_to_link(changed))


def _on_device(meshes: list[Mesh], images: Any, rig: Any, masks: Any) -> tuple[Any, ...]:
    """Meshes, views, rig and masks as nouns on the device that draws meshes."""
    device = compute_device("mesh")
    views, cameras = images_from_link(images), rig_from_link(rig)
    require_rig_of(cameras, views)
    silhouettes = masks_from_link(masks)
    return (
        [mesh.to(device) for mesh in meshes],
        views.to(device),
        cameras.to(device),
        None if silhouettes is None else silhouettes.to(device),
    )


NODES = [ProjectTexture, ProjectVertexColors, UnwrapMesh, SetMaterial]
