"""Files built by hand, byte by byte, as other programs write them."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from format_samples import build_glb, pack_glb, triangle_glb
from lift3d.core.formats import decode_mesh, read_glb_metadata, read_mesh
from lift3d.core.formats import glb_read as glb_read_module

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], "<f4")


def _read(document: dict, arrays: list) -> list:
    return decode_mesh(build_glb(document, arrays), ".glb")


def _primitive(**entries) -> dict:
    return {"meshes": [{"primitives": [entries]}], "nodes": [{"mesh": 0}]}


def test_known_triangle():
    (mesh,) = decode_mesh(triangle_glb(), ".glb")
    assert mesh.name == "one"
    assert torch.equal(mesh.vertices, torch.eye(3)) and mesh.faces.tolist() == [[0, 1, 2]]
    assert mesh.texture is None and mesh.uvs is None and mesh.vertex_colors is None


@pytest.mark.parametrize("kind", ["<u1", "<u2", "<u4"])
def test_indices_of_every_width(kind):
    document = _primitive(attributes={"POSITION": 0}, indices=1)
    (mesh,) = _read(document, [SQUARE, np.array([0, 1, 2, 2, 1, 3], kind)])
    assert mesh.faces.tolist() == [[0, 1, 2], [2, 1, 3]]


@pytest.mark.parametrize(
    ("mode", "indices", "faces"),
    [
        (4, None, [[0, 1, 2]]),
        (5, None, [[0, 1, 2], [2, 1, 3]]),
        (5, [0, 1, 2, 2, 1, 3], [[0, 1, 2], [1, 2, 3]]),  # collapsed ones count for the turn
        (6, None, [[0, 1, 2], [0, 2, 3]]),
        (6, [1, 3, 2], [[1, 3, 2]]),
    ],
)
def test_lists_strips_and_fans(mode, indices, faces):
    arrays = [SQUARE[:3] if mode == 4 else SQUARE]
    entries: dict = {"attributes": {"POSITION": 0}, "mode": mode}
    if indices is not None:
        arrays.append(np.array(indices, "<u2"))
        entries["indices"] = 1
    (mesh,) = _read(_primitive(**entries), arrays)
    assert mesh.faces.tolist() == faces


def test_points_and_lines_are_left_out_and_alone_are_refused():
    document = {
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": m} for m in (0, 1, 4)]}],
        "nodes": [{"mesh": 0}],
    }
    assert len(_read(document, [SQUARE[:3]])) == 1
    with pytest.raises(ValueError, match="no triangles"):
        _read(_primitive(attributes={"POSITION": 0}, mode=0), [SQUARE])


def test_linear_colours_become_srgb_whatever_their_type():
    for colors, tolerance in (
        (np.full((4, 3), 0.21404114, "<f4"), 1e-6),
        (np.full((4, 4), round(0.21404114 * 65535), "<u2"), 1e-4),
        (np.full((4, 4), round(0.21404114 * 255), "<u1"), 5e-3),
    ):
        document = _primitive(attributes={"POSITION": 0, "COLOR_0": 1}, mode=5)
        glb = build_glb(document, [SQUARE, colors])
        if colors.dtype.kind == "u":
            glb = _edit(glb, lambda d: d["accessors"][1].update(normalized=True))
        (mesh,) = decode_mesh(glb, ".glb")
        assert mesh.vertex_colors.shape == (4, 3)
        assert mesh.vertex_colors.numpy() == pytest.approx(0.5, abs=tolerance)


def _edit(glb: bytes, change) -> bytes:
    """A GLB with its JSON changed by a function."""
    (length,) = struct.unpack_from("<I", glb, 12)
    document = json.loads(glb[20 : 20 + length])
    change(document)
    return pack_glb(json.dumps(document).encode(), glb[28 + length :])


def test_quantised_positions_and_uvs_are_scaled():
    positions = np.array([[0, 0, 0, 9], [32767, 0, 0, 9], [0, -32767, 0, 9]], "<i2")
    uvs = np.array([[0, 0], [65535, 0], [0, 65535]], "<u2")
    glb = build_glb(
        _primitive(attributes={"POSITION": 0, "TEXCOORD_0": 1})
        | {"extensionsRequired": ["KHR_mesh_quantization"]},
        [positions, uvs],
    )

    def change(document: dict) -> None:
        document["bufferViews"][0]["byteStride"] = 8
        document["accessors"][0].update(type="VEC3", normalized=True)
        document["accessors"][1].update(normalized=True)

    (mesh,) = decode_mesh(_edit(glb, change), ".glb")
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, -1, 0]]
    assert mesh.uvs.tolist() == [[0, 0], [1, 0], [0, 1]]


def test_interleaved_and_sparse_accessors():
    rows = np.zeros(3, dtype=[("position", "<f4", 3), ("normal", "<f4", 3)])
    rows["position"], rows["normal"] = np.eye(3), [0, 0, 1]
    document = _primitive(attributes={"POSITION": 0, "NORMAL": 1}) | {
        "buffers": [{"byteLength": 92}],
        "bufferViews": [
            {"buffer": 0, "byteLength": 72, "byteStride": 24},
            {"buffer": 0, "byteOffset": 72, "byteLength": 2},
            {"buffer": 0, "byteOffset": 76, "byteLength": 12},
        ],
        "accessors": [
            {
                "bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3",
                "sparse": {
                    "count": 1,
                    "indices": {"bufferView": 1, "componentType": 5123},
                    "values": {"bufferView": 2},
                },
            },
            {"bufferView": 0, "byteOffset": 12, "componentType": 5126, "count": 3, "type": "VEC3"},
        ],
    }  # fmt: skip
    binary = rows.tobytes() + struct.pack("<HH3f", 2, 0, 7, 8, 9) + b"\0" * 4
    glb = pack_glb(json.dumps({"asset": {"version": "2.0"}, **document}).encode(), binary)
    (mesh,) = decode_mesh(glb, ".glb")
    assert mesh.vertices.tolist() == [[1, 0, 0], [0, 1, 0], [7, 8, 9]]
    assert mesh.vertex_normals.tolist() == [[0, 0, 1]] * 3


def test_nodes_carry_their_parents_transforms():
    half = 0.5**0.5
    document = {
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"children": [1], "translation": [10, 0, 0]},
            {"children": [2], "rotation": [0, 0, half, half], "scale": [2, 2, 2]},
            {"mesh": 0, "name": "leaf", "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1]},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
    }
    (mesh,) = _read(document, [np.eye(3, dtype="<f4")])
    # x -> +1, doubled, turned to y, then moved by 10 along x.
    expected = torch.tensor([[10.0, 4, 0], [8, 2, 0], [10, 2, 2]])
    assert torch.allclose(mesh.vertices, expected, atol=1e-6) and mesh.name == "leaf"


def test_mirrored_node_keeps_the_outside_outside():
    document = _primitive(attributes={"POSITION": 0, "NORMAL": 1})
    document["nodes"] = [{"mesh": 0, "scale": [-1, 1, 2]}]
    normals = np.repeat(np.array([[1, 0, 1]], "<f4") / np.float32(2**0.5), 3, axis=0)
    (mesh,) = _read(document, [np.eye(3, dtype="<f4"), normals])
    assert mesh.faces.tolist() == [[2, 1, 0]]
    expected = np.array([-1, 0, 0.5]) / 1.25**0.5  # inverse transpose
    assert mesh.vertex_normals[0].numpy() == pytest.approx(expected, abs=1e-6)


def test_every_primitive_of_every_node_is_a_part():
    primitive = {"attributes": {"POSITION": 0}}
    document = {
        "nodes": [{"mesh": 0, "name": "pair"}, {"mesh": 1}, {"mesh": 1, "name": "again"}],
        "meshes": [{"primitives": [primitive, primitive]}, {"name": "lone", "primitives": [primitive]}],
    }  # fmt: skip
    names = [mesh.name for mesh in _read(document, [np.eye(3, dtype="<f4")])]
    assert names == ["pair_0", "pair_1", "lone", "again"]


def test_meshes_without_any_node_are_found():
    (mesh,) = _read({"meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}]}, [SQUARE[:3]])
    assert mesh.num_faces == 1


def test_only_the_default_scene_is_read():
    document = _primitive(attributes={"POSITION": 0}) | {
        "scene": 1,
        "nodes": [{"mesh": 0, "name": "hidden"}, {"mesh": 0, "name": "shown"}],
        "scenes": [{"nodes": [0]}, {"nodes": [1]}],
    }
    assert [mesh.name for mesh in _read(document, [SQUARE[:3]])] == ["shown"]


def _external(tmp_path, **uris):
    binary = np.eye(3, dtype="<f4").tobytes()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "my buffer.bin").write_bytes(binary)
    document = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "buffers": [{"byteLength": 36, "uri": uris["buffer"]}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
    }
    path = tmp_path / "model.gltf"
    path.write_text(json.dumps(document))
    return path


def test_gltf_with_buffer_beside_it(tmp_path):
    (mesh,) = read_mesh(_external(tmp_path, buffer="data/my%20buffer.bin"))
    assert torch.equal(mesh.vertices, torch.eye(3))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("../model.gltf", "leads out"),
        ("%2e%2e/model.gltf", "leads out"),
        ("/etc/passwd", "leads out"),
        ("https://example.com/a.bin", "URLs"),
        ("data/none.bin", "does not exist"),
        ("data:;base64,!!!", "data URI"),
        ("data:;base64,AAAA", "declares 36 bytes"),
    ],
)
def test_unsafe_missing_and_damaged_buffers_are_refused(uri, message, tmp_path):
    with pytest.raises(ValueError, match=rf"model\.gltf: .*{message}"):
        read_mesh(_external(tmp_path, buffer=uri))


def test_gltf_bytes_without_a_folder_say_so():
    text = json.dumps(
        {
            "asset": {"version": "2.0"},
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
            "buffers": [{"byteLength": 36, "uri": "a.bin"}],
            "bufferViews": [{"buffer": 0, "byteLength": 36}],
            "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        }
    )
    with pytest.raises(ValueError, match="without a folder"):
        decode_mesh(text.encode(), ".gltf")


# Changes to a valid file that each make it lie about one thing, and what the message must say.
LIES = {
    "accessor longer than its view": (
        lambda d: d["accessors"][0].update(count=4),
        "needs 48 bytes",
    ),
    "accessor count": (lambda d: d["accessors"][0].update(count=2**40), "at most"),
    "negative count": (lambda d: d["accessors"][0].update(count=-1), "whole number >= 0"),
    "accessor offset": (lambda d: d["accessors"][0].update(byteOffset=8), "needs 44 bytes"),
    "view offset": (lambda d: d["bufferViews"][0].update(byteOffset=10**6), "reaches to byte"),
    "view length": (lambda d: d["bufferViews"][0].update(byteLength=10**6), "reaches to byte"),
    "buffer length": (lambda d: d["buffers"][0].update(byteLength=10**6), "truncated"),
    "stride": (lambda d: d["bufferViews"][0].update(byteStride=4), "byteStride of 4"),
    "component type": (lambda d: d["accessors"][0].update(componentType=1), "component 1"),
    "element type": (lambda d: d["accessors"][0].update(type="VEC9"), "VEC9"),
    "too few columns": (lambda d: d["accessors"][0].update(type="VEC2"), "2 components"),
    "float indices": (lambda d: d["meshes"][0]["primitives"][0].update(indices=0), "indices"),
    "accessor index": (lambda d: d["meshes"][0]["primitives"][0].update(indices=9), "accessor 9"),
    "view index": (lambda d: d["accessors"][0].update(bufferView=5), "bufferView 5"),
    "buffer index": (lambda d: d["bufferViews"][0].update(buffer=1), "buffer 1"),
    "material index": (lambda d: d["meshes"][0]["primitives"][0].update(material=0), "material 0"),
    "mesh index": (lambda d: d["nodes"][0].update(mesh=7), "mesh 7"),
    "node index": (lambda d: d["scenes"][0].update(nodes=[3]), "node 3"),
    "scene index": (lambda d: d.update(scene=2), "scene 2"),
    "cycle": (lambda d: d["nodes"][0].update(children=[0]), "reached twice"),
    "two parents": (
        lambda d: (d["nodes"].extend([{"children": [0]}]), d["scenes"][0].update(nodes=[0, 1])),
        "reached twice",
    ),
    "zero rotation": (lambda d: d["nodes"][0].update(rotation=[0, 0, 0, 0]), "length 0"),
    "short matrix": (lambda d: d["nodes"][0].update(matrix=[1]), "16 numbers"),
    "huge scale": (lambda d: d["nodes"][0].update(scale=[1e200, 1, 1]), "NaN or infinite|reach"),
    "far away": (lambda d: d["nodes"][0].update(translation=[1e9, 0, 0]), "scale the mesh down"),
    "version": (lambda d: d["asset"].update(version="1.0"), "version '1.0'"),
    "no asset": (lambda d: d.pop("asset"), "version is missing"),
    "unknown need": (lambda d: d.update(extensionsRequired=["EXT_new"]), "EXT_new"),
    "draco": (
        lambda d: d.update(extensionsRequired=["KHR_draco_mesh_compression"]),
        "without compression",
    ),
    "meshopt": (
        lambda d: d["bufferViews"][0].update(extensions={"EXT_meshopt_compression": {}}),
        "without compression",
    ),
    "no meshes": (lambda d: d.update(nodes=[{}]), "no triangles"),
    "uneven list": (lambda d: d["accessors"][1].update(count=2), "no multiple of 3"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_with_what_is_wrong(lie, unchecked_shapes):
    change, message = LIES[lie]
    with pytest.raises(ValueError, match=rf"bad\.glb: .*({message})"):
        decode_mesh(_edit(triangle_glb(), change), ".glb", name="bad.glb")


def test_face_out_of_range_and_nan_are_refused():
    document = _primitive(attributes={"POSITION": 0}, indices=1)
    with pytest.raises(ValueError, match="vertices 0..3, but the mesh has 3"):
        _read(document, [np.eye(3, dtype="<f4"), np.array([0, 1, 3], "<u2")])
    with pytest.raises(ValueError, match="NaN"):
        _read(document, [np.full((3, 3), np.nan, "<f4"), np.array([0, 1, 2], "<u2")])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"glTF", "too short"),
        (triangle_glb()[:-8], "declares"),
        (b"glTF" + struct.pack("<II", 1, 24) + b"\0" * 12, "version 1"),
        (b"glTF" + struct.pack("<II", 2, 20) + struct.pack("<II", 999, 0x4E4F534A), "999 bytes"),
        (b"glTF" + struct.pack("<II", 2, 20) + struct.pack("<II", 0, 0x4E4F534A), "JSON"),
        (b"glTF" + struct.pack("<II", 2, 20) + struct.pack("<II", 0, 7), "no JSON chunk"),
    ],
)
def test_damaged_containers_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        decode_mesh(data, ".glb")


def test_instances_count_towards_the_limits(monkeypatch):
    monkeypatch.setattr(glb_read_module, "MAX_VERTICES", 8)
    with pytest.raises(ValueError, match="vertices: 9"):
        decode_mesh(triangle_glb(nodes=[{"mesh": 0}] * 3, scenes=[{"nodes": [0, 1, 2]}]), ".glb")


def test_metadata_of_a_file_without_any_is_empty():
    assert read_glb_metadata(triangle_glb()) == {}


def test_real_files_agree_with_trimesh(shared_dir):
    trimesh = pytest.importorskip("trimesh")
    for name in ("BoxTextured.glb", "Duck.glb"):
        path = shared_dir / "meshes" / name
        ours = read_mesh(path)
        theirs = trimesh.load(path, process=False).to_mesh()
        vertices = torch.cat([mesh.vertices for mesh in ours]).numpy()
        np.testing.assert_allclose(vertices, theirs.vertices, atol=1e-4)
        assert sum(mesh.num_faces for mesh in ours) == len(theirs.faces)
        picture = theirs.visual.material.baseColorTexture
        assert ours[0].texture.shape[:2] == picture.size[::-1]
