from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from format_samples import colored_mesh, tetrahedron
from lift3d.core.formats import decode_mesh, encode_mesh
from lift3d.core.geometry.normals import face_normals

TRIANGLE = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]


def _binary(corners: list, header: bytes = b"x", count: int | None = None) -> bytes:
    """Binary STL written by hand."""
    facets = b"".join(
        struct.pack("<12fH", 0, 0, 1, *np.ravel(corners[i : i + 3]), 0)
        for i in range(0, len(corners), 3)
    )
    number = len(corners) // 3 if count is None else count
    return header.ljust(80, b"\0") + struct.pack("<I", number) + facets


def _ascii(corners: list) -> bytes:
    lines = ["solid thing"]
    for i in range(0, len(corners), 3):
        lines += ["facet normal 0 0 1", " outer loop"]
        lines += [f"  vertex {x:g} {y:.3e} {z}" for x, y, z in corners[i : i + 3]]
        lines += [" endloop", "endfacet"]
    return "\n".join([*lines, "endsolid thing", ""]).encode()


@pytest.mark.parametrize("make", [_binary, _ascii])
def test_known_file_shares_vertices(make):
    corners = [*TRIANGLE, TRIANGLE[0], TRIANGLE[2], (-0.0, 0.0, 1.0)]
    (mesh,) = decode_mesh(make(corners), ".stl")
    assert mesh.vertices.tolist() == [*map(list, TRIANGLE), [0, 0, 1]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_binary_that_begins_with_solid_is_binary():
    (mesh,) = decode_mesh(_binary(TRIANGLE, b"solid but binary"), ".stl")
    assert mesh.num_faces == 1


def test_written_bytes_and_round_trip():
    mesh = colored_mesh()
    data = encode_mesh(mesh, ".stl")["mesh.stl"]
    assert len(data) == 84 + 50 * 4 and not data.startswith(b"solid")
    facet = struct.unpack_from("<12fH", data, 84)
    normal = face_normals(mesh.vertices, mesh.faces)[0]
    assert facet[:3] == pytest.approx(normal.tolist()) and facet[12] == 0
    assert facet[3:12] == tuple(mesh.vertices[mesh.faces[0]].reshape(-1).tolist())
    (again,) = decode_mesh(data, ".stl")
    assert torch.equal(again.vertices[again.faces], mesh.vertices[mesh.faces])
    assert again.num_vertices == 4


def test_several_meshes_become_one():
    moved = tetrahedron().with_vertices(tetrahedron().vertices + 2)
    (again,) = decode_mesh(encode_mesh([tetrahedron(), moved], ".stl")["mesh.stl"], ".stl")
    assert (again.num_vertices, again.num_faces) == (8, 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"short", "too short"),
        (_binary(TRIANGLE, count=2), "declares 2 facets"),
        (_binary(TRIANGLE, count=2**32 - 1), "declares"),
        (_binary([]), "no facets"),
        (_ascii([]), "no facets"),
        (_ascii(TRIANGLE)[:-40], "truncated"),
        (_ascii(TRIANGLE).replace(b"vertex 1", b"vertex one"), "vertices"),
        (_binary([(np.nan, 0, 0), *TRIANGLE[1:]]), "NaN"),
        (_binary([(1e9, 0, 0), *TRIANGLE[1:]]), "scale the mesh down"),
    ],
)
def test_damaged_files_are_refused(data, message):
    with pytest.raises(ValueError, match=rf"x\.stl: .*{message}"):
        decode_mesh(data, ".stl", name="x.stl")


def test_trimesh_reads_what_we_write_and_the_reverse():
    trimesh = pytest.importorskip("trimesh")
    mesh = tetrahedron()
    theirs = trimesh.load(io.BytesIO(encode_mesh(mesh, ".stl")["mesh.stl"]), file_type="stl")
    assert theirs.is_watertight and theirs.volume == pytest.approx(1 / 6)
    for kind in ("stl", "stl_ascii"):
        data = trimesh.Trimesh(mesh.vertices, mesh.faces).export(file_type=kind)
        (again,) = decode_mesh(data if isinstance(data, bytes) else data.encode(), ".stl")
        assert torch.equal(again.vertices[again.faces], mesh.vertices[mesh.faces])


def test_nothing_to_write_is_refused():
    with pytest.raises(ValueError, match="nothing to write"):
        encode_mesh(replace(tetrahedron(), faces=torch.zeros(0, 3, dtype=torch.int64)), ".stl")
