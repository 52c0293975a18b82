from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from format_samples import colored_mesh, tetrahedron
from lift3d.core.formats import GlbParams, decode_mesh, encode_mesh, read_glb_metadata
from lift3d.core.formats.glb_write import encode_glb
from lift3d.core.mesh import Material


def _parts(glb: bytes) -> tuple[dict, bytes]:
    """JSON and binary chunk, taken apart without the code under test."""
    magic, version, total = struct.unpack_from("<4sII", glb)
    assert (magic, version, total) == (b"glTF", 2, len(glb))
    (json_length,) = struct.unpack_from("<I", glb, 12)
    (binary_length,) = struct.unpack_from("<I", glb, 20 + json_length)
    assert json_length % 4 == binary_length % 4 == 0
    return json.loads(glb[20 : 20 + json_length]), glb[28 + json_length :]


def _values(document: dict, binary: bytes, accessor: int) -> np.ndarray:
    entry = document["accessors"][accessor]
    view = document["bufferViews"][entry["bufferView"]]
    dtype = {5126: "<f4", 5125: "<u4", 5123: "<u2"}[entry["componentType"]]
    columns = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[entry["type"]]
    assert view["byteOffset"] % 4 == 0
    return np.frombuffer(binary, dtype, entry["count"] * columns, view["byteOffset"]).reshape(
        -1, columns
    )


def test_stored_values_of_a_mesh_with_everything():
    mesh = colored_mesh()
    grey = replace(mesh, vertex_colors=torch.full((4, 3), 0.5))
    document, binary = _parts(encode_glb([grey], metadata={"prompt": "a cup", "steps": [1, 2]}))
    assert document["asset"]["extras"] == {"prompt": "a cup", "steps": [1, 2]}
    (primitive,) = document["meshes"][0]["primitives"]
    stored = {k: _values(document, binary, a) for k, a in primitive["attributes"].items()}
    # sRGB 0.5 is stored as linear 0.2140 (kiss3dgen conformance 21).
    assert stored["COLOR_0"] == pytest.approx(0.21404114, abs=1e-7)
    assert (stored["POSITION"] == mesh.vertices.numpy()).all()  # no axis is changed
    assert (stored["TEXCOORD_0"] == mesh.uvs.numpy()).all()
    position = document["accessors"][primitive["attributes"]["POSITION"]]
    assert position["min"] == [0, 0, 0] and position["max"] == [1, 1, 1]
    assert (
        _values(document, binary, primitive["indices"]).reshape(-1, 3).tolist()
        == mesh.faces.tolist()
    )
    (material,) = document["materials"]
    pbr = material["pbrMetallicRoughness"]
    assert pbr["baseColorFactor"] == pytest.approx([0.21404114, 0.05087609, 1.0, 0.75])
    assert (pbr["metallicFactor"], pbr["roughnessFactor"]) == (0.5, 0.25)
    assert material["alphaMode"] == "BLEND" and material["doubleSided"] is False
    assert material["extensions"] == {"KHR_materials_unlit": {}}
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]
    assert {"baseColorTexture", "metallicRoughnessTexture"} <= pbr.keys()
    for image in document["images"]:
        view = document["bufferViews"][image["bufferView"]]
        assert binary[view["byteOffset"] :][:8] == b"\x89PNG\r\n\x1a\n"


def test_default_material_is_matte_and_double_sided():
    document, _ = _parts(encode_glb([tetrahedron()]))
    (material,) = document["materials"]
    assert material["doubleSided"] is True
    assert material["pbrMetallicRoughness"] == {
        "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": 1.0,
    }
    assert not {"textures", "images", "extensionsUsed", "animations"} & document.keys()


def test_reading_gives_back_what_was_written():
    mesh = colored_mesh()
    (again,) = decode_mesh(encode_glb([mesh]), ".glb")
    assert again.name == mesh.name
    for field in ("vertices", "faces", "uvs"):
        assert torch.equal(getattr(again, field), getattr(mesh, field)), field
    for field in ("texture", "metallic_roughness", "vertex_normals", "vertex_colors"):
        # Eight bits are exact; colours take the way through linear light in float32.
        assert torch.allclose(getattr(again, field), getattr(mesh, field), atol=2e-7), field
    assert again.material.base_color == pytest.approx(mesh.material.base_color, abs=1e-7)
    assert replace(again.material, base_color=(0, 0, 0)) == replace(
        mesh.material, base_color=(0, 0, 0)
    )


