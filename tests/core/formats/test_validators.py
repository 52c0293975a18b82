"""Files judged by programs that share no code with us: npm's glTF-Validator and splat-transform."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from format_samples import colored_mesh, random_cloud, tetrahedron
from lift3d.core.formats import GlbParams, read_mesh, read_splats, write_mesh, write_splats
from lift3d.core.formats.glb_rig import GlbRig
from lift3d.core.formats.glb_write import encode_glb
from lift3d.core.geometry.skeleton import Skeleton, strongest_four
from lift3d.core.geometry.transforms import quat_to_matrix
from lift3d.core.mesh import Material

pytestmark = pytest.mark.node


def _issues(report: dict) -> list:
    return [m for m in report["issues"]["messages"] if m["severity"] <= 1]


def _unwelded_box():
    """Everything odd at once: huge uvs, isolated vertex, alpha, duplicated names."""
    mesh = colored_mesh()
    lonely = torch.cat([mesh.vertices, torch.full((1, 3), 9.0)])
    return tetrahedron(name="painted"), replace(
        mesh,
        vertices=lonely,
        vertex_colors=torch.ones(5, 3),
        uvs=torch.linspace(-3, 7, 10).reshape(5, 2),
        vertex_normals=None,
        material=Material(alpha=0.5),
    )


@pytest.mark.parametrize(
    "meshes",
    [[tetrahedron()], [colored_mesh()], list(_unwelded_box()), [tetrahedron(name="")]],
    ids=["plain", "everything", "odd", "nameless"],
)
@pytest.mark.parametrize("params", [GlbParams(), GlbParams("jpeg", write_normals=False)])
def test_glb_has_neither_errors_nor_warnings(meshes, params, node_tools, tmp_path):
    path = tmp_path / "mesh.glb"
    write_mesh(path, meshes, metadata={"prompt": {"a": [1, 2.5, None, "é"]}}, params=params)
    report = node_tools.validate_gltf(path)
    assert report["issues"]["numErrors"] == 0, _issues(report)
    assert report["issues"]["numWarnings"] == 0, _issues(report)
    assert report["info"]["drawCallCount"] == len(meshes)


def test_glb_of_more_vertices_than_16_bit_indices_hold_is_valid(node_tools, tmp_path):
    count = 70_000
    angle = torch.linspace(0, 6.28, count)
    vertices = torch.stack([angle.cos(), angle.sin(), angle * 0.1], dim=1)
    first = torch.arange(count - 2)
    faces = torch.stack([first, first + 1, first + 2], dim=1)
    path = tmp_path / "big.glb"
    write_mesh(path, replace(tetrahedron(), vertices=vertices, faces=faces))
    report = node_tools.validate_gltf(path)
    assert not _issues(report)
    assert report["info"]["totalVertexCount"] == count


def test_a_rigged_glb_has_neither_errors_nor_warnings(node_tools, tmp_path):
    places = torch.tensor([[0.0, 0, 0], [0, 0.5, 0], [0.2, 0.5, 0]])
    skeleton = Skeleton(("hips", "spine", "leftHand"), (-1, 0, 1), places, places + 0.1)
    parts = [tetrahedron(name="body"), replace(colored_mesh(), name="clothes")]
    skins = tuple(
        strongest_four(torch.rand(mesh.num_vertices, 3, generator=torch.Generator().manual_seed(2)))
        for mesh in parts
    )
    path = tmp_path / "rigged.glb"
    path.write_bytes(encode_glb(parts, rig=GlbRig(skeleton, skins)))
    report = node_tools.validate_gltf(path)
    assert not _issues(report) and report["info"]["hasSkins"]


def test_real_glb_rewritten_by_us_is_valid(node_tools, shared_dir, tmp_path):
    for source in sorted((shared_dir / "meshes").iterdir()):
        path = tmp_path / "again.glb"
        write_mesh(path, read_mesh(source))
        assert not _issues(node_tools.validate_gltf(path)), source


def _table(tools, source: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    target = tmp_path / "out.csv"
    tools.splat_transform(source, target)
    with target.open() as handle:
        rows = list(csv.reader(handle))
    values = np.array(rows[1:], dtype=np.float64)
    return dict(zip(rows[0], values.T, strict=True))


def _ellipsoids(quats) -> np.ndarray:
    """Covariances with axes 1, 2, 3: equal for rotations that differ by a half turn of the axes."""
    turns = quat_to_matrix(torch.as_tensor(np.asarray(quats), dtype=torch.float64))
    return (turns @ torch.diag(torch.tensor([1.0, 4, 9]).double()) @ turns.mT).numpy()


def _expected_3dgs(cloud) -> dict[str, np.ndarray]:
    """Columns of a trainer's file in the 3DGS frame, except f_rest; written out by hand."""
    means = cloud.means.numpy() * [1, -1, -1]
    w, x, y, z = cloud.quats.numpy().T
    opacity = cloud.opacities.numpy().astype(np.float64)
    columns = dict(zip("xyz", means.T, strict=True))
    columns |= {f"f_dc_{i}": cloud.harmonics[:, 0, i].numpy() for i in range(3)}
    columns |= {f"scale_{i}": cloud.scales[:, i].log().numpy() for i in range(3)}
    columns |= {"opacity": np.log(opacity / (1 - opacity))}
    columns |= {f"rot_{i}": q for i, q in enumerate((-x, w, -z, y))}
    return columns


