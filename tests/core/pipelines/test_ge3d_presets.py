"""Presets of text to Gaussians hold the published numbers, and choices change only what they name."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.diffusion.trajectories import sample_timesteps
from lift3d.core.pipelines.ge3d_presets import (
    PRESETS,
    SMALL_COARSE,
    SMALL_JUMPS,
    RefineChoices,
    RunChoices,
    choose_params,
    choose_refine_params,
    load_ge3d_params,
)
from lift3d.core.pipelines.reconstructive_refine import RefineParams


def test_the_paper_preset_holds_the_published_numbers() -> None:
    paper = load_ge3d_params("paper")
    nodes = paper.objective.alignment.nodes
    assert (nodes.num_jumps, nodes.jump_begin, nodes.jump_end) == (6, (60, 80), (30, 50))
    assert (nodes.farthest_begin, nodes.farthest_end) == (480, 300)
    assert paper.objective.guidance_scale == 7.5 and paper.objective.strength == 0.1
    assert paper.objective.inversion_text == "empty"
    assert (paper.run.iterations, paper.run.views, paper.run.size_px) == (3000, 4, 512)
    densify = paper.splats.optimizer.densify
    assert (densify.every, densify.reset_opacity_every) == (100, 300)
    assert (densify.gradient_threshold, densify.min_opacity) == (7.5e-4, 0.005)
    rates = paper.splats.optimizer.rates
    assert rates.means == (2e-4, 1.6e-6) and rates.rest[0] == rates.base[0] / 20


def test_small_models_get_few_far_nodes_up_plain_noise() -> None:
    alignment = load_ge3d_params("small").objective.alignment
    assert alignment.noising == "random"
    assert load_ge3d_params("paper").objective.alignment.noising == "inversion"
    for progress in (0.0, 0.5, 1.0):
        drawn = sample_timesteps(alignment.nodes, progress, torch.Generator().manual_seed(0))
        assert len(drawn) == 3 and 940 <= int(drawn[-1]) < 970


def test_the_paper_preset_is_the_default() -> None:
    from lift3d.core.pipelines.text_to_splat import TextToSplatParams

    default, paper = TextToSplatParams(), load_ge3d_params("paper")
    assert default.objective == paper.objective
    assert default.run == paper.run
    assert default.splats.optimizer.rates == paper.splats.optimizer.rates


def test_the_reference_preset_repeats_the_released_code() -> None:
    from lift3d.core.diffusion.distillation import REFERENCE_ALIGNMENT

    reference = load_ge3d_params("reference")
    assert reference.objective.alignment == REFERENCE_ALIGNMENT
    assert reference.objective.inversion_text == "negative"
    assert reference.objective.unconditional_text == "negative"
    assert reference.splats.statistics == "last"
    assert reference.run == load_ge3d_params("paper").run


def test_choices_change_only_what_they_name() -> None:
    paper = load_ge3d_params("paper")
    assert choose_params("paper", RunChoices()) == paper
    made = choose_params(
        "paper",
        RunChoices(iterations=10, size_px=64, max_gaussians=99, step_factor=2.0, seed=5),
    )
    assert (made.run.iterations, made.run.size_px, made.run.seed) == (10, 64, 5)
    assert made.run.views == paper.run.views and made.objective == paper.objective
    rates = made.splats.optimizer.rates
    assert rates.means == (4e-4, 3.2e-6) and rates.quats == (2e-3, 4e-4)
    assert made.splats.optimizer.densify.max_gaussians == 99
    still = choose_params("paper", RunChoices(densify=False, smoothness_factor=0.0))
    assert still.splats.optimizer.densify.every == 0
    assert still.run.color_smoothness == still.splats.scale_weight == 0
    small = load_ge3d_params("small")
    mixed = choose_params(
        "paper", RunChoices(), objective=small.objective, cameras=small.run.cameras
    )
    assert mixed.objective == small.objective and mixed.run.cameras == small.run.cameras
    with pytest.raises(ValueError, match="step_factor must be positive"):
        RunChoices(step_factor=0.0)


def test_presets_are_known_by_name() -> None:
    assert all(load_ge3d_params(name) for name in PRESETS)


def test_an_unknown_preset_is_refused(unchecked_shapes) -> None:
    with pytest.raises(ValueError, match="choose paper, reference, small"):
        load_ge3d_params("best")


def test_refining_by_the_paper_is_what_the_pipeline_does_by_itself() -> None:
    assert choose_refine_params("paper", RefineChoices()) == RefineParams()


def test_refining_by_small_models_takes_even_jumps_and_keeps_the_gaussians() -> None:
    made = choose_refine_params("small", SMALL_COARSE)
    nodes = made.nodes
    generator = torch.Generator().manual_seed(0)
    first = sample_timesteps(nodes, 0.0, generator).tolist()
    last = sample_timesteps(nodes, 1.0, generator).tolist()
    assert len(first) == SMALL_JUMPS + 1 and len(last) == SMALL_JUMPS  # 120 itself is not reached
    assert 900 < first[-1] <= 970 and last[-1] == 100
    paper = choose_refine_params("paper", RefineChoices())
    assert made.cut and made.respawn and not (paper.cut or paper.respawn)
    assert made.fit.mask_weight > paper.fit.mask_weight == RefineParams().fit.mask_weight
    assert made.fit.optimizer.densify.every == 0 and made.fit.num_steps == 720
    small = load_ge3d_params("small").splats.optimizer.rates
    assert made.fit.optimizer.rates.means[0] == pytest.approx(6.5 * small.means[0])


def test_the_last_round_of_refining_is_nearer_unless_told_otherwise() -> None:
    assert choose_refine_params("paper", RefineChoices(farthest=400)).nodes.farthest_end == 280
    for preset in ("paper", "small"):
        for end in (4, 50, 120):
            told = choose_refine_params(preset, RefineChoices(farthest=400, farthest_end=end))
            assert told.nodes.farthest_end == end
            last = sample_timesteps(told.nodes, 1.0, torch.Generator().manual_seed(0))
            assert 0 < int(last[-1]) <= end


def test_refining_refuses_a_preset_that_does_not_exist(unchecked_shapes) -> None:
    with pytest.raises(ValueError, match="choose paper, reference, small"):
        choose_refine_params("best", RefineChoices())
