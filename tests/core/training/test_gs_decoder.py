"""Stage one: the decoder's data, loss and folder; it learns an object that it sees from all round."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from decoder_training_scenes import data_params, make_data, write_vae
from lift3d.core.diffusion.gaussian_decoder_files import load_gaussian_decoder
from lift3d.core.pipelines.decode_gaussians import DecodeParams, decode_gaussians
from lift3d.core.training.encoded_orbits import DrawnOrbit, read_vae
from lift3d.core.training.gs_decoder import (
    DecoderTraining,
    GsDecoderParams,
    compared_views,
    train_gs_decoder,
)
from lift3d.core.training.loop import LoopParams, TrainingLoop
from lift3d.core.training.splat_losses import SplatLossParams, splat_losses


def make_params(folder, **more) -> GsDecoderParams:
    return GsDecoderParams(
        folder / "run", folder / "result", data_params(folder), folder / "vae",
        **{
            "size": "tiny", "vision_px": 16, "num_frames": 4, "batch": 1, "rendered_views": 2,
            "held_out": 1, "device": "cpu", "loop": LoopParams(steps=2, learning_rate=1e-3),
            **more,
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gs")
    return folder, make_data(folder)


def test_latents_are_those_of_the_autoencoder(scene) -> None:
    folder, data = scene
    vae = read_vae(folder / "vae")
    pixels = data.orbits.views(1, [5]).rgb.permute(0, 3, 1, 2) * 2 - 1
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(data.take(1, [5]), expected, atol=2e-3, rtol=2e-3)
    assert data.latent_shape == (4, 4, 4) and data.latent_format.channels == 4


def test_encoding_goes_on_where_it_stopped(scene, tmp_path) -> None:
    from lift3d.core.training.encoded_orbits import encode_orbits

    folder, data = scene
    vae, done = read_vae(folder / "vae"), []

    def stop(progress) -> None:
        done.append(progress.step)
        if progress.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_orbits(data.orbits, vae, folder / "vae", tmp_path, on_progress=stop)
    again = encode_orbits(
        data.orbits, vae, folder / "vae", tmp_path, on_progress=lambda p: done.append(p.step)
    )
    assert done == [1, 2, 3]
    torch.testing.assert_close(again.take(2, range(8)), data.take(2, range(8)))


def test_given_and_novel_views_are_compared(scene) -> None:
    _, data = scene
    item = DrawnOrbit(0, 3)
    assert item.inputs(data.orbits, 4) == [3, 5, 7, 1]
    seen = set()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        chosen = compared_views(data.orbits, item, 4, 4, 0.5, generator)
        given = [view for view in chosen if view in (3, 5, 7, 1)]
        assert len(set(chosen)) == 4 and len(given) == 2
        seen |= set(chosen)
    assert seen == set(range(10))
    only = compared_views(data.orbits, item, 4, 3, 0.0, torch.Generator().manual_seed(0))
    assert set(only) <= {3, 5, 7, 1}


def test_the_loss_reaches_decoder_and_image_encoder(scene) -> None:
    folder, data = scene
    training = DecoderTraining(make_params(folder), data)
    losses = training.loss(0, torch.Generator().manual_seed(0))
    losses["total"].backward()
    for name, value in training.named_parameters():
        unused = "mask_token" in name  # DINOv2's, for its own pretraining
        assert unused or (value.grad is not None and bool(value.grad.any())), name
    assert {"rgb", "depth", "psnr"} <= set(losses)
    again = training.loss(0, torch.Generator().manual_seed(0))
    assert float(again["total"]) == float(losses["total"])


def test_the_first_steps_compare_pixels_and_the_later_ones_renders(scene) -> None:
    folder, data = scene
    training = DecoderTraining(make_params(folder, pixel_steps=2), data)
    parts = [training.loss(step, torch.Generator().manual_seed(0)) for step in (0, 1, 2)]
    assert ["pixel_depth" in found for found in parts] == [True, True, False]
    assert "rgb" in parts[2] and "psnr" in parts[2]
    parts[0]["total"].backward()
    with pytest.raises(ValueError, match="pixel_steps"):
        make_params(folder, pixel_steps=-1)
    assert all(value.grad is not None for value in training.decoder.heads.parameters())


def test_without_the_picture_there_is_no_image_encoder(scene) -> None:
    folder, data = scene
    training = DecoderTraining(make_params(folder, use_picture=False), data)
    assert training.vision is None and training.decoder.params.context_dim == 0
    training.loss(0, torch.Generator().manual_seed(0))["total"].backward()


def test_bfloat16_computes_geometry_in_single_precision(scene) -> None:
    folder, data = scene
    loop = LoopParams(steps=2, bfloat16=True, save_every=0)
    training = DecoderTraining(make_params(folder, loop=loop), data)
    values = TrainingLoop(training, folder / "bf16", loop).train_step(training.loss)
    assert values["total"] > 0


def test_the_trainer_writes_a_decoder_that_the_nodes_load(tmp_path) -> None:
    write_vae(tmp_path / "vae")
    loop = LoopParams(steps=2, learning_rate=1e-3, sample_every=2, average=0.9)
    files = train_gs_decoder(make_params(tmp_path, loop=loop), lambda progress: None)
    assert {"decoder.json", "decoder.safetensors"} <= {path.name for path in files}
    assert (tmp_path / "run" / "sheet_000002.png").is_file()
    decoder = load_gaussian_decoder(tmp_path / "result")
    assert decoder.facts.num_frames == 4 and decoder.facts.radius == 4.5
    assert decoder.latent_format.downscale == 8 and decoder.facts.latent_px == 4
    data = make_data(tmp_path)
    given = DrawnOrbit(0, 0).inputs(data.orbits, 4)
    cloud = decode_gaussians(
        decoder, data.take(0, given), data.orbits.rig(0, given, 0), data.orbits.views(0, [0]).rgb[0],
        DecodeParams(0.0, 10.0),
    )  # fmt: skip
    assert cloud.num_gaussians == 4 * decoder.params.output_side(4) ** 2


def test_a_resumed_run_ends_as_one_in_a_piece(scene, tmp_path) -> None:
    folder, data = scene
    results = []
    for name, stops in (("whole", [4]), ("parts", [2, 4])):
        for steps in stops:
            loop_params = LoopParams(steps=steps, learning_rate=1e-3, warmup_steps=1, save_every=0)
            torch.manual_seed(0)
            params = make_params(folder, loop=loop_params)
            training = DecoderTraining(params, data)
            # the schedule is that of the whole run
            loop = TrainingLoop(training, tmp_path / name, replace(loop_params, decay_start=1.0))
            loop.run(training.loss, on_progress=lambda progress: None)
        results.append(training.state_dict())
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value)


@pytest.mark.slow
def test_one_object_is_learnt_to_25_db_from_views_never_shown(tmp_path) -> None:
    """Four given views of one object; the others, and free ones, were not rendered in training."""
    from lift3d.core.evaluation.image_metrics import psnr
    from lift3d.core.rendering.splats import render_splats

    data = make_data(tmp_path, count=1, num_views=16, num_free_views=0, size_px=64)
    params = make_params(
        tmp_path, use_picture=False, held_out=0, novel_share=0.5, num_frames=8, rendered_views=4,
        loop=LoopParams(steps=700, learning_rate=3e-3, warmup_steps=20, save_every=0),
    )  # fmt: skip
    training = DecoderTraining(params, data)
    held_out = [3, 9]

    item = DrawnOrbit(0, 0)
    given = item.inputs(data.orbits, 8)
    assert not set(held_out) & set(given)
    shown = [view for view in range(16) if view not in held_out]

    def fixed_loss(step: int, generator: torch.Generator):
        cloud = training.decode([item])[0]
        chosen = [shown[i] for i in torch.randperm(len(shown), generator=generator)[:4].tolist()]
        rig, truth = data.orbits.rig(0, chosen, 0), data.orbits.views(0, chosen)
        return splat_losses(cloud, rig, truth, SplatLossParams(), generator)

    TrainingLoop(training, tmp_path / "loop", params.loop).run(
        fixed_loss, on_progress=lambda progress: None
    )
    with torch.no_grad():
        cloud = training.decode([item])[0]
        drawn = render_splats(cloud, data.orbits.rig(0, held_out, 0), width=64, height=64)
    assert psnr(drawn.rgb.clamp(0, 1), data.orbits.views(0, held_out).rgb) > 25
