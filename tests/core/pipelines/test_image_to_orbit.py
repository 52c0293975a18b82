from dataclasses import replace

import pytest
import torch
from lift3d.core.diffusion.orbit_conditioning import embed_poses, make_orbit_poses
from lift3d.core.diffusion.orbit_files import load_orbit_model
from lift3d.core.pipelines.image_to_orbit import OrbitParams, image_to_orbit
from multiview_scenes import make_picture
from orbit_scenes import write_tiny_sv3d

TINY = OrbitParams(num_frames=5, steps=4, elevations_deg=(12.0,), seed=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_orbit_model(write_tiny_sv3d(tmp_path_factory.mktemp("sv3d") / "sv3d_p.safetensors"))


@torch.no_grad()
def slow_run(model, image, params):
    """SV3D's loop written out: EDM scalings, Euler steps, guidance by a triangle."""
    frames = params.num_frames
    pixels = image.permute(2, 0, 1)[None]
    latent = model.vae.encode(pixels * 2 - 1).latent_dist.mode()
    token = model.vision(pixel_values=model.processor(image[None])).image_embeds[:, None]
    vector = embed_poses(make_orbit_poses(frames, params.elevations_deg[0], "input last"))[None]
    ramp = torch.linspace(0, 1, params.steps, dtype=torch.float64)
    sigmas = (700 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 700 ** (1 / 7))) ** 7
    sigmas = torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]).float()
    noise = [torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(params.seed + i))
             for i in range(frames)]  # fmt: skip
    x = torch.stack(noise)[None] * (1 + sigmas[0] ** 2).sqrt()
    for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
        c_skip, c_out = 1 / (now**2 + 1), -now / (now**2 + 1).sqrt()
        c_in, c_noise = 1 / (now**2 + 1).sqrt(), 0.25 * now.log()
        made = []
        for share in (1.0, 0.0):
            beside = (share * latent)[:, None].expand(-1, frames, -1, -1, -1)
            sample = torch.cat([c_in * x, beside], dim=2)
            made.append(
                c_skip * x + c_out * model.unet(sample, c_noise[None], share * token, vector)
            )
        for i in range(frames):
            position = i / (frames - 1)
            scale = 1 + 1.5 * (1 - abs(2 * position - 1))
            made[0][:, i] = made[1][:, i] + scale * (made[0][:, i] - made[1][:, i])
        x = x + (then - now) * (x - made[0]) / now
    return x[0]


def test_a_run_equals_the_published_loop(model):
    image = make_picture(32)
    params = replace(TINY, input_first=False)
    made = image_to_orbit(model, image, params)
    expected = slow_run(model, image, params)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(made.latents, expected, atol=2e-4, rtol=2e-4)


def test_the_given_picture_is_put_in_its_place_and_comes_first(model):
    image = make_picture(32)
    made = image_to_orbit(model, image, TINY)
    assert made.images.shape == (5, 32, 32, 3) and made.input_frame == 0
    torch.testing.assert_close(made.images[0], image)
    plain = image_to_orbit(model, image, replace(TINY, input_first=False, keep_input=False))
    assert plain.input_frame == 4
    torch.testing.assert_close(made.images[1:], plain.images[:4])
    torch.testing.assert_close(made.latents, plain.latents.roll(1, dims=0))
    for ours, rolled in zip(made.rig, plain.rig.select([4, 0, 1, 2, 3]), strict=True):
        torch.testing.assert_close(ours.camera_to_world, rolled.camera_to_world)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_frames(model):
    first = image_to_orbit(model, make_picture(32), TINY)
    again = image_to_orbit(model, make_picture(32), TINY)
    other = image_to_orbit(model, make_picture(32), replace(TINY, seed=4))
    assert torch.equal(first.images, again.images)
    assert not torch.allclose(first.latents, other.latents)


def test_every_frame_may_have_its_own_elevation(model):
    elevations = (0.0, 10.0, 20.0, 10.0, 5.0)
    made = image_to_orbit(model, make_picture(32), replace(TINY, elevations_deg=elevations))
    heights = [float(camera.position[1]) for camera in made.rig]
    assert heights == sorted(heights[:1]) + heights[1:] and heights[0] > 0  # 5 degrees comes first
    assert heights[1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_progress_runs_to_the_end_and_may_interrupt(model):
    reports = []
    image_to_orbit(model, make_picture(32), TINY, on_progress=reports.append)
    steps = [report.step for report in reports]
    assert steps == sorted(steps) and steps[-1] == reports[-1].total
    assert any(report.preview is not None for report in reports)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_to_orbit(model, make_picture(32), TINY, on_progress=stop)


def test_bad_input_is_refused_with_the_reason(model):
    image = make_picture(32)
    with pytest.raises(ValueError, match="no object in it"):
        image_to_orbit(model, torch.ones(32, 32, 3), TINY)
    with pytest.raises(ValueError, match="must be square"):
        image_to_orbit(model, image[:16], TINY)
    with pytest.raises(ValueError, match="NaN"):
        image_to_orbit(model, image * float("nan"), TINY)
    with pytest.raises(ValueError, match="multiples of 16"):
        image_to_orbit(model, image, replace(TINY, size_px=40))
    with pytest.raises(ValueError, match="3 elevations for 5 frames"):
        image_to_orbit(model, image, replace(TINY, elevations_deg=(1.0, 2.0, 3.0)))
    with pytest.raises(ValueError, match="within -90"):
        image_to_orbit(model, image, replace(TINY, elevations_deg=(95.0,)))
    with pytest.raises(ValueError, match="at least 2 frames"):
        OrbitParams(num_frames=1)
