from __future__ import annotations

import struct
from dataclasses import replace

import pytest
import torch
from format_samples import random_cloud
from lift3d.core.formats import decode_splats, encode_splats
from lift3d.core.gaussian_cloud import HARMONIC_DC, GaussianCloud


def test_known_bytes():
    cloud = GaussianCloud(
        means=torch.tensor([[1.0, 2.0, 3.0]]),
        scales=torch.tensor([[0.1, 0.2, 0.3]]),
        quats=torch.tensor([[0.5, -0.5, 0.5, 0.5]]),
        opacities=torch.tensor([0.2]),
        harmonics=torch.tensor([[[0.5 / HARMONIC_DC, 0.0, -9.0]]]),
    )
    expected = struct.pack("<6f", 1, 2, 3, *map(float, cloud.scales[0]))
    expected += bytes([255, 128, 0, 51, 192, 64, 192, 192])
    assert encode_splats(cloud, ".splat", frame="world") == expected
    turned = encode_splats(cloud, ".splat")
    assert struct.unpack_from("<3f", turned) == (1, -2, -3)


def test_size_is_32_bytes_each_and_order_is_by_visibility():
    cloud = random_cloud(40)
    data = encode_splats(cloud, ".splat")
    assert len(data) == 40 * 32
    again = decode_splats(data, ".splat")
    visibility = again.scales.double().prod(dim=1) * again.opacities
    assert (visibility[1:] <= visibility[:-1] * 1.05).all()  # opacity is rounded in the file


def test_round_trip_is_within_the_rounding_of_the_format():
    cloud = random_cloud(200, degree=2)
    order = (cloud.scales.double().prod(dim=1) * cloud.opacities).argsort(descending=True)
    cloud = cloud.select(order)
    again = decode_splats(encode_splats(cloud, ".splat"), ".splat")
    assert torch.equal(again.means, cloud.means) and torch.equal(again.scales, cloud.scales)
    assert (again.opacities - cloud.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert again.sh_degree == 0
    assert (again.base_colors - cloud.base_colors.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
    # Four components rounded to 1/128 (the largest by a whole step at 1).
    assert ((again.quats * cloud.quats).sum(dim=1).abs() > 1 - 1e-4).all()


def test_identity_rotation_survives():
    cloud = replace(random_cloud(1), quats=torch.tensor([[1.0, 0, 0, 0]]))
    again = decode_splats(encode_splats(cloud, ".splat", frame="world"), ".splat", frame="world")
    assert again.quats.tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0" * 31, "no multiple of 32"),
        (encode_splats(random_cloud(2), ".splat")[:-1], "no multiple of 32"),
        (struct.pack("<6f", float("nan"), 0, 0, 1, 1, 1) + b"\xff" * 8, "NaN"),
        (struct.pack("<6f", 0, 0, 0, -1, 1, 1) + b"\xff" * 8, ">= 0"),
        (struct.pack("<6f", 0, 0, 0, 1, 1, 1) + b"\x80" * 8, "length zero"),
        (b"", "no Gaussians"),
    ],
)
def test_damaged_files_are_refused(data, message):
    with pytest.raises(ValueError, match=rf"a\.splat: .*{message}"):
        decode_splats(data, ".splat", name="a.splat")
