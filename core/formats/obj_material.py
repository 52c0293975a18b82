"""Contains the material library (.mtl) of Wavefront OBJ files.

Kd and the maps are taken as display-referred sRGB, as most programs show them. Pm and Pr are the
metallic and roughness values of the physically based extension of the format.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor

from ..mesh import Material
from .files import MissingSiblingError, SiblingLoader, safe_relative_name
from .images import decode_image

LOGGER = logging.getLogger(__name__)

# Number of arguments of the options that may stand before a map's file name.
_MAP_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-bm": 1, "-boost": 1, "-cc": 1, "-clamp": 1, "-colorspace": 1,
    "-imfchan": 1, "-mm": 2, "-texres": 1, "-type": 1,
}  # fmt: skip
_VECTOR_OPTIONS = ("-o", "-s", "-t")


@dataclass(frozen=True)
class ObjMaterial:
    """One ``newmtl`` entry."""

    material: Material = field(default_factory=Material)
    texture: Float[Tensor, "height width 3"] | None = None


def decode_mtl(data: bytes, load_sibling: SiblingLoader) -> dict[str, ObjMaterial]:
    """Materials by name; a texture that is not there is left out with a warning.

    Raises:
        ValueError: a value is no number, or a map's name leads out of the folder.
    """
    found: dict[str, ObjMaterial] = {}
    images: dict[str, Tensor | None] = {}
    name = ""
    for line in data.decode("utf-8", "replace").splitlines():
        keyword, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if keyword == "newmtl":
            name = rest
            found[name] = ObjMaterial()
        elif name not in found or not rest:
            continue
        elif keyword == "map_Kd":
            file_name = _map_file_name(rest)
            if file_name not in images:
                images[file_name] = _load_map(file_name, load_sibling)
            found[name] = replace(found[name], texture=images[file_name])
        else:
            found[name] = replace(
                found[name], material=_with_value(found[name].material, keyword, rest)
            )
    return found


def encode_mtl(name: str, material: Material, texture_name: str | None) -> str:
    """Text of one material."""
    red, green, blue = material.base_color
    lines = [
        f"newmtl {name}",
        f"Kd {red:.9g} {green:.9g} {blue:.9g}",
        "Ks 0 0 0",
        f"d {material.alpha:.9g}",
        f"Pm {material.metallic:.9g}",
        f"Pr {material.roughness:.9g}",
        f"illum {0 if material.unlit else 2}",
    ]
    if texture_name is not None:
        lines.append(f"map_Kd {texture_name}")
    return "\n".join(lines) + "\n\n"


def _with_value(material: Material, keyword: str, rest: str) -> Material:
    words = rest.split()
    if keyword == "Kd" and words[0] not in ("spectral", "xyz"):
        values = [_unit(keyword, word) for word in words[:3]]
        values = values * 3 if len(values) == 1 else values  # one value stands for all channels
        if len(values) != 3:
            raise ValueError(f"material line 'Kd {rest[:40]}' must hold three numbers.")
        return replace(material, base_color=(values[0], values[1], values[2]))
    if keyword == "d":
        return replace(material, alpha=_unit(keyword, words[-1]))
    if keyword == "Tr":
        return replace(material, alpha=1.0 - _unit(keyword, words[-1]))
    if keyword == "Pm":
        return replace(material, metallic=_unit(keyword, words[0]))
    if keyword == "Pr":
        return replace(material, roughness=_unit(keyword, words[0]))
    if keyword == "illum":
        return replace(material, unlit=words[0] == "0")
    return material


def _unit(keyword: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError as error:
        raise ValueError(
            f"material value {keyword} is {word[:40]!r}, expected a number."
        ) from error
    if value != value:
        raise ValueError(f"material value {keyword} is NaN.")
    return min(max(value, 0.0), 1.0)


def _map_file_name(rest: str) -> str:
    """File name after the options; it may contain spaces."""
    words = rest.split()
    position = 0
    while position < len(words) - 1 and words[position].startswith("-"):
        option = words[position].lower()
        position += 1 + _MAP_OPTIONS.get(option, 0)
        if option in _VECTOR_OPTIONS:  # one to three numbers
            while position < len(words) - 1 and _is_number(words[position]):
                position += 1
    return " ".join(words[position:])


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _load_map(name: str, load_sibling: SiblingLoader) -> Tensor | None:
    safe_relative_name(name)
    try:
        return decode_image(load_sibling(name), f"texture {name[:100]!r}")
    except MissingSiblingError as error:
        LOGGER.warning("The texture is left out: the material %s", error)
        return None
