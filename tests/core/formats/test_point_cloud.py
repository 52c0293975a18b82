"""Point clouds: PLY with and without colours, Point-E's archives, and hostile files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from lift3d.core.formats.ply_container import encode_ply
from lift3d.core.formats.point_cloud import PointCloud, read_point_cloud


def write_ply(path: Path, colors: bool) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(20, 3)).astype("<f4")
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if colors:
        fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    rows = np.zeros(20, dtype=fields)
    for axis, name in enumerate("xyz"):
        rows[name] = points[:, axis]
    if colors:
        rows["red"] = 255
    path.write_bytes(encode_ply([("vertex", rows)]))
    return points


def save_point_e(path: Path, **arrays) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("colors", [True, False])
def test_ply_points_are_read(tmp_path: Path, colors: bool) -> None:
    points = write_ply(tmp_path / "a.ply", colors)
    cloud = read_point_cloud(tmp_path / "a.ply")
    np.testing.assert_allclose(cloud.points, points, rtol=1e-6)
    if colors:
        torch.testing.assert_close(cloud.colors, torch.tensor([[1.0, 0.0, 0.0]]).expand(20, 3))
    else:
        assert cloud.colors is None


def test_point_e_stands_up_and_keeps_its_colours(tmp_path: Path) -> None:
    coords = np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 1.0]], dtype=np.float32)
    red, none = np.array([1.0, 0.5], np.float32), np.zeros(2, np.float32)
    save_point_e(tmp_path / "a.npz", coords=coords, R=red, G=none, B=none)
    cloud = read_point_cloud(tmp_path / "a.npz")
    # +Z becomes +Y, and what faced -Y faces the viewer (+Z)
    torch.testing.assert_close(cloud.points, torch.tensor([[0.1, 0.3, -0.2], [0.0, 1.0, 0.0]]))
    torch.testing.assert_close(cloud.colors[:, 0], torch.tensor([1.0, 0.5]))


def test_point_e_without_colours_is_read(tmp_path: Path) -> None:
    save_point_e(tmp_path / "a.npz", coords=np.zeros((3, 3)))
    assert read_point_cloud(tmp_path / "a.npz").colors is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"points": np.zeros((3, 3))}, "no array 'coords'"),
        ({"coords": np.zeros((3, 2))}, "no array 'coords'"),
        ({"coords": np.zeros((0, 3))}, "no array 'coords'"),
        ({"coords": np.array([["a"] * 3])}, "holds no numbers"),
        ({"coords": np.full((2, 3), np.nan)}, "NaN"),
        (
            {"coords": np.zeros((2, 3)), "R": np.zeros(3), "G": np.zeros(2), "B": np.zeros(2)},
            "do not belong",
        ),
    ],
)
def test_odd_archives_are_refused_by_name(tmp_path: Path, arrays, message) -> None:
    save_point_e(tmp_path / "odd.npz", **arrays)
    with pytest.raises(ValueError, match=rf"odd\.npz.*{message}"):
        read_point_cloud(tmp_path / "odd.npz")


def test_pickles_are_never_run(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, coords=np.array([object()], dtype=object))
    (tmp_path / "evil.npz").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"evil\.npz"):
        read_point_cloud(tmp_path / "evil.npz")


def test_files_cut_short_are_refused(tmp_path: Path) -> None:
    save_point_e(tmp_path / "a.npz", coords=np.random.default_rng(0).normal(size=(50, 3)))
    whole = (tmp_path / "a.npz").read_bytes()
    write_ply(tmp_path / "b.ply", True)
    ply = (tmp_path / "b.ply").read_bytes()
    for name, data in (("a.npz", whole), ("b.ply", ply)):
        for length in (0, 1, 20, len(data) // 2, len(data) - 1):
            (tmp_path / name).write_bytes(data[:length])
            with pytest.raises(ValueError, match=name.replace(".", r"\.")):
                read_point_cloud(tmp_path / name)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"none of \.ply, \.npz"):
        read_point_cloud(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError):
        read_point_cloud(tmp_path / "missing.ply")


def test_colours_must_belong_to_points(unchecked_shapes) -> None:
    with pytest.raises(ValueError, match="colors must have shape"):
        PointCloud(torch.zeros(3, 3), torch.zeros(2, 3))
