from __future__ import annotations

import math

import pytest
import torch
from bundle_toy import ToyModel, ToyNetwork
from lift3d.core.bundle_image import BundleImage, join_bundle, split_bundle
from lift3d.core.diffusion.model import Control
from lift3d.core.diffusion.sampling import make_noise
from lift3d.core.diffusion.schedules import make_flow_sigmas
from lift3d.core.pipelines.bundle_prompt import BundlePrompt, ImagePrompt
from lift3d.core.pipelines.text_to_bundle import BundleSampleParams, sample_bundle

PROMPT = BundlePrompt("a red mug")
RAW = BundleSampleParams(clean=False)
SIGMAS_20 = (
    1.0, 0.9819, 0.9624, 0.9414, 0.9187, 0.8940, 0.8672, 0.8379, 0.8057, 0.7702, 0.7310, 0.6872,
    0.6382, 0.5829, 0.5201, 0.4479, 0.3644, 0.2663, 0.1498, 0.0089,
)  # fmt: skip
A_LINEAR = 0.3


def linear(latents, sigma, conditioning):
    return A_LINEAR * latents


def random_bundle(seed: int, tile: int = 64) -> BundleImage:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.rand(8, 8, 8, 3, generator=generator)
    tiles = cells.repeat_interleave(tile // 8, 1).repeat_interleave(tile // 8, 2)
    return BundleImage(tiles[:4], tiles[4:])


def heun_by_hand(x: torch.Tensor, sigmas: list[float]) -> torch.Tensor:
    """Slow reference for the linear model, in double precision."""
    x = x.double()
    for now, after in zip(sigmas, sigmas[1:], strict=False):
        slope = (x - A_LINEAR * x) / now
        ahead = x + (after - now) * slope
        if after > 0:
            slope = (slope + (ahead - A_LINEAR * ahead) / after) / 2
            ahead = x + (after - now) * slope
        x = ahead
    return x


def test_a_run_of_20_steps_asks_39_times_at_the_published_noise_levels():
    model, reports = ToyModel(linear), []
    sample_bundle(model, PROMPT, RAW, on_progress=reports.append)
    assert len(model.sigmas) == 39 and model.previews == 39
    steps = [model.sigmas[0], *model.sigmas[1::2]]
    assert steps == pytest.approx(SIGMAS_20, abs=1e-4)
    assert [report.step for report in reports] == list(range(1, 41))
    assert {report.total for report in reports} == {40}
    assert all(report.preview is not None for report in reports)


def test_strength_095_asks_37_times_and_starts_at_the_second_level():
    model = ToyModel(linear)
    params = BundleSampleParams(clean=False, strength=0.95)
    made = sample_bundle(model, PROMPT, params, start=random_bundle(1))
    assert len(model.sigmas) == 37
    assert model.sigmas[0] == pytest.approx(0.9819, abs=1e-4)
    assert not made.warnings


def test_the_start_bundle_has_no_effect_at_full_strength():
    results = [
        sample_bundle(model, PROMPT, RAW, start=start).latents
        for model, start in ((ToyModel(linear), None), (ToyModel(linear), random_bundle(1)))
    ]
    assert torch.equal(*results)
    other = BundleSampleParams(clean=False, strength=0.95)
    first, second = (
        sample_bundle(ToyModel(linear), PROMPT, other, start=random_bundle(seed)).latents
        for seed in (1, 2)
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_result_of_a_linear_model_is_that_of_a_run_by_hand(strength):
    model, start = ToyModel(linear), random_bundle(1)
    params = BundleSampleParams(clean=False, strength=strength, seed=3)
    made = sample_bundle(model, PROMPT, params, start=start)
    sigmas = make_flow_sigmas(20)[round(20 * (1 - strength)) :].tolist()
    noise = make_noise((1, 3, 16, 32), 3)
    clean = model.encode_image(join_bundle(start)[None])
    expected = heun_by_hand(sigmas[0] * noise + (1 - sigmas[0]) * clean, sigmas)
    torch.testing.assert_close(made.latents.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_model_that_knows_the_start_gives_it_back():
    start = random_bundle(4)
    model = ToyModel()
    clean = model.encode_image(join_bundle(start)[None])
    model.rule = lambda latents, sigma, conditioning: clean.expand_as(latents)
    made = sample_bundle(model, PROMPT, RAW)
    torch.testing.assert_close(join_bundle(made.bundles[0]), join_bundle(start), atol=1e-5, rtol=0)


def test_distilled_models_get_the_guidance_as_an_input_and_are_asked_once():
    model = ToyModel(lambda x, s, c: torch.full_like(x, c.guidance / 10))
    made = sample_bundle(model, PROMPT, RAW)
    torch.testing.assert_close(made.latents, torch.full_like(made.latents, 0.35))
    assert {shape[0] for shape in model.sizes} == {1}
    sample_bundle(model, PROMPT, BundleSampleParams(clean=False, guidance=2.0, steps=2))
    assert model.asked[-1].guidance == 2.0


def test_other_models_are_asked_for_the_empty_text_too():
    # x0 = 0.2 for words and 0 without: guidance s gives 0.2 s.
    def rule(latents, sigma, conditioning):
        return 0.2 * conditioning.tokens[:, 0, 0].reshape(-1, 1, 1, 1).expand_as(latents)

    model = ToyModel(rule, guidance_kind="classifier_free")
    params = BundleSampleParams(clean=False, guidance=2.5, steps=3, batch=2)
    made = sample_bundle(model, PROMPT, params)
    torch.testing.assert_close(made.latents, torch.full_like(made.latents, 0.5))
    assert {shape[0] for shape in model.sizes} == {4} and len(model.sizes) == 5
    assert model.texts[1] == ("", "")
    once = ToyModel(rule, guidance_kind="classifier_free")
    plain = sample_bundle(once, PROMPT, BundleSampleParams(clean=False, guidance=1.0, steps=3))
    torch.testing.assert_close(plain.latents, torch.full_like(plain.latents, 0.2))
    assert {shape[0] for shape in once.sizes} == {1} and len(once.texts) == 1


def test_guidance_works_beside_a_picture_in_the_prompt():
    model = ToyModel(guidance_kind="classifier_free")
    prompt = BundlePrompt("a mug", image=ImagePrompt(torch.ones(1, 4, 4, 3), 0.5))
    sample_bundle(model, prompt, BundleSampleParams(clean=False, steps=1))
    assert model.asked[0].tokens[:, 4:, 0].tolist() == [[0.5] * 9, [0.0] * 9]


def test_euler_asks_once_per_step():
    model = ToyModel(linear)
    sample_bundle(model, PROMPT, BundleSampleParams(clean=False, method="euler", steps=7))
    assert len(model.sigmas) == 7


def test_entries_of_a_batch_have_seeds_that_count_up():
    def run(seed: int, batch: int) -> torch.Tensor:
        params = BundleSampleParams(clean=False, seed=seed, batch=batch, steps=2)
        return sample_bundle(ToyModel(linear), PROMPT, params).latents

    both = run(5, 2)
    torch.testing.assert_close(both[1:], run(6, 1))
    assert not torch.equal(both[:1], both[1:])


def test_seed_0_is_a_seed():
    def run(seed: int) -> torch.Tensor:
        return sample_bundle(ToyModel(linear), PROMPT, BundleSampleParams(seed=seed)).latents

    zero, other = run(0), run(42)
    assert torch.equal(zero, run(0)) and not torch.equal(zero, other)
    # A linear model only scales its noise.
    noise = make_noise((3, 16, 32), torch.Generator().manual_seed(0))
    scale = float(zero[0, 0, 0, 0] / noise[0, 0, 0])
    torch.testing.assert_close(zero[0], scale * noise, atol=1e-5, rtol=1e-4)


def test_variance_preserving_models_start_at_their_largest_noise():
    model = ToyModel(linear, family="variance_preserving", guidance_kind="distilled")
    sample_bundle(model, PROMPT, RAW)
    assert model.sigmas[0] == pytest.approx(14.6) and model.sigmas[-1] == pytest.approx(0.03)
    assert len(model.sigmas) == 39


def test_controls_act_on_the_evaluations_of_their_span_in_both_branches():
    model = ToyModel(guidance_kind="classifier_free")
    control = Control(ToyNetwork(), torch.zeros(1, 128, 256, 3), end=0.65)
    params = BundleSampleParams(clean=False, strength=0.95)
    sample_bundle(model, PROMPT, params, start=random_bundle(1), controls=[control])
    assert [len(asked.controls) for asked in model.asked] == [1] * 24 + [0] * 13


def test_few_steps_that_hide_the_start_are_warned_about(caplog):
    params = BundleSampleParams(clean=False, strength=0.95, steps=10)
    made = sample_bundle(ToyModel(linear), PROMPT, params, start=random_bundle(1))
    assert "use 20 steps or more, or a strength of 0.90 or less" in made.warnings[0]
    assert made.warnings[0] in caplog.text
    again = BundleSampleParams(clean=False, strength=0.9, steps=10)
    assert not sample_bundle(ToyModel(linear), PROMPT, again, start=random_bundle(1)).warnings


def test_what_is_not_masked_comes_back_bit_by_bit():
    start = random_bundle(2)
    editable = torch.zeros(128, 256)
    editable[16:40, 70:100] = 1.0
    model = ToyModel(lambda x, s, c: torch.full_like(x, 0.5))
    params = BundleSampleParams(clean=True, feather_px=3)
    made = sample_bundle(model, PROMPT, params, start=start, editable=editable)
    before, after = join_bundle(start), join_bundle(made.bundles[0])
    apart = torch.ones(128, 256, dtype=torch.bool)
    apart[16 - 3 : 40 + 3, 70 - 3 : 100 + 3] = False
    assert torch.equal(before[apart], after[apart])
    edited = after[16:40, 70:100]
    torch.testing.assert_close(edited, torch.full_like(edited, 0.75), atol=1e-5, rtol=0)
    # Latent pixels far from the mask hold the start itself.
    kept = model.encode_image(before[None])[..., 8:, :]
    torch.testing.assert_close(made.latents[..., 8:, :], kept, atol=1e-6, rtol=0)


def test_the_start_is_brought_to_the_tile_size_of_the_model():
    model = ToyModel(linear)
    params = BundleSampleParams(clean=False, strength=0.9, steps=10)
    made = sample_bundle(model, PROMPT, params, start=random_bundle(1, tile=128))
    assert made.images().shape == (1, 128, 256, 3)
    assert model.sizes[0] == (1, 3, 16, 32)


def test_a_start_with_other_columns_keeps_them():
    start = split_bundle(torch.rand(128, 384, 3, generator=torch.Generator().manual_seed(0)), 6)
    model = ToyModel(linear)
    made = sample_bundle(model, PROMPT, RAW, start=start)
    assert made.bundles[0].num_views == 6 and model.sizes[0] == (1, 3, 16, 48)


def test_an_interruption_passes_through():
    def stop(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    model = ToyModel(linear)
    with pytest.raises(KeyboardInterrupt):
        sample_bundle(model, PROMPT, RAW, on_progress=stop)
    assert len(model.sigmas) == 5


def test_nan_from_the_model_is_reported_with_its_place():
    def rule(latents, sigma, conditioning):
        broken = latents.clone()
        if float(sigma[0]) < 0.97:
            broken[0, 0, 0, :3] = math.nan
        return broken

    with pytest.raises(
        ValueError, match=r"3 NaN or infinite .* at evaluation 4, noise level 0.9624"
    ):
        sample_bundle(ToyModel(rule), PROMPT, RAW)


def test_nan_in_the_pictures_is_reported_with_its_place():
    broken = ToyModel(linear)
    broken.decode_latents = lambda latents: torch.full((1, 128, 256, 3), math.nan)
    with pytest.raises(ValueError, match="The decoded bundle holds"):
        sample_bundle(broken, PROMPT, RAW)
    broken = ToyModel(linear)
    broken.encode_image = lambda images: torch.full((1, 3, 16, 32), math.nan)
    params = BundleSampleParams(strength=0.9)
    with pytest.raises(ValueError, match="The encoded start bundle holds"):
        sample_bundle(broken, PROMPT, params, start=random_bundle(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile_px": 100}, "multiple of 8 for this model, got 100; its own tiles are 64"),
        ({"tile_px": 32}, "within 64..1024"),
        ({"method": "dpm"}, "heun or euler"),
        ({"steps": -1}, "steps must lie within"),
        ({"batch": 0}, "batch must lie within"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"strength": 1.5}, "strength must lie within"),
    ],
)
def test_bad_settings_are_refused_before_the_model_is_asked(settings, message, unchecked_shapes):
    model = ToyModel(linear)
    with pytest.raises(ValueError, match=message):
        sample_bundle(model, PROMPT, BundleSampleParams(**settings))
    assert not model.texts and not model.sigmas


def test_a_mask_needs_a_start():
    with pytest.raises(ValueError, match="there is no start bundle"):
        sample_bundle(ToyModel(), PROMPT, RAW, editable=torch.ones(128, 256))


def test_a_strength_of_zero_leaves_no_step():
    params = BundleSampleParams(strength=0.0)
    with pytest.raises(ValueError, match="leaves none of the 20 steps"):
        sample_bundle(ToyModel(), PROMPT, params, start=random_bundle(1))
