"""Random damage to valid files: a reader gives a valid result or a ValueError, and soon."""

from __future__ import annotations

import json
import random
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from format_samples import colored_mesh, pack_glb, random_cloud, tetrahedron
from lift3d.core.formats import decode_mesh, decode_splats, encode_mesh, encode_splats
from lift3d.core.formats.images import encode_image
from lift3d.core.formats.obj_material import decode_mtl

ROUNDS = 300
SECONDS_PER_FILE = 2.0

JUNK = [
    b"",
    b"0",
    b"-1",
    b"nan",
    b"1e309",
    b"999999999999",
    b"\x00",
    b"\xff" * 4,
    b"../",
    b'"',
    b"{",
    b"]",
]


def _mutate(data: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(5)
    damaged = bytearray(data)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        start = rng.randrange(len(damaged))
        damaged[start : start + rng.randint(1, 16)] = rng.choice(JUNK)
    elif kind == 3:  # a header word becomes extreme
        place = rng.randrange(min(len(damaged), 120))
        damaged[place : place + 4] = struct.pack("<I", rng.choice([0, 1, 2**31, 2**32 - 1]))
    else:
        start, length = rng.randrange(len(damaged)), rng.randint(1, 64)
        damaged[start:start] = damaged[start : start + length]
    return bytes(damaged)


def _attack(data: bytes, decode, rng: random.Random) -> int:
    """Number of damaged files that were still read."""
    survived = 0
    for _ in range(ROUNDS):
        damaged = _mutate(data, rng)
        started = time.perf_counter()
        try:
            decode(damaged)
            survived += 1
        except ValueError:
            pass
        assert time.perf_counter() - started < SECONDS_PER_FILE
    return survived


FACE_LIST = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\n" \
    "property float z\nelement face 2\nproperty list uchar int vertex_indices\nend_header\n" \
    "0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n3 0 1 2\n"  # fmt: skip
ASCII_STL = "solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\n" \
    "endloop\nendfacet\nendsolid a\n"  # fmt: skip
OBJ = "o a\nusemtl m\nv 0 0 0 1 1 1\nv 1 0 0 1 1 1\nv 1 1 0 0 0 0\nv .2 .2 0 0 0 0\nvt 0 0\nvt 1 1\n" \
    "vn 0 0 1\nf 1/1/1 2/2/1 3/1/1 4/2/1\nf -4//-1 -3//-1 -1//-1\n"  # fmt: skip


def _mesh_files() -> dict[str, tuple[bytes, str]]:
    small = tetrahedron(
        uvs=torch.rand(4, 2), texture=torch.rand(2, 2, 3), vertex_colors=torch.rand(4, 3)
    )
    return {
        "glb": (encode_mesh([small, tetrahedron()], ".glb")["mesh.glb"], ".glb"),
        "ply": (encode_mesh(colored_mesh(), ".ply")["mesh.ply"], ".ply"),
        "stl": (encode_mesh(small, ".stl")["mesh.stl"], ".stl"),
        "ascii ply": (FACE_LIST.encode(), ".ply"),
        "ascii stl": (ASCII_STL.encode(), ".stl"),
        "obj": (OBJ.encode(), ".obj"),
    }


@pytest.mark.parametrize("name", ["glb", "ply", "stl", "ascii ply", "ascii stl", "obj"])
def test_damaged_mesh_files(name, unchecked_shapes):
    torch.manual_seed(0)
    data, suffix = _mesh_files()[name]
    assert decode_mesh(data, suffix)
    _attack(data, lambda damaged: decode_mesh(damaged, suffix), random.Random(name))


def _glb_parts() -> tuple[dict, bytes]:
    glb = encode_mesh(colored_mesh(), ".glb", metadata={"a": [1, {"b": None}]})["mesh.glb"]
    (length,) = struct.unpack_from("<I", glb, 12)
    return json.loads(glb[20 : 20 + length]), glb[28 + length :]


def _mutate_json(value, rng: random.Random):
    """A copy of a JSON value in which about one leaf or branch is something else."""
    strange = [None, -1, 0, 1, 2**31, 1e300, -0.5, True, "", "../x", [], {}, [[]], "NaN", [0] * 20]
    if rng.random() < 0.03:
        return rng.choice(strange)
    if isinstance(value, dict):
        return {k: _mutate_json(v, rng) for k, v in value.items() if rng.random() > 0.01}
    if isinstance(value, list):
        return [_mutate_json(item, rng) for item in value]
    return value


def test_glb_with_strange_json(unchecked_shapes):
    document, binary = _glb_parts()
    rng = random.Random(5)
    outcomes = set()
    for _ in range(400):
        damaged = pack_glb(json.dumps(_mutate_json(document, rng)).encode(), binary)
        started = time.perf_counter()
        try:
            outcomes.add(len(decode_mesh(damaged, ".glb")))
        except ValueError as error:
            outcomes.add(str(error).split()[2])
        assert time.perf_counter() - started < SECONDS_PER_FILE
    assert len(outcomes) > 8  # the damage reached many different checks


@pytest.mark.parametrize("suffix", [".ply", ".splat", ".spz"])
def test_damaged_splat_files(suffix, unchecked_shapes):
    data = encode_splats(random_cloud(20, 1), suffix)
    _attack(data, lambda damaged: decode_splats(damaged, suffix), random.Random(suffix))


def test_spz_damaged_inside_its_gzip(unchecked_shapes):
    plain = zlib.decompress(encode_splats(random_cloud(20, 1), ".spz"), 31)

    def decode(damaged: bytes):
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        return decode_splats(packer.compress(damaged) + packer.flush(), ".spz")

    assert _attack(plain, decode, random.Random(1)) > 0


def test_damaged_material_libraries(unchecked_shapes):
    text = b"newmtl a\nKd 0.1 0.2 0.3\nd 0.5\nPm 1\nPr 0\nillum 2\nmap_Kd -s 1 1 1 t.png\n"
    picture = encode_image(torch.rand(3, 3, 3))
    rng = random.Random(3)
    _attack(text, lambda damaged: decode_mtl(damaged, lambda name: picture), rng)
    _attack(picture, lambda damaged: decode_mtl(text, lambda name: damaged), rng)


def test_random_bytes_are_no_file(unchecked_shapes):
    rng = np.random.default_rng(0)
    for suffix in (".glb", ".obj", ".stl", ".ply"):
        for size in (1, 33, 5000):
            with pytest.raises(ValueError):
                decode_mesh(rng.bytes(size), suffix)
