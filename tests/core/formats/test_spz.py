from __future__ import annotations

import gzip
import struct
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from format_samples import random_cloud
from lift3d.core.formats import decode_splats, encode_splats
from lift3d.core.formats import spz as spz_module
from lift3d.core.formats.spz import decode_smallest_three, encode_smallest_three
from lift3d.core.gaussian_cloud import HARMONIC_DC, GaussianCloud

HEADER = "<IIIBBBB"


def _pack(
    version: int, payload: bytes, count: int = 1, degree: int = 0, bits: int = 12, flags: int = 0
) -> bytes:
    header = struct.pack(HEADER, 0x5053474E, version, count, degree, bits, flags, 0)
    return gzip.compress(header + payload, mtime=0)


def _fixed(*values: float, bits: int = 12) -> bytes:
    return b"".join(round(v * 2**bits).to_bytes(3, "little", signed=True) for v in values)


# One Gaussian at (1, -2, 0.5), opacity 0.2, colour (1, 0.5, 0), log scales (-5, -4, 0).
COMMON = bytes([51]) + bytes([195, 128, 60]) + bytes([80, 96, 160])
HALF = 0.5**0.5


def _check_known(cloud: GaussianCloud, quat: list[float], atol: float) -> None:
    assert cloud.means.tolist() == [[1, -2, 0.5]]
    assert cloud.opacities.item() == pytest.approx(0.2)
    assert cloud.scales.log().tolist() == [pytest.approx([-5, -4, 0], abs=1e-6)]
    stored = np.array([195, 128, 60])
    expected = 0.5 + HARMONIC_DC * (stored / 255 - 0.5) / 0.15
    assert cloud.base_colors[0].numpy() == pytest.approx(expected, abs=1e-6)
    assert cloud.quats[0].tolist() == pytest.approx(quat, abs=atol)


def test_known_bytes_of_version_3():
    # Largest is w (index 3); x = 1/2 is round(511 * 0.5 / sqrt(1/2)) = 361, y = -1/2, z = 1/2.
    word = 3 << 30 | 361 << 20 | (1 << 9 | 361) << 10 | 361
    data = _pack(3, _fixed(1, -2, 0.5) + COMMON + struct.pack("<I", word))
    _check_known(decode_splats(data, ".spz", frame="world"), [0.5, 0.5, -0.5, 0.5], 2e-3)


def test_known_bytes_of_version_2():
    data = _pack(2, _fixed(1, -2, 0.5) + COMMON + bytes([191, 64, 191]))  # x, y, z; w >= 0
    _check_known(decode_splats(data, ".spz", frame="world"), [0.5, 0.5, -0.5, 0.5], 1e-2)


def test_known_bytes_of_version_1():
    position = struct.pack("<3e", 1, -2, 0.5)
    data = _pack(1, position + COMMON + bytes([128, 128, 128]))
    _check_known(decode_splats(data, ".spz", frame="world"), [1, 0, 0, 0], 1e-2)


def test_written_bytes_match_the_format():
    cloud = GaussianCloud(
        means=torch.tensor([[1.0, -2.0, 0.5]]),
        scales=torch.tensor([[-5.0, -4.0, 0.0]]).exp(),
        quats=torch.tensor([[0.1, 0.5, -0.5, 0.7]]) / torch.tensor([0.1, 0.5, 0.5, 0.7]).norm(),
        opacities=torch.tensor([0.2]),
        harmonics=torch.tensor([[[1.76, 0.0, -1.76], [0.5, -0.5, 0.03], [0, 0, 0], [2.0, -2, 0]]]),
    )
    unpacked = gzip.decompress(encode_splats(cloud, ".spz", frame="world"))
    assert unpacked[:16] == struct.pack(HEADER, 0x5053474E, 3, 1, 1, 12, 0, 0)
    assert unpacked[16:25] == _fixed(1, -2, 0.5)
    assert unpacked[25] == 51 and unpacked[29:32] == bytes([80, 96, 160])
    assert list(unpacked[26:29]) == [round(c * 38.25 + 127.5) for c in (1.76, 0, -1.76)]
    # The largest is z (index 2 of x, y, z, w); x, y and w follow, each sign and 9 bits.
    word = 2 << 30 | 361 << 20 | (1 << 9 | 361) << 10 | 72
    assert unpacked[32:36] == struct.pack("<I", word)
    # c * 128 + 128 to the next multiple of 8; colour runs fastest.
    assert list(unpacked[36:45]) == [192, 64, 136, 128, 128, 128, 255, 0, 128]


