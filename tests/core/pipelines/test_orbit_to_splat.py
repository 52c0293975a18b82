import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.evaluation.image_metrics import psnr
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.orbit_to_splat import OrbitSplatParams, masks_on_white, orbit_to_splat
from lift3d.core.rendering.mesh import render_mesh
from lift3d.core.rendering.splats import render_splats

AZIMUTHS = [22.5 * index for index in range(16)]
RIG = make_orbit_rig(AZIMUTHS, 15.0, radius=4.5)
SMALL = OrbitSplatParams(num_gaussians=1500, num_steps=120, hull_resolution=32)


def make_cube() -> Mesh:
    """A cube of side 1 with another colour at each corner."""
    corners = torch.tensor(
        [[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
    )
    faces = torch.tensor(
        [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
         [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
    )  # fmt: skip
    return Mesh(corners, faces, vertex_colors=0.1 + 0.8 * (corners + 0.5))


def drawn(rig, size=64):
    return render_mesh(make_cube(), rig, width=size, height=size)


@pytest.mark.slow
def test_frames_with_known_cameras_give_a_splat_that_looks_right_from_between():
    cloud = orbit_to_splat(drawn(RIG).rgb, RIG, params=SMALL)
    between = make_orbit_rig([11.25, 146.25, 281.25], 15.0, radius=4.5)
    truth = drawn(between).rgb
    render = render_splats(cloud, between, width=64, height=64)
    assert psnr(render.rgb, truth) > 24
    assert psnr(torch.ones_like(truth), truth) < 15


@pytest.mark.slow
def test_the_same_seed_gives_the_same_gaussians():
    frames = drawn(RIG).rgb
    params = OrbitSplatParams(300, 5, hull_resolution=24)
    first, again = (orbit_to_splat(frames, RIG, params=params) for _ in range(2))
    assert torch.equal(first.means, again.means)


def test_frames_that_disagree_do_not_erase_the_object():
    frames = drawn(RIG).rgb.clone()
    frames[5] = frames[5].roll(20, dims=1)
    cloud = orbit_to_splat(frames, RIG, params=OrbitSplatParams(300, 0, hull_resolution=32))
    assert float(cloud.means.abs().amax()) > 0.4


def test_masks_fill_white_parts_inside_and_drop_specks():
    image = torch.ones(1, 32, 32, 3)
    image[0, 8:24, 8:24] = 0.4
    image[0, 12:16, 12:16] = 1.0  # a white button
    image[0, 2, 2] = 0.0  # dirt
    mask = masks_on_white(image)[0]
    assert float(mask[14, 14]) == 1.0 and float(mask[2, 2]) == 0.0
    assert float(mask.sum()) == 256


def test_soft_borders_stay_soft():
    image = torch.ones(1, 16, 16, 3)
    image[0, 4:12, 4:12] = 0.2
    image[0, 4:12, 12] = 0.96
    mask = masks_on_white(image)[0]
    assert float(mask[8, 12]) == pytest.approx(0.4, abs=1e-4)


def test_what_cannot_be_fitted_is_refused():
    frames = drawn(RIG, 16).rgb
    with pytest.raises(ValueError, match="15 frames for 16 cameras"):
        orbit_to_splat(frames[:15], RIG)
    with pytest.raises(ValueError, match="at least 3 frames, got 1"):
        orbit_to_splat(frames[:1], RIG.select([0]))
    with pytest.raises(ValueError, match="Frame 3 is white"):
        orbit_to_splat(torch.cat([frames[:2], torch.ones_like(frames[2:])]), RIG)
    with pytest.raises(ValueError, match="NaN"):
        orbit_to_splat(frames * float("nan"), RIG)
    with pytest.raises(ValueError, match="tolerance must lie"):
        OrbitSplatParams(tolerance=1.0)
