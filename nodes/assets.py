"""Contains the nodes that load and save meshes and Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.formats import read_splats, write_mesh, write_splats
from ..core.pipelines.merge_parts import merge_parts, normalize_parts
from . import asset_files
from .host import describe_saved, file_link, io, make_schema, save_path, workflow_metadata
from .sockets import (
    MESH_FILE_SOCKETS,
    MESH_SUFFIXES,
    SPLAT_FILE_SOCKETS,
    SPLAT_SUFFIXES,
    FileSocket,
    MeshSocket,
    SplatSocket,
    mesh_input,
)
from .sockets_mesh import mesh_to_link, meshes_from_link
from .sockets_splat import cloud_from_link, cloud_to_link

CATEGORY = "Lift3D/Files"
FRAMES = ["3dgs", "world"]
FRAME_TOOLTIP = (
    "Axes inside the file. '3dgs': Y down, Z forward, as trainers and viewers of Gaussian splats "
    "have it. 'world': Y up, Z front."
)
PREFIX_TOOLTIP = (
    "Name of the file below ComfyUI's output folder; folders are made as needed and a number is "
    "appended, so nothing is overwritten."
)
LINKED_FILE_TOOLTIP = (
    "A file from another node, such as Load 3D. When connected, it is read instead of 'path'."
)


def file_outputs() -> list[Any]:
    """Outputs of all nodes that write a model."""
    return [
        FileSocket.Output("model_3d", tooltip="The written file."),
        io.String.Output(
            "path", tooltip="Its path below the output folder; connect it to 'Preview 3D'."
        ),
    ]


def saved_output(written: Sequence[Path]) -> Any:
    """Outputs of a save node; the last file is the model itself, others belong to it."""
    saved = [describe_saved(path) for path in written][-1]
    relative = "/".join(filter(None, (saved["subfolder"], saved["filename"])))
    return io.NodeOutput(file_link(written[-1]), relative, ui={"3d": [saved]})


class LoadMesh(io.ComfyNode):
    """Reads a mesh file."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_LoadMesh",
            display_name="Load Mesh",
            category=CATEGORY,
            description="Reads a GLB, OBJ, STL or PLY file, or one of the sample objects that "
            "Lift3D makes itself. Frame: Y up, Z front.",
            search_aliases=["open mesh", "import glb", "load 3d model", "obj", "stl", "ply"],
            inputs=[
                asset_files.path_input(MESH_SUFFIXES, with_samples=True),
                io.Boolean.Input(
                    "normalize",
                    default=True,
                    tooltip="Centre the mesh and scale its longest side to 1.8 units, the size "
                    "that the default cameras expect. Off keeps the coordinates of the file.",
                ),
                io.Combo.Input(
                    "parts",
                    options=["merge", "separate"],
                    default="merge",
                    tooltip="Files with several objects: 'merge' makes one mesh (several textures "
                    "become vertex colours), 'separate' a batch with one mesh per object.",
                ),
                io.MultiType.Input(
                    "model_3d", types=MESH_FILE_SOCKETS, optional=True, tooltip=LINKED_FILE_TOOLTIP
                ),
            ],
            outputs=[MeshSocket.Output("mesh", tooltip="The mesh, or a batch of its parts.")],
        )

    @classmethod
    def validate_inputs(cls, path: str) -> bool | str:
        """Accept any readable file, not only those of the list."""
        return asset_files.path_verdict(path, MESH_SUFFIXES)

    @classmethod
    def fingerprint_inputs(cls, path: str, **_: Any) -> str:
        """Run again when the file changes."""
        return asset_files.path_fingerprint(path, MESH_SUFFIXES)

    @classmethod
    def execute(cls, path: str, normalize: bool, parts: str, model_3d: Any = None) -> Any:
        meshes = asset_files.read_meshes(path, model_3d)
        if parts == "merge":
            meshes = [merge_parts(meshes, name=meshes[0].name)]
        return io.NodeOutput(mesh_to_link(normalize_parts(meshes) if normalize else meshes))