@pytest.mark.parametrize("degree", range(4))
def test_payload_has_the_length_of_the_formula(degree):
    unpacked = gzip.decompress(encode_splats(random_cloud(33, degree), ".spz"))
    harmonics = 3 * ((degree + 1) ** 2 - 1)
    assert len(unpacked) == 16 + 33 * (9 + 1 + 3 + 3 + 4 + harmonics)


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("frame", ["3dgs", "world"])
def test_round_trip_is_within_the_rounding_of_the_format(degree, frame):
    cloud = random_cloud(300, degree)
    again = decode_splats(encode_splats(cloud, ".spz", frame=frame), ".spz", frame=frame)
    assert (again.means - cloud.means).abs().max() <= 0.5 / 4096 + 1e-6
    assert (again.opacities - cloud.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (again.scales.log() - cloud.scales.log()).abs().max() <= 0.5 / 16 + 1e-5
    assert (again.harmonics - cloud.harmonics)[:, 0].abs().max() <= 0.5 / 38.25 + 1e-5
    # The byte is rounded to a multiple of 8 (degree 1) or 16 after rounding to a whole number.
    error = (again.harmonics - cloud.harmonics)[:, 1:].abs()
    assert (error[:, :3] <= 4.5 / 128).all() and (error <= 8.5 / 128).all()
    assert ((again.quats * cloud.quats).sum(dim=1).abs() > 1 - 4e-6).all()


def test_smallest_three_holds_for_every_largest_component_and_sign():
    quats = np.array([[s * (1.0 if i == j else 0.1 * (j - 1.5)) for j in range(4)]
                      for i in range(4) for s in (1, -1)])  # fmt: skip
    quats = np.concatenate([quats, np.eye(4), -np.eye(4), np.full((1, 4), 0.5)])
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    again = decode_smallest_three(encode_smallest_three(quats).view(np.uint8))
    assert np.linalg.norm(again, axis=1) == pytest.approx(1)
    assert (np.abs((again * quats).sum(axis=1)) > 1 - 4e-6).all()


def test_far_away_gaussians_get_coarser_positions():
    cloud = replace(random_cloud(3, 0), means=torch.tensor([[9000.0, 0, 0], [0, -5, 0], [0, 0, 1]]))
    data = encode_splats(cloud, ".spz")
    assert gzip.decompress(data)[13] == 9  # 2^23 / 2^9 = 16384
    assert torch.allclose(decode_splats(data, ".spz").means, cloud.means, atol=0.5 / 512)
    with pytest.raises(ValueError, match="scale it down"):
        encode_splats(replace(cloud, means=cloud.means * 1000), ".spz")


def test_same_cloud_gives_the_same_bytes():
    assert encode_splats(random_cloud(9), ".spz") == encode_splats(random_cloud(9), ".spz")


GOOD = _fixed(1, -2, 0.5) + COMMON + struct.pack("<I", 3 << 30)
BAD = {
    "not gzip": (b"\x1f\x8bhello", "damaged"),
    "version 4": (struct.pack(HEADER, 0x5053474E, 4, 1, 0, 12, 0, 6) + b"\0" * 50, "version 4"),
    "version 9": (_pack(9, GOOD), "version 9"),
    "magic": (gzip.compress(b"\0" * 40), "magic"),
    "short header": (gzip.compress(b"NGSP"), "within the header"),
    "count too large": (_pack(3, GOOD, count=2), "declares 2 Gaussians"),
    "count absurd": (_pack(3, GOOD, count=2**32 - 1), "at most"),
    "count too small": (_pack(3, GOOD * 2, count=1), "more data"),
    "degree": (_pack(3, GOOD, degree=4), "degree"),
    "degree lies": (_pack(3, GOOD, degree=3), "truncated"),
    "bits": (_pack(3, GOOD, bits=200), "fractional"),
    "no Gaussians": (_pack(3, b"", count=0), "no Gaussians"),
    "truncated": (_pack(3, GOOD)[:-12], "truncated|damaged"),
    "checksum": (_pack(3, GOOD)[:-8] + b"\0" * 8, "damaged"),
    "no end": (_pack(3, GOOD)[:-3], "no end"),
    "nan": (_pack(1, struct.pack("<3e", np.nan, 0, 0) + COMMON + b"\x80" * 3), "NaN"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_and_lying_files_are_refused(case):
    data, message = BAD[case]
    with pytest.raises(ValueError, match=rf"a\.spz: .*({message})"):
        decode_splats(data, ".spz", name="a.spz")


def test_trailing_extension_records_are_accepted_when_announced():
    assert decode_splats(_pack(3, GOOD + b"ext", flags=2), ".spz").num_gaussians == 1


def test_bomb_is_refused_quickly_and_without_memory():
    # An honest header over zeros: 80 MB from 80 kB.
    count = 4_000_000
    bomb = _pack(3, b"\0" * (20 * count), count=count)
    endless = _pack(3, b"\0" * 20_000_000, count=1)
    assert len(bomb) < 400_000
    tracemalloc.start()
    started = time.perf_counter()
    for data, message in ((bomb, "decompression bomb"), (endless, "more data")):
        with pytest.raises(ValueError, match=message):
            decode_splats(data, ".spz")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert time.perf_counter() - started < 2


def test_limit_on_gaussians_holds(monkeypatch):
    monkeypatch.setattr(spz_module, "MAX_GAUSSIANS", 4)
    with pytest.raises(ValueError, match="Gaussians: 5"):
        decode_splats(encode_splats(random_cloud(5), ".spz"), ".spz")
