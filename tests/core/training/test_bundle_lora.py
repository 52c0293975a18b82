"""Bundle LoRAs: what is learnt, resuming, and files that other loaders read alike."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flow_scenes import Stop, ignore, make_data, quick_loop, stop_at
from lift3d.core.diffusion.diffusers_model import load_diffusers_model
from lift3d.core.diffusion.model import Conditioning
from lift3d.core.formats.png import read_png
from lift3d.core.training.bundle_lora import BundleLoraParams, LoraTraining, train_bundle_lora
from lift3d.core.training.flux_flow import SheetParams, prepare_run
from lift3d.core.training.lora_adapter import LoraParams, add_lora, find_layers, save_lora
from tiny_models import make_tiny_flux_folder, make_tiny_sd_folder

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_flux_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_flux_folder(tmp_path_factory.mktemp("published"), published=True)


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def settings(model: Path, data: Path, output: Path, **changes) -> BundleLoraParams:
    values = {
        "dtype": "float32", "device": "cpu", "batch": 2, "prefix": "a grid image",
        "lora": LoraParams(rank=4, alpha=8.0, targets=("attention", "feed_forward", "text")), "loop": quick_loop(4),
    }  # fmt: skip
    return BundleLoraParams(str(model), make_data(data), output, **{**values, **changes})


def read_lora(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


@pytest.fixture(scope="module")
def trained(tiny: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of a few steps with alpha twice the rank."""
    output = tmp_path_factory.mktemp("lora")
    train_bundle_lora(settings(tiny, data_folder, output), ignore)
    return output / "bundle_lora.safetensors"


def test_one_bundle_is_learnt(tiny: Path, tmp_path: Path) -> None:
    """The loss of one bundle falls below 1.42, the noise's variance and most of the latents'.

    An untrained model is far above that; one that only knows the mean colour stays at 1.45.
    """
    config = json.loads((tiny / "vae" / "config.json").read_text())
    shutil.copytree(tiny, tmp_path / "model")
    config["scaling_factor"] = 3.0  # the random encoder's latents have a variance of 0.05
    (tmp_path / "model" / "vae" / "config.json").write_text(json.dumps(config))
    params = replace(
        settings(tmp_path / "model", tmp_path / "data", tmp_path / "out"),
        data=make_data(tmp_path / "data", 1),
        batch=4,
        gradient_checkpointing=False,
        lora=LoraParams(rank=16, targets=("attention", "feed_forward", "modulation")),
        loop=quick_loop(60, average=0.0),
    )
    run = prepare_run(params, ignore)
    variance = float(torch.from_numpy(run.bundles.latents.copy()).float().var())
    untrained = mean_loss(LoraTraining(run))
    train_bundle_lora(params, ignore)
    losses = json.loads((tmp_path / "out" / "training.json").read_text())["losses"]
    last = sum(row["total"] for row in losses[-20:]) / 20
    assert variance == pytest.approx(0.45, abs=0.05) and untrained > 1.7
    assert last < 1.42


@torch.no_grad()
def mean_loss(training: LoraTraining, count: int = 8) -> float:
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    return sum(float(training.loss(0, generator)["total"]) for generator in generators) / count


def test_an_interrupted_run_writes_the_same_file(
    tiny: Path, data_folder: Path, trained: Path, tmp_path: Path
) -> None:
    params = settings(tiny, data_folder, tmp_path)
    with pytest.raises(Stop):
        train_bundle_lora(params, stop_at(2))
    assert not (tmp_path / "bundle_lora.safetensors").exists()
    train_bundle_lora(params, ignore)
    whole, parts = read_lora(trained), read_lora(tmp_path / "bundle_lora.safetensors")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_the_file_holds_pairs_with_alpha_in_the_layout_of_diffusers(trained: Path) -> None:
    state = read_lora(trained)
    layer = "transformer.transformer_blocks.0.attn.to_q"
    assert state[f"{layer}.lora_A.weight"].shape == (4, 32)
    assert state[f"{layer}.lora_B.weight"].shape == (32, 4)
    assert state[f"{layer}.lora_B.weight"].dtype == torch.float16
    assert float(state[f"{layer}.alpha"]) == 8.0
    assert all(bool(value.any()) for value in state.values())  # every layer was trained
    # 8 attention and 4 feed-forward layers of the double block, 3 and 2 of the single block, 3 of
    # the text
    assert len(state) == 3 * (12 + 5 + 3)


