"""OBJ in both directions: obj_text, obj_read, obj_material and obj_write."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from format_samples import colored_mesh, tetrahedron
from lift3d.core.formats import decode_mesh, encode_mesh, read_mesh, write_mesh
from lift3d.core.formats.images import encode_image

CORNERS = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def _read(text: bytes) -> list:
    return decode_mesh(text, ".obj")


def test_known_text():
    files = encode_mesh(
        replace(tetrahedron(name="my part"), faces=torch.tensor([[0, 1, 2]])), ".obj"
    )
    assert list(files) == ["mesh.mtl", "mesh.obj"]
    assert files["mesh.obj"].decode().split("\n") == [
        "# Lift3D", "mtllib mesh.mtl", "o my part",
        "v 0 0 0", "v 1 0 0", "v 0 1 0", "v 0 0 1", "usemtl material_0", "f 1 2 3", "",
    ]  # fmt: skip


def test_reading_gives_back_what_was_written(tmp_path):
    mesh = replace(colored_mesh(), metallic_roughness=None)
    second = replace(tetrahedron(name="bare"), vertices=tetrahedron().vertices / 3 + 1e-7)
    written = write_mesh(tmp_path / "my model.obj", [mesh, second])
    assert [path.name for path in written] == ["my_model_0.png", "my_model.mtl", "my model.obj"]
    again, bare = read_mesh(tmp_path / "my model.obj")
    assert (again.name, bare.name) == ("painted", "bare")
    assert torch.equal(again.vertices, mesh.vertices) and torch.equal(again.faces, mesh.faces)
    assert torch.equal(bare.vertices, second.vertices) and bare.uvs is None
    assert torch.allclose(again.uvs, mesh.uvs, atol=1e-7)  # 1 - v, twice
    assert torch.equal(again.vertex_colors, mesh.vertex_colors)
    assert torch.equal(again.texture, mesh.texture)
    assert torch.allclose(again.vertex_normals, mesh.vertex_normals, atol=1e-6)
    material = replace(again.material, double_sided=False)
    assert material == mesh.material


def test_corners_of_every_style_and_negative_indices():
    faces = {
        b"f 1 2 3": False, b"f 1/1 2/2 3/3": True, b"f 1//1 2//1 3//1": False,
        b"f 1/1/1 2/2/1 3/3/1": True, b"f -4 -3 -2": False, b"f 1/ 2/ 3/": False,
        b"f -4/-3/-1 -3/-2/-1 -2/-1/-1": True, b"f 1 2/1 3//1": False,
    }  # fmt: skip
    head = CORNERS + b"vt 0 0\nvt 1 0\nvt 1 1\nvn 0 0 2\n"
    for face, has_uvs in faces.items():
        (mesh,) = _read(head + face + b"\n")
        assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]], face
        assert mesh.faces.tolist() == [[0, 1, 2]]
        assert (mesh.uvs is not None) == has_uvs, face
        assert mesh.vertex_normals is None or mesh.vertex_normals.tolist() == [[0, 0, 1]] * 3


def test_negative_indices_count_from_their_own_line():
    (mesh,) = _read(CORNERS + b"f -4 -3 -2\nv 5 0 0\nv 6 0 0\nv 5 1 0\nf -3 -2 -1\n")
    assert mesh.vertices[mesh.faces[1]].tolist() == [[5, 0, 0], [6, 0, 0], [5, 1, 0]]


def test_v_counts_from_the_bottom_in_the_file():
    (mesh,) = _read(CORNERS + b"vt 0.25 0\nvt 1 0.25\nvt 0 1\nf 1/1 2/2 3/3\n")
    assert mesh.uvs.tolist() == [[0.25, 1.0], [1.0, 0.75], [0.0, 0.0]]


def test_vertices_are_repeated_only_where_uvs_differ():
    text = CORNERS + b"vt 0 0\nvt 1 0\nvt 1 1\nvt 0 0\nvt 0.5 0.5\n"
    (same,) = _read(text + b"f 1/1 2/2 3/3\nf 1/4 3/3 4/2\n")  # vt 4 equals vt 1
    assert same.num_vertices == 4
    (seam,) = _read(text + b"f 1/1 2/2 3/3\nf 1/5 3/3 4/2\n")
    assert seam.num_vertices == 5


def test_polygons_are_triangulated():
    (mesh,) = _read(CORNERS + b"f 1 2 3 4\n")
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    (mesh,) = _read(b"v 0 0 0\nv 4 0 0\nv 1 1 0\nv 0 4 0\nf 1 2 3 4\n")  # concave at 3
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    assert torch.linalg.cross(b - a, c - a)[:, 2].tolist() == [4.0, 4.0]


def test_objects_groups_and_materials_make_parts():
    text = (
        CORNERS + b"f 1 2 3\no door\nusemtl wood\nf 1 2 3\nusemtl iron\nf 2 3 4\no frame\nf 1 2 4\n"
    )
    assert [mesh.name for mesh in _read(text)] == ["mesh", "door_wood", "door_iron", "frame"]
    text = CORNERS + b"g left arm\nf 1 2 3\ng\nf 2 3 4\ng left arm\nf 1 2 4\n"
    names = [(mesh.name, mesh.num_faces) for mesh in _read(text)]
    assert names == [("left arm", 2), ("mesh", 1)]


def test_odd_but_legal_text_is_read():
    text = (
        b"\xef\xbb\xbf# \xff comment\r\n\tv\t0 0 0 1.0\r\n  v 1 0 0\r\nv 1 1 0 # corner\r\n"
        b"s off\r\nvp 1 2\r\nl 1 2\r\np 1\r\nf 1 2 \\\r\n 3\r\n"
    )
    (mesh,) = _read(text)
    assert mesh.faces.tolist() == [[0, 1, 2]] and mesh.vertex_colors is None


def test_vertex_colours_are_read():
    (mesh,) = _read(b"v 0 0 0 1 0 0.5\nv 1 0 0 0 2 0\nv 0 1 0 0 0 0\nf 1 2 3\n")
    assert mesh.vertex_colors.tolist() == [[1, 0, 0.5], [0, 1, 0], [0, 0, 0]]


def _with_material(folder, mtl: bytes, obj: bytes = b"") -> list:
    (folder / "m.mtl").write_bytes(mtl)
    (folder / "m.obj").write_bytes(
        b"mtllib m.mtl\nusemtl a\n"
        + CORNERS
        + b"vt 0 0\nvt 1 0\nvt 1 1\n"
        + (obj or b"f 1/1 2/2 3/3\n")
    )
    return read_mesh(folder / "m.obj")


def test_material_values_and_map_options(tmp_path):
    (tmp_path / "my tex.png").write_bytes(encode_image(torch.full((2, 3, 3), 0.2)))
    (mesh,) = _with_material(
        tmp_path,
        b"Kd 9 9 9\nnewmtl a\nKa 0 0 0\nKd 0.1 0.2 0.3\nTr 0.25\nPm 0.5\nPr 2\n"
        b"map_Kd -s 1 1 1 -clamp on -bm 0.5 my tex.png\nnewmtl b\nKd 1 1 1\n",
    )
    assert mesh.material.base_color == (0.1, 0.2, 0.3)
    values = mesh.material.alpha, mesh.material.metallic, mesh.material.roughness
    assert values == (0.75, 0.5, 1.0)
    assert mesh.texture.shape == (2, 3, 3)


def test_missing_library_and_texture_are_tolerated_with_a_warning(tmp_path, caplog):
    (tmp_path / "a.obj").write_bytes(b"mtllib none.mtl\nusemtl a\n" + CORNERS + b"f 1 2 3\n")
    assert read_mesh(tmp_path / "a.obj")[0].texture is None
    assert "none.mtl" in caplog.text
    assert _with_material(tmp_path, b"newmtl a\nmap_Kd gone.png\n")[0].texture is None
    assert "gone.png" in caplog.text


@pytest.mark.parametrize("name", ["../x.png", "..\\x.png", "/x.png", "C:/x.png", "http://a/x.png"])
def test_unsafe_names_are_refused_even_when_nothing_is_there(name, tmp_path):
    with pytest.raises(ValueError, match=r"m\.obj: names"):
        _with_material(tmp_path, f"newmtl a\nmap_Kd {name}\n".encode())
    (tmp_path / "n.obj").write_bytes(f"mtllib {name}\n".encode() + CORNERS + b"f 1 2 3\n")
    with pytest.raises(ValueError, match=r"n\.obj: names"):
        read_mesh(tmp_path / "n.obj")


def test_damaged_texture_and_material_are_refused(tmp_path):
    (tmp_path / "t.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    for mtl in (
        b"newmtl a\nmap_Kd t.png\n",
        b"newmtl a\nKd red\n",
        b"newmtl a\nd nan\n",
        b"newmtl a\nKd 1 2\n",
    ):
        with pytest.raises(ValueError, match=r"m\.obj: "):
            _with_material(tmp_path, mtl)


BAD = {
    b"": "no faces",
    CORNERS: "no faces",
    CORNERS + b"f 1 2 5\n": "vertex 5, but the file has 4",
    CORNERS + b"f 1/1 2/1 3/1\n": "texture coordinate 1, but the file has 0",
    CORNERS + b"f 0 1 2\n": "counts from 1",
    CORNERS + b"f -5 -1 -2\n": "before the start",
    CORNERS + b"f 1 2\n": "three corners",
    CORNERS + b"f\nf 1 2 x\n": "face indices",
    CORNERS + b"f 1 2 3.5\n": "face indices",
    CORNERS + b"f 1 2 99999999999999999999\n": "face indices",
    CORNERS + b"f 1/2/3/4 2 3\n": "more than three indices",
    CORNERS + b"f /1 2 3\n": "empty index",
    CORNERS + b"f 1 2 " + b"3" * 100 + b"\n": "endless word",
    b"v 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n": "expected 3",
    b"v 0 0 zero\nv 1 0 0\nv 0 1 0\nf 1 2 3\n": "vertices",
    b"v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n": "NaN",
    b"v 0 0 1e40\nv 1 0 0\nv 0 1 0\nf 1 2 3\n": "NaN or infinite",
    b"v 0 0 1e9\nv 1 0 0\nv 0 1 0\nf 1 2 3\n": "scale the mesh down",
    b"v 1 v 2\n" + CORNERS + b"f 1 2 3\n": "not understood",
}


@pytest.mark.parametrize("text", BAD)
def test_damaged_text_is_refused(text):
    with pytest.raises(ValueError, match=rf"bad\.obj: .*{BAD[text]}"):
        decode_mesh(text, ".obj", name="bad.obj")


def test_lost_maps_are_reported(caplog):
    encode_mesh(colored_mesh(), ".obj")
    assert "metallic-roughness" in caplog.text


def test_real_files_agree_with_trimesh(shared_dir):
    trimesh = pytest.importorskip("trimesh")
    for name in ("cow.obj", "chair_model.obj"):
        path = shared_dir / "meshes" / name
        ours = read_mesh(path)
        theirs = trimesh.load(path, process=False, force="mesh")
        assert sum(mesh.num_faces for mesh in ours) == len(theirs.faces)
        corners = torch.cat([mesh.vertices[mesh.faces] for mesh in ours]).numpy().astype("f4")
        expected = theirs.vertices[theirs.faces].astype("f4")
        assert (
            np.abs(np.sort(corners.sum(axis=(1, 2))) - np.sort(expected.sum(axis=(1, 2)))).max()
            < 1e-5
        )
