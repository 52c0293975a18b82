"""Contains the nodes that make Gaussians of an orbit: by a trained decoder, and without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.diffusion.gaussian_decoder_files import (
    FACTS_FILE,
    GaussianDecoderModel,
    load_gaussian_decoder,
)
from ..core.pipelines.decode_gaussians import DecodeParams, decode_gaussians
from ..core.pipelines.orbit_to_splat import OrbitSplatParams, orbit_to_splat
from .host import (
    ADVANCED,
    compute_device,
    gradient_scope,
    io,
    make_progress,
    make_schema,
    model_folders,
    network_placement,
)
from .model_files import missing_verdict, model_input, resolve_model, weights_fingerprint
from .multiview import chosen_precision, precision_input
from .sockets import (
    SplatSocket,
    images_from_link,
    masks_from_link,
    require_rig_of,
    rig_from_link,
    rig_input,
    single_image_from_link,
)
from .sockets_splat import cloud_to_link
from .splats import fit_inputs
from .video import CATEGORY, EMBEDDED, find_embedded

DecoderSocket = io.Custom("LIFT3D_DECODER")
EMBEDDED_DECODER = f"{EMBEDDED}gaussian_decoder"
TRAINING = "a decoder of your own (run.py train gs-decoder); none is published"


def decoder_folders() -> list[str]:
    """Folders of Gaussian decoders in the folders of Lift3D."""
    found = [
        path.parent.relative_to(root).as_posix()
        for root in model_folders()
        for path in root.glob(f"*/{FACTS_FILE}")
    ]
    return sorted(set(found))


class LoadGaussianDecoder(io.ComfyNode):
    """Loads a decoder from latents to Gaussians."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_LoadGaussianDecoder",
            display_name="Load Gaussian Decoder",
            category=CATEGORY,
            description="Loads a decoder that turns the latents of an orbit into Gaussians at once "
            "(GSV3D): the small one for the embedded orbit model, or one that you trained. It fits "
            "the autoencoder that it was trained with and no other.",
            search_aliases=["gsv3d", "gaussian splatting decoder", "latent to splat", "grm"],
            inputs=[
                model_input(
                    "decoder",
                    decoder_folders(),
                    [EMBEDDED_DECODER],
                    tooltip="'embedded' goes with the embedded orbit model. Others are folders in "
                    "models/lift3d with decoder.json and decoder.safetensors; none is published "
                    "for SV3D.",
                ),
                precision_input("auto", "Type of the weights; 'auto' is float16 on a card."),
            ],
            outputs=[
                DecoderSocket.Output("decoder", tooltip="The decoder."),
                io.String.Output("report", tooltip="Sizes, and what it was trained with."),
            ],
        )

    @classmethod
    def validate_inputs(cls, decoder: str | None = None) -> bool | str:
        """A missing decoder is named before anything runs."""
        return decoder is None or missing_verdict(lambda: _find(decoder))

    @classmethod
    def fingerprint_inputs(cls, decoder: str, precision: str) -> str:
        """Run again when the folder changes."""
        return f"{weights_fingerprint(decoder)} {precision}"

    @classmethod
    def execute(cls, decoder: str, precision: str) -> Any:
        loaded = load_gaussian_decoder(_find(decoder), dtype=chosen_precision(precision))
        return io.NodeOutput(loaded, loaded.report)


