"""Contains the bridges to other packs: TRIMESH and GS_PLY to native types and back."""

from __future__ import annotations

from typing import Any

from .host import io, make_schema
from .sockets import GsPlySocket, MeshSocket, SplatSocket, TrimeshSocket, mesh_input
from .sockets_mesh import mesh_from_link, mesh_to_link, mesh_to_trimesh, meshes_from_link
from .sockets_splat import cloud_from_gs_ply, cloud_from_link, cloud_to_gs_ply, cloud_to_link

CATEGORY = "Lift3D/Convert"


class MeshToTrimesh(io.ComfyNode):
    """MESH to TRIMESH."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ConvertMeshToTrimesh",
            display_name="Mesh To TRIMESH",
            category=CATEGORY,
            description="Turns a mesh into the TRIMESH of Hunyuan3D wrappers, TRELLIS packs and "
            "GeometryPack. Frame: Y up, Z front.",
            search_aliases=["trimesh", "hunyuan3d", "trellis", "geometrypack"],
            inputs=[mesh_input(tooltip="Mesh to convert; a batch is merged into one.")],
            outputs=[TrimeshSocket.Output("trimesh", tooltip="A trimesh.Trimesh.")],
        )

    @classmethod
    def execute(cls, mesh: Any) -> Any:
        return io.NodeOutput(mesh_to_trimesh(mesh_from_link(mesh)))


class TrimeshToMesh(io.ComfyNode):
    """TRIMESH, or a MESH of another pack, to native MESH."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ConvertTrimeshToMesh",
            display_name="TRIMESH To Mesh",
            category=CATEGORY,
            description="Turns a TRIMESH, or the MESH of 3D-Pack and TripoSR packs, into "
            "ComfyUI's own MESH. Coordinates are kept.",
            search_aliases=["trimesh", "3d-pack", "import mesh", "convert mesh"],
            inputs=[mesh_input("trimesh", tooltip="TRIMESH, or a MESH of any known pack.")],
            outputs=[MeshSocket.Output("mesh", tooltip="Native mesh; a scene becomes a batch.")],
        )

    @classmethod
    def execute(cls, trimesh: Any) -> Any:
        return io.NodeOutput(mesh_to_link(meshes_from_link(trimesh, "trimesh")))


class SplatToGsPly(io.ComfyNode):
    """SPLAT to GS_PLY."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ConvertSplatToGsPly",
            display_name="Splat To GS_PLY",
            category=CATEGORY,
            description="Turns Gaussians into the GS_PLY of 3D-Pack, in the 3DGS frame. Needs "
            "the package plyfile, which 3D-Pack brings.",
            search_aliases=["3d-pack", "plyfile", "gaussian splat"],
            inputs=[SplatSocket.Input("splat", tooltip="Gaussians to convert.")],
            outputs=[GsPlySocket.Output("gs_ply", tooltip="A plyfile.PlyData.")],
        )

    @classmethod
    def execute(cls, splat: Any) -> Any:
        return io.NodeOutput(cloud_to_gs_ply(cloud_from_link(splat)))


class GsPlyToSplat(io.ComfyNode):
    """GS_PLY to SPLAT."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ConvertGsPlyToSplat",
            display_name="GS_PLY To Splat",
            category=CATEGORY,
            description="Turns the GS_PLY of 3D-Pack into ComfyUI's SPLAT.",
            search_aliases=["3d-pack", "plyfile", "gaussian splat"],
            inputs=[GsPlySocket.Input("gs_ply", tooltip="A plyfile.PlyData in the 3DGS frame.")],
            outputs=[SplatSocket.Output("splat", tooltip="The Gaussians.")],
        )

    @classmethod
    def execute(cls, gs_ply: Any) -> Any:
        return io.NodeOutput(cloud_to_link(cloud_from_gs_ply(gs_ply)))


NODES = [MeshToTrimesh, TrimeshToMesh, SplatToGsPly, GsPlyToSplat]
