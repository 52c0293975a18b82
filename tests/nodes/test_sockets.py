"""Link values and core nouns: converters are inverse to each other and never share memory."""

from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.camera import Camera, ViewRig, make_kiss3dgen_rig, make_stdgen_rig
from lift3d.nodes import sockets


def test_rgba_images_are_composited_on_white() -> None:
    image = torch.zeros(2, 3, 3, 4)
    image[..., 3] = 0.25
    assert torch.allclose(sockets.images_from_link(image), torch.full((2, 3, 3, 3), 0.75))


def test_image_converters_copy() -> None:
    image = torch.rand(1, 3, 3, 3)
    before = image.clone()
    sockets.images_from_link(image).zero_()
    sockets.images_to_link(image).zero_()
    sockets.masks_from_link(image[..., 0]).zero_()
    sockets.masks_to_link(image[..., 0]).zero_()
    assert torch.equal(image, before)


def test_images_leave_clamped_and_without_gradients() -> None:
    image = (torch.rand(2, 2, 3) * 3).requires_grad_()
    link = sockets.images_to_link(image)
    assert link.shape == (1, 2, 2, 3) and not link.requires_grad
    assert float(link.max()) <= 1


def test_a_mask_without_batch_gets_one() -> None:
    assert sockets.masks_from_link(torch.ones(4, 5)).shape == (1, 4, 5)
    assert sockets.masks_from_link(None) is None


@pytest.mark.parametrize("bad", [torch.rand(3, 3, 3), torch.rand(1, 3, 3, 2), "picture", None])
def test_what_is_no_image_is_named(bad) -> None:
    with pytest.raises(ValueError, match="bundle must be an IMAGE"):
        sockets.images_from_link(bad, "bundle")


def test_one_picture_is_asked_for_when_a_batch_comes() -> None:
    with pytest.raises(ValueError, match="got a batch of 2; put the node 'Get Image from Batch'"):
        sockets.single_image_from_link(torch.rand(2, 4, 4, 3))


def test_view_sets_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="4 of 8 x 8 and 4 of 16 x 8 pixels"):
        sockets.require_same_views(
            torch.rand(4, 8, 8, 3), torch.rand(4, 8, 16, 3), "rgb", "normals"
        )


@pytest.mark.parametrize("rig", [make_kiss3dgen_rig(), make_stdgen_rig()])
def test_cameras_survive_the_round_trip_through_load3d_camera(rig: ViewRig) -> None:
    back = sockets.rig_from_cameras([sockets.camera_to_link(camera) for camera in rig])
    for camera, original in zip(back, rig, strict=True):
        assert torch.allclose(camera.camera_to_world, original.camera_to_world, atol=1e-5)
        assert camera.ortho_height == pytest.approx(original.ortho_height)
        assert camera.fov_y_deg == pytest.approx(original.fov_y_deg)


def test_a_rig_camera_targets_the_origin() -> None:
    info = sockets.camera_to_link(make_kiss3dgen_rig()[1])
    assert [info["target"][axis] for axis in "xyz"] == pytest.approx([0, 0, 0], abs=1e-5)
    assert info["cameraType"] == "perspective" and info["fov"] == 30.0


def test_a_camera_without_quaternion_looks_at_its_target() -> None:
    info = {"position": {"x": 0, "y": 0, "z": 5}, "target": {"x": 0, "y": 0, "z": 0}, "zoom": 1}
    camera = sockets.camera_from_link(info)
    assert torch.allclose(camera.camera_to_world[:3, :3], torch.eye(3), atol=1e-6)
    assert camera.fov_y_deg == pytest.approx(sockets.DEFAULT_FOV_Y_DEG)


def test_zoom_narrows_the_view_as_in_threejs() -> None:
    info = {"position": {"x": 0, "y": 0, "z": 5}, "zoom": 2.0, "fov": 60.0}
    expected = math.degrees(2 * math.atan(math.tan(math.radians(30)) / 2))
    assert sockets.camera_from_link(info).fov_y_deg == pytest.approx(expected)


@pytest.mark.parametrize("bad", [{}, "camera", {"target": {}}])
def test_what_is_no_camera_is_refused(bad) -> None:
    with pytest.raises(ValueError, match="LOAD3D_CAMERA with a position"):
        sockets.camera_from_link(bad)


def test_a_rig_from_inference_mode_can_be_differentiated() -> None:
    with torch.inference_mode():
        rig = make_kiss3dgen_rig()
    with torch.inference_mode(False), torch.enable_grad():
        pose = sockets.rig_from_link(rig)[0].camera_to_world.requires_grad_()
        (pose * pose).sum().backward()
    assert pose.grad is not None


def test_rigs_of_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="Make Camera Rig"):
        sockets.rig_from_link({"position": 1})
    camera = Camera(torch.eye(4))
    assert len(sockets.rig_from_link(ViewRig((camera,), ("only",)))) == 1
