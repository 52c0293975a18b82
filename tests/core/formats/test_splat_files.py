from __future__ import annotations

import pytest
import torch
from format_samples import colored_mesh, random_cloud
from lift3d.core.formats import SPLAT_SUFFIXES, encode_splats, read_splats, write_mesh, write_splats
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.geometry.harmonics import harmonics_to_colors
from lift3d.core.geometry.transforms import quat_to_matrix


@pytest.mark.parametrize("suffix", SPLAT_SUFFIXES)
@pytest.mark.parametrize("frame", ["3dgs", "world"])
def test_world_frame_comes_back_from_both_frames(suffix, frame, tmp_path):
    cloud = random_cloud(60, degree=1)
    path = tmp_path / f"a{suffix.upper()}"
    write_splats(path, cloud, frame=frame)
    again = read_splats(path, frame=frame)
    order = [torch.argsort(c.means[:, 0]) for c in (again, cloud)]
    assert torch.allclose(again.means[order[0]], cloud.means[order[1]], atol=2e-4)


def test_the_other_frame_turns_shape_and_colour_together(tmp_path):
    """Reading with the wrong frame is a half turn of everything, seen from the turned direction."""
    cloud = random_cloud(30, degree=3)
    write_splats(tmp_path / "a.ply", cloud, frame="3dgs")
    turned = read_splats(tmp_path / "a.ply", frame="world")
    half_turn = torch.diag(torch.tensor([1.0, -1, -1]))
    assert torch.allclose(turned.means, cloud.means @ half_turn)
    shapes = [quat_to_matrix(c.quats) @ torch.diag_embed(c.scales) for c in (turned, cloud)]
    covariances = [shape @ shape.mT for shape in shapes]
    assert torch.allclose(covariances[0], half_turn @ covariances[1] @ half_turn, atol=1e-6)
    views = torch.nn.functional.normalize(torch.randn(30, 3), dim=1)
    colors = harmonics_to_colors(cloud.harmonics, views)
    assert torch.allclose(
        harmonics_to_colors(turned.harmonics, views @ half_turn), colors, atol=1e-5
    )


def test_content_decides_over_the_suffix(tmp_path):
    for suffix in (".ply", ".spz"):
        (tmp_path / "a.splat").write_bytes(encode_splats(random_cloud(5, 2), suffix))
        assert read_splats(tmp_path / "a.splat").sh_degree == 2


def _cloud(count: int) -> GaussianCloud:
    return random_cloud(4).select(torch.arange(count))


@pytest.mark.parametrize("suffix", SPLAT_SUFFIXES)
def test_no_gaussians_are_refused_and_the_old_file_kept(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_splats(path, _cloud(1))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"a\{suffix}: There is nothing to write"):
        write_splats(path, _cloud(0))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert read_splats(path).num_gaussians == 1
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"a\{suffix}: .*empty"):
        read_splats(path)


def test_unknown_suffixes_and_meshes_are_refused(tmp_path):
    for name in ("a.ksplat", "a"):
        with pytest.raises(ValueError, match=r"no splat format; use \.ply, \.splat, \.spz"):
            write_splats(tmp_path / name, _cloud(2))
    write_mesh(tmp_path / "m.glb", colored_mesh())
    with pytest.raises(ValueError, match="no splat format"):
        read_splats(tmp_path / "m.glb")
    assert [path.name for path in tmp_path.iterdir()] == ["m.glb"]


def test_input_is_not_changed():
    cloud = random_cloud(6)
    copy = cloud.clone()
    for suffix in SPLAT_SUFFIXES:
        encode_splats(cloud, suffix)
    for name, value in vars(copy).items():
        assert torch.equal(getattr(cloud, name), value)


@pytest.mark.parametrize("suffix", SPLAT_SUFFIXES)
def test_gradients_and_double_precision_do_not_matter(suffix):
    cloud = random_cloud(6)
    leaf = GaussianCloud(**{k: v.double().requires_grad_() for k, v in vars(cloud).items()})
    assert abs(len(encode_splats(leaf, suffix)) - len(encode_splats(cloud, suffix))) < 20
