"""Contains the nodes that make bundle images: from words, or from another bundle."""

from __future__ import annotations

from typing import Any

from ..core.bundle_image import split_bundle
from ..core.diffusion.schedules import FLUX_SHIFT
from ..core.pipelines.bundle_prompt import BUNDLE_PREFIX, BundlePrompt, ImagePrompt, prompt_problem
from ..core.pipelines.enhance_bundle import enhance_bundle
from ..core.pipelines.text_to_bundle import (
    MAX_BATCH,
    MAX_STEPS,
    BundleSampleParams,
    sample_bundle,
)
from .host import ADVANCED, io, make_progress, make_schema
from .sockets import (
    ControlsSocket,
    DiffusionSocket,
    PromptSocket,
    images_to_link,
    latents_to_link,
    masks_from_link,
    single_image_from_link,
)
from .widgets import choice, number, seed_input, steps_input, tile_input, whole

CATEGORY = "Lift3D/Generate"
DIFFUSION_TOOLTIP = "Model from Load Diffusion Model or Wrap Native Model."
PROMPT_TOOLTIP = "What to show, from Bundle Prompt."


def bundle_outputs() -> list[Any]:
    """Outputs that both samplers have."""
    return [
        io.Image.Output(
            "bundle",
            tooltip="Bundle images, one per entry of the batch: RGB views above normals, on "
            "white. Any image node may follow.",
        ),
        io.Latent.Output("latent", tooltip="The same before decoding, for ComfyUI's VAE Decode."),
    ]


def sampling_inputs() -> list[Any]:
    """Widgets that both samplers have."""
    return [
        seed_input(
            "Seed of the noise; entry i of a batch has seed + i. 0 is a seed like any other.",
            default=42,
        ),
        steps_input(
            "steps",
            0,
            "Number of noise levels; 0 takes what the model was made for (20 for Flux). Heun asks "
            "the model twice for each but the last.",
            most=MAX_STEPS,
        ),
        whole("batch", 1, 1, MAX_BATCH, "How many variations are made at once."),
        tile_input(
            "Side of a tile in pixels; 0 takes what the model was made for (512 for the published "
            "bundle of 2048 x 1024).",
            default=0,
            least=0,
            **ADVANCED,
        ),
        choice(
            "sampler",
            ["heun", "euler"],
            "heun",
            "'heun' is Kiss3DGen's; 'euler' takes half the time.",
            **ADVANCED,
        ),
        number(
            "guidance",
            0.0,
            0.0,
            100.0,
            "How strictly the prompt is followed; 0 takes what the model was made for (3.5 for "
            "Flux).",
            step=0.1,
            **ADVANCED,
        ),
        number(
            "shift",
            FLUX_SHIFT,
            0.1,
            100.0,
            "Moves the noise levels of flow models towards 1; 3 is Kiss3DGen's.",
            **ADVANCED,
        ),
        io.Boolean.Input(
            "clean",
            default=True,
            tooltip="Give the normal maps unit length and the background pure white.",
            **ADVANCED,
        ),
    ]


