"""Loading the A-pose model from the published folder layout, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from lift3d.core.diffusion.pose_canonicalizer import PROMPT, load_pose_canonicalizer
from stdgen_scenes import make_portrait, make_tiny_pose_model
from tiny_models import TEXT_WIDTH


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_pose_model(tmp_path_factory.mktemp("pose") / "StdGEN-canonicalize-1024")


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def model(folder):
    return load_pose_canonicalizer(folder)


def change(part, edit):
    """Edit the weights of a part on disk."""
    from safetensors.torch import load_file, save_file

    path = part / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    edit(state)
    save_file(state, path)


def edit_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_both_unets_have_the_values_of_their_files(folder, model):
    from safetensors.torch import load_file

    for part, network in (("unet", model.networks.unet), ("ref_unet", model.networks.reference)):
        stored = load_file(folder / part / "diffusion_pytorch_model.safetensors")
        own = network.state_dict()
        assert set(stored) - set(own) == {
            "class_embedding.linear_1.weight", "camera_embedding.0.weight",
            "camera_embedding.2.bias",
        }  # fmt: skip
        assert all(torch.equal(value, stored[key]) for key, value in own.items())
        assert f"{part}: {len(own)} keys, all keys fit. 3 keys of class_embedding." in model.report
    assert model.networks.unet.config.in_channels == 4  # whatever config.json says
    assert not any(value.requires_grad for value in model.networks.parameters())


def test_the_token_is_zeros_and_clips_embedding_of_the_whole_portrait(model):
    image = make_portrait()[None]
    tokens = model.encode_token(image)
    assert tokens.shape == (2, 1, TEXT_WIDTH) and float(tokens[0].abs().max()) == 0
    pixels = model.processor(image)
    assert pixels.shape == (1, 3, 24, 24)  # squeezed, not cropped
    torch.testing.assert_close(tokens[1], model.vision(pixel_values=pixels).image_embeds)


def test_the_text_is_that_of_the_empty_and_the_published_prompt(folder, model):
    from transformers import AutoTokenizer, CLIPTextModel

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    ids = tokenizer(["", PROMPT], padding="max_length", max_length=77, return_tensors="pt")
    expected = encoder(ids.input_ids).last_hidden_state
    assert PROMPT == "high quality, best quality"
    torch.testing.assert_close(model.text, expected.detach())
    assert not torch.equal(model.text[0], model.text[1])


def test_the_schedule_is_read_from_its_own_folder(model):
    schedule = model.schedule
    assert schedule.zero_terminal_snr and schedule.prediction == "v_prediction"
    assert schedule.step_spacing == "trailing" and schedule.clip_range is None
    assert float(schedule.alphas_cumprod()[-1]) == 0


@pytest.mark.parametrize("part", ["unet", "ref_unet"])
def test_every_other_key_must_fit(copied, part):
    def edit(state):
        state["pose.weight"] = state.pop("time_embedding.linear_1.bias")
        state["conv_in.weight"] = torch.zeros(8, 5, 3, 3)

    change(copied / part, edit)
    with pytest.raises(ValueError, match=f"{part} of copy does not fit") as caught:
        load_pose_canonicalizer(copied)
    for words in ("missing: time_embedding.linear_1.bias", "unexpected: pose.weight",
                  "conv_in.weight [8, 5, 3, 3] for [8, 4, 3, 3]"):  # fmt: skip
        assert words in str(caught.value)


def test_a_whole_unet_in_place_of_the_reference_net_is_told(copied):
    shutil.copyfile(
        copied / "unet" / "diffusion_pytorch_model.safetensors",
        copied / "ref_unet" / "diffusion_pytorch_model.safetensors",
    )
    with pytest.raises(ValueError, match="unexpected: .*conv_out"):
        load_pose_canonicalizer(copied)


def test_missing_files_are_named_before_anything_is_read(copied, tmp_path):
    (copied / "ref_unet" / "diffusion_pytorch_model.safetensors").unlink()
    (copied / "scheduler-zerosnr" / "scheduler_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="ref_unet/diffusion_pytorch_model.*zerosnr"):
        load_pose_canonicalizer(copied)
    shutil.rmtree(copied / "image_encoder")
    with pytest.raises(FileNotFoundError, match="image_encoder/config.json.*hyz317/StdGEN"):
        load_pose_canonicalizer(copied)
    with pytest.raises(FileNotFoundError, match="does not exist; download nowhere of https"):
        load_pose_canonicalizer(tmp_path / "nowhere")


def test_pickles_of_tensors_are_read_and_others_refused(copied, model):
    from safetensors.torch import load_file

    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    path.unlink()
    torch.save(state, path.with_suffix(".bin"))
    again = load_pose_canonicalizer(copied)
    weight = again.networks.unet.conv_in.weight
    assert torch.equal(weight, model.networks.unet.conv_in.weight)
    torch.save({"a": make_portrait}, path.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"\.bin cannot be read"):
        load_pose_canonicalizer(copied)


def test_full_precision_is_preferred_to_half(copied, model):
    from safetensors.torch import load_file, save_file

    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    half = {key: value.half() for key, value in load_file(path).items()}
    save_file(half, path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    again = load_pose_canonicalizer(copied)
    weight = again.networks.unet.conv_in.weight
    assert torch.equal(weight, model.networks.unet.conv_in.weight)


def test_weights_in_several_files_are_put_together(copied, model):
    from safetensors.torch import load_file, save_file

    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    path.unlink()
    keys = list(state)
    for number, part in enumerate((keys[:50], keys[50:]), start=1):
        name = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({key: state[key] for key in part}, path.with_name(name))
    again = load_pose_canonicalizer(copied).networks.unet.state_dict()
    assert all(torch.equal(again[k], v) for k, v in model.networks.unet.state_dict().items())


def test_parts_that_do_not_belong_together_are_refused(copied):
    edit_json(copied / "unet" / "config.json", cross_attention_dim=16)
    with pytest.raises(ValueError, match="does not fit"):
        load_pose_canonicalizer(copied)
    edit_json(copied / "scheduler-zerosnr" / "scheduler_config.json", prediction_type="epsilon")
    with pytest.raises(ValueError, match=r"scheduler_config\.json: .*ends in pure noise"):
        load_pose_canonicalizer(copied)


def test_half_precision_leaves_the_autoencoder_in_single(folder):
    model = load_pose_canonicalizer(folder, dtype=torch.float16)
    assert model.networks.unet.dtype == model.vision.dtype == torch.float16
    assert model.vae.dtype == torch.float32
