"""Contains the nodes for models that ComfyUI loaded: its samplers make the bundle, or ours do."""

from __future__ import annotations

import logging
from typing import Any

from ..core.diffusion.controls import UNION_MODES
from ..core.diffusion.schedules import FLUX_SHIFT, make_flow_sigmas, start_index
from ..core.pipelines.bundle_prompt import BUNDLE_PREFIX, BundlePrompt, prompt_problem
from .host import ADVANCED, io, make_schema
from .native_attachments import SDXL_UNION_MODES, set_control_mode
from .native_model import NativeModel, tokenize
from .sockets import DiffusionSocket

LOGGER = logging.getLogger(__name__)
CATEGORY = "Lift3D/Native models"
MODES = list(dict.fromkeys([*UNION_MODES, *SDXL_UNION_MODES]))


class WrapModel(io.ComfyNode):
    """Makes a diffusion model for our nodes out of ComfyUI's."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_WrapModel",
            display_name="Wrap Native Model",
            category=CATEGORY,
            description="Lets Lift3D's samplers use a model that ComfyUI loaded: fp8 and GGUF "
            "weights, LoRA stacks and model patches stay in force, and ComfyUI manages the memory. "
            "Works with Stable Diffusion 1.5, 2.1 and 3, SDXL and Flux.",
            search_aliases=["native model", "unet loader", "flux", "gguf", "fp8", "convert model"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, with all its patches."),
                io.Clip.Input("clip", tooltip="The text encoders that belong to it."),
                io.Vae.Input("vae", tooltip="The image encoder that belongs to it."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Only for image prompts with Flux Redux: sigclip_vision_patch14_384.",
                ),
                io.StyleModel.Input(
                    "style_model",
                    optional=True,
                    tooltip="Only for image prompts with Flux Redux: flux1-redux-dev.",
                ),
            ],
            outputs=[
                DiffusionSocket.Output(
                    "diffusion", tooltip="The model as Lift3D's sampling nodes take it."
                )
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, clip_vision: Any = None, style_model: Any = None
    ) -> Any:
        return io.NodeOutput(
            NativeModel(model, clip, vae, clip_vision=clip_vision, style_model=style_model)
        )


class MakeBundleSigmas(io.ComfyNode):
    """The noise levels of Kiss3DGen for ComfyUI's samplers."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_MakeBundleSigmas",
            display_name="Bundle Sigmas",
            category=CATEGORY,
            description="Noise levels for making a bundle image with ComfyUI's own samplers and a "
            "flow model such as Flux: Kiss3DGen's list. Use it with the sampler 'heun' and "
            "SamplerCustomAdvanced.",
            search_aliases=["scheduler", "sigmas", "flow match heun", "kiss3dgen", "denoise"],
            inputs=[
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=1000,
                    tooltip="Number of noise levels; Heun's method asks the model twice for each "
                    "but the last (39 times for 20).",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the steps to run. 1 starts from pure noise; below 1, give "
                    "the sampler an encoded bundle as latent image: 0.95 is usual for "
                    "enhancement and needs 20 steps or more.",
                ),
                io.Float.Input(
                    "shift",
                    default=FLUX_SHIFT,
                    min=0.1,
                    max=100.0,
                    step=0.01,
                    tooltip="Moves the noise levels towards 1; 3 is Kiss3DGen's.",
                    **ADVANCED,
                ),
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="Falling noise levels that end with 0.")],
        )

    @classmethod
    def execute(cls, steps: int, strength: float, shift: float) -> Any:
        first = start_index(steps, strength)
        if strength < 1.0 and first == 0:
            LOGGER.warning(
                "Bundle Sigmas: strength %g with %d steps begins at pure noise, so the latent "
                "image has no effect; use more steps or less strength.", strength, steps
            )  # fmt: skip
        return io.NodeOutput(make_flow_sigmas(steps, shift=shift)[first:].float())


class EncodeBundlePrompt(io.ComfyNode):
    """The prompt of a bundle for ComfyUI's samplers."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_EncodeBundlePrompt",
            display_name="Bundle Conditioning",
            category=CATEGORY,
            description="Encodes the prompt of a bundle image for ComfyUI's own samplers as "
            "Kiss3DGen does with Flux: CLIP-L sees the fixed prefix alone, T5 the prefix and your "
            "words. The same as CLIPTextEncodeFlux with both texts filled in, at T5's full 512 "
            "tokens.",
            search_aliases=["clip text encode", "prompt", "kiss3dgen", "flux guidance"],
            inputs=[
                io.Clip.Input("clip", tooltip="Text encoders of Flux (DualCLIPLoader)."),
                io.String.Input(
                    "prompt",
                    default="a red mug with a white handle",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the object is, in words; nothing about views or background.",
                ),
                io.Float.Input(
                    "guidance",
                    default=3.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Flux's guidance, an input of the network; 3.5 is Kiss3DGen's. The "
                    "sampler's cfg stays at 1.",
                ),
                io.String.Input(
                    "prefix",
                    default=BUNDLE_PREFIX,
                    multiline=True,
                    tooltip="Fixed words that ask for the layout; the bundle LoRA was trained "
                    "with the default.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.Conditioning.Output("conditioning", tooltip="For BasicGuider or KSampler.")
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        return prompt is None or prompt_problem(prompt) or True

    @classmethod
    def execute(cls, clip: Any, prompt: str, guidance: float, prefix: str) -> Any:
        texts = BundlePrompt(prompt, prefix)
        tokens = tokenize(clip, texts.full_text, texts.pooled_text, long_text=True)
        told = {"guidance": guidance}
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens, add_dict=told))


class SetControlMode(io.ComfyNode):
    """Chooses the mode of a union ControlNet by its true number."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_SetControlMode",
            display_name="Set Union ControlNet Mode",
            category=CATEGORY,
            description="Chooses what a union ControlNet is to follow, by the numbers that it was "
            "trained with. ComfyUI's SetUnionControlNetType counts as the SDXL network does: with "
            "the Flux network its 'tile' (6) selects low quality; tile is 1 there.",
            search_aliases=["union controlnet type", "tile", "canny", "depth", "controlnet mode"],
            inputs=[
                io.ControlNet.Input("control_net", tooltip="A union ControlNet for Flux or SDXL."),
                io.Combo.Input(
                    "mode",
                    options=MODES,
                    default="tile",
                    tooltip="Kind of the condition picture; a network knows some of these.",
                ),
            ],
            outputs=[
                io.ControlNet.Output(
                    "control_net", tooltip="For Apply ControlNet; the input is left as it is."
                )
            ],
        )

    @classmethod
    def execute(cls, control_net: Any, mode: str) -> Any:
        return io.NodeOutput(set_control_mode(control_net, mode))


NODES = [WrapModel, EncodeBundlePrompt, MakeBundleSigmas, SetControlMode]
