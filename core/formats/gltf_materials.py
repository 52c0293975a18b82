"""Contains the reading of glTF materials and textures.

Reference: Khronos glTF 2.0 specification, sections 3.8 and 3.9; KHR_texture_transform.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..mesh import Material
from .color_space import linear_to_srgb
from .gltf_container import GltfDocument
from .images import decode_image
from .json_fields import JsonObject, pick

LOGGER = logging.getLogger(__name__)

Image = Float[Tensor, "height width 3"]


@dataclass(frozen=True)
class TexturePlacement:
    """Which uv set a texture uses, and the affine map applied to it (KHR_texture_transform)."""

    uv_set: int = 0
    offset: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)

    def apply(self, uvs: Float[np.ndarray, "vertex 2"]) -> Float[np.ndarray, "vertex 2"]:
        """Texture coordinates at which the image is looked up."""
        if self == TexturePlacement(self.uv_set):
            return uvs
        u, v = (uvs * np.asarray(self.scale, np.float32)).T
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        turned = np.stack([cos * u + sin * v, cos * v - sin * u], axis=1)
        return (turned + np.asarray(self.offset)).astype(np.float32)


@dataclass(frozen=True)
class GltfMaterial:
    """A material as our nouns express it."""

    material: Material = field(default_factory=Material)
    texture: Float[Tensor, "texture_height texture_width 3"] | None = None
    metallic_roughness: Float[Tensor, "mr_height mr_width 3"] | None = None
    placement: TexturePlacement = field(default_factory=TexturePlacement)


class MaterialReader:
    """Reads materials of one document; images are decoded once and shared."""

    def __init__(self, document: GltfDocument) -> None:
        """Take the document whose materials are wanted."""
        self._document = document
        self._materials = document.json.children("materials")
        self._textures = document.json.children("textures")
        self._images = document.json.children("images")
        self._decoded: dict[int, Image] = {}
        self._read: dict[int, GltfMaterial] = {}

    def read(self, index: int) -> GltfMaterial:
        """Material number ``index``."""
        if index not in self._read:
            self._read[index] = self._parse(pick(self._materials, index, "material"))
        return self._read[index]

    def _parse(self, entry: JsonObject) -> GltfMaterial:
        extensions = entry.child("extensions")
        pbr = entry.child("pbrMetallicRoughness")
        base_map, factor_key = "baseColorTexture", "baseColorFactor"
        glossy = "KHR_materials_pbrSpecularGlossiness"
        if extensions.has(glossy):  # archived extension, still found in older downloads
            pbr = extensions.child(glossy)
            base_map, factor_key = "diffuseTexture", "diffuseFactor"
        factor = np.clip(pbr.numbers(factor_key, 4, (1, 1, 1, 1)), 0.0, 1.0)
        red, green, blue = (float(value) for value in linear_to_srgb(factor[:3]))
        see_through = entry.text("alphaMode", "OPAQUE") != "OPAQUE"
        material = Material(
            base_color=(red, green, blue),
            alpha=float(factor[3]) if see_through else 1.0,
            metallic=_unit(pbr.number("metallicFactor", 0.0 if extensions.has(glossy) else 1.0)),
            roughness=_unit(pbr.number("roughnessFactor", 1.0)),
            double_sided=entry.flag("doubleSided"),
            unlit=extensions.has("KHR_materials_unlit"),
        )
        texture, placement = self._texture(pbr, base_map)
        surface, surface_placement = self._texture(pbr, "metallicRoughnessTexture")
        if texture is None:
            placement = surface_placement
        elif surface is not None and surface_placement != placement:
            LOGGER.warning("%s: its metallic-roughness map has own uvs: dropped.", entry.where)
            surface = None
        return GltfMaterial(material, texture, surface, placement)

    def _texture(self, pbr: JsonObject, key: str) -> tuple[Image | None, TexturePlacement]:
        if not pbr.has(key):
            return None, TexturePlacement()
        info = pbr.child(key)
        transform = info.child("extensions").child("KHR_texture_transform")
        offset, scale = (
            transform.numbers("offset", 2, (0, 0)),
            transform.numbers("scale", 2, (1, 1)),
        )
        placement = TexturePlacement(
            uv_set=transform.integer("texCoord", info.integer("texCoord", 0)),
            offset=(offset[0], offset[1]),
            rotation=transform.number("rotation", 0.0),
            scale=(scale[0], scale[1]),
        )
        return self._image(pick(self._textures, info.integer("index"), "texture")), placement

    def _image(self, texture: JsonObject) -> Image | None:
        webp = texture.child("extensions").child("EXT_texture_webp")
        source = webp if webp.has("source") else texture
        if not source.has("source"):
            LOGGER.warning("%s has no image in a format we read: left out.", texture.where)
            return None
        index = source.integer("source")
        if index not in self._decoded:
            entry = pick(self._images, index, "image")
            if entry.has("uri"):
                data = self._document.resource(entry.text("uri"))
            else:
                buffer, offset, length = self._document.view(entry.integer("bufferView"))
                data = buffer[offset : offset + length]
            self._decoded[index] = decode_image(data, entry.where)
        return self._decoded[index]


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)