class LoadSplat(io.ComfyNode):
    """Reads a file of Gaussians."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_LoadSplat",
            display_name="Load Splat",
            category=CATEGORY,
            description="Reads Gaussians from a PLY, SPLAT or SPZ file.",
            search_aliases=["gaussian splat", "3dgs", "load ply", "spz", "import gaussians"],
            inputs=[
                asset_files.path_input(SPLAT_SUFFIXES, with_samples=False),
                io.Combo.Input("frame", options=FRAMES, default="3dgs", tooltip=FRAME_TOOLTIP),
                io.MultiType.Input(
                    "model_3d", types=SPLAT_FILE_SOCKETS, optional=True, tooltip=LINKED_FILE_TOOLTIP
                ),
            ],
            outputs=[SplatSocket.Output("splat", tooltip="The Gaussians.")],
        )

    @classmethod
    def validate_inputs(cls, path: str) -> bool | str:
        """Accept any readable file, not only those of the list."""
        return asset_files.path_verdict(path, SPLAT_SUFFIXES)

    @classmethod
    def fingerprint_inputs(cls, path: str, **_: Any) -> str:
        """Run again when the file changes."""
        return asset_files.path_fingerprint(path, SPLAT_SUFFIXES)

    @classmethod
    def execute(cls, path: str, frame: str, model_3d: Any = None) -> Any:
        with asset_files.chosen_file(path, model_3d, SPLAT_SUFFIXES) as file:
            return io.NodeOutput(cloud_to_link(read_splats(file, frame=frame)))


class SaveMesh(io.ComfyNode):
    """Writes a mesh file."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_SaveMesh",
            display_name="Save Mesh",
            category=CATEGORY,
            description="Writes a mesh as GLB, OBJ, STL or PLY. A batch becomes several named "
            "objects of one file. Frame: Y up, Z front.",
            search_aliases=["export mesh", "save glb", "write obj", "save 3d model"],
            is_output_node=True,
            inputs=[
                mesh_input(tooltip="Mesh, or batch of parts, to write."),
                io.String.Input("filename_prefix", default="3d/Lift3D", tooltip=PREFIX_TOOLTIP),
                io.Combo.Input(
                    "format",
                    options=["glb", "obj", "stl", "ply"],
                    default="glb",
                    tooltip="GLB keeps everything (colours, texture, parts, the workflow). OBJ "
                    "keeps texture and parts, PLY vertex colours, STL the shape alone.",
                ),
            ],
            outputs=file_outputs(),
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, mesh: Any, filename_prefix: str, format: str) -> Any:
        path = save_path(filename_prefix, f".{format}")
        written = write_mesh(path, meshes_from_link(mesh), metadata=workflow_metadata(cls))
        return saved_output(written)


class SaveSplat(io.ComfyNode):
    """Writes a file of Gaussians."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_SaveSplat",
            display_name="Save Splat",
            category=CATEGORY,
            description="Writes Gaussians as PLY (everything), SPLAT (no view dependence) or SPZ "
            "(small).",
            search_aliases=["export splat", "save ply", "save gaussians", "spz"],
            is_output_node=True,
            inputs=[
                SplatSocket.Input("splat", tooltip="Gaussians to write."),
                io.String.Input(
                    "filename_prefix", default="3d/Lift3D_splat", tooltip=PREFIX_TOOLTIP
                ),
                io.Combo.Input(
                    "format",
                    options=["ply", "splat", "spz"],
                    default="ply",
                    tooltip="PLY keeps full precision and all harmonics, SPZ is about ten times "
                    "smaller, SPLAT is the oldest web format.",
                ),
                io.Combo.Input("frame", options=FRAMES, default="3dgs", tooltip=FRAME_TOOLTIP),
            ],
            outputs=file_outputs(),
        )

    @classmethod
    def execute(cls, splat: Any, filename_prefix: str, format: str, frame: str) -> Any:
        path = save_path(filename_prefix, f".{format}")
        write_splats(path, cloud_from_link(splat), frame=frame)
        return saved_output([path])


NODES = [LoadMesh, LoadSplat, SaveMesh, SaveSplat]
