"""PLY meshes and the PLY container under them."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from format_samples import colored_mesh, random_cloud, tetrahedron
from lift3d.core.formats import decode_mesh, encode_mesh, encode_splats, read_mesh
from lift3d.core.formats.ply_container import decode_ply

HEAD = "ply\nformat {} 1.0\ncomment by hand\n"
BODY = "element vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
FACE = "element face {}\nproperty list uchar int vertex_indices\nend_header\n"
SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]


def _read(data: bytes | str):
    (mesh,) = decode_mesh(data if isinstance(data, bytes) else data.encode(), ".ply")
    return mesh


def _by_hand(encoding: str, faces: list) -> bytes:
    """A square with the given faces, in any of the three encodings."""
    head = (HEAD.format(encoding) + BODY + FACE.format(len(faces))).encode()
    if encoding == "ascii":
        rows = [" ".join(map(str, row)) for row in SQUARE]
        rows += [" ".join(map(str, [len(face), *face])) for face in faces]
        return head + "\n".join(rows).encode()
    order = "<" if "little" in encoding else ">"
    body = b"".join(struct.pack(order + "3f", *row) for row in SQUARE)
    return head + body + b"".join(struct.pack(f"{order}B{len(f)}i", len(f), *f) for f in faces)


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize(
    ("faces", "triangles"),
    [
        ([[0, 1, 2], [0, 2, 3]], [[0, 1, 2], [0, 2, 3]]),
        ([[0, 1, 2, 3]], [[0, 1, 2], [0, 2, 3]]),
        ([[3, 0, 1], [0, 1], [0, 1, 2, 3]], [[3, 0, 1], [0, 1, 2], [0, 2, 3]]),
    ],
)
def test_known_files(encoding, faces, triangles):
    mesh = _read(_by_hand(encoding, faces))
    assert mesh.vertices.tolist() == [list(map(float, row)) for row in SQUARE]
    assert mesh.faces.tolist() == triangles


def test_colours_normals_and_unknown_properties_of_any_order():
    text = (
        "ply\r\nformat ascii 1.0\r\nelement material 1\r\nproperty float shine\r\n"
        "element vertex 3\r\nproperty uchar blue\r\nproperty double z\r\nproperty double y\r\n"
        "property double x\r\nproperty list uchar float weights\r\nproperty uchar red\r\n"
        "property uchar green\r\nproperty float nx\r\nproperty float ny\r\nproperty float nz\r\n"
        "element face 1\r\nproperty uchar flags\r\nproperty list uchar uint vertex_index\r\n"
        "end_header\r\n0.5\r\n"
        "255 3 2 1 2 0.5 0.5 0 51 0 0 1\r\n0 0 0 0 0 255 0 0 0 1\r\n0 0 1 0 1 9 0 0 0 0 1\r\n"
        "7 3 0 1 2\r\n"
    )
    mesh = _read(text)
    assert mesh.vertices[0].tolist() == [1, 2, 3]
    assert mesh.vertex_colors[0].tolist() == pytest.approx([0, 0.2, 1])
    assert mesh.vertex_normals.tolist() == [[0, 0, 1]] * 3


@pytest.mark.parametrize(("kind", "value"), [("float", 0.5), ("ushort", 32768)])
def test_colours_of_other_types_are_scaled_to_one(kind, value):
    text = "ply\nformat ascii 1.0\nelement vertex 3\n"
    text += "".join(f"property float {n}\n" for n in "xyz")
    text += "".join(f"property {kind} {n}\n" for n in "rgb")
    text += FACE.format(1) + f"0 0 0 {value} {value} {value}\n1 0 0 0 0 0\n0 1 0 0 0 0\n3 0 1 2"
    assert _read(text).vertex_colors[0].tolist() == pytest.approx([0.5] * 3, abs=1e-4)


def test_round_trip_and_header():
    mesh = replace(colored_mesh(), texture=None, metallic_roughness=None)
    mesh = replace(mesh, material=tetrahedron().material)
    data = encode_mesh(mesh, ".ply")["mesh.ply"]
    assert data.startswith(b"ply\nformat binary_little_endian 1.0\n")
    again = _read(data)
    assert torch.equal(again.vertices, mesh.vertices) and torch.equal(again.faces, mesh.faces)
    assert torch.equal(again.vertex_normals, mesh.vertex_normals)
    assert torch.allclose(again.uvs, mesh.uvs, atol=1e-7)
    # 8-bit colours: half a step.
    assert (again.vertex_colors - mesh.vertex_colors).abs().max() <= 0.5 / 255 + 1e-6


def test_textures_and_factors_become_vertex_colours():
    texture = torch.zeros(2, 2, 3)
    texture[0, 1] = torch.tensor([1.0, 0.5, 0.0])
    mesh = tetrahedron(
        uvs=torch.tensor([[0.0, 0], [1, 0], [1.75, 0.25], [0.1, 0.9]]), texture=texture
    )
    colors = _read(encode_mesh(mesh, ".ply")["mesh.ply"]).vertex_colors
    assert (colors * 255).round().tolist() == [[0] * 3, [255, 128, 0], [255, 128, 0], [0] * 3]
    red = tetrahedron(material=replace(mesh.material, base_color=(1, 0, 0)))
    both = _read(encode_mesh([red, mesh], ".ply")["mesh.ply"])
    assert both.num_vertices == 8 and both.vertex_colors[0].tolist() == [1, 0, 0]


def test_plyfile_reads_what_we_write_and_the_reverse():
    plyfile = pytest.importorskip("plyfile")
    mesh = tetrahedron(vertex_colors=torch.rand(4, 3))
    found = plyfile.PlyData.read(io.BytesIO(encode_mesh(mesh, ".ply")["mesh.ply"]))
    assert np.array_equal(np.stack(found["face"]["vertex_indices"]), mesh.faces.numpy())
    assert np.array_equal(found["vertex"]["y"], mesh.vertices[:, 1].numpy())
    assert [p.name for p in found["vertex"].properties] == ["x", "y", "z", "red", "green", "blue"]
    for text in (True, False):
        for order in "<>":
            again = plyfile.PlyData(list(found), text=text, byte_order=order)
            stream = io.BytesIO()
            again.write(stream)
            assert torch.equal(_read(stream.getvalue()).faces, mesh.faces)


def test_real_bunny_agrees_with_trimesh(shared_dir):
    trimesh = pytest.importorskip("trimesh")
    path = shared_dir / "meshes" / "bunny.ply"
    (ours,) = read_mesh(path)
    theirs = trimesh.load(path, process=False)
    np.testing.assert_allclose(ours.vertices, theirs.vertices, atol=1e-7)
    assert np.array_equal(ours.faces, theirs.faces)


def _header(*lines: str) -> str:
    return "\n".join(["ply", "format ascii 1.0", *lines, "end_header", ""])


XYZ = ("property float x", "property float y", "property float z")
BAD = {
    "ply\n": "header",
    "ply\nformat ascii 1.0\nend_header": "header",
    "ply\n" + "comment x\n" * 10_000 + "end_header\n": "header",
    "ply\nend_header\n": "no known format",
    "ply\nformat binary 1.0\nend_header\n": "no known format",
    _header("element vertex -3", *XYZ): "count '-3'",
    _header("element vertex 99999999999999999999", *XYZ): "has the count",
    _header("element vertex 3 4"): "not understood",
    _header("property float x"): "not understood",
    _header("element vertex 1", "property"): "not understood",
    _header("element vertex 1", "property list int x"): "not understood",
    _header("element vertex 1", "property half x"): "not understood",
    _header("element vertex 1", "property list float int x"): "no whole number",
    _header("element vertex 1", *XYZ, "property float x"): "same name twice",
    _header("element vertex 1", *XYZ, "element vertex 1", *XYZ): "same name twice",
    _header("element vertex 900000000", *XYZ): "at most",
    _header("element vertex 3", *XYZ) + "0 0 0 1 1 1": "truncated",
    _header("element vertex 3", *XYZ) + "0 0 0 1 1 1 2 2 x": "PLY values",
    _header("element vertex 1", *XYZ) + "0 0 0": "no faces",
    _header("element vertex 1", "property float x") + "0": "no faces",
    _by_hand("ascii", [[0, 1, 4]]).decode(): "vertices 0..4",
    _by_hand("ascii", [[0, 1, -1]]).decode(): "vertices -1..1",
    _by_hand("ascii", [[0, 1]]).decode(): "three corners",
    _by_hand("ascii", [[0, 1, 2]]).decode().replace("\n3 0 1 2", "\n-3 0 1 2"): "does not fit|length",
    _by_hand("ascii", [[0, 1, 2]]).decode().replace("\n3 0 1 2", "\n9 0 1 2"): "truncated",
    _by_hand("ascii", [[0, 1, 2]]).decode().replace("\n1 0 0", "\nnan 0 0"): "NaN",
    _by_hand("ascii", [[0, 1, 2]]).decode().replace("\n1 0 0", "\n1e9 0 0"): "scale the mesh down",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_damaged_and_lying_files_are_refused(text):
    with pytest.raises(ValueError, match=rf"(?s)bad\.ply: .*({BAD[text]})"):
        decode_mesh(text.encode(), ".ply", name="bad.ply")


@pytest.mark.parametrize("encoding", ["binary_little_endian", "binary_big_endian"])
def test_truncated_binary_is_refused_at_every_length(encoding):
    whole = _by_hand(encoding, [[0, 1, 2], [0, 1, 2, 3]])
    for length in range(4, len(whole)):
        with pytest.raises(ValueError):
            decode_mesh(whole[:length], ".ply")


def test_signed_list_length_below_zero_is_refused():
    data = _header("element face 1", "property list char int vertex_indices").replace(
        "ascii", "binary_little_endian"
    )
    with pytest.raises(ValueError, match="truncated"):
        decode_ply(data.encode() + b"\xff" + b"\0" * 64)


def test_gaussians_are_named_as_such():
    with pytest.raises(ValueError, match="Gaussians, not a mesh"):
        decode_mesh(encode_splats(random_cloud(3), ".ply"), ".ply")
