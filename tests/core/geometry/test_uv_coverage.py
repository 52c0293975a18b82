"""Texels are counted as often as triangles lie on them."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.geometry import uv_coverage
from lift3d.core.geometry.uv_coverage import (
    count_layers,
    inspect_uvs,
    move_islands_to_first_tile,
    overlapping_faces,
)
from lift3d.core.mesh import Mesh

SQUARE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
SQUARE_FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


def make_square(uvs: torch.Tensor) -> Mesh:
    return Mesh(SQUARE, SQUARE_FACES, uvs=uvs)


@pytest.fixture(params=["numba", "torch"])
def kernels(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(uv_coverage, "_compiled_kernels_fit", lambda uvs: False)
    return request.param


@pytest.mark.usefixtures("kernels")
def test_layers_agree_with_testing_every_texel_against_every_triangle():
    generator = torch.Generator().manual_seed(0)
    uvs = torch.rand(40, 2, generator=generator) * 1.4 - 0.2
    faces = torch.randint(0, 40, (60, 3), generator=generator)
    layers = count_layers(uvs, faces, width=23, height=17)
    expected = torch.zeros(17, 23, dtype=torch.int64)
    corners = uvs.double()[faces] * torch.tensor([23.0, 17.0]).double()
    for row in range(17):
        for column in range(23):
            point = torch.tensor([column + 0.5, row + 0.5]).double()
            sides = [
                (b - a)[:, 0] * (point - a)[:, 1] - (b - a)[:, 1] * (point - a)[:, 0]
                for a, b in ((corners[:, i], corners[:, (i + 1) % 3]) for i in range(3))
            ]
            area = sum(sides)
            inside = torch.stack([side / area > 1e-4 for side in sides]).all(dim=0)
            expected[row, column] = int((inside & (area.abs() > 1e-12)).sum())
    assert torch.equal(layers, expected)


@pytest.mark.usefixtures("kernels")
def test_only_faces_on_shared_texels_overlap():
    uvs = torch.tensor([[0.0, 0], [0.4, 0], [0, 0.4], [0.1, 0.1], [0.3, 0.1], [0.1, 0.3],
                        [0.6, 0.6], [0.9, 0.6], [0.6, 0.9]])  # fmt: skip
    faces = torch.arange(9).reshape(3, 3)
    found = overlapping_faces(uvs, faces, width=64, height=64)
    assert found.tolist() == [True, True, False]


def test_a_tidy_square_has_no_problems():
    report = inspect_uvs(make_square(SQUARE[:, :2]))
    assert report.problems() == [] and report.num_layers == 1
    assert report.overlap_share == 0 and report.outside_share == 0


def test_mirrored_halves_are_reported_as_overlap():
    report = inspect_uvs(make_square(torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 0]])))
    assert report.overlap_share > 0.5
    assert "several places" in report.problems()[0]


def test_tiling_coordinates_are_reported_as_outside():
    report = inspect_uvs(make_square(SQUARE[:, :2] * 3))
    assert report.outside_share == 1.0
    assert "cross the border" in report.problems()[0]


def test_coordinates_without_area_are_reported():
    report = inspect_uvs(make_square(torch.zeros(4, 2)))
    assert report.degenerate_share == pytest.approx(1.0)
    assert "no area" in report.problems()[0]


def test_islands_shifted_by_whole_tiles_come_back():
    uvs = SQUARE[:, :2] * 0.5 + 0.25
    shifted = move_islands_to_first_tile(uvs + torch.tensor([3.0, -2.0]), SQUARE_FACES)
    assert torch.allclose(shifted, uvs, atol=1e-6)
    assert not inspect_uvs(make_square(uvs + torch.tensor([3.0, -2.0]))).problems()


def test_meshes_without_coordinates_are_refused():
    with pytest.raises(ValueError, match="no uvs"):
        inspect_uvs(Mesh(SQUARE, SQUARE_FACES))
