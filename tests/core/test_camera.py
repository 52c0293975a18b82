from __future__ import annotations

import json
import math

import pytest
import torch
from lift3d.core.camera import (
    Camera,
    ViewRig,
    make_kiss3dgen_rig,
    make_look_at_pose,
    make_orbit_pose,
    make_orbit_rig,
    make_stdgen_rig,
)


def test_azimuth_0_sees_the_front_and_90_sees_plus_x() -> None:
    front, left = make_orbit_pose(0, 0, 2.0), make_orbit_pose(90, 0, 2.0)
    torch.testing.assert_close(front[:3, 3], torch.tensor([0.0, 0.0, 2.0]))
    torch.testing.assert_close(left[:3, 3], torch.tensor([2.0, 0.0, 0.0]))


@pytest.mark.parametrize("azimuth", [0, 33, 90, 180, 270])
@pytest.mark.parametrize("elevation", [-90, -20, 0, 5, 90])
def test_orbit_pose_is_a_rotation_that_looks_at_the_origin(azimuth: int, elevation: int) -> None:
    pose = make_orbit_pose(azimuth, elevation, 3.0).double()
    rotation = pose[:3, :3]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3).double(), atol=1e-6, rtol=0)
    assert torch.linalg.det(rotation) == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(pose[:3, 3], 3.0 * pose[:3, 2], atol=1e-6, rtol=0)
    el, az = math.radians(elevation), math.radians(azimuth)
    eye = [math.cos(el) * math.sin(az), math.sin(el), math.cos(el) * math.cos(az)]
    torch.testing.assert_close(pose[:3, 3], 3.0 * torch.tensor(eye).double(), atol=1e-5, rtol=0)


def test_lrm_camera_of_the_published_table_is_ours_in_its_z_up_frame(shared_dir) -> None:
    # Published vectors are in the LRM's z-up frame: (x, y, z) of theirs = (z, x, y) of ours.
    table = json.loads((shared_dir / "spec" / "camera_tables.json").read_text())
    to_lrm = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    for azimuth, vector in zip([0, 90, 180, 270], table["kiss3dgen_prm_4"], strict=True):
        pose = make_orbit_pose(azimuth, 5, 3.5)
        ours = torch.cat([to_lrm @ pose[:3, :3], (to_lrm @ pose[:3, 3])[:, None]], dim=1)
        torch.testing.assert_close(ours.flatten(), torch.tensor(vector[:12]), atol=1e-5, rtol=0)


def test_look_at_agrees_with_the_orbit() -> None:
    orbit = make_orbit_pose(40, 25, 2.5)
    aimed = make_look_at_pose(orbit[:3, 3].tolist(), (0, 0, 0))
    torch.testing.assert_close(aimed, orbit, atol=1e-6, rtol=0)


@pytest.mark.parametrize("eye", [(0, 2, 0), (0, -2, 0)])
def test_look_at_along_up_is_still_a_rotation(eye) -> None:
    Camera(make_look_at_pose(eye, (0, 0, 0)))


def test_world_to_camera_is_the_inverse() -> None:
    camera = Camera(make_look_at_pose((1, 2, 3), (0.3, 0, -0.5)))
    product = camera.world_to_camera @ camera.camera_to_world
    torch.testing.assert_close(product, torch.eye(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("ortho", [None, 2.4])
def test_clip_space_puts_near_at_minus_one_and_far_at_plus_one(ortho) -> None:
    camera = Camera(make_orbit_pose(0, 0, 5.0), None if ortho else 40.0, ortho, near=0.5, far=20)
    for depth, expected in ((0.5, -1.0), (20.0, 1.0)):
        point = torch.tensor([0.0, 0.0, 5.0 - depth, 1.0])
        clip = camera.world_to_clip(64, 64) @ point
        assert float(clip[2] / clip[3]) == pytest.approx(expected, abs=1e-4)


def test_field_of_view_is_vertical() -> None:
    camera = Camera(make_orbit_pose(0, 0, 1.0), fov_y_deg=60.0)
    height = math.tan(math.radians(30))
    clip = camera.world_to_clip(200, 100) @ torch.tensor([2 * height, height, 0.0, 1.0])
    torch.testing.assert_close(clip[:2] / clip[3], torch.tensor([1.0, 1.0]))


def test_rigs_have_the_published_views() -> None:
    kiss = make_kiss3dgen_rig()
    assert kiss.names == ("front", "left", "rear", "right")
    assert float(kiss[1].position[0]) == pytest.approx(4.5 * math.cos(math.radians(5)), abs=1e-5)
    stdgen = make_stdgen_rig()
    assert len(stdgen) == 6 and not stdgen[0].is_perspective
    assert stdgen.select([3, 0]).names == ("back", "front")


def test_with_radius_moves_along_the_viewing_direction_only() -> None:
    rig = make_kiss3dgen_rig().with_radius(2.0)
    for moved, original in zip(rig, make_kiss3dgen_rig(), strict=True):
        assert float(moved.position.norm()) == pytest.approx(2.0, abs=1e-5)
        torch.testing.assert_close(moved.camera_to_world[:3, :3], original.camera_to_world[:3, :3])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"fov_y_deg": None}, "exactly one"),
        ({"fov_y_deg": 30.0, "ortho_height": 1.0}, "exactly one"),
        ({"fov_y_deg": 180.0}, "between 0 and 180"),
        ({"near": 0.0}, "near"),
        ({"near": 2.0, "far": 1.0}, "near"),
        ({"fov_y_deg": None, "ortho_height": -1.0}, "positive"),
    ],
)
def test_impossible_projections_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Camera(torch.eye(4), **arguments)


def test_mirrored_scaled_and_nan_poses_are_refused() -> None:
    for diagonal in ([-1.0, 1, 1, 1], [2.0, 2, 2, 1]):
        with pytest.raises(ValueError, match="right-handed"):
            Camera(torch.diag(torch.tensor(diagonal)))
    with pytest.raises(ValueError, match="NaN"):
        Camera(torch.full((4, 4), float("nan")))


def test_rig_needs_cameras_and_matching_names() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ViewRig((), ())
    with pytest.raises(ValueError, match="one name per camera"):
        ViewRig((Camera(torch.eye(4)),), ("a", "b"))
    with pytest.raises(ValueError, match="elevation"):
        make_orbit_rig([0, 90], [0.0], radius=1.0)
