"""Orbits for training: poses, depths, packing into bytes, meshes from a folder, resuming."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.datasets.primitives import ball
from lift3d.core.formats.mesh_files import write_mesh
from lift3d.core.geometry.transforms import project_points
from lift3d.core.mesh import Mesh
from lift3d.core.training.orbit_dataset import (
    OrbitAssets,
    OrbitDatasetParams,
    draw_views,
    open_orbits,
)
from lift3d.core.training.orbit_sheets import (
    DEPTH_REACH,
    OrbitViews,
    TrainingOrbits,
    input_views,
    pack_views,
    unpack_views,
)

RIG = make_orbit_rig([0.0, 90.0], 20.0, radius=4.5)


def sphere(radius: float = 0.8) -> Mesh:
    solid = ball(radius, segments=48)
    vertices = torch.from_numpy(np.asarray(solid.vertices)).float()
    faces = torch.from_numpy(np.asarray(solid.faces)).long()
    return Mesh(vertices, faces, vertex_colors=torch.full_like(vertices, 0.3))


@pytest.fixture
def params(tmp_path) -> OrbitDatasetParams:
    return OrbitDatasetParams(
        tmp_path / "orbits", count=2, categories=("mug",), num_views=6, num_free_views=2,
        size_px=24, supersampling=1,
    )  # fmt: skip


def test_the_depth_of_a_sphere_is_that_of_its_front() -> None:
    views = draw_views(sphere(), RIG, 33, 3)
    assert float(views.depth[0, 16, 16]) == pytest.approx(4.5 - 0.8, abs=0.01)
    assert float(views.depth[0, 0, 0]) == 0 and float(views.alpha[0, 0, 0]) == 0
    assert torch.equal(views.rgb[0, 0, 0], torch.ones(3))
    torch.testing.assert_close(views.rgb[0, 16, 16], torch.full((3,), 0.3), atol=1e-4, rtol=0)
    edge = views.alpha[(views.alpha > 0) & (views.alpha < 1)]
    assert len(edge) > 20 and not bool((views.depth[views.alpha < 0.5] > 0).any())


def test_sheets_of_bytes_keep_colour_to_8_and_depth_to_16_bits() -> None:
    views = draw_views(sphere(), RIG, 33, 3)
    again = unpack_views(pack_views(views, 4.5).reshape(2, 33, 66, 3), 4.5)
    torch.testing.assert_close(again.rgb, views.rgb, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(again.alpha, views.alpha, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(again.depth, views.depth, atol=2 * DEPTH_REACH / 65_000, rtol=0)
    assert torch.equal(again.depth == 0, views.depth == 0)


def test_depths_beyond_reach_are_clamped_and_not_lost() -> None:
    far = OrbitViews(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2), torch.tensor([[[1.0, 99.0]]]))
    again = unpack_views(pack_views(far, 4.5).reshape(1, 1, 4, 3), 4.5)
    expected = torch.tensor([[[4.5 - DEPTH_REACH, 4.5 + DEPTH_REACH]]])
    torch.testing.assert_close(again.depth, expected, atol=1e-3, rtol=0)


def test_an_orbit_is_regular_at_one_height_within_the_limits(params) -> None:
    orbits = open_orbits(params)
    assert len(orbits) == 2 and orbits.views_per_object == 8
    poses = orbits.poses(0, range(6), 0)
    np.testing.assert_allclose(poses.azimuths_deg, [0, 60, 120, 180, 240, 300], atol=2e-3)
    assert len(set(poses.elevations_deg)) == 1 and -5 <= poses.elevations_deg[0] <= 30
    assert orbits.poses(0, range(6), 0) != orbits.poses(1, range(6), 0)
    assert orbits.records[0].tags["category"] == "mug"


def test_any_view_may_be_the_first_and_the_world_turns_with_it(params) -> None:
    """What view 2 sees does not depend on where the world's front is."""
    orbits = open_orbits(replace(params, size_px=64))
    views = orbits.views(0, [2])
    inside = views.alpha[0] > 0.99
    for start in (0, 2, 5):
        camera = orbits.rig(0, [2], start)[0]
        if start == 2:
            torch.testing.assert_close(camera.position[0], torch.tensor(0.0), atol=1e-4, rtol=0)
        point = torch.zeros(1, 3)
        _, depth = project_points(point, camera, width=64, height=64)
        assert float(depth) == pytest.approx(4.5, abs=1e-4)
    away = views.depth[0][inside] - 4.5
    assert float(away.abs().max()) < 1.3


