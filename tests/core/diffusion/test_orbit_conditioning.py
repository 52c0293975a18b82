import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lift3d.core.diffusion.orbit_conditioning import (
    ORBIT_ORDERS,
    OrbitPoses,
    embed_poses,
    embed_sinusoid,
    make_orbit_poses,
    parse_numbers,
    triangle_guidance,
)
from lift3d.core.diffusion.schedules import make_karras_sigmas
from lift3d.core.diffusion.unet_network import clean_from_prediction

GOLDENS = Path(__file__).resolve().parents[4] / "shared" / "goldens" / "sv3d_conditioning.npz"


@pytest.fixture(scope="module")
def golden():
    if not GOLDENS.is_file():
        pytest.skip("the numbers of the published code are not in this checkout")
    return np.load(GOLDENS)


def test_vectors_equal_the_published_ones(golden):
    poses = make_orbit_poses(21, golden["elevations_deg"].tolist())
    np.testing.assert_allclose(poses.wrapped_azimuths_deg, golden["azimuths_deg"], atol=1e-4)
    vectors = embed_poses(poses).numpy()
    np.testing.assert_allclose(vectors, golden["vector"], atol=1e-5)


def test_guidance_equals_the_published_one(golden):
    for frames, name in ((21, "guidance_scale"), (16, "guidance_scale_N16")):
        np.testing.assert_allclose(triangle_guidance(frames).numpy(), golden[name], atol=1e-6)


def test_noise_levels_equal_the_published_ones(golden):
    sigmas = make_karras_sigmas(50, sigma_min=0.002, sigma_max=700.0)
    np.testing.assert_allclose(sigmas.numpy(), golden["sigmas_50_f64"], rtol=1e-9)


def test_karras_levels_run_from_700_to_0_002_and_then_0():
    sigmas = make_karras_sigmas(50, sigma_min=0.002, sigma_max=700.0)
    assert float(sigmas[0]) == pytest.approx(700)
    assert float(sigmas[-2]) == pytest.approx(0.002) and float(sigmas[-1]) == 0


def test_the_velocity_gives_back_the_clean_latents():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 4, 3, 3, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.002, 0.1, 1.0, 30.0, 700.0], dtype=torch.float64)
    level = sigma.reshape(-1, 1, 1, 1)
    noisy = clean + level * noise
    velocity = (noise - level * clean) / (1 + level**2).sqrt()
    # c_skip x + c_out v, written out
    slow = noisy / (level**2 + 1) - velocity * level / (level**2 + 1).sqrt()
    torch.testing.assert_close(slow, clean, atol=1e-9, rtol=0)
    found = clean_from_prediction(noisy, velocity, sigma, "v_prediction")
    torch.testing.assert_close(found, clean, atol=1e-9, rtol=0)


@pytest.mark.parametrize("frames", [16, 21])
def test_guidance_is_a_symmetric_triangle(frames):
    scales = triangle_guidance(frames)
    assert float(scales[0]) == 1.0 and float(scales[-1]) == 1.0
    torch.testing.assert_close(scales, scales.flip(0))
    if frames % 2:
        assert float(scales[frames // 2]) == 2.5
    assert bool((scales[: frames // 2].diff() > 0).all())


def test_the_three_orders_of_an_orbit():
    last = make_orbit_poses(16, 10.0, "input last")
    assert last.azimuths_deg[0] == 22.5 and last.azimuths_deg[-1] == 360.0
    assert last.input_frame == 15 and last.wrapped_azimuths_deg[-1] == 0.0
    first = make_orbit_poses(16, 10.0, "input first")
    assert first.azimuths_deg == tuple(22.5 * i for i in range(16)) and first.input_frame == 0
    closed = make_orbit_poses(21, 10.0, "input at both ends")
    assert closed.azimuths_deg[1] == 18.0 and closed.azimuths_deg[-1] == 360.0
    assert make_orbit_poses(21, 0.0, "input last").azimuths_deg[0] == pytest.approx(360 / 21)


def test_an_orbit_that_is_rolled_on_by_one_has_the_input_first():
    rolled = make_orbit_poses(16, list(range(16)), "input last").rolled(1)
    assert rolled.input_frame == 0 and rolled.elevations_deg[0] == 15.0
    expected = make_orbit_poses(16, 0.0, "input first").wrapped_azimuths_deg
    np.testing.assert_allclose(rolled.wrapped_azimuths_deg, expected)


def test_an_orbit_need_not_pass_the_given_picture():
    assert OrbitPoses((10.0, 190.0), (0.0, 0.0)).input_frame is None
    assert OrbitPoses((10.0, 720.0), (0.0, 0.0)).input_frame == 1


def test_the_rig_sees_the_picture_from_the_front_and_turns_to_plus_x():
    rig = make_orbit_poses(8, 30.0, "input last").rig(radius=4.0, fov_y_deg=33.8)
    positions = torch.stack([camera.position for camera in rig])
    height, out = 4 * math.sin(math.radians(30)), 4 * math.cos(math.radians(30))
    torch.testing.assert_close(positions[-1], torch.tensor([0.0, height, out]))
    torch.testing.assert_close(positions[1], torch.tensor([out, height, 0.0]), atol=1e-6, rtol=0)
    other = make_orbit_poses(8, 30.0).rig(radius=4.0, fov_y_deg=33.8, clockwise=True)
    torch.testing.assert_close(other[1].position[0], -positions[1][0])


def test_sinusoids_equal_a_slow_loop():
    found = embed_sinusoid(torch.tensor([0.3, 2.0]), 8)
    for row, value in enumerate((0.3, 2.0)):
        for i in range(4):
            angle = value / 10_000 ** (i / 4)
            assert float(found[row, i]) == pytest.approx(math.cos(angle), abs=1e-6)
            assert float(found[row, 4 + i]) == pytest.approx(math.sin(angle), abs=1e-6)


def test_the_small_model_is_told_the_noise_only():
    vectors = embed_poses(make_orbit_poses(4, 10.0), "u")
    assert vectors.shape == (4, 256)
    torch.testing.assert_close(vectors[:1].expand(4, -1), vectors)


def test_numbers_are_read_as_people_write_them():
    assert parse_numbers(" 1, -2.5\n3;4 ", "elevations") == (1.0, -2.5, 3.0, 4.0)
    assert parse_numbers("", "elevations") == ()
    with pytest.raises(ValueError, match="elevations must be numbers"):
        parse_numbers("1, two", "elevations")


def test_bad_orbits_are_refused():
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        make_orbit_poses(1, 0.0)
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        triangle_guidance(1)
    with pytest.raises(ValueError, match=r"within -90\.\.90 degrees, got 91"):
        make_orbit_poses(4, 91.0)
    with pytest.raises(ValueError, match="3 elevations for 4 frames"):
        make_orbit_poses(4, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="must be finite"):
        OrbitPoses((0.0, math.inf), (0.0, 0.0))
    assert len(ORBIT_ORDERS) == 3