def test_parts_keep_order_names_and_share_equal_images():
    painted = colored_mesh()
    parts = [painted, tetrahedron(name="Kopf ü"), replace(painted, name="twin")]
    glb = encode_glb(parts)
    document, _ = _parts(glb)
    assert [node["name"] for node in document["nodes"]] == ["painted", "Kopf ü", "twin"]
    assert len(document["images"]) == 2 and len(document["samplers"]) == 1
    assert [mesh.name for mesh in decode_mesh(glb, ".glb")] == ["painted", "Kopf ü", "twin"]


def test_missing_normals_are_smooth_across_uv_seams():
    # Two vertices at one place, as on a seam: flat normals would differ, smooth ones agree.
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 1, 2], [3, 5, 4]])
    mesh = replace(tetrahedron(), vertices=vertices, faces=faces)
    (again,) = decode_mesh(encode_glb([mesh]), ".glb")
    assert torch.equal(again.vertex_normals[0], again.vertex_normals[3])
    assert again.vertex_normals[2].tolist() == [0, 0, 1]
    plain = encode_glb([mesh], params=GlbParams(write_normals=False))
    assert decode_mesh(plain, ".glb")[0].vertex_normals is None


def test_repeating_uvs_get_a_repeating_sampler():
    mesh = colored_mesh()
    wraps = [
        _parts(encode_glb([replace(mesh, uvs=mesh.uvs * scale)]))[0]["samplers"][0]["wrapS"]
        for scale in (1, 3)
    ]
    assert wraps == [33071, 10497]


def test_jpeg_textures_are_jpeg_and_data_maps_stay_png():
    document, binary = _parts(encode_glb([colored_mesh()], params=GlbParams("jpeg")))
    kinds = [image["mimeType"] for image in document["images"]]
    assert kinds == ["image/jpeg", "image/png"]


def test_same_mesh_gives_the_same_bytes():
    assert encode_glb([colored_mesh()]) == encode_glb([colored_mesh()])


def test_double_precision_and_gradients_do_not_matter():
    mesh = tetrahedron()
    leaf = mesh.vertices.double().requires_grad_()
    (again,) = decode_mesh(encode_glb([replace(mesh, vertices=leaf)]), ".glb")
    assert torch.equal(again.vertices, mesh.vertices)


def test_empty_parts_are_left_out_and_nothing_is_refused(caplog):
    empty = replace(tetrahedron(), faces=torch.zeros(0, 3, dtype=torch.int64))
    assert len(decode_mesh(encode_glb([empty, tetrahedron()]), ".glb")) == 1
    assert "Left out 1 empty" in caplog.text
    for nothing in ([], [empty]):
        with pytest.raises(ValueError, match="nothing to write"):
            encode_mesh(nothing, ".glb")


@pytest.mark.parametrize("metadata", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}])
def test_metadata_that_is_no_json_is_refused(metadata):
    with pytest.raises(ValueError, match="metadata must consist of JSON"):
        encode_glb([tetrahedron()], metadata=metadata)


def test_metadata_comes_back():
    metadata = {"workflow": {"nodes": [{"id": 1, "text": 'é "]['}]}, "none": None}
    assert read_glb_metadata(encode_glb([tetrahedron()], metadata=metadata)) == metadata


def test_trimesh_reads_the_same_mesh():
    trimesh = pytest.importorskip("trimesh")
    import io

    mesh = replace(colored_mesh(), texture=None, metallic_roughness=None, material=Material())
    scene = trimesh.load(
        io.BytesIO(encode_glb([mesh, tetrahedron(name="b")])), file_type="glb", process=False
    )
    assert set(scene.geometry) == {"painted", "b"}
    found = scene.geometry["painted"]
    np.testing.assert_array_equal(found.vertices, mesh.vertices.numpy())
    np.testing.assert_array_equal(found.faces, mesh.faces.numpy())
    np.testing.assert_allclose(found.vertex_normals, mesh.vertex_normals.numpy(), atol=1e-6)