class MakeBundlePrompt(io.ComfyNode):
    """Words (and a picture) for a bundle."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_MakeBundlePrompt",
            display_name="Bundle Prompt",
            category=CATEGORY,
            description="Says what a bundle image should show. The prompt is plain text: connect "
            "any captioner or prompt-rewriting node to it. A picture may guide beside the words.",
            search_aliases=["text prompt", "encode prompt", "redux", "image prompt", "caption"],
            inputs=[
                io.String.Input(
                    "prompt",
                    default="a red mug with blue handle",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the object is, in words; nothing about views or background.",
                ),
                io.String.Input(
                    "prefix",
                    default=BUNDLE_PREFIX,
                    multiline=True,
                    tooltip="Fixed words that ask for the layout. The published LoRA and the "
                    "embedded models were trained with the default.",
                    **ADVANCED,
                ),
                number(
                    "image_strength",
                    0.5,
                    0.0,
                    2.0,
                    "Weight of the picture's tokens: 0.5 beside controls, 0.95 when the picture "
                    "decides alone.",
                    step=0.05,
                    **ADVANCED,
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Picture that guides like words do (Flux Redux); the model must have "
                    "an encoder for it.",
                ),
            ],
            outputs=[
                PromptSocket.Output("bundle_prompt", tooltip="For the sampling nodes."),
                io.String.Output(
                    "clip_l", tooltip="Text for CLIP-L in ComfyUI's own nodes: the prefix alone."
                ),
                io.String.Output(
                    "t5xxl", tooltip="Text for T5 in ComfyUI's own nodes: prefix and prompt."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        return prompt is None or prompt_problem(prompt) or True

    @classmethod
    def execute(cls, prompt: str, prefix: str, image_strength: float, image: Any = None) -> Any:
        picture = None
        if image is not None:
            picture = ImagePrompt(single_image_from_link(image)[None], image_strength)
        made = BundlePrompt(prompt, prefix, picture)
        return io.NodeOutput(made, made.pooled_text, made.full_text)


class SampleBundle(io.ComfyNode):
    """Makes bundle images from a prompt."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_SampleBundle",
            display_name="Sample Bundle",
            category=CATEGORY,
            description="Makes a 3D bundle image from a prompt: four views of one object above "
            "their normal maps. Reconstruct From Bundle turns it into a mesh.",
            search_aliases=["text to 3d", "text to bundle", "kiss3dgen", "ksampler", "multiview"],
            inputs=[
                DiffusionSocket.Input("diffusion", tooltip=DIFFUSION_TOOLTIP),
                PromptSocket.Input("bundle_prompt", tooltip=PROMPT_TOOLTIP),
                *sampling_inputs(),
                number(
                    "strength",
                    1.0,
                    0.0,
                    1.0,
                    "Only with a start bundle: share of the steps that run on it. 1 ignores it; "
                    "0.95 needs 20 steps or more to keep anything of it.",
                    **ADVANCED,
                ),
                io.Image.Input(
                    "start_bundle",
                    optional=True,
                    tooltip="Bundle image to start from, of any tile size.",
                ),
            ],
            outputs=bundle_outputs(),
        )

    @classmethod
    def execute(
        cls,
        diffusion: Any,
        bundle_prompt: Any,
        start_bundle: Any = None,
        **settings: Any,
    ) -> Any:
        start = None
        if start_bundle is not None:
            start = split_bundle(single_image_from_link(start_bundle, "start_bundle"))
        params = sample_params(**settings)
        made = sample_bundle(
            diffusion, bundle_prompt, params, start=start, on_progress=make_progress()
        )
        latents = latents_to_link(made.latents, diffusion.latent_format)
        return io.NodeOutput(images_to_link(made.images()), latents)


class EnhanceBundle(io.ComfyNode):
    """Enhances or edits a bundle by prompt."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_EnhanceBundle",
            display_name="Enhance Bundle",
            category=CATEGORY,
            description="Samples a bundle image that starts from another: with its own "
            "description as prompt it gains detail, with another prompt it is edited. Controls "
            "hold it to the reference, a mask keeps the rest exactly as it is.",
            search_aliases=["image to image", "img2img", "inpaint", "edit 3d", "refine", "denoise"],
            inputs=[
                DiffusionSocket.Input("diffusion", tooltip=DIFFUSION_TOOLTIP),
                PromptSocket.Input("bundle_prompt", tooltip=PROMPT_TOOLTIP),
                io.Image.Input(
                    "bundle",
                    tooltip="The reference, from Render Bundle or anywhere; its tiles are brought "
                    "to the model's size.",
                ),
                *sampling_inputs(),
                number(
                    "strength",
                    0.95,
                    0.0,
                    1.0,
                    "Denoise strength: how much of the reference is lost. 0.95 is the published "
                    "value, with controls; lower ones keep more.",
                ),
                number(
                    "feather_px",
                    2.0,
                    0.0,
                    64.0,
                    "Only with a mask: width of the seam round it, in pixels of the sampled "
                    "bundle.",
                    step=0.5,
                    **ADVANCED,
                ),
                ControlsSocket.Input(
                    "controls", optional=True, tooltip="ControlNets, from Bundle Control."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 where the bundle may change: one picture of the whole bundle, or "
                    "one mask per view (both rows) or per tile. Without it everything may.",
                ),
            ],
            outputs=bundle_outputs(),
        )

    @classmethod
    def execute(
        cls,
        diffusion: Any,
        bundle_prompt: Any,
        bundle: Any,
        feather_px: float,
        controls: Any = None,
        mask: Any = None,
        **settings: Any,
    ) -> Any:
        made = enhance_bundle(
            diffusion,
            split_bundle(single_image_from_link(bundle, "bundle")),
            bundle_prompt,
            sample_params(feather_px=feather_px, **settings),
            controls=controls or (),
            mask=masks_from_link(mask),
            on_progress=make_progress(),
        )
        latents = latents_to_link(made.latents, diffusion.latent_format)
        return io.NodeOutput(images_to_link(made.images()), latents)


def sample_params(*, sampler: Any, **settings: Any) -> BundleSampleParams:
    """Settings of the widgets."""
    return BundleSampleParams(method=sampler, **settings)


NODES = [MakeBundlePrompt, SampleBundle, EnhanceBundle]