@pytest.mark.parametrize(
    ("suffix", "position", "log_scale", "constant", "alpha", "turn"),
    [
        (".ply", 1e-6, 1e-5, 1e-6, 1e-6, 1e-5),
        # Half a step of each quantised column, as the formats define them.
        (".spz", 0.5 / 4096 + 1e-6, 0.5 / 16 + 1e-5, 0.5 / 38.25 + 1e-5, 0.5 / 255 + 1e-5, 0.02),
        (".splat", 1e-6, 1e-5, 0.5 / 255 / 0.2820948 + 1e-5, 0.5 / 255 + 1e-5, 0.25),
    ],
)
def test_splat_transform_reads_what_we_write(
    suffix, position, log_scale, constant, alpha, turn, node_tools, tmp_path
):
    cloud = random_cloud(300, degree=3)
    if suffix == ".splat":  # the file is sorted by visibility and clips colours
        order = (cloud.scales.double().prod(dim=1) * cloud.opacities).argsort(descending=True)
        cloud = cloud.select(order)
        cloud = replace(cloud, harmonics=cloud.harmonics.clamp(-1.7, 1.7))
    source = tmp_path / f"cloud{suffix}"
    write_splats(source, cloud)
    found, expected = _table(node_tools, source, tmp_path), _expected_3dgs(cloud)
    for names, tolerance in (
        (("x", "y", "z"), position),
        (("scale_0", "scale_1", "scale_2"), log_scale),
        (("f_dc_0", "f_dc_1", "f_dc_2"), constant),
    ):
        for name in names:
            np.testing.assert_allclose(found[name], expected[name], atol=tolerance, err_msg=name)
    sigmoid = [1 / (1 + np.exp(-columns["opacity"])) for columns in (found, expected)]
    np.testing.assert_allclose(sigmoid[0], sigmoid[1], atol=alpha)
    quats = [np.stack([c[f"rot_{i}"] for i in range(4)], axis=1) for c in (found, expected)]
    np.testing.assert_allclose(_ellipsoids(quats[0]), _ellipsoids(quats[1]), atol=turn)


@pytest.fixture(scope="module")
def decoded():
    """What the embedded models make of one picture, in a short run."""
    from lift3d.core.diffusion.gaussian_decoder_files import load_gaussian_decoder
    from lift3d.core.diffusion.orbit_files import load_orbit_model
    from lift3d.core.pipelines.decode_gaussians import decode_gaussians
    from lift3d.core.pipelines.image_to_orbit import OrbitParams, image_to_orbit
    from multiview_scenes import make_picture

    picture = make_picture(64)
    made = image_to_orbit(load_orbit_model("orbit"), picture, OrbitParams(steps=2))
    decoder = load_gaussian_decoder("gaussian_decoder")
    return decode_gaussians(decoder, made.latents, made.rig, picture)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".ply", ".splat", ".spz"])
def test_splat_transform_reads_what_the_embedded_decoder_made_of_a_picture(
    suffix, decoded, node_tools, tmp_path
):
    source = tmp_path / f"made{suffix}"
    write_splats(source, decoded)
    found = _table(node_tools, source, tmp_path)
    assert len(found["x"]) == decoded.num_gaussians > 500
    assert all(np.isfinite(column).all() for column in found.values())
    expected = _expected_3dgs(decoded)
    for name in ("x", "y", "z"):
        np.testing.assert_allclose(np.sort(found[name]), np.sort(expected[name]), atol=2e-4)


@pytest.mark.parametrize("suffix", [".ply", ".spz"])
def test_splat_transform_finds_our_harmonics_in_their_channels(suffix, node_tools, tmp_path):
    cloud = random_cloud(100, degree=3)
    source = tmp_path / f"cloud{suffix}"
    write_splats(source, cloud, frame="world")  # nothing turned: the columns are the coefficients
    found = _table(node_tools, source, tmp_path)
    for channel in range(3):
        for coefficient in range(1, 16):
            column = found[f"f_rest_{channel * 15 + coefficient - 1}"]
            step = 0 if suffix == ".ply" else (8 if coefficient < 4 else 16) / 128
            expected = cloud.harmonics[:, coefficient, channel].numpy()
            np.testing.assert_allclose(column, expected, atol=step / 2 + 0.004)


def test_we_read_the_spz_that_splat_transform_writes(node_tools, tmp_path):
    cloud = random_cloud(200, degree=2)
    source, target = tmp_path / "cloud.ply", tmp_path / "cloud.spz"
    write_splats(source, cloud)
    node_tools.splat_transform("--spz-version", "3", source, target)
    again = read_splats(target)
    assert torch.allclose(again.means, cloud.means, atol=1e-3)
    assert torch.allclose(again.scales.log(), cloud.scales.log(), atol=0.5 / 16 + 1e-4)
    assert torch.allclose(again.opacities, cloud.opacities, atol=0.004)
    np.testing.assert_allclose(_ellipsoids(again.quats), _ellipsoids(cloud.quats), atol=0.02)
    assert torch.allclose(again.harmonics, cloud.harmonics, atol=0.07)


def test_spz_version_4_from_splat_transform_is_refused_with_a_remedy(node_tools, tmp_path):
    source, target = tmp_path / "cloud.ply", tmp_path / "four.spz"
    write_splats(source, random_cloud(20))
    node_tools.splat_transform("--spz-version", "4", source, target)
    with pytest.raises(ValueError, match=r"four\.spz: .*version 4.*--spz-version 3"):
        read_splats(target)


def test_compressed_ply_is_refused_with_a_remedy(node_tools, tmp_path):
    source, target = tmp_path / "cloud.ply", tmp_path / "small.compressed.ply"
    write_splats(source, random_cloud(300))
    node_tools.splat_transform(source, target)
    with pytest.raises(ValueError, match="PlayCanvas compressed PLY"):
        read_splats(target)
