from __future__ import annotations

import pytest
import torch
from format_samples import colored_mesh, random_cloud, tetrahedron, triangle_glb
from lift3d.core.formats import (
    WRITABLE_MESH_SUFFIXES,
    decode_mesh,
    encode_mesh,
    read_mesh,
    write_mesh,
    write_splats,
)
from lift3d.core.mesh import Mesh

CUBOID = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-1.0, 1) for z in (-0.2, 0.9)])


@pytest.mark.parametrize("suffix", WRITABLE_MESH_SUFFIXES)
def test_front_and_up_stay_front_and_up(suffix, tmp_path):
    """Conformance 21 of kiss3dgen.md, without the reference's negated x and z."""
    mesh = Mesh(CUBOID, torch.tensor([[0, 1, 2], [1, 3, 2], [4, 6, 5], [5, 6, 7]]))
    write_mesh(tmp_path / f"a{suffix}", mesh)
    (again,) = read_mesh(tmp_path / f"a{suffix}")
    assert torch.equal(again.vertices[again.faces], mesh.vertices[mesh.faces])


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_parts_keep_their_names(suffix, tmp_path):
    parts = [tetrahedron(name="hair"), colored_mesh(), tetrahedron(name="body part")]
    write_mesh(tmp_path / f"a{suffix}", parts)
    assert [mesh.name for mesh in read_mesh(tmp_path / f"a{suffix}")] == [
        "hair",
        "painted",
        "body part",
    ]


@pytest.mark.parametrize("suffix", [".stl", ".ply"])
def test_formats_without_parts_join_them(suffix, tmp_path):
    write_mesh(tmp_path / f"a{suffix}", [tetrahedron(), colored_mesh()])
    assert read_mesh(tmp_path / f"a{suffix}")[0].num_faces == 8


def test_suffix_case_and_wrong_suffixes_do_not_matter(tmp_path):
    write_mesh(tmp_path / "a.GLB", tetrahedron())
    assert read_mesh(tmp_path / "a.GLB")[0].num_faces == 4
    for name in ("wrong.obj", "wrong.stl", "none"):
        (tmp_path / name).write_bytes(triangle_glb())
        assert read_mesh(tmp_path / name)[0].num_faces == 1
    ply = encode_mesh(tetrahedron(), ".ply")["mesh.ply"]
    assert decode_mesh(ply, ".glb")[0].num_faces == 4


@pytest.mark.parametrize("suffix", WRITABLE_MESH_SUFFIXES)
def test_failed_writing_keeps_the_old_files(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"a{suffix}"
    write_mesh(path, tetrahedron())
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=rf"a\{suffix}: There is nothing to write"):
        write_mesh(path, empty)

    def no_space(source, target):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(OSError, match="no space"):
        write_mesh(path, colored_mesh())
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_input_is_not_changed():
    mesh = colored_mesh()
    copy = mesh.clone()
    for suffix in WRITABLE_MESH_SUFFIXES:
        encode_mesh([mesh, mesh], suffix)
    for name, value in vars(mesh).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(copy, name)), name


def test_read_meshes_own_their_memory():
    data = encode_mesh(tetrahedron(), ".glb")["mesh.glb"]
    (mesh,) = decode_mesh(data, ".glb")
    mesh.vertices.add_(1)
    assert decode_mesh(data, ".glb")[0].vertices[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("suffix", [*WRITABLE_MESH_SUFFIXES, ".gltf"])
def test_empty_file_is_refused_with_its_name(suffix, tmp_path):
    path = tmp_path / f"nothing{suffix}"
    path.touch()
    with pytest.raises(ValueError, match=rf"nothing\{suffix}: .*empty"):
        read_mesh(path)


def test_missing_file_and_unknown_suffixes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.glb"):
        read_mesh(tmp_path / "gone.glb")
    (tmp_path / "a.fbx").write_bytes(b"Kaydara")
    with pytest.raises(ValueError, match=r"a\.fbx: '.fbx' is no mesh format; use .glb"):
        read_mesh(tmp_path / "a.fbx")
    for name in ("a.fbx", "a.gltf", "a"):
        with pytest.raises(ValueError, match="cannot be written"):
            write_mesh(tmp_path / "new" / name, tetrahedron())
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="no mesh was given"):
        write_mesh(tmp_path / "a.glb", [])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
    ],
)
def test_what_failed_downloads_leave_is_recognised(data, message, tmp_path):
    (tmp_path / "a.glb").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_mesh(tmp_path / "a.glb")


def test_splat_files_are_named_as_such(tmp_path):
    for suffix in (".ply", ".spz"):
        write_splats(tmp_path / f"a{suffix}", random_cloud(3))
        with pytest.raises(ValueError, match="Gaussians, not a mesh"):
            read_mesh(tmp_path / f"a{suffix}")


def test_real_meshes_pass_through_every_format(shared_dir, tmp_path):
    for source in sorted((shared_dir / "meshes").iterdir()):
        parts = read_mesh(source)
        area = sum(_area(mesh) for mesh in parts)
        for suffix in WRITABLE_MESH_SUFFIXES:
            write_mesh(tmp_path / f"a{suffix}", parts)
            again = read_mesh(tmp_path / f"a{suffix}")
            assert sum(map(_area, again)) == pytest.approx(area, rel=1e-4), (source, suffix)
            assert sum(m.num_faces for m in again) == sum(m.num_faces for m in parts)


def _area(mesh: Mesh) -> float:
    a, b, c = mesh.vertices[mesh.faces].double().unbind(1)
    return float(torch.linalg.cross(b - a, c - a).norm(dim=1).sum())
