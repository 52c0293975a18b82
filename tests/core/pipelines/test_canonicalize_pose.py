"""Repainting in A-pose: the published loop, guidance, memory, progress, bad pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.diffusion.pose_canonicalizer import load_pose_canonicalizer
from lift3d.core.pipelines.canonicalize_pose import PoseParams, canonicalize_pose
from stdgen_scenes import ZERO_SNR, make_portrait, make_tiny_pose_model

TINY = PoseParams(steps=3, seed=5, height_px=128)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_pose_canonicalizer(make_tiny_pose_model(tmp_path_factory.mktemp("pose")))


def slow_run(model, image, params):
    """The published program's loop with diffusers' scheduler, both halves in one batch."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**ZERO_SNR)
    scheduler.set_timesteps(params.steps)
    pixels = 2 * image.permute(2, 0, 1)[None] - 1
    picture = model.vae.encode(pixels).latent_dist.mode() * 0.18215
    embedding = model.vision(pixel_values=model.processor(image[None])).image_embeds[:, None]
    tokens = torch.cat([torch.zeros_like(embedding), embedding])
    latents = torch.randn(1, 4, 16, 10, generator=torch.Generator().manual_seed(params.seed))
    for t in scheduler.timesteps:
        made = model.networks(
            torch.cat([latents] * 2), int(t), tokens, torch.cat([picture] * 2), model.text
        )
        nothing, shown = made.chunk(2)
        made = nothing + params.guidance * (shown - nothing)
        latents = scheduler.step(made, t, latents, eta=0.0).prev_sample
    decoded = model.vae.decode(latents / 0.18215).sample[0].permute(1, 2, 0)
    return (decoded / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def test_a_run_equals_the_published_loop(model):
    image = make_portrait()
    made = canonicalize_pose(model, image, TINY)
    assert made.shape == (128, 80, 3) and float(made.std()) > 1e-3
    torch.testing.assert_close(made, slow_run(model, image, TINY), atol=2e-4, rtol=0)


def test_the_published_settings_are_the_defaults():
    assert PoseParams() == PoseParams(40, 5.0, 42, 1024, False)


def test_low_memory_changes_how_often_is_asked_but_not_the_result(model, monkeypatch):
    batches = []
    forward = type(model.networks).forward

    def watch(self, latents, *given):
        batches.append(len(latents))
        return forward(self, latents, *given)

    monkeypatch.setattr(type(model.networks), "forward", watch)
    whole = canonicalize_pose(model, make_portrait(), TINY)
    split = canonicalize_pose(model, make_portrait(), replace(TINY, low_memory=True))
    canonicalize_pose(model, make_portrait(), replace(TINY, guidance=1.0))
    assert batches == [2] * 3 + [1] * 6 + [1] * 3
    torch.testing.assert_close(whole, split, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_seeds_and_pictures_decide(model):
    image = make_portrait()
    runs = [canonicalize_pose(model, image, replace(TINY, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.allclose(runs[0], runs[2], atol=1e-3)
    other = canonicalize_pose(model, 1 - image, replace(TINY, seed=0))
    assert not torch.allclose(runs[0], other, atol=1e-3)


def test_larger_portraits_are_brought_to_the_size(model):
    made = canonicalize_pose(model, make_portrait(256), TINY)
    assert made.shape == (128, 80, 3)


def test_networks_are_prepared_before_they_run(model):
    class Watching:
        device, prepared = torch.device("cpu"), []

        def prepare(self, network):
            if not self.prepared or self.prepared[-1] is not network:
                self.prepared.append(network)

        def changed(self, network):
            raise AssertionError("no layers are added")

    watching = Watching()
    image = make_portrait()
    before = image.clone()
    canonicalize_pose(model, image, TINY, placement=watching)
    assert watching.prepared == [model.vision, model.vae, model.networks, model.vae]
    assert torch.equal(image, before)


def test_progress_counts_steps_and_may_interrupt(model):
    seen = []
    canonicalize_pose(model, make_portrait(), TINY, on_progress=seen.append)
    assert [(p.step, p.total) for p in seen] == [(1, 3), (2, 3), (3, 3)]
    assert all(p.preview.shape == (128, 80, 3) for p in seen)

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        canonicalize_pose(model, make_portrait(), TINY, on_progress=stop)
    canonicalize_pose(model, make_portrait(), TINY)  # works again afterwards


@pytest.mark.parametrize(
    ("image", "part"),
    [
        (torch.rand(64, 64, 3), "portrait of 5 : 8.* got 64 x 64"),
        (torch.ones(128, 80, 3), "one even colour"),
        (torch.rand(128, 80, 4), "image must have shape"),
        (torch.full((128, 80, 3), torch.nan), "NaN"),
    ],
)
def test_bad_pictures_are_refused(model, unchecked_shapes, image, part):
    with pytest.raises(ValueError, match=part):
        canonicalize_pose(model, image, TINY)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"guidance": float("nan")}, "guidance not negative"),
        ({"height_px": 100}, "multiple of 128, got 100"),
    ],
)
def test_bad_settings_are_refused(values, part):
    with pytest.raises(ValueError, match=part):
        PoseParams(**values)