def test_equal_alpha_and_rank_are_not_written(tiny: Path, tmp_path: Path) -> None:
    model = load_diffusers_model(tiny, device="cpu")
    params = LoraParams(rank=2, alpha=2.0)
    layers = add_lora(model.parts.backbone.network, params)
    save_lora(tmp_path / "a.safetensors", model.parts.backbone.network, layers, params)
    assert not [key for key in read_lora(tmp_path / "a.safetensors") if key.endswith("alpha")]


def network_inputs(model) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, 16, 32, generator=generator)
    return latents, torch.tensor([0.5]), model.encode_text(["a red mug"])


@pytest.fixture(scope="module")
def expected_change(tiny: Path, trained: Path) -> torch.Tensor:
    """Predictions with the LoRA merged by hand: W + alpha / rank * B A, in double precision."""
    model = load_diffusers_model(tiny, device="cpu")
    state = read_lora(trained)
    network = model.parts.backbone.network
    for key in state:
        if key.endswith(".lora_A.weight"):
            base = key.removesuffix(".lora_A.weight")
            change = state[f"{base}.lora_B.weight"].double() @ state[key].double()
            layer = network.get_submodule(base.removeprefix("transformer."))
            layer.weight.data += (float(state[f"{base}.alpha"]) / 4 * change).float()
    return model.denoise(*network_inputs(model))


def test_our_own_loader_reads_it(tiny: Path, trained: Path, expected_change) -> None:
    model = load_diffusers_model(tiny, device="cpu")
    plain = model.denoise(*network_inputs(model))
    made = model.with_lora(trained).denoise(*network_inputs(model))
    assert (made - plain).abs().max() > 1e-3
    assert torch.allclose(made, expected_change, atol=1e-5)


def test_diffusers_reads_it(tiny: Path, trained: Path, expected_change) -> None:
    from diffusers import FluxPipeline

    model = load_diffusers_model(tiny, device="cpu")
    pipeline = FluxPipeline.from_pretrained(tiny, text_encoder=None, tokenizer=None)
    pipeline.load_lora_weights(trained)
    object.__setattr__(model.parts.backbone, "network", pipeline.transformer)
    made = model.denoise(*network_inputs(model))
    assert torch.allclose(made, expected_change, atol=1e-5)


def test_distilled_models_get_their_fixed_guidance_and_only_the_prefix_is_pooled(
    published: Path, data_folder: Path, tmp_path: Path
) -> None:
    run = prepare_run(settings(published, data_folder, tmp_path, guidance=1.5), ignore)
    _, _, conditioning = run.draw(torch.Generator().manual_seed(0))
    assert conditioning.guidance == 1.5
    pooled = torch.from_numpy(run.bundles.pooled.copy()).float()
    words = run.model.encode_text(["x"], pooled_prompts=["a grid image"])
    assert len(pooled) > 3
    assert (pooled[1:] - words.pooled).abs().max() < 1e-2
    assert (pooled[0] - pooled[1]).abs().max() > 1e-2  # text 0 is empty


def test_guidance_reaches_the_network(published: Path, data_folder: Path, tmp_path: Path) -> None:
    losses = []
    for guidance in (1.0, 1.0, 5.0):
        params = settings(published, data_folder, tmp_path, guidance=guidance)
        losses.append(mean_loss(LoraTraining(prepare_run(params, ignore)), 2))
    assert losses[0] == losses[1] != losses[2]


def test_texts_are_left_out_at_their_share(tiny: Path, data_folder: Path, tmp_path: Path) -> None:
    run = prepare_run(settings(tiny, data_folder, tmp_path), ignore)
    empty = torch.from_numpy(run.bundles.tokens[0].copy()).float()
    shares = {}
    for share in (0.0, 0.3, 1.0):
        _, _, words = run.bundles.draw(
            400, torch.Generator().manual_seed(1), torch.device("cpu"), empty_share=share
        )
        shares[share] = float((words.tokens == empty).all(dim=2).all(dim=1).float().mean())
    assert shares[0.0] == 0.0 and shares[1.0] == 1.0
    assert shares[0.3] == pytest.approx(0.3, abs=0.07)


def test_sheets_and_the_card_tell_what_was_done(
    tiny: Path, data_folder: Path, tmp_path: Path
) -> None:
    params = settings(
        tiny,
        data_folder,
        tmp_path / "run",
        result=tmp_path / "named.safetensors",
        sheet=SheetParams(prompts=("a red mug", "a blue car"), steps=1, guidance=1.0),
        loop=quick_loop(3, sample_every=2),
    )
    files = train_bundle_lora(params, ignore)
    sheet = read_png(tmp_path / "run" / "samples" / "step_000002.png")
    assert sheet.shape[0] > 2 * 128 and sheet.shape[1] >= 256
    card = json.loads((tmp_path / "run" / "training.json").read_text())
    assert card["bundles"] == 3 and card["steps"] == 3
    assert [row["step"] for row in card["losses"]] == [1, 2, 3]
    assert card["settings"]["lora"]["rank"] == 4
    names = [path.name for path in files]
    assert "named.safetensors" in names and "step_000003.png" in names
    assert not [name for name in names if name.endswith(".npy")]


