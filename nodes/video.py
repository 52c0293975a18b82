"""Contains the nodes that make frames all round an object: SV3D, native and by diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..core.diffusion.embedded import embedded_path
from ..core.diffusion.orbit_conditioning import (
    ORBIT_ORDERS,
    OrbitPoses,
    make_orbit_poses,
    parse_numbers,
)
from ..core.diffusion.orbit_files import LINK, load_orbit_model, with_orbit_lora
from ..core.diffusion.orbit_model import SV3D_FOV_Y_DEG, SV3D_RADIUS, OrbitModel
from ..core.pipelines.image_to_orbit import OrbitParams, check_picture, fit_square, image_to_orbit
from .host import ADVANCED, io, make_progress, make_schema, network_placement
from .model_files import (
    missing_verdict,
    model_input,
    resolve_model,
    resolve_weights,
    weight_files,
    weights_fingerprint,
)
from .multiview import chosen_precision, precision_input
from .sockets import RigSocket, images_to_link, latents_to_link, single_image_from_link
from .widgets import seed_input, steps_input

CATEGORY = "Lift3D/Image to 3D"
OrbitSocket = io.Custom("LIFT3D_ORBIT")
EMBEDDED = "embedded: "
EMBEDDED_ORBIT = f"{EMBEDDED}orbit"
PUBLISHED = ["sv3d_p.safetensors", "sv3d_u.safetensors"]
NO_LORA = "none"
EMBEDDED_LORA = f"{EMBEDDED}orbit/geometric.safetensors"
OWN = "of the model"
SENSES = ["counter-clockwise", "clockwise"]
ORDER_TOOLTIP = (
    "Where the given picture stands among the frames: 'input last' as SV3D was trained, 'input "
    "first' as in GSV3D, 'input at both ends' as ComfyUI's SV3D_Conditioning has it."
)
LICENCE = "SV3D's weights are for non-commercial use; its licence must be accepted to get them."


def elevation_input() -> Any:
    """How high the camera stands."""
    return io.Float.Input(
        "elevation",
        default=10.0,
        min=-90.0,
        max=90.0,
        step=0.5,
        tooltip="How far above the horizon the picture was taken, in degrees; the whole orbit has "
        "this height.",
    )


def elevations_input() -> Any:
    """Heights frame by frame."""
    return io.String.Input(
        "elevations",
        default="",
        tooltip="One elevation per frame, separated by commas, instead of 'elevation'.",
        **ADVANCED,
    )


def camera_inputs(radius: float, fov_y_deg: float) -> list[Any]:
    """Cameras that go with the frames."""
    return [
        io.Float.Input(
            "radius",
            default=radius,
            min=0.0,
            max=100.0,
            step=0.05,
            tooltip="Distance of the cameras in the rig, in units of which an object has about 2"
            + ("." if radius else "; 0 takes the model's."),
            **ADVANCED,
        ),
        io.Float.Input(
            "fov_y_deg",
            default=fov_y_deg,
            min=0.0,
            max=120.0,
            step=0.1,
            tooltip="Vertical field of view of the cameras in degrees; 33.8 is in common use for "
            "SV3D" + ("." if fov_y_deg else ", 0 takes the model's."),
            **ADVANCED,
        ),
        io.Combo.Input(
            "sense",
            options=SENSES,
            default=SENSES[0],
            tooltip="Which way the camera goes round, seen from above. If reconstructions come out "
            "mirrored, choose the other.",
            **ADVANCED,
        ),
    ]


class LoadOrbitModel(io.ComfyNode):
    """Loads a model that draws orbits."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_LoadOrbitModel",
            display_name="Load Orbit Model",
            category=CATEGORY,
            description="Loads a model that draws frames all round an object: the small one that "
            "comes with Lift3D, or SV3D from its single file. A LoRA of geometric distillation "
            "can act in it. In ComfyUI, Orbit Conditioning uses the core's own loader instead.",
            search_aliases=["sv3d", "stable video 3d", "gsv3d", "video model", "checkpoint"],
            inputs=[
                model_input(
                    "model",
                    weight_files("checkpoints"),
                    [EMBEDDED_ORBIT, *PUBLISHED],
                    tooltip="'embedded' needs no download; SV3D's files belong into models/lift3d "
                    f"or models/checkpoints ({LINK}). {LICENCE}",
                ),
                precision_input("auto", "Type of the weights; 'auto' is float16 on a card."),
                model_input(
                    "lora",
                    weight_files("loras"),
                    [NO_LORA, EMBEDDED_LORA],
                    tooltip="LoRA for this model: the embedded one for the embedded model, or one "
                    "of 'run.py train geometric-distillation'.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=-4.0,
                    max=4.0,
                    step=0.05,
                    tooltip="How much the LoRA counts.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                OrbitSocket.Output("orbit", tooltip="The model."),
                io.String.Output("report", tooltip="Keys, parameters, and what was ignored."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None, lora: str | None = None) -> bool | str:
        """Missing weights are named with the place and the link, before anything runs."""
        return missing_verdict(
            *([] if model is None else [lambda: _find(model)]),
            *([] if lora in (None, NO_LORA) else [lambda: _find_lora(lora)]),
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, precision: str, lora: str, lora_strength: float) -> str:
        """Run again when a file changes."""
        files = f"{weights_fingerprint(model)} {weights_fingerprint(lora)}"
        return f"{files} {precision} {lora_strength}"

    @classmethod
    def execute(cls, model: str, precision: str, lora: str, lora_strength: float) -> Any:
        loaded = load_orbit_model(_find(model), dtype=chosen_precision(precision))
        if lora != NO_LORA:
            loaded = with_orbit_lora(loaded, _find_lora(lora), lora_strength)
        return io.NodeOutput(loaded, loaded.report)


class GenerateOrbit(io.ComfyNode):
    """Draws frames all round the object in a picture."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_GenerateOrbit",
            display_name="Image To Orbit",
            category=CATEGORY,
            description="Draws an object from all round as a video of an orbit (SV3D). The frames "
            "come with their cameras and their latents: Decode Gaussians and Orbit To Splat make "
            "Gaussians of them.",
            search_aliases=["sv3d", "gsv3d", "multiview", "novel views", "turntable", "video"],
            inputs=[
                OrbitSocket.Input("orbit", tooltip="A model of Load Orbit Model."),
                io.Image.Input(
                    "image", tooltip="One square picture on white, as of Prepare Image."
                ),
                elevation_input(),
                steps_input(
                    "steps", 0, "Sampling steps; 0 takes the model's (SV3D 50).", most=1000
                ),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How closely the rear follows the picture; towards the "
                    "picture's own frame the scale falls to 1. 0 takes the model's (SV3D 2.5).",
                ),
                seed_input("Seed of the noise: the same seed gives the same frames."),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=128,
                    tooltip="Frames of the orbit; 0 takes the model's (SV3D 21, GSV3D 16).",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "size_px",
                    default=0,
                    min=0,
                    max=1024,
                    step=8,
                    tooltip="Width and height of the frames; 0 takes the model's (SV3D 576).",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "order",
                    options=[OWN, *ORBIT_ORDERS],
                    default=OWN,
                    tooltip=f"{ORDER_TOOLTIP} The frames are handed out with it first.",
                    **ADVANCED,
                ),
                elevations_input(),
                *camera_inputs(0.0, 0.0),
                io.Boolean.Input(
                    "keep_input",
                    default=True,
                    tooltip="Put the given picture in place of its frame, as SV3D's code does; the "
                    "latents stay as they were sampled.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The frames, the given picture first."),
                io.Latent.Output("latent", tooltip="Their latents, for Decode Gaussians."),
                RigSocket.Output("rig", tooltip="The cameras of the frames."),
            ],
        )

    @classmethod
    def execute(cls, orbit: Any, image: Any, **settings: Any) -> Any:
        with network_placement() as placement:
            made = image_to_orbit(
                _model_from_link(orbit),
                single_image_from_link(image),
                _params(**settings),
                placement=placement,
                on_progress=make_progress(),
            )
        latent = latents_to_link(made.latents, made.latent_format)
        return io.NodeOutput(images_to_link(made.images), latent, made.rig)


class EncodeOrbit(io.ComfyNode):
    """The conditioning of SV3D for ComfyUI's samplers."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_EncodeOrbit",
            display_name="Orbit Conditioning",
            category="Lift3D/Native models",
            description="Conditioning for SV3D as ImageOnlyCheckpointLoader gives it, with exact "
            "poses per frame and the cameras that belong to them. Sample with KSampler (euler, "
            "karras, cfg 2.5) behind Video Triangle CFG Guidance.",
            search_aliases=["sv3d conditioning", "stable video 3d", "gsv3d", "orbit", "camera"],
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip="Of ImageOnlyCheckpointLoader."),
                io.Vae.Input("vae", tooltip="Of ImageOnlyCheckpointLoader."),
                io.Image.Input(
                    "image", tooltip="One square picture on white, as of Prepare Image."
                ),
                io.Int.Input(
                    "frames",
                    default=21,
                    min=2,
                    max=128,
                    tooltip="Frames of the orbit: 21 as SV3D was trained, 16 in GSV3D.",
                ),
                elevation_input(),
                io.Int.Input(
                    "size_px",
                    default=576,
                    min=64,
                    max=1024,
                    step=64,
                    tooltip="Width and height of the frames; SV3D was trained at 576.",
                ),
                io.Combo.Input(
                    "order",
                    options=list(ORBIT_ORDERS),
                    default=ORBIT_ORDERS[0],
                    tooltip=ORDER_TOOLTIP,
                ),
                elevations_input(),
                io.String.Input(
                    "azimuths",
                    default="",
                    tooltip="One azimuth per frame, separated by commas, 0 at the picture; instead "
                    "of 'frames' and 'order'.",
                    **ADVANCED,
                ),
                *camera_inputs(SV3D_RADIUS, SV3D_FOV_Y_DEG),
            ],
            outputs=[
                io.Conditioning.Output("positive", tooltip="For KSampler."),
                io.Conditioning.Output("negative", tooltip="For KSampler."),
                io.Latent.Output("latent", tooltip="Empty frames, for KSampler."),
                RigSocket.Output("rig", tooltip="The cameras of the frames."),
            ],
        )

    @classmethod
    def execute(
        cls, clip_vision: Any, vae: Any, image: Any, size_px: int, radius: float,
        fov_y_deg: float, sense: str, **orbit: Any,
    ) -> Any:  # fmt: skip
        picture = single_image_from_link(image)
        check_picture(picture)
        poses = _poses(**orbit)
        rig = poses.rig(radius=radius, fov_y_deg=fov_y_deg, clockwise=sense == SENSES[1])
        token = clip_vision.encode_image(picture[None]).image_embeds[:, None]
        latent = vae.encode(fit_square(picture, size_px)[None])
        positive, negative = (_native_conditioning(s * token, s * latent, poses) for s in (1, 0))
        empty = torch.zeros(len(poses), *latent.shape[1:])
        return io.NodeOutput(positive, negative, {"samples": empty}, rig)


