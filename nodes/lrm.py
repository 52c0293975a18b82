"""Contains the nodes of large reconstruction models: views to a mesh, and the reference bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.networks.lrm import LargeReconstructionModel
from ..core.networks.lrm_cameras import (
    FLEXGEN_RENDER_RADIUS,
    FRONT_AZIMUTH_DEG,
    KISS3DGEN_RADIUS,
    camera_vectors_of_rig,
    make_camera_vectors,
)
from ..core.networks.lrm_checkpoint import PUBLISHED, load_lrm_checkpoint
from ..core.pipelines.lrm_to_mesh import LrmToMeshParams, lrm_to_mesh
from ..core.pipelines.reference_bundle import ReferenceBundleParams, make_reference_bundle
from .host import (
    ADVANCED,
    compute_device,
    io,
    make_progress,
    make_schema,
    network_placement,
)
from .model_files import (
    missing_verdict,
    model_input,
    resolve_weights,
    weight_files,
    weights_fingerprint,
)
from .multiview import CATEGORY, PRECISIONS
from .sockets import (
    MeshSocket,
    RigSocket,
    images_from_link,
    images_to_link,
    masks_to_link,
    mesh_input,
    require_rig_of,
    rig_from_link,
    rig_input,
)
from .sockets_mesh import mesh_from_link, mesh_to_link
from .video import EMBEDDED, find_embedded

LrmSocket = io.Custom("LIFT3D_LRM")
CHECKPOINT_LINK = "https://huggingface.co/LTT/PRM/resolve/main/final_ckpt.ckpt"
SLRM_LINK = "https://huggingface.co/hyz317/StdGEN/resolve/main/StdGEN-mesh-slrm.pth"
EMBEDDED_SLRM = f"{EMBEDDED}slrm"
EMBEDDED_FILES = {EMBEDDED_SLRM: f"{EMBEDDED}slrm/slrm.safetensors"}
PUBLISHED_CHECKPOINTS = {"final_ckpt.ckpt": CHECKPOINT_LINK, "StdGEN-mesh-slrm.pth": SLRM_LINK}
AUTO = "auto"


def find_checkpoint(name: str) -> Path:
    """Path of a checkpoint named on a node; ValueError with its link where it is missing."""
    if name.startswith(EMBEDDED):
        return find_embedded(EMBEDDED_FILES.get(name, name))
    return resolve_weights(name, PUBLISHED_CHECKPOINTS.get(name, CHECKPOINT_LINK))


class LoadLrm(io.ComfyNode):
    """Loads a large reconstruction model."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_LoadLrm",
            display_name="Load LRM",
            category=CATEGORY,
            description="Loads a large reconstruction model: PRM of Kiss3DGen, InstantMesh-large, "
            "S-LRM of StdGEN, the small one that comes with Lift3D, or a size of your own. Every "
            "key must fit; the report says what was in the file.",
            search_aliases=["prm", "instantmesh", "large reconstruction model", "checkpoint"],
            inputs=[
                model_input(
                    "checkpoint",
                    weight_files(),
                    [*PUBLISHED_CHECKPOINTS, EMBEDDED_SLRM],
                    tooltip="A .ckpt, .pth or .safetensors file in models/lift3d; Kiss3DGen's is "
                    f"{CHECKPOINT_LINK}, StdGEN's {SLRM_LINK}. 'embedded: slrm' reads simple "
                    "characters off six small views and needs no download.",
                ),
                io.Combo.Input(
                    "size",
                    options=[AUTO, *PUBLISHED],
                    default=AUTO,
                    tooltip="Size of the model. 'auto' takes the YAML file with the checkpoint's "
                    "name beside it, else the published size that the keys fit.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="float32",
                    tooltip="Type of the transformers' weights; float32 as published. The heads "
                    "are always float32.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                LrmSocket.Output("lrm", tooltip="The model."),
                io.String.Output("report", tooltip="Keys, parameters, and what was ignored."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None) -> bool | str:
        """A missing file is named with the place and the link, before anything runs."""
        if checkpoint is None:
            return True  # brought by a link: checked when the node runs
        return missing_verdict(lambda: find_checkpoint(checkpoint))

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, size: str, precision: str) -> str:
        """Run again when the file changes."""
        return f"{weights_fingerprint(checkpoint)} {size} {precision}"

    @classmethod
    def execute(cls, checkpoint: str, size: str, precision: str) -> Any:
        loaded = load_lrm_checkpoint(
            find_checkpoint(checkpoint),
            None if size == AUTO else size,
            dtype=PRECISIONS[precision],
        )
        return io.NodeOutput(loaded.model, loaded.report)


class ReconstructWithLrm(io.ComfyNode):
    """Makes a mesh from views in one go."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ReconstructWithLrm",
            display_name="Reconstruct With LRM",
            category=CATEGORY,
            description="Makes a coloured mesh from a few views by a large reconstruction model. "
            "It faces +Z and can start Reconstruct From Bundle as its initial mesh.",
            search_aliases=["prm", "instantmesh", "views to mesh", "triplane", "flexicubes"],
            inputs=[
                LrmSocket.Input("lrm", tooltip="A model of Load LRM."),
                io.Image.Input("images", tooltip="Square views on white, in the order named."),
                io.Combo.Input(
                    "cameras",
                    options=["flexgen", "kiss3dgen", "zero123plus", "stdgen"],
                    default="flexgen",
                    tooltip="Where the views were taken, unless a rig is connected: 'flexgen' "
                    "front, left, rear, right of Image To Views; 'kiss3dgen' the same views of a "
                    "bundle image; 'zero123plus' the six of InstantMesh; 'stdgen' the six of "
                    "StdGEN.",
                ),
                io.Float.Input(
                    "radius",
                    default=KISS3DGEN_RADIUS,
                    min=1.0,
                    max=100.0,
                    step=0.05,
                    tooltip="Distance that the model is told for the cameras of a rig; 3.5 is what "
                    "PRM expects, wherever the views were drawn from.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "chunk_points",
                    default=1 << 16,
                    min=1 << 10,
                    max=1 << 22,
                    tooltip="Points evaluated at a time: fewer take less memory, the mesh is the "
                    "same.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "chunk_cells",
                    default=1 << 13,
                    min=1 << 8,
                    max=1 << 20,
                    tooltip="Surface cells evaluated at a time: fewer take less memory, the mesh "
                    "is the same.",
                    **ADVANCED,
                ),
                rig_input("Cameras of the views, instead of 'cameras'."),
            ],
            outputs=[MeshSocket.Output("mesh", tooltip="The mesh, with vertex colours.")],
        )

    @classmethod
    def execute(
        cls,
        lrm: Any,
        images: Any,
        cameras: str,
        radius: float,
        chunk_points: int,
        chunk_cells: int,
        rig: Any = None,
    ) -> Any:
        views = images_from_link(images)
        vectors, front = _camera_vectors(views, cameras, rig, radius)
        with network_placement() as placement:
            placement.prepare(_model_from_link(lrm))
            mesh = lrm_to_mesh(
                lrm, views, vectors, front_azimuth_deg=front,
                params=LrmToMeshParams(chunk_points, chunk_cells), on_progress=make_progress(),
            )  # fmt: skip
        return io.NodeOutput(mesh_to_link(mesh))


class LrmReferenceBundle(io.ComfyNode):
    """Draws the bundle that enhancement starts from."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_MakeReferenceBundle",
            display_name="LRM Reference Bundle",
            category=CATEGORY,
            description="Draws the bundle image that image-to-3D enhances: views above the normal "
            "maps of the mesh that was made from them.",
            search_aliases=["3d bundle image", "kiss3dgen", "image to 3d", "normal maps"],
            inputs=[
                mesh_input(tooltip="The mesh of Reconstruct With LRM, at its own size."),
                io.Int.Input(
                    "tile_px",
                    default=512,
                    min=64,
                    max=1024,
                    step=8,
                    tooltip="Side of one tile in pixels; 512 gives the published 2048 x 1024.",
                ),
                io.Boolean.Input(
                    "use_images",
                    default=True,
                    tooltip="Put the views in the RGB row, as published; off draws the mesh's own "
                    "colours there.",
                ),
                io.Float.Input(
                    "radius",
                    default=FLEXGEN_RENDER_RADIUS,
                    min=1.0,
                    max=100.0,
                    step=0.05,
                    tooltip="Distance of the cameras in units of the mesh; 4.15 as published.",
                    **ADVANCED,
                ),
                io.Boolean.Input(
                    "fit_radius",
                    default=False,
                    tooltip="Search the distance at which the mesh fills the views instead. Turn "
                    "it on when normals and views differ in size.",
                    **ADVANCED,
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Front, left, rear and right on white, as of Image To Views.",
                ),
            ],
            outputs=[
                io.Image.Output("bundle", tooltip="The reference bundle."),
                io.Mask.Output("masks", tooltip="Silhouettes of the mesh: 1 inside."),
                RigSocket.Output("rig", tooltip="The cameras of the columns."),
            ],
        )

    @classmethod
    def execute(
        cls,
        mesh: Any,
        tile_px: int,
        use_images: bool,
        radius: float,
        fit_radius: bool,
        images: Any = None,
    ) -> Any:
        device = compute_device("mesh")
        made = make_reference_bundle(
            mesh_from_link(mesh).to(device),
            None if images is None else images_from_link(images).to(device),
            ReferenceBundleParams(tile_px, radius, fit_radius, use_images),
            on_progress=make_progress(),
        )
        bundle = images_to_link(made.bundle.image())
        return io.NodeOutput(bundle, masks_to_link(made.masks), made.rig.to("cpu"))


def _model_from_link(value: Any) -> LargeReconstructionModel:
    if not isinstance(value, LargeReconstructionModel):
        raise ValueError(f"lrm must come from Load LRM, got a {type(value).__name__}.")
    return value


def _camera_vectors(views: Any, cameras: str, rig: Any, radius: float) -> tuple[Any, float]:
    """What the model is told of the cameras, and at which of its azimuths the front lies."""
    given = rig_from_link(rig)
    if given is not None:
        require_rig_of(given, views)
        return camera_vectors_of_rig(given.with_radius(radius)), 0.0
    vectors = make_camera_vectors(cameras)
    if len(vectors) != len(views):
        raise ValueError(
            f"The cameras '{cameras}' are {len(vectors)}, but there are {len(views)} images; "
            "choose other cameras or connect the rig of the views."
        )
    return vectors, FRONT_AZIMUTH_DEG[cameras]


NODES = [LoadLrm, ReconstructWithLrm, LrmReferenceBundle]
