from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from format_samples import random_cloud, tetrahedron
from lift3d.core.formats import decode_splats, encode_mesh, encode_splats
from lift3d.core.formats.splat_ply import FLAT_SCALE, MIN_SCALE

FIELDS = ("means", "scales", "quats", "opacities", "harmonics")


def _file(names: list[str], rows: list) -> bytes:
    """A PLY of float columns written by hand."""
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n"
    head += "".join(f"property float {name}\n" for name in names) + "end_header\n"
    return head.encode() + np.asarray(rows, "<f4").tobytes()


def _names(num_rest: int = 0, normals: bool = True) -> list[str]:
    return [
        *("x", "y", "z"),
        *(("nx", "ny", "nz") if normals else ()),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(num_rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


@pytest.mark.parametrize(("degree", "columns"), [(0, 17), (1, 26), (2, 41), (3, 62)])
def test_layout_is_the_trainers(degree, columns):
    data = encode_splats(random_cloud(7, degree), ".ply")
    head, _, body = data.partition(b"end_header\n")
    names = [line.split()[-1] for line in head.decode().splitlines() if "property" in line]
    assert names == _names(3 * ((degree + 1) ** 2 - 1)) and len(names) == columns
    assert len(body) == 7 * columns * 4


def test_known_values_in_the_file():
    cloud = random_cloud(5, degree=1)
    body = encode_splats(cloud, ".ply", frame="world").partition(b"end_header\n")[2]
    table = np.frombuffer(body, "<f4").reshape(5, -1)
    columns = dict(zip(_names(9), table.T, strict=True))
    assert np.array_equal(columns["y"], cloud.means[:, 1])
    assert (columns["nx"] == 0).all()
    assert columns["scale_2"] == pytest.approx(cloud.scales[:, 2].log().numpy(), abs=1e-6)
    opacity = cloud.opacities[0].item()
    assert columns["opacity"][0] == pytest.approx(math.log(opacity / (1 - opacity)), abs=1e-5)
    # Channel-major: all of red, then green, then blue.
    for channel in range(3):
        for coefficient in range(3):
            expected = cloud.harmonics[:, 1 + coefficient, channel].numpy()
            assert np.array_equal(columns[f"f_rest_{3 * channel + coefficient}"], expected)
    assert np.array_equal(columns["rot_0"], cloud.quats[:, 0])


def test_frame_of_the_file_is_half_a_turn_about_x():
    cloud = random_cloud(4, degree=0)
    body = encode_splats(cloud, ".ply").partition(b"end_header\n")[2]
    table = np.frombuffer(body, "<f4").reshape(4, -1)
    assert np.array_equal(table[:, :3], cloud.means.numpy() * np.float32([1, -1, -1]))
    assert not torch.equal(
        decode_splats(encode_splats(cloud, ".ply"), ".ply", frame="world").means, cloud.means
    )


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("frame", ["3dgs", "world"])
def test_round_trip_is_exact_up_to_rounding(degree, frame):
    cloud = random_cloud(100, degree)
    again = decode_splats(encode_splats(cloud, ".ply", frame=frame), ".ply", frame=frame)
    assert torch.equal(again.means, cloud.means) and torch.equal(again.harmonics, cloud.harmonics)
    for field in FIELDS:
        # Logarithm, logit and normalisation in float32.
        assert torch.allclose(getattr(again, field), getattr(cloud, field), rtol=3e-6, atol=3e-7), (
            field
        )


def test_order_of_columns_and_missing_normals_do_not_matter():
    names = _names(9, normals=False)
    values = np.arange(len(names), dtype=np.float32) / 10
    shuffled = np.random.default_rng(0).permutation(len(names))
    plain = decode_splats(_file(names, [values]), ".ply")
    mixed = decode_splats(_file([names[i] for i in shuffled], [values[shuffled]]), ".ply")
    for field in FIELDS:
        assert torch.equal(getattr(plain, field), getattr(mixed, field)), field


def test_unnormalised_quaternions_are_normalised():
    names = _names()
    row = dict.fromkeys(names, 0.0) | {"rot_0": 3.0, "rot_1": 4.0}
    cloud = decode_splats(_file(names, [[row[n] for n in names]]), ".ply", frame="world")
    assert cloud.quats.tolist() == [[pytest.approx(0.6), pytest.approx(0.8), 0, 0]]
    assert cloud.opacities.item() == 0.5 and cloud.scales.tolist() == [[1, 1, 1]]


def test_flat_gaussians_get_a_thickness():
    names = [name for name in _names() if name != "scale_2"]
    row = dict.fromkeys(names, 0.0) | {"rot_0": 1.0}
    cloud = decode_splats(_file(names, [[row[n] for n in names]]), ".ply")
    assert cloud.scales.tolist() == [[1, 1, pytest.approx(FLAT_SCALE)]]


def test_extreme_opacities_and_scales_stay_finite():
    cloud = random_cloud(2, 0)
    cloud = replace(cloud, opacities=torch.tensor([0.0, 1.0]), scales=torch.zeros(2, 3))
    again = decode_splats(encode_splats(cloud, ".ply"), ".ply")
    assert torch.allclose(again.opacities, cloud.opacities, atol=2e-6)
    assert torch.allclose(again.scales, torch.full((2, 3), MIN_SCALE), rtol=1e-4)


def test_plyfile_reads_the_same_columns():
    plyfile = pytest.importorskip("plyfile")
    cloud = random_cloud(9, 3)
    found = plyfile.PlyData.read(io.BytesIO(encode_splats(cloud, ".ply", frame="world")))["vertex"]
    assert np.array_equal(found["f_rest_44"], cloud.harmonics[:, 15, 2])
    assert np.array_equal(found["rot_3"], cloud.quats[:, 3])


def _changed(**values: float) -> bytes:
    names = _names()
    row = dict.fromkeys(names, 0.0) | {"rot_0": 1.0} | values
    return _file(names, [[row[n] for n in names]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_changed(x=math.nan), "NaN"),
        (_changed(scale_0=200.0), "infinite"),
        (_changed(opacity=math.nan), "NaN"),
        (_changed(rot_0=0.0), "length zero"),
        (_file(_names(), np.zeros((0, 17))), "no Gaussians"),
        (_file(_names(8), np.zeros((1, 25))), "8 f_rest"),
        (_file([n.replace("f_rest_8", "f_rest_9") for n in _names(9)], np.ones((1, 26))), "f_rest"),
        (_file(_names(72), np.ones((1, 89))), "degree 4"),
        (_file([n for n in _names() if n != "opacity"], np.ones((1, 16))), "lack .* opacity"),
        (_changed()[:-5], "truncated"),
        (_changed().replace(b"vertex 1", b"vertex 2"), "truncated"),
        (encode_mesh(tetrahedron(), ".ply")["mesh.ply"], "no Gaussians .*mesh"),
    ],
)
def test_damaged_files_are_refused(data, message):
    with pytest.raises(ValueError, match=rf"c\.ply: .*{message}"):
        decode_splats(data, ".ply", name="c.ply")
