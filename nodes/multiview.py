"""Contains the nodes that lead from one picture to views of the object in it."""

from __future__ import annotations

from typing import Any

import torch

from ..core.diffusion.zero123plus_files import FLEXGEN_LINK, FOLDER_LINK, load_zero123plus
from ..core.networks.zero123plus import Zero123Plus
from ..core.pipelines.image_to_multiview import MultiviewParams, image_to_multiview
from ..core.pipelines.prepare_image import PUBLISHED_SHARE, PrepareImageParams, prepare_image
from .host import ADVANCED, io, make_progress, make_schema, network_device, network_placement
from .model_files import (
    diffusers_folders,
    missing_verdict,
    model_input,
    resolve_diffusers_folder,
    resolve_weights,
    weight_files,
    weights_fingerprint,
)
from .sockets import (
    RigSocket,
    images_to_link,
    masks_from_link,
    masks_to_link,
    single_image_from_link,
)

CATEGORY = "Lift3D/Image to 3D"
MultiviewSocket = io.Custom("LIFT3D_MULTIVIEW")
PUBLISHED_FOLDER = "zero123plus-v1.2"
PUBLISHED_UNET = "flexgen.ckpt"
OWN_UNET = "of the folder"
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def precision_input(default: str, tooltip: str) -> Any:
    """Type of a model's weights."""
    return io.Combo.Input(
        "precision", options=["auto", *PRECISIONS], default=default, tooltip=tooltip, **ADVANCED
    )


def chosen_precision(name: str) -> torch.dtype:
    """Type by its name; "auto" is half precision on a card and single precision on the CPU."""
    if name == "auto":
        return torch.float32 if network_device().type == "cpu" else torch.float16
    return PRECISIONS[name]


class PrepareImage(io.ComfyNode):
    """Cuts the object out of a picture and centres it."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_PrepareImage",
            display_name="Prepare Image",
            category=CATEGORY,
            description="Cuts the object out of a picture by its alpha channel or a mask, centres "
            "it in a square and puts an even background behind it: the input of all "
            "image-to-3D models.",
            search_aliases=["crop", "recenter", "remove background", "rembg", "square", "pad"],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The picture; with an alpha channel no mask is needed."
                ),
                io.Int.Input(
                    "size_px",
                    default=512,
                    min=64,
                    max=2048,
                    step=8,
                    tooltip="Width and height of the result in pixels.",
                ),
                io.Float.Input(
                    "share",
                    default=PUBLISHED_SHARE,
                    min=0.1,
                    max=1.0,
                    step=0.05,
                    tooltip="Longest side of the object as a part of the result's side; 0.85 is "
                    "what the published models were given.",
                ),
                io.Combo.Input(
                    "background",
                    options=["white", "grey", "black"],
                    default="white",
                    tooltip="Colour behind the object. Kiss3DGen's models expect white.",
                ),
                io.Combo.Input(
                    "mask_shows",
                    options=["object", "background"],
                    default="object",
                    tooltip="What is white in the mask: the 'object', as from background removal "
                    "nodes, or the 'background', as in the MASK of Load Image.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Says where the object is, for pictures without alpha.",
                ),
            ],
            outputs=[
                io.Image.Output("image", tooltip="The object, centred on the background."),
                io.Mask.Output("mask", tooltip="Coverage of the object in the result."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Any,
        size_px: int,
        share: float,
        background: str,
        mask_shows: str,
        mask: Any = None,
    ) -> Any:
        pictures, masks = _picture_batch(image), _masks_of(mask, len(image), mask_shows)
        params = PrepareImageParams(size_px, share, background)
        made = [
            prepare_image(picture, own, params)
            for picture, own in zip(pictures, masks, strict=True)
        ]
        return io.NodeOutput(
            images_to_link(torch.stack([one.image for one in made])),
            masks_to_link(torch.stack([one.mask for one in made])),
        )


class LoadMultiviewModel(io.ComfyNode):
    """Loads a model of the Zero123++ family."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_LoadMultiviewModel",
            display_name="Load Multiview Model",
            category=CATEGORY,
            description="Loads Zero123++ from its diffusers folder, or Kiss3DGen's FlexGen: the "
            "same folder with another UNet.",
            search_aliases=["zero123plus", "flexgen", "multi-view diffusion", "instantmesh"],
            inputs=[
                model_input(
                    "folder",
                    diffusers_folders(),
                    [PUBLISHED_FOLDER],
                    tooltip="Folder in models/lift3d or models/diffusers with the content of "
                    f"{FOLDER_LINK}.",
                ),
                model_input(
                    "unet",
                    weight_files(),
                    [PUBLISHED_UNET, OWN_UNET],
                    tooltip="UNet checkpoint in models/lift3d that replaces the folder's own: "
                    f"flexgen.ckpt for bundles ({FLEXGEN_LINK}). With it the folder need not hold "
                    "the UNet's weights.",
                ),
                precision_input("auto", "Type of the weights; 'auto' is float16 on a card."),
            ],
            outputs=[MultiviewSocket.Output("multiview", tooltip="The model.")],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None, unet: str | None) -> bool | str:
        """Missing weights are named with the place and the link, before anything runs."""
        return missing_verdict(
            *([] if folder is None else [lambda: resolve_diffusers_folder(folder, FOLDER_LINK)]),
            *([] if unet in (None, OWN_UNET) else [lambda: resolve_weights(unet, FLEXGEN_LINK)]),
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, unet: str, precision: str) -> str:
        """Run again when a file changes."""
        return f"{weights_fingerprint(folder)} {weights_fingerprint(unet)} {precision}"

    @classmethod
    def execute(cls, folder: str, unet: str, precision: str) -> Any:
        model = load_zero123plus(
            resolve_diffusers_folder(folder, FOLDER_LINK),
            None if unet == OWN_UNET else resolve_weights(unet, FLEXGEN_LINK),
            dtype=chosen_precision(precision),
        )
        return io.NodeOutput(model)


