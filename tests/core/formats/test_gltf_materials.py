from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from format_samples import build_glb
from lift3d.core.formats import decode_mesh
from lift3d.core.formats.images import encode_image

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], "<f4")
UVS = np.array([[0, 1], [1, 1], [0, 0], [1, 0]], "<f4")


def _read(document: dict, arrays: list) -> list:
    return decode_mesh(build_glb(document, arrays), ".glb")


def _textured(material: dict, attributes: dict, **more) -> dict:
    image = base64.b64encode(encode_image(torch.full((2, 2, 3), 0.4))).decode()
    return {
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "mode": 5, "material": 0}]}],
        "materials": [material],
        "textures": [{"source": 0}],
        "images": [{"uri": f"data:image/png;base64,{image}"}],
        **more,
    }


def test_material_texture_and_its_transform():
    transform = {"offset": [0.5, 0.25], "scale": [2, 3], "rotation": np.pi / 2, "texCoord": 1}
    material = {
        "pbrMetallicRoughness": {
            "baseColorFactor": [0.21404114, 1, 0, 0.5],
            "metallicFactor": 0.25,
            "baseColorTexture": {"index": 0, "extensions": {"KHR_texture_transform": transform}},
        },
        "alphaMode": "BLEND",
        "extensions": {"KHR_materials_unlit": {}},
    }
    document = _textured(material, {"POSITION": 0, "TEXCOORD_1": 1})
    (mesh,) = _read(document, [SQUARE, UVS])
    assert mesh.material.base_color == pytest.approx((0.5, 1, 0), abs=1e-6)
    assert (mesh.material.alpha, mesh.material.metallic, mesh.material.roughness) == (0.5, 0.25, 1)
    assert mesh.material.unlit and not mesh.material.double_sided
    assert torch.allclose(mesh.texture, torch.full((2, 2, 3), 0.4), atol=1e-6)
    # Scaled, turned by 90 degrees counter-clockwise on the picture (u, v) -> (v, -u), moved.
    expected = np.stack([3 * UVS[:, 1] + 0.5, -2 * UVS[:, 0] + 0.25], axis=1)
    assert mesh.uvs.numpy() == pytest.approx(expected, abs=1e-6)


def test_texture_without_uvs_is_left_out_with_a_warning(caplog):
    material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    (mesh,) = _read(_textured(material, {"POSITION": 0}), [SQUARE])
    assert mesh.texture is None and "no uvs" in caplog.text


def test_opaque_material_ignores_alpha():
    document = _textured(
        {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0]}}, {"POSITION": 0}
    )
    assert _read(document, [SQUARE])[0].material.alpha == 1.0


def test_archived_specular_glossiness_gives_its_diffuse_colour():
    glossy = {"diffuseFactor": [0, 1, 0, 1], "diffuseTexture": {"index": 0}}
    material = {"extensions": {"KHR_materials_pbrSpecularGlossiness": glossy}}
    (mesh,) = _read(_textured(material, {"POSITION": 0, "TEXCOORD_0": 1}), [SQUARE, UVS])
    assert mesh.material.base_color == (0, 1, 0) and mesh.material.metallic == 0
    assert mesh.texture is not None