class DecodeGaussians(io.ComfyNode):
    """Turns latents of an orbit into Gaussians."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_DecodeGaussians",
            display_name="Decode Gaussians",
            category=CATEGORY,
            description="Turns the latents of an orbit into Gaussians in one pass, without any "
            "optimisation: from Image To Orbit, straight from a KSampler, or from frames with "
            "their VAE. They face +Z where the given picture was taken.",
            search_aliases=["gsv3d", "latent to splat", "gaussian splatting", "feed-forward"],
            inputs=[
                DecoderSocket.Input("decoder", tooltip="A decoder of Load Gaussian Decoder."),
                rig_input("The cameras of the frames, of the node that made them.", optional=False),
                io.Float.Input(
                    "min_opacity",
                    default=0.05,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="Fainter Gaussians are left out.",
                ),
                io.Float.Input(
                    "bound",
                    default=1.0,
                    min=0.1,
                    max=10.0,
                    step=0.05,
                    tooltip="Gaussians outside the cube of this half side are left out.",
                    **ADVANCED,
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="Latents of the frames, of Image To Orbit or a KSampler.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The given picture, for decoders that look at it; the same that the "
                    "frames were made from.",
                ),
                io.Image.Input(
                    "frames", optional=True, tooltip="The frames themselves, instead of 'latent'."
                ),
                io.Vae.Input("vae", optional=True, tooltip="Encodes the frames."),
            ],
            outputs=[SplatSocket.Output("splat", tooltip="The Gaussians.")],
        )

    @classmethod
    def execute(
        cls, decoder: Any, rig: Any, min_opacity: float, bound: float, latent: Any = None,
        image: Any = None, frames: Any = None, vae: Any = None,
    ) -> Any:  # fmt: skip
        model = _decoder_from_link(decoder)
        latents = model.latent_format.to_network(_encoded(latent, frames, vae))
        picture = None if image is None else single_image_from_link(image)
        with network_placement() as placement:
            cloud = decode_gaussians(
                model, latents, rig_from_link(rig), picture, DecodeParams(min_opacity, bound),
                placement=placement, on_progress=make_progress(),
            )  # fmt: skip
        return io.NodeOutput(cloud_to_link(cloud))


class OrbitToSplat(io.ComfyNode):
    """Fits Gaussians to the frames of an orbit."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ConvertOrbitToSplat",
            display_name="Orbit To Splat",
            category=CATEGORY,
            description="Fits Gaussians to the frames of an orbit by optimisation, where there is "
            "no trained decoder: SV3D's frames and their cameras are enough. Frames that disagree "
            "are outvoted when the first shape is carved.",
            search_aliases=["gsv3d", "sv3d to splat", "video to 3d", "gaussian splatting", "fit"],
            inputs=[
                io.Image.Input("images", tooltip="The frames on white, in the order of the rig."),
                rig_input("Cameras of the frames, of the node that made them.", optional=False),
                *fit_inputs(8000, 400),
                io.Float.Input(
                    "tolerance",
                    default=0.12,
                    min=0.0,
                    max=0.9,
                    step=0.01,
                    tooltip="Share of the frames that may speak against a point of the shape; more "
                    "for frames that agree less.",
                    **ADVANCED,
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="Silhouettes, 1 inside; without them white counts as background.",
                ),
            ],
            outputs=[SplatSocket.Output("splat", tooltip="The fitted Gaussians.")],
        )

    @classmethod
    def execute(
        cls, images: Any, rig: Any, gaussians: int, steps: int, sh_degree: int, seed: int,
        tolerance: float, masks: Any = None,
    ) -> Any:  # fmt: skip
        params = OrbitSplatParams(gaussians, steps, sh_degree, tolerance, seed=seed)
        with gradient_scope():
            frames, cameras = images_from_link(images), rig_from_link(rig)
            require_rig_of(cameras, frames, "frames")
            cloud = orbit_to_splat(
                frames, cameras, masks_from_link(masks), params,
                device=compute_device("splats"), on_progress=make_progress(),
            )  # fmt: skip
            return io.NodeOutput(cloud_to_link(cloud))


def _find(name: str) -> Path:
    """Folder of a decoder named on a node; ValueError says where to get it."""
    return find_embedded(name) if name.startswith(EMBEDDED) else resolve_model(name, TRAINING)


def _decoder_from_link(value: Any) -> GaussianDecoderModel:
    if not isinstance(value, GaussianDecoderModel):
        raise ValueError(
            f"decoder must come from Load Gaussian Decoder, got a {type(value).__name__}."
        )
    return value


def _encoded(latent: Any, frames: Any, vae: Any) -> Tensor:
    """Encoder latents [frame, channel, height, width] of whichever input is connected."""
    if latent is not None:
        samples = latent.get("samples") if isinstance(latent, dict) else None
        if not isinstance(samples, Tensor) or samples.ndim != 4:
            raise ValueError(
                "latent must be a LATENT with samples [frame, channel, height, width], got "
                f"{type(latent).__name__ if samples is None else list(samples.shape)}."
            )
        return samples.clone().float()
    if frames is None or vae is None:
        raise ValueError(
            "Nothing to decode: connect 'latent', or the 'frames' together with their 'vae'."
        )
    encoded: Tensor = vae.encode(images_from_link(frames, "frames"))
    return encoded.clone().float()


NODES = [LoadGaussianDecoder, DecodeGaussians, OrbitToSplat]