def test_colours_agree_with_depths_between_views(params) -> None:
    """Points of one view, carried over by its depth, are seen by the next view at their depth."""
    fine = replace(params, folder=params.folder / "fine", size_px=96, num_views=24)
    orbits = open_orbits(fine)
    rig = orbits.rig(0, [0, 1], 0)
    from lift3d.core.geometry.pluecker import rig_rays

    origins, ways = rig_rays(rig, width=96, height=96)
    views = orbits.views(0, [0, 1])
    forward = -rig[0].camera_to_world[:3, 2]
    inside = views.alpha[0] == 1
    along = views.depth[0] / (ways[0] @ forward)
    points = (origins[0] + along[..., None] * ways[0])[inside]
    pixels, depth = project_points(points, rig[1], width=96, height=96)
    column, row = pixels.long().clamp(0, 95).unbind(dim=1)
    seen = views.depth[1][row, column]
    agree = ((seen - depth).abs() < 0.05) | (seen < depth)
    assert float(agree.float().mean()) > 0.97


def test_input_views_lie_at_even_intervals() -> None:
    assert input_views(32, 16, 3) == [(3 + 2 * i) % 32 for i in range(16)]
    of_the_paper = input_views(84, 16, 0)  # 5.25 apart
    assert of_the_paper[:5] == [0, 5, 10, 16, 21] and len(set(of_the_paper)) == 16
    with pytest.raises(ValueError, match=r"within 2\.\.8, got 9"):
        input_views(8, 9, 0)


def test_a_stopped_drawing_goes_on_and_other_settings_are_refused(params) -> None:
    def stop(progress) -> None:
        if progress.step == 1:
            raise KeyboardInterrupt

    whole = open_orbits(replace(params, folder=params.folder / "whole"))
    with pytest.raises(KeyboardInterrupt):
        open_orbits(params, stop)
    resumed = open_orbits(params)
    for index in range(2):
        assert torch.equal(resumed.views(index, [3]).rgb, whole.views(index, [3]).rgb)
    with pytest.raises(ValueError, match="drawn with other settings"):
        open_orbits(replace(params, size_px=32))
    assert len(TrainingOrbits(params.folder, limit=1)) == 1
    with pytest.raises(FileNotFoundError, match="holds no orbits"):
        TrainingOrbits(params.folder / "nowhere")


def test_meshes_of_a_folder_are_scaled_and_bad_files_left_out(params, tmp_path) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    write_mesh(meshes / "a.obj", sphere(0.1))
    (meshes / "b.obj").write_text("nothing")
    orbits = open_orbits(replace(params, count=0, assets=OrbitAssets(meshes)))
    assert [record.name for record in orbits.records] == ["a.obj"]
    depth = orbits.views(0, [0]).depth
    assert float(depth[depth > 0].min()) == pytest.approx(4.5 - 0.9, abs=0.05)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        open_orbits(replace(params, assets=OrbitAssets(tmp_path / "none")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no mesh"):
        open_orbits(replace(params, assets=OrbitAssets(tmp_path / "empty")))


def test_settings_out_of_range_are_refused(params) -> None:
    for wrong in (
        {"num_views": 1}, {"count": 0}, {"elevation_deg": (10.0, -10.0)},
        {"free_elevation_deg": (0.0, 95.0)},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            replace(params, **wrong)
