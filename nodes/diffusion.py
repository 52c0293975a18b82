"""Contains the nodes that load diffusion models, LoRAs, ControlNets and image prompt encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.diffusion.control_files import list_controls
from ..core.diffusion.diffusers_loading import check_files
from ..core.diffusion.diffusers_model import DiffusersModel, load_diffusers_model
from ..core.diffusion.embedded import EmbeddedKind, embedded_path, list_embedded
from ..core.diffusion.placement import Placement
from .host import ADVANCED, IN_COMFYUI, file_fingerprint, io, make_schema, model_folders
from .model_files import (
    DIFFUSERS_KIND,
    diffusers_folders,
    missing_verdict,
    model_input,
    resolve_model,
    resolve_weights,
    weight_files,
)
from .multiview import PRECISIONS, precision_input
from .sockets import ControlNetSocket, DiffusionSocket

CATEGORY = "Lift3D/Models"
EMBEDDED = "embedded: "
EMBEDDED_MODEL = f"{EMBEDDED}bundle"
FOLDERS: dict[EmbeddedKind, tuple[str, ...]] = {
    "model": (DIFFUSERS_KIND, "checkpoints"),
    "lora": ("loras",),
    "control": ("controlnet", DIFFUSERS_KIND),
}
LINKS = {
    "FLUX.1-dev": "https://huggingface.co/black-forest-labs/FLUX.1-dev (the whole folder)",
    "rgb_normal.safetensors": "https://huggingface.co/LTT/Kiss3DGen (rgb_normal.safetensors)",
    "rgb_normal_redux.safetensors": "https://huggingface.co/LTT/Kiss3DGen "
    "(rgb_normal_redux.safetensors)",
    "FLUX.1-dev-Controlnet-Union": "https://huggingface.co/InstantX/FLUX.1-dev-Controlnet-Union "
    "(the whole folder)",
    "FLUX.1-Redux-dev": "https://huggingface.co/black-forest-labs/FLUX.1-Redux-dev (the whole "
    "folder)",
}
OTHER_LINK = "it from where you found the workflow"
OFFLOADS = {"auto": "none", "model": "model", "sequential": "sequential"}
MODEL_TOOLTIP = "Model from Load Diffusion Model or Wrap Native Model."


def find(name: str, kind: EmbeddedKind) -> Path:
    """Path of a model, LoRA or ControlNet named on a node.

    Raises:
        ValueError: it is not there; says where to get it and where to put it.
    """
    if name.startswith(EMBEDDED):
        path = embedded_path(name.removeprefix(EMBEDDED))
        if path is None:
            raise ValueError(
                f"'{name}' does not come with this copy of Lift3D; install it again, or choose "
                "another."
            )
        return path
    link = LINKS.get(name, OTHER_LINK)
    if kind == "lora":
        return resolve_weights(name, link, *FOLDERS[kind])
    return resolve_model(name, link, *FOLDERS[kind])


def choices(kind: EmbeddedKind, found: list[str]) -> list[str]:
    """Names of embedded models, then of what lies in the model folders."""
    return [*(f"{EMBEDDED}{name}" for name in list_embedded(kind)), *found]


def placement_for(offload: str) -> Placement | None:
    """ComfyUI's memory management for "auto", where there is one."""
    if offload != "auto" or not IN_COMFYUI:
        return None
    from .native_placement import ManagedPlacement

    return ManagedPlacement()


def host_tokenizers() -> dict[str, Path]:
    """Tokenizers that the host brings along."""
    if not IN_COMFYUI:
        return {}
    from .native_placement import tokenizer_folders

    return tokenizer_folders()


