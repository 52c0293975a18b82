"""Six views with normals: the published batch and loop, levels, memory, padding, bad input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.diffusion.character_views_model import LEVELS, load_character_views
from lift3d.core.pipelines.image_to_character_views import (
    CharacterViewsParams,
    draw_noise,
    image_to_character_views,
)
from stdgen_scenes import ERA3D, make_portrait, make_tiny_views_model
from tiny_models import TEXT_WIDTH

TINY = CharacterViewsParams(steps=2, seed=5, height_px=128)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_character_views(make_tiny_views_model(tmp_path_factory.mktemp("views")))


@pytest.fixture(scope="module")
def views(model):
    return image_to_character_views(model, make_portrait(), "whole", TINY)


def slow_run(model, image, params, levels=LEVELS):
    """The published loop, level after level with one generator, 24 entries a batch."""
    from diffusers import DDIMScheduler

    generator = torch.Generator().manual_seed(params.seed)
    pixels = 2 * image.permute(2, 0, 1)[None] - 1
    picture = (model.vae.encode(pixels).latent_dist.mode() * 0.18215).expand(6, -1, -1, -1)
    embedding = model.embed(image[None])
    noised = [
        model.embedding_noise.apply(embedding, torch.randn(1, TEXT_WIDTH, generator=generator))
        for _ in LEVELS
    ]
    start = torch.randn(12, 4, 16, 9, generator=generator)
    normal_text, color_text = model.text
    text = torch.cat([normal_text, normal_text, color_text, color_text])
    nothing = torch.zeros_like(picture)
    beside = torch.cat([nothing, picture, nothing, picture])
    made = []
    for index, level in enumerate(levels):
        slots = torch.zeros(4, TEXT_WIDTH // 4)
        slots[index] = 1
        vector = torch.cat([noised[index], slots.reshape(1, -1)], dim=1).expand(6, -1)
        empty = torch.zeros_like(vector)
        classes = torch.cat([empty, vector, empty, vector])
        scheduler = DDIMScheduler(**ERA3D)
        scheduler.set_timesteps(params.steps)
        latents = start
        for t in scheduler.timesteps:
            normals, colors = latents.chunk(2)
            sample = torch.cat([torch.cat([normals, normals, colors, colors]), beside], dim=1)
            out = model.unet(sample, int(t), text, classes)
            n_u, n_c, c_u, c_c = out.chunk(4)
            guided = [u + params.guidance * (c - u) for u, c in ((n_u, n_c), (c_u, c_c))]
            latents = scheduler.step(
                torch.cat(guided), t, latents, eta=params.eta, generator=generator
            ).prev_sample
        decoded = (model.vae.decode(latents / 0.18215).sample / 2 + 0.5).clamp(0, 1)
        made.append((level, *decoded.permute(0, 2, 3, 1).chunk(2)))
    return made


@torch.no_grad()
def test_each_level_equals_its_turn_in_the_published_loop(model):
    image = make_portrait(128, 72)
    for level, normals, images in slow_run(model, image, TINY):
        made = image_to_character_views(model, image, level, TINY)
        torch.testing.assert_close(made.images[:, :, 28:100], images, atol=3e-4, rtol=0)
        torch.testing.assert_close(made.normals[:, :, 28:100], normals, atol=3e-4, rtol=0)
        assert float(images.std()) > 1e-3


def test_views_are_square_on_white_with_their_cameras(views):
    assert views.images.shape == views.normals.shape == (6, 128, 128, 3)
    for pictures in (views.images, views.normals):
        assert float(pictures[:, :, :28].min()) == float(pictures[:, :, 100:].min()) == 1
    assert len(views.rig) == 6 and not torch.equal(views.images, views.normals)
    # Views 1 and 2 are seen from the right of the front view's picture (+X), 4 and 5 from its left.
    sides = [round(float(camera.position[0]), 3) for camera in views.rig]
    assert min(sides[1:3]) > 0 > max(sides[4:]) and sides[0] == sides[3] == 0


def test_levels_start_from_the_same_noise_and_end_apart(model, views):
    size = (12, 4, 16, 9)
    noises = [draw_noise(level, TEXT_WIDTH, size, TINY) for level in LEVELS]
    assert all(torch.equal(noise.latents, noises[0].latents) for noise in noises)
    assert not torch.equal(noises[0].embedding, noises[1].embedding)
    fresh = [torch.randn(3, generator=noise.generator) for noise in noises]
    assert not torch.equal(fresh[0], fresh[1])
    body = image_to_character_views(model, make_portrait(), "body", TINY)
    assert not torch.allclose(body.images, views.images, atol=1e-3)


def test_the_published_settings_are_the_defaults():
    assert CharacterViewsParams() == CharacterViewsParams(40, 3.0, 1.0, 42, 1024, False)


@pytest.mark.slow
def test_low_memory_changes_how_often_is_asked_but_not_the_result(model, views, monkeypatch):
    batches = []
    forward = type(model.unet).forward

    def watch(self, sample, *given):
        batches.append(len(sample))
        return forward(self, sample, *given)

    monkeypatch.setattr(type(model.unet), "forward", watch)
    image = make_portrait()
    whole = image_to_character_views(model, image, "whole", TINY)
    split = image_to_character_views(model, image, "whole", replace(TINY, low_memory=True))
    image_to_character_views(model, image, "whole", replace(TINY, guidance=1.0))
    assert batches == [24] * 2 + [12] * 4 + [12] * 2
    assert torch.equal(whole.images, views.images)
    torch.testing.assert_close(whole.images, split.images, atol=2e-4, rtol=0)
    torch.testing.assert_close(whole.normals, split.normals, atol=2e-4, rtol=0)


@pytest.mark.slow
def test_seeds_decide(model, views):
    other = image_to_character_views(model, make_portrait(), "whole", replace(TINY, seed=6))
    assert not torch.allclose(other.images, views.images, atol=1e-3)


def test_networks_are_prepared_and_pictures_decoded_one_by_one(model, monkeypatch):
    class Watching:
        device, prepared = torch.device("cpu"), []

        def prepare(self, network):
            if not self.prepared or self.prepared[-1] is not network:
                self.prepared.append(network)

        def changed(self, network):
            raise AssertionError("no layers are added")

    sizes = []
    decode = type(model.vae).decode
    monkeypatch.setattr(
        type(model.vae), "decode", lambda self, z, **k: sizes.append(len(z)) or decode(self, z, **k)
    )
    watching = Watching()
    image_to_character_views(model, make_portrait(), "whole", TINY, placement=watching)
    assert watching.prepared == [model.vision, model.vae, model.unet, model.vae]
    assert sizes == [1] * 12


def test_progress_ends_at_all_and_may_interrupt(model):
    seen = []
    image_to_character_views(model, make_portrait(), "whole", TINY, on_progress=seen.append)
    assert [p.step for p in seen[:2]] == [45, 90] and seen[-1].step == seen[-1].total == 100
    assert seen[0].preview.shape == (128, 72, 3)

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_to_character_views(model, make_portrait(), "whole", TINY, on_progress=stop)


@pytest.mark.parametrize(
    ("image", "level", "part"),
    [
        (torch.rand(64, 65, 3), "whole", "wider than high, got 65 x 64"),
        (torch.ones(128, 80, 3), "whole", "one even colour"),
        (torch.rand(1, 128, 80, 3), "whole", "image must have shape"),
        (torch.full((128, 80, 3), torch.inf), "whole", "NaN or infinite"),
        (make_portrait(), "hair", "level must be one of"),
    ],
)
def test_bad_input_is_refused(model, unchecked_shapes, image, level, part):
    with pytest.raises(ValueError, match=part):
        image_to_character_views(model, image, level, TINY)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="eta must lie within"):
        CharacterViewsParams(eta=1.5)
    with pytest.raises(ValueError, match="multiple of 128"):
        CharacterViewsParams(height_px=1000)