class ImageToViews(io.ComfyNode):
    """Draws views of the object in a picture."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_GenerateViews",
            display_name="Image To Views",
            category=CATEGORY,
            description="Draws the object of a picture from all round: front, left, rear and right "
            "with FlexGen, six views with Zero123++.",
            search_aliases=["multiview", "novel views", "zero123", "flexgen", "image to 3d"],
            inputs=[
                MultiviewSocket.Input("multiview", tooltip="A model of Load Multiview Model."),
                io.Image.Input(
                    "image", tooltip="One square picture of the object, as of Prepare Image."
                ),
                io.Int.Input(
                    "steps", default=50, min=1, max=1000, tooltip="Sampling steps; 50 as published."
                ),
                io.Float.Input(
                    "guidance",
                    default=4.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How closely the views follow the picture; 4 as published. Up to 1 "
                    "halves the time.",
                ),
                io.Int.Input(
                    "seed",
                    default=42,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of all noise: the same seed gives the same views.",
                ),
                io.Combo.Input(
                    "layout",
                    options=["flexgen", "zero123plus"],
                    default="flexgen",
                    tooltip="What the model paints: 'flexgen' 2 x 2 tiles of 512 pixels, "
                    "'zero123plus' 3 x 2 tiles of 320.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "tile_px",
                    default=0,
                    min=0,
                    max=1024,
                    step=8,
                    tooltip="Side of each view in pixels; 0 takes what the model was made for.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.Image.Output(
                    "images", tooltip="Views; with FlexGen the front, left, rear and right."
                ),
                RigSocket.Output("rig", tooltip="The cameras of the views."),
                io.Image.Output("tiles", tooltip="The picture as the model painted it."),
            ],
        )

    @classmethod
    def execute(
        cls,
        multiview: Any,
        image: Any,
        steps: int,
        guidance: float,
        seed: int,
        layout: str,
        tile_px: int,
    ) -> Any:
        params = MultiviewParams(layout, steps, guidance, seed, tile_px)
        with network_placement() as placement:
            made = image_to_multiview(
                _model_from_link(multiview),
                single_image_from_link(image),
                params,
                placement=placement,
                on_progress=make_progress(),
            )
        return io.NodeOutput(images_to_link(made.views), made.rig, images_to_link(made.tiles))


def _model_from_link(value: Any) -> Zero123Plus:
    if not isinstance(value, Zero123Plus):
        raise ValueError(
            f"multiview must come from Load Multiview Model, got a {type(value).__name__}."
        )
    return value


def _picture_batch(image: Any) -> torch.Tensor:
    """IMAGE batch with its alpha channel, if it has one."""
    if not isinstance(image, torch.Tensor) or image.ndim != 4:
        raise ValueError(
            f"image must be an IMAGE [batch, height, width, 3 or 4], got a {type(image).__name__}."
        )
    return image.clone().float()


def _masks_of(mask: Any, count: int, shows: str) -> list[torch.Tensor | None]:
    """One mask of the object per picture; None where none is connected."""
    masks = masks_from_link(mask, "mask")
    if masks is None:
        return [None] * count
    if len(masks) not in (1, count):
        raise ValueError(f"Got {len(masks)} masks for {count} pictures; give one for each.")
    masks = 1 - masks if shows == "background" else masks
    return list(masks.expand(count, -1, -1))


NODES = [PrepareImage, LoadMultiviewModel, ImageToViews]
