"""Contains stand-ins for the stock ComfyUI nodes that Lift3D's workflows use.

Own implementations with the same ids, inputs and outputs, so that one workflow file runs in both
places. They cover what a workflow needs to run from files to files, not all options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import folders
from .comfy_api import ComfyNode, NodeOutput, Schema, io

MAX_PX = 16384
BLENDS = ("normal", "multiply", "screen", "overlay", "soft_light", "difference")
SCALING = {
    "nearest-exact": "nearest-exact", "bilinear": "bilinear", "area": "area",
    "bicubic": "bicubic", "lanczos": "bicubic",
}  # fmt: skip


class LoadImage(ComfyNode):
    """Reads a picture file."""

    @classmethod
    def define_schema(cls) -> Schema:
        path = io.Combo.Input("image", options=[], extra_dict={"image_upload": True})
        return Schema(
            "LoadImage", "Load Image", inputs=[path], outputs=[io.Image.Output(), io.Mask.Output()]
        )

    @classmethod
    def validate_inputs(cls, image: str) -> bool | str:
        """Any file name may be chosen."""
        return True if _find_file(image).is_file() else f"the file '{image}' does not exist"

    @classmethod
    def execute(cls, image: str) -> NodeOutput:
        from PIL import Image

        with Image.open(_find_file(image)) as picture:
            rgba = np.array(picture.convert("RGBA"), dtype=np.float32) / 255
        pixels = torch.from_numpy(rgba)[None]
        return NodeOutput(pixels[..., :3], 1 - pixels[..., 3])


class SaveImage(ComfyNode):
    """Writes pictures as PNG files."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            "SaveImage",
            "Save Image",
            inputs=[
                io.Image.Input("images"),
                io.String.Input("filename_prefix", default="ComfyUI"),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: Tensor, filename_prefix: str) -> NodeOutput:
        return NodeOutput(ui={"images": folders.save_images(images, filename_prefix)})


class PreviewImage(ComfyNode):
    """Writes pictures into the preview folder."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            "PreviewImage",
            "Preview Image",
            inputs=[io.Image.Input("images")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: Tensor) -> NodeOutput:
        return NodeOutput(ui={"images": folders.save_images(images, "preview/preview")})


class Preview3D(ComfyNode):
    """Shows a model in ComfyUI; the file that it would show is written already."""

    @classmethod
    def define_schema(cls) -> Schema:
        model = io.MultiType.Input(
            io.String.Input("model_file", default=""),
            types=[io.File3DGLB, io.File3DOBJ, io.File3DSTL, io.File3DAny],
        )
        return Schema(
            "Preview3D",
            "Preview 3D",
            inputs=[
                model,
                io.Load3DCamera.Input("camera_info", optional=True),
                io.Image.Input("bg_image", optional=True),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model_file: Any, camera_info: Any = None, bg_image: Any = None) -> NodeOutput:
        return NodeOutput()


class PreviewAny(ComfyNode):
    """Prints a value as text."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            "PreviewAny", "Preview Any", inputs=[io.AnyType.Input("source")], is_output_node=True
        )

    @classmethod
    def execute(cls, source: Any) -> NodeOutput:
        return NodeOutput(ui={"text": [str(source)]})


class EmptyImage(ComfyNode):
    """A picture of one colour, given as the number 0xRRGGBB."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            "EmptyImage",
            "Empty Image",
            inputs=[
                io.Int.Input("width", default=512, min=1, max=MAX_PX),
                io.Int.Input("height", default=512, min=1, max=MAX_PX),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
                io.Int.Input("color", default=0, min=0, max=0xFFFFFF),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int, color: int) -> NodeOutput:
        rgb = torch.tensor([(color >> shift) & 0xFF for shift in (16, 8, 0)]) / 255
        return NodeOutput(rgb.expand(batch_size, height, width, 3).clone())


class ImageBlend(ComfyNode):
    """Mixes two pictures."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            "ImageBlend",
            "Image Blend",
            inputs=[
                io.Image.Input("image1"),
                io.Image.Input("image2"),
                io.Float.Input("blend_factor", default=0.5, min=0.0, max=1.0),
                io.Combo.Input("blend_mode", options=list(BLENDS)),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls, image1: Tensor, image2: Tensor, blend_factor: float, blend_mode: str
    ) -> NodeOutput:
        over = _resize(image2[..., :3], image1.shape[1], image1.shape[2], "bicubic")
        blended = _blend(image1[..., :3], over.clamp(0, 1), blend_mode)
        return NodeOutput(torch.lerp(image1[..., :3], blended, blend_factor).clamp(0, 1))