def test_encodings_are_used_again_until_captions_or_pictures_change(
    tiny: Path, data_folder: Path, tmp_path: Path
) -> None:
    def encoded(**changes) -> list[str]:
        messages: list[str] = []
        params = replace(settings(tiny, data_folder, tmp_path), **changes)
        prepare_run(params, lambda progress: messages.append(progress.message.split()[-1]))
        return [message for message in messages if message in ("bundles", "texts")]

    assert set(encoded()) == {"bundles", "texts"}
    assert encoded() == []
    assert set(encoded(prefix="another")) == {"texts"}
    assert set(encoded(prefix="another", data=make_data(data_folder.parent / "other", 2))) == {
        "bundles", "texts",
    }  # fmt: skip


def test_bfloat16_and_checkpointing_change_little(
    tiny: Path, data_folder: Path, tmp_path: Path
) -> None:
    losses = {}
    for name, changes in {
        "plain": {"gradient_checkpointing": False},
        "checkpointing": {"gradient_checkpointing": True},
        "bfloat16": {"dtype": "bfloat16", "loop": quick_loop(4, bfloat16=True)},
        "accumulated": {"batch": 1, "loop": quick_loop(4, accumulate=2)},
    }.items():
        train_bundle_lora(settings(tiny, data_folder, tmp_path / name, **changes), ignore)
        card = json.loads((tmp_path / name / "training.json").read_text())
        losses[name] = [row["total"] for row in card["losses"]]
    assert losses["checkpointing"] == pytest.approx(losses["plain"], rel=1e-5)
    assert losses["bfloat16"] == pytest.approx(losses["plain"], rel=2e-2)
    assert losses["accumulated"] != pytest.approx(losses["plain"], rel=1e-5)  # other noise


def test_layers_are_found_by_group_and_by_name(tiny: Path) -> None:
    network = load_diffusers_model(tiny, device="cpu").parts.backbone.network
    single = find_layers(network, LoraParams(targets=(), layers=("proj_mlp",)))
    assert single == ["single_transformer_blocks.0.proj_mlp"]
    groups = ("attention", "feed_forward", "modulation", "text")
    everything = add_lora(network, LoraParams(targets=groups))
    assert len(everything) == len(set(everything)) == 23
    wrapped = {
        name.removesuffix(".lora_A")
        for name, _ in network.named_modules()
        if name[-7:] == ".lora_A"
    }
    assert wrapped == set(everything)
    assert "proj_out" not in wrapped  # the output of the whole network is no block
    fresh = load_diffusers_model(tiny, device="cpu").parts.backbone.network
    with pytest.raises(ValueError, match="No block has a layer attn.to_z; there are attn.add_k"):
        find_layers(fresh, LoraParams(layers=("attn.to_z",)))


def test_a_new_lora_changes_nothing_and_only_it_is_trained(tiny: Path) -> None:
    model = load_diffusers_model(tiny, device="cpu")
    network = model.parts.backbone.network
    plain = model.denoise(*network_inputs(model))
    add_lora(network, LoraParams(rank=3))
    assert torch.equal(model.denoise(*network_inputs(model)), plain)
    trained = [name for name, value in network.named_parameters() if value.requires_grad]
    assert trained and all("lora_" in name for name in trained)


def test_models_of_other_kinds_and_senseless_sizes_are_refused(
    data_folder: Path, tmp_path: Path
) -> None:
    sd = make_tiny_sd_folder(tmp_path / "sd")
    with pytest.raises(ValueError, match="is a Stable Diffusion model; this trainer trains Flux"):
        train_bundle_lora(settings(sd, data_folder, tmp_path / "out"), ignore)
    with pytest.raises(FileNotFoundError, match="no diffusion model at"):
        train_bundle_lora(settings(tmp_path / "no", data_folder, tmp_path / "out"), ignore)
    with pytest.raises(ValueError, match="rank and alpha"):
        LoraParams(rank=0)
    with pytest.raises(ValueError, match="at least one group"):
        LoraParams(targets=())
    with pytest.raises(ValueError, match="batch and wordings"):
        settings(sd, data_folder, tmp_path, batch=0)
    with pytest.raises(ValueError, match="empty_share"):
        settings(sd, data_folder, tmp_path, empty_share=2.0)
