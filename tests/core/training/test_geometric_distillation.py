"""Stage two: only a LoRA learns, the loss is Eq. 7, and the file acts as it did in training."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from decoder_scenes import FACTS, write_tiny_decoder
from decoder_training_scenes import data_params, make_data
from lift3d.core.diffusion.gaussian_decoder_files import load_gaussian_decoder
from lift3d.core.diffusion.orbit_files import load_orbit_model, with_orbit_lora
from lift3d.core.training.encoded_orbits import DrawnOrbit
from lift3d.core.training.geometric_distillation import (
    DistillationTraining,
    GeometricDistillationParams,
    OrbitLoraParams,
    orbit_lora_state,
    train_geometric_distillation,
)
from lift3d.core.training.loop import LoopParams, TrainingLoop
from lift3d.core.training.orbit_diffusion import condition_of
from orbit_scenes import write_tiny_orbit
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SIGMA = torch.tensor([0.8])


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Folder with model, decoder, autoencoder and drawn orbits, and the encoded orbits."""
    folder = tmp_path_factory.mktemp("distill")
    data = make_data(folder)
    write_tiny_orbit(folder / "model")
    write_tiny_decoder(folder / "decoder")
    return folder, data


def make_params(folder, **more) -> GeometricDistillationParams:
    settings = {
        "lora": OrbitLoraParams(2, 2.0, "float32"), "batch": 1, "rendered_views": 2, "held_out": 1,
        "device": "cpu", "loop": LoopParams(steps=2, learning_rate=1e-2, warmup_steps=0),
    }  # fmt: skip
    return GeometricDistillationParams(
        folder / "run", str(folder / "model"), str(folder / "decoder"), folder / "vae",
        data_params(folder), **{**settings, **more},
    )  # fmt: skip


def make_training(scene, **more) -> DistillationTraining:
    folder, data = scene
    return DistillationTraining(
        make_params(folder, **more), data, load_orbit_model(folder / "model"),
        load_gaussian_decoder(folder / "decoder"),
    )  # fmt: skip


def predictions(model, data) -> torch.Tensor:
    """Clean latents of a fixed noisy orbit."""
    with torch.no_grad():
        latents, told = condition_of(model, data, [DrawnOrbit(0, 1)], 4)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
        return model.clean_latents(latents + SIGMA * noise, SIGMA, told)


@pytest.mark.slow
def test_a_fresh_lora_changes_nothing_and_is_all_that_learns(scene) -> None:
    folder, data = scene
    training = make_training(scene)
    plain = load_orbit_model(folder / "model")
    torch.testing.assert_close(predictions(training.model, data), predictions(plain, data))
    trained = [name for name, value in training.named_parameters() if value.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert any("temporal_transformer_blocks" in name for name in trained)
    losses = training.loss(0, torch.Generator().manual_seed(0))
    losses["total"].backward()
    ups = [v for n, v in training.named_parameters() if "lora_B" in n and ".attn1." in n]
    assert all(value.grad is not None and bool(value.grad.any()) for value in ups)


@pytest.mark.slow
def test_the_loss_is_that_of_latents_plus_one_and_a_half_that_of_renders(scene) -> None:
    training = make_training(scene)
    generator = torch.Generator()
    with torch.no_grad():
        losses = training.loss(0, generator.manual_seed(3))
        assert training.params.splat_weight == 1.5
        expected = losses["2d"] + 1.5 * losses["3d"]
        torch.testing.assert_close(losses["total"], expected)
        assert float(losses["3d"]) > 0 and float(losses["2d"]) > 0
        flat = make_training(scene, splat_weight=0.0).loss(0, generator.manual_seed(3))
        torch.testing.assert_close(flat["total"], losses["2d"])


@pytest.mark.slow
def test_the_render_loss_alone_reaches_the_lora_through_the_decoder(scene) -> None:
    training = make_training(scene)
    losses = training.loss(0, torch.Generator().manual_seed(0))
    losses["3d"].backward()
    grads = [v.grad for n, v in training.named_parameters() if "lora_B" in n]
    assert any(grad is not None and bool(grad.any()) for grad in grads)
    assert all(value.grad is None for value in training.others.parameters())


def test_the_file_acts_in_the_loaded_model_as_it_did_in_training(scene, tmp_path) -> None:
    folder, data = scene
    training = make_training(scene)
    TrainingLoop(training, tmp_path, training.params.loop).run(
        training.loss, on_progress=lambda progress: None
    )
    training.eval()
    state = orbit_lora_state(training.model.unet.unet, training.layers, training.params.lora)
    assert any("input_blocks.1.1.time_stack.0.attn1.to_q.lora_A" in name for name in state)
    save_file(state, tmp_path / "lora.safetensors")
    plain = load_orbit_model(folder / "model")
    before = predictions(plain, data)
    changed = with_orbit_lora(plain, tmp_path / "lora.safetensors")
    found = predictions(changed, data)
    torch.testing.assert_close(found, predictions(training.model, data), atol=1e-5, rtol=1e-4)
    assert float((found - before).abs().max()) > 1e-3


def test_the_trainer_writes_the_lora_and_goes_on_where_it_stopped(scene) -> None:
    folder, _ = scene
    params = make_params(folder, loop=LoopParams(steps=2, learning_rate=1e-2, save_every=1))

    def stop(progress) -> None:
        if progress.step == 1 and progress.total == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_geometric_distillation(params, stop)
    steps: list[int] = []
    files = train_geometric_distillation(params, lambda progress: steps.append(progress.step))
    assert steps == [2]
    (lora,) = [path for path in files if path.suffix == ".safetensors"]
    assert all(name.startswith("diffusion_model.") for name in load_file(lora))
    with safe_open(lora, framework="pt") as file:
        head = file.metadata()
    assert head["steps"] == "2"
    assert json.loads(head["settings"])["loop"]["learning_rate"] == 1e-2


def test_data_model_and_decoder_must_share_latents_and_cameras(scene, tmp_path) -> None:
    folder, data = scene
    other = write_tiny_decoder(tmp_path / "a", facts=replace(FACTS, latent_scale=0.5))
    model = load_orbit_model(folder / "model")
    with pytest.raises(ValueError, match="need one autoencoder"):
        DistillationTraining(make_params(folder), data, model, load_gaussian_decoder(other))
    other = write_tiny_decoder(tmp_path / "b", facts=replace(FACTS, radius=3.0))
    with pytest.raises(ValueError, match="trained with 3 and 30"):
        DistillationTraining(make_params(folder), data, model, load_gaussian_decoder(other))
    with pytest.raises(ValueError, match="3 objects and 5 are held out"):
        make_training(scene, held_out=5)
    with pytest.raises(ValueError, match="splat_weight must not be negative"):
        make_params(folder, splat_weight=-1.0)