class LoadDiffusion(io.ComfyNode):
    """Loads a diffusion model by diffusers."""

    @classmethod
    def define_schema(cls) -> Any:
        found = [*diffusers_folders(), *weight_files("checkpoints")]
        return make_schema(
            node_id="Lift3D_LoadDiffusion",
            display_name="Load Diffusion Model",
            category=CATEGORY,
            description="Loads a diffusion model by diffusers: a small one that comes with Lift3D "
            "and runs anywhere, or Flux, Stable Diffusion 1.5, 2.1 or SDXL from a folder or a "
            "checkpoint file. For fp8, GGUF and patched models use Wrap Native Model.",
            search_aliases=["checkpoint loader", "flux", "stable diffusion", "sdxl", "diffusers"],
            inputs=[
                model_input(
                    "model",
                    choices("model", found),
                    [EMBEDDED_MODEL, "FLUX.1-dev"],
                    tooltip="'embedded' models need no download. Others are folders in diffusers "
                    "layout below models/diffusers or models/lift3d, or checkpoint files below "
                    "models/checkpoints.",
                ),
                precision_input(
                    "auto", "Type of the weights; 'auto' is bfloat16 on a card, float32 on the CPU."
                ),
                io.Combo.Input(
                    "offload",
                    options=list(OFFLOADS),
                    default="auto",
                    tooltip="'auto' leaves it to ComfyUI which networks lie on the card; 'model' "
                    "lets them take turns; 'sequential' brings in one layer at a time, which is "
                    "slow but needs little memory.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                DiffusionSocket.Output("diffusion", tooltip="The model, for the sampling nodes.")
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        return model is None or missing_verdict(lambda: _complete(model))

    @classmethod
    def fingerprint_inputs(cls, model: str | None = None, **_: Any) -> str:
        """Run again when the file changes."""
        return _fingerprint(model, "model")

    @classmethod
    def execute(cls, model: str, precision: str, offload: str) -> Any:
        loaded = load_diffusers_model(
            find(model, "model"),
            dtype=PRECISIONS.get(precision),
            offload=OFFLOADS[offload],
            placement=placement_for(offload),
            tokenizers=host_tokenizers(),
            link=LINKS.get(model, ""),
        )
        return io.NodeOutput(loaded)


class ApplyLora(io.ComfyNode):
    """Puts a LoRA on a diffusion model."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_ApplyLora",
            display_name="Apply LoRA",
            category=CATEGORY,
            description="Puts a LoRA on a diffusion model; the model before it stays as it was. "
            "Reads files of kohya, diffusers, peft and XLabs. A file of which nothing fits is an "
            "error, what partly fits is named in the log.",
            search_aliases=["lora loader", "bundle lora", "kiss3dgen", "style", "adapter"],
            inputs=[
                DiffusionSocket.Input("diffusion", tooltip=MODEL_TOOLTIP),
                model_input(
                    "lora",
                    choices("lora", weight_files("loras")),
                    ["rgb_normal.safetensors", "rgb_normal_redux.safetensors"],
                    tooltip="A file below models/loras or models/lift3d, or one that comes with "
                    "Lift3D. rgb_normal makes bundles with FLUX.1-dev.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How much of it; 0 is the model without, negative values do the "
                    "opposite.",
                ),
            ],
            outputs=[DiffusionSocket.Output("diffusion", tooltip="The model with the LoRA on it.")],
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool | str:
        return lora is None or missing_verdict(lambda: find(lora, "lora"))

    @classmethod
    def fingerprint_inputs(cls, lora: str | None = None, **_: Any) -> str:
        """Run again when the file changes."""
        return _fingerprint(lora, "lora")

    @classmethod
    def execute(cls, diffusion: Any, lora: str, strength: float) -> Any:
        return io.NodeOutput(diffusion.with_lora(find(lora, "lora"), strength))


class LoadControl(io.ComfyNode):
    """Loads a ControlNet for a diffusion model."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_LoadControl",
            display_name="Load Control",
            category=CATEGORY,
            description="Loads a ControlNet that fits a diffusion model: a union or single-purpose "
            "network for Flux, or one for Stable Diffusion. It must belong to the architecture of "
            "the model.",
            search_aliases=["controlnet loader", "union", "tile", "instantx", "enhance"],
            inputs=[
                DiffusionSocket.Input("diffusion", tooltip=MODEL_TOOLTIP),
                model_input(
                    "control",
                    choices("control", control_names()),
                    ["FLUX.1-dev-Controlnet-Union"],
                    tooltip="A folder in diffusers layout or a Flux file, below models/controlnet, "
                    "models/diffusers or models/lift3d, or one that comes with Lift3D.",
                ),
            ],
            outputs=[
                ControlNetSocket.Output("controlnet", tooltip="The network, for Bundle Control.")
            ],
        )

    @classmethod
    def validate_inputs(cls, control: str | None = None) -> bool | str:
        return control is None or missing_verdict(lambda: find(control, "control"))

    @classmethod
    def fingerprint_inputs(cls, control: str | None = None, **_: Any) -> str:
        """Run again when the file changes."""
        return _fingerprint(control, "control")

    @classmethod
    def execute(cls, diffusion: Any, control: str) -> Any:
        return io.NodeOutput(diffusion.load_control(find(control, "control")))


class LoadImagePrompt(io.ComfyNode):
    """Gives a diffusion model an encoder for image prompts."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_LoadImagePrompt",
            display_name="Load Image Prompt",
            category=CATEGORY,
            description="Gives a Flux model an encoder for image prompts (Redux), so that Bundle "
            "Prompt can take a picture. For models of Wrap Native Model connect CLIP_VISION and "
            "STYLE_MODEL there instead.",
            search_aliases=["redux", "siglip", "style model", "image conditioning", "ip adapter"],
            inputs=[
                DiffusionSocket.Input("diffusion", tooltip="Model from Load Diffusion Model."),
                model_input(
                    "encoder",
                    diffusers_folders(),
                    ["FLUX.1-Redux-dev"],
                    tooltip="A folder in diffusers layout below models/diffusers or models/lift3d.",
                ),
            ],
            outputs=[
                DiffusionSocket.Output("diffusion", tooltip="The model, which now takes pictures.")
            ],
        )

    @classmethod
    def validate_inputs(cls, encoder: str | None = None) -> bool | str:
        return encoder is None or missing_verdict(lambda: find(encoder, "model"))

    @classmethod
    def fingerprint_inputs(cls, encoder: str | None = None, **_: Any) -> str:
        """Run again when the file changes."""
        return _fingerprint(encoder, "model")

    @classmethod
    def execute(cls, diffusion: Any, encoder: str) -> Any:
        if not isinstance(diffusion, DiffusersModel):
            raise ValueError(
                f"Load Image Prompt works on models of Load Diffusion Model, got "
                f"{type(diffusion).__name__}; connect CLIP_VISION and STYLE_MODEL to Wrap Native "
                "Model instead."
            )
        folder = find(encoder, "model")
        return io.NodeOutput(diffusion.with_redux(folder, link=LINKS.get(encoder, "")))


def control_names() -> list[str]:
    """ControlNets below the model folders: folders of diffusers and single files."""
    roots = model_folders(*FOLDERS["control"])
    found = {name for root in roots for name in list_controls(root)}
    return sorted({*found, *weight_files("controlnet")})


def _complete(model: str) -> Path:
    path = find(model, "model")
    try:
        check_files(path, link=LINKS.get(model, ""))
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    return path


def _fingerprint(name: str | None, kind: EmbeddedKind) -> str:
    return "" if name is None else file_fingerprint(find(name, kind))


NODES = [LoadDiffusion, ApplyLora, LoadControl, LoadImagePrompt]