class ImageCompositeMasked(ComfyNode):
    """Lays one picture over another where a mask says so."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            "ImageCompositeMasked",
            "Image Composite Masked",
            inputs=[
                io.Image.Input("destination"),
                io.Image.Input("source"),
                io.Int.Input("x", default=0, min=0, max=MAX_PX),
                io.Int.Input("y", default=0, min=0, max=MAX_PX),
                io.Boolean.Input("resize_source", default=False),
                io.Mask.Input("mask", optional=True),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls,
        destination: Tensor,
        source: Tensor,
        x: int,
        y: int,
        resize_source: bool,
        mask: Tensor | None = None,
    ) -> NodeOutput:
        height, width = destination.shape[1:3]
        if resize_source:
            source = _resize(source, height, width, "bilinear")
        weight = torch.ones_like(source[..., 0]) if mask is None else mask
        weight = _resize(weight.reshape(-1, *weight.shape[-2:], 1), *source.shape[1:3], "bilinear")
        rows, columns = min(source.shape[1], height - y), min(source.shape[2], width - x)
        result = destination.clone()
        if rows > 0 and columns > 0:
            region = result[:, y : y + rows, x : x + columns]
            count = region.shape[0]
            over = _of_length(source, count)[:, :rows, :columns, : region.shape[-1]]
            region.lerp_(over, _of_length(weight, count)[:, :rows, :columns])
        return NodeOutput(result)


class ImageInvert(ComfyNode):
    """Turns colours into their complements."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            "ImageInvert",
            "Invert Image",
            inputs=[io.Image.Input("image")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: Tensor) -> NodeOutput:
        return NodeOutput(1.0 - image)


class ImageScale(ComfyNode):
    """Resizes pictures; a side of 0 keeps the aspect."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            "ImageScale",
            "Upscale Image",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("upscale_method", options=list(SCALING)),
                io.Int.Input("width", default=512, min=0, max=MAX_PX),
                io.Int.Input("height", default=512, min=0, max=MAX_PX),
                io.Combo.Input("crop", options=["disabled", "center"]),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls, image: Tensor, upscale_method: str, width: int, height: int, crop: str
    ) -> NodeOutput:
        old_height, old_width = image.shape[1:3]
        if not width and not height:
            return NodeOutput(image)
        width = width or max(1, round(old_width * height / old_height))
        height = height or max(1, round(old_height * width / old_width))
        if crop == "center":
            image = _crop_to_aspect(image, width / height)
        return NodeOutput(_resize(image, height, width, upscale_method).clamp(0, 1))


class ImageFromBatch(ComfyNode):
    """Picks pictures out of a batch."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            "ImageFromBatch",
            "Get Image from Batch",
            inputs=[
                io.Image.Input("image"),
                io.Int.Input("batch_index", default=0, min=-MAX_PX, max=MAX_PX),
                io.Int.Input("length", default=1, min=1, max=4096),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: Tensor, batch_index: int, length: int) -> NodeOutput:
        count = image.shape[0]
        start = min(max(batch_index + count * (batch_index < 0), 0), count - 1)
        return NodeOutput(image[start : start + length].clone())


class MaskToImage(ComfyNode):
    """Shows a mask as a grey picture."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            "MaskToImage",
            "Convert Mask to Image",
            inputs=[io.Mask.Input("mask")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, mask: Tensor) -> NodeOutput:
        batch = mask.reshape(-1, *mask.shape[-2:])
        return NodeOutput(batch[..., None].expand(*batch.shape, 3).clone())


STOCK_NODES: tuple[type[ComfyNode], ...] = (
    LoadImage, SaveImage, PreviewImage, Preview3D, PreviewAny, EmptyImage, ImageBlend,
    ImageCompositeMasked, ImageInvert, ImageScale, ImageFromBatch, MaskToImage,
)  # fmt: skip


def _find_file(name: str) -> Path:
    path = Path(name).expanduser()
    return path if path.is_file() or path.is_absolute() else folders.current().input / name


def _resize(images: Tensor, height: int, width: int, method: str) -> Tensor:
    if tuple(images.shape[1:3]) == (height, width):
        return images
    mode = SCALING[method]
    smooth = mode in ("bilinear", "bicubic")
    resized = functional.interpolate(
        images.permute(0, 3, 1, 2),
        size=(height, width),
        mode=mode,
        align_corners=False if smooth else None,
        antialias=smooth,
    )
    return resized.permute(0, 2, 3, 1)


def _of_length(batch: Tensor, count: int) -> Tensor:
    """The batch repeated or cut to ``count`` members."""
    repeats = -(-count // batch.shape[0])
    return batch.repeat(repeats, 1, 1, 1)[:count]


def _crop_to_aspect(images: Tensor, aspect: float) -> Tensor:
    height, width = images.shape[1:3]
    if width / height > aspect:
        keep = max(1, round(height * aspect))
        left = (width - keep) // 2
        return images[:, :, left : left + keep]
    keep = max(1, round(width / aspect))
    top = (height - keep) // 2
    return images[:, top : top + keep]


def _blend(below: Tensor, above: Tensor, mode: str) -> Tensor:
    """Blend modes of the W3C Compositing and Blending recommendation, section 9.1.

    Overlay chooses its branch by the lower picture, soft light follows the formula of the W3C.
    """
    multiplied = below * above
    screened = below + above - multiplied
    if mode == "multiply":
        return multiplied
    if mode == "screen":
        return screened
    if mode == "overlay":
        return torch.where(below <= 0.5, 2 * multiplied, 2 * screened - 1)
    if mode == "difference":
        return below - above
    if mode == "soft_light":
        lift = torch.where(
            below <= 0.25, ((16 * below - 12) * below + 4) * below, below.clamp(min=0).sqrt()
        )
        darker = below - (1 - 2 * above) * below * (1 - below)
        lighter = below + (2 * above - 1) * (lift - below)
        return torch.where(above <= 0.5, darker, lighter)
    return above.expand_as(below)
