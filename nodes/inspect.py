"""Contains the nodes that measure meshes and pictures."""

from __future__ import annotations

from typing import Any

from ..core.evaluation.image_metrics import psnr, ssim
from ..core.pipelines.inspect_mesh import compare_meshes, inspect_mesh
from .host import io, make_schema, report_face
from .sockets import (
    images_from_link,
    mesh_input,
    require_same_views,
    rig_from_link,
    rig_input,
)
from .sockets_mesh import mesh_from_link
from .widgets import seed_input

CATEGORY = "Lift3D/Measure"
REPORT_TOOLTIP = "The report as text."


class InspectMesh(io.ComfyNode):
    """Reports on a mesh."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_InspectMesh",
            display_name="Mesh Info",
            category=CATEGORY,
            description="Counts, size, area, volume, whether the mesh is closed and manifold, and "
            "how it is coloured.",
            search_aliases=["mesh statistics", "watertight", "face count", "check mesh"],
            is_output_node=True,
            inputs=[mesh_input(tooltip="Mesh to report on; a batch counts as one mesh.")],
            outputs=[
                io.String.Output("report", tooltip=REPORT_TOOLTIP),
                io.Int.Output("vertices", tooltip="Number of vertices."),
                io.Int.Output("faces", tooltip="Number of triangles."),
                io.Boolean.Output(
                    "watertight", tooltip="True when every edge belongs to exactly two faces."
                ),
            ],
        )

    @classmethod
    def execute(cls, mesh: Any) -> Any:
        report = inspect_mesh(mesh_from_link(mesh))
        return io.NodeOutput(
            report.text(),
            report.num_vertices,
            report.num_faces,
            report.watertight,
            ui=report_face(report.text()),
        )


class CompareMeshes(io.ComfyNode):
    """Measures how far two meshes differ."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_CompareMeshes",
            display_name="Compare Meshes",
            category=CATEGORY,
            description="Distance between two meshes in the same place: Chamfer, F-scores, normal "
            "error and overlap of silhouettes. Lengths are in units of the reference's longest "
            "side.",
            search_aliases=["chamfer", "f-score", "mesh error", "evaluate"],
            is_output_node=True,
            inputs=[
                mesh_input(tooltip="Mesh to judge."),
                mesh_input("reference", tooltip="Mesh to compare with."),
                io.Int.Input(
                    "points",
                    default=20000,
                    min=100,
                    max=1000000,
                    step=100,
                    tooltip="Points drawn from each surface; more give steadier numbers.",
                ),
                seed_input("Seed of the points: the same seed gives the same numbers."),
                rig_input(
                    "Views for normals and silhouettes, round the reference scaled to 1.8; "
                    "without them the four of the bundle image."
                ),
            ],
            outputs=[
                io.String.Output("report", tooltip=REPORT_TOOLTIP),
                io.Float.Output("chamfer", tooltip="Chamfer distance; 0 is perfect."),
                io.Float.Output("f_score", tooltip="F-score at 0.05; 1 is perfect."),
                io.Float.Output("normal_error_deg", tooltip="Mean angle of the normals."),
            ],
        )

    @classmethod
    def execute(cls, mesh: Any, reference: Any, points: int, seed: int, rig: Any = None) -> Any:
        found = compare_meshes(
            mesh_from_link(mesh),
            mesh_from_link(reference, "reference"),
            rig=rig_from_link(rig),
            num_points=points,
            seed=seed,
        )
        numbers = (found.chamfer, found.f_score_coarse, found.normal_error_deg)
        return io.NodeOutput(found.text(), *numbers, ui=report_face(found.text()))


class CompareImages(io.ComfyNode):
    """Measures how far two sets of pictures differ."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_CompareImages",
            display_name="Compare Views",
            category=CATEGORY,
            description="Likeness of two batches of pictures: PSNR in decibels and SSIM.",
            search_aliases=["psnr", "ssim", "image difference", "evaluate"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="Pictures to judge."),
                io.Image.Input("reference", tooltip="Pictures to compare with, same size."),
            ],
            outputs=[
                io.String.Output("report", tooltip=REPORT_TOOLTIP),
                io.Float.Output("psnr", tooltip="Peak signal-to-noise ratio; above 30 is close."),
                io.Float.Output("ssim", tooltip="Structural similarity; 1 is equal."),
            ],
        )

    @classmethod
    def execute(cls, images: Any, reference: Any) -> Any:
        first, second = images_from_link(images), images_from_link(reference, "reference")
        require_same_views(first, second, "images", "reference")
        ratio = psnr(first, second)
        likeness = ssim(first, second)
        report = f"PSNR {ratio:.2f} dB, SSIM {likeness:.4f} over {first.shape[0]} pictures"
        return io.NodeOutput(report, ratio, likeness, ui=report_face(report))


NODES = [InspectMesh, CompareMeshes, CompareImages]