def _find(name: str) -> Path:
    """Path of an orbit model named on a node; ValueError says where to get it."""
    if not name.startswith(EMBEDDED):
        return resolve_model(name, f"{LINK} ({LICENCE})", "checkpoints")
    return find_embedded(name)


def _find_lora(name: str) -> Path:
    """Path of a LoRA named on a node."""
    if not name.startswith(EMBEDDED):
        return resolve_weights(name, "it", "loras")
    return find_embedded(name)


def find_embedded(name: str) -> Path:
    """Path of what comes with Lift3D, named on a node as ``embedded: ...``.

    Raises:
        ValueError: it is not there.
    """
    path = embedded_path(name.removeprefix(EMBEDDED))
    if path is None:
        raise ValueError(
            f"'{name}' does not come with this copy of Lift3D; install it again, or choose another."
        )
    return path


def _model_from_link(value: Any) -> OrbitModel:
    if not isinstance(value, OrbitModel):
        raise ValueError(f"orbit must come from Load Orbit Model, got a {type(value).__name__}.")
    return value


def _params(
    *, elevation: float, elevations: str, order: str, frames: int, **settings: Any
) -> OrbitParams:
    listed = parse_numbers(elevations, "elevations") or (elevation,)
    chosen: Any = None if order == OWN else order
    return OrbitParams(num_frames=frames, elevations_deg=listed, order=chosen, **settings)


def _poses(
    *, frames: int, elevation: float, order: Any, elevations: str, azimuths: str
) -> OrbitPoses:
    heights = parse_numbers(elevations, "elevations") or elevation
    turns = parse_numbers(azimuths, "azimuths")
    if not turns:
        return make_orbit_poses(frames, heights, order)
    return OrbitPoses(turns, heights if isinstance(heights, tuple) else (heights,) * len(turns))


def _native_conditioning(token: Any, latent: Any, poses: OrbitPoses) -> Any:
    """CONDITIONING that the core's SV3D classes understand; they take degrees."""
    told = {
        "concat_latent_image": latent,
        "elevation": list(poses.elevations_deg),
        "azimuth": list(poses.wrapped_azimuths_deg),
    }
    return [[token, told]]


NODES = [LoadOrbitModel, GenerateOrbit, EncodeOrbit]
