import math
from dataclasses import replace

import pytest
import torch
from lift3d.core.diffusion.zero123plus_files import load_zero123plus
from lift3d.core.networks.lrm_cameras import FLEXGEN_AZIMUTHS_DEG, FLEXGEN_COLUMN_TILES
from lift3d.core.pipelines.image_to_multiview import (
    MultiviewParams,
    image_to_multiview,
    multiview_layout,
    split_tiles,
)
from multiview_scenes import make_picture, make_tiny_zero123plus
from reference_scenes import storing_and_joining

TINY = MultiviewParams(steps=3, tile_px=32, seed=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_zero123plus(make_tiny_zero123plus(tmp_path_factory.mktemp("zero123plus")))


def slow_run(model, image, params):
    """The published program's loop: diffusers' scheduler, and attention over joined tokens."""
    from diffusers import EulerAncestralDiscreteScheduler

    processor, mode, _ = storing_and_joining()
    tokens = model.encode_tokens(image[None])
    reference = model.encode_reference(image[None])
    before = model.unet.attn_processors
    model.unet.set_attn_processor({name: processor(name) for name in before})
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", prediction_type="v_prediction",
        timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(params.steps)
    generator = torch.Generator().manual_seed(params.seed)
    latents = torch.randn(1, 4, 8, 8, generator=generator) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        noise = torch.randn(reference.shape, generator=generator)
        noisy = scheduler.scale_model_input(scheduler.add_noise(reference, noise, t[None]), t)
        scaled = torch.cat([scheduler.scale_model_input(latents, t)] * 2)
        mode[0] = "w"
        model.unet(noisy, t, encoder_hidden_states=tokens)
        mode[0] = "r"
        nothing, picture = model.unet(scaled, t, encoder_hidden_states=tokens).sample.chunk(2)
        made = nothing + params.guidance * (picture - nothing)
        latents = scheduler.step(made, t, latents, generator=generator).prev_sample
    model.unet.set_attn_processor(before)
    return model.decode(latents)[0]


@torch.no_grad()
def test_a_run_equals_the_published_loop(model):
    image = make_picture()
    expected = slow_run(model, image, TINY)
    made = image_to_multiview(model, image, TINY)
    assert made.tiles.shape == (64, 64, 3) and float(made.tiles.std()) > 1e-3
    torch.testing.assert_close(made.tiles, expected, atol=2e-4, rtol=0)


def test_columns_of_the_bundle_are_tiles_3_0_1_2(model):
    assert FLEXGEN_COLUMN_TILES == (3, 0, 1, 2)
    assert FLEXGEN_AZIMUTHS_DEG == (270.0, 0.0, 90.0, 180.0)
    made = image_to_multiview(model, make_picture(), TINY)
    corners = [
        made.tiles[32:, 32:],
        made.tiles[:32, :32],
        made.tiles[:32, 32:],
        made.tiles[32:, :32],
    ]
    assert torch.equal(made.views, torch.stack(corners))
    for view, camera in enumerate(made.rig):
        azimuth, elevation = math.radians(90 * view), math.radians(5)
        x, y, z = (camera.position / 4.15).tolist()
        assert (x, z) == pytest.approx(
            (math.cos(elevation) * math.sin(azimuth), math.cos(elevation) * math.cos(azimuth)),
            abs=1e-6,
        )
        assert y == pytest.approx(math.sin(elevation)) and camera.fov_y_deg == 30.0


def test_six_views_of_zero123plus_keep_their_order(model):
    params = replace(TINY, layout="zero123plus", steps=1)
    made = image_to_multiview(model, make_picture(), params)
    assert made.tiles.shape == (96, 64, 3) and made.views.shape == (6, 32, 32, 3)
    assert torch.equal(made.views, split_tiles(made.tiles, 3, 2))
    heights = [round(float(camera.position[1]) / 4.0, 4) for camera in made.rig]
    assert heights == [round(math.sin(math.radians(a)), 4) for a in (20, -10) * 3]


def test_tiles_are_cut_row_by_row():
    picture = torch.arange(4 * 6 * 3).reshape(4, 6, 3).float()
    tiles = split_tiles(picture, 2, 3)
    for index, (row, column) in enumerate((row, column) for row in (0, 2) for column in (0, 2, 4)):
        assert torch.equal(tiles[index], picture[row : row + 2, column : column + 2])
    with pytest.raises(ValueError, match="does not divide into 4 x 2 tiles"):
        split_tiles(picture, 2, 4)


def test_seeds_decide_and_zero_is_one(model):
    runs = [
        image_to_multiview(model, make_picture(), replace(TINY, seed=seed)).views
        for seed in (0, 0, 42)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.allclose(runs[0], runs[2], atol=1e-3)


def test_without_guidance_nothing_is_asked_for(model, monkeypatch):
    batches = []
    predict = model.predict
    monkeypatch.setattr(
        model, "predict", lambda *given: batches.append(len(given[2])) or predict(*given)
    )
    image_to_multiview(model, make_picture(), replace(TINY, guidance=1.0))
    image_to_multiview(model, make_picture(), TINY)
    assert batches == [1, 1, 1, 2, 2, 2]


def test_networks_are_prepared_before_they_run(model):
    class Watching:
        device, prepared = torch.device("cpu"), []

        def prepare(self, network):
            self.prepared.append(network)

        def changed(self, network):
            raise AssertionError("no layers are added")

    watching = Watching()
    image_to_multiview(model, make_picture(), TINY, placement=watching)
    assert watching.prepared == [model.vision, model.vae, model.unet, model.vae]


def test_progress_counts_steps_and_may_interrupt(model):
    seen = []
    image_to_multiview(model, make_picture(), TINY, on_progress=seen.append)
    assert [(p.step, p.total) for p in seen] == [(1, 3), (2, 3), (3, 3)]
    assert all(p.preview.shape == (64, 64, 3) for p in seen)

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_to_multiview(model, make_picture(), TINY, on_progress=stop)
    image_to_multiview(model, make_picture(), TINY)  # works again afterwards


@pytest.mark.parametrize(
    ("image", "part"),
    [
        (torch.rand(8, 9, 3), "must be square, got 9 x 8"),
        (torch.rand(1, 8, 8, 3), "image must have shape"),
        (torch.full((8, 8, 3), torch.nan), "NaN"),
    ],
)
def test_bad_pictures_are_refused(model, unchecked_shapes, image, part):
    with pytest.raises(ValueError, match=part):
        image_to_multiview(model, image, TINY)


def test_bad_settings_are_refused(model, unchecked_shapes):
    with pytest.raises(ValueError, match="Unknown layout 'other'"):
        multiview_layout("other")
    with pytest.raises(ValueError, match="steps must be at least 1"):
        MultiviewParams(steps=0)
    with pytest.raises(ValueError, match="needs multiples of 16"):
        image_to_multiview(model, make_picture(), replace(TINY, tile_px=20))
