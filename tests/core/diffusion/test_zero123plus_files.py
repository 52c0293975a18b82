import json
import shutil

import pytest
import torch
from lift3d.core.diffusion.zero123plus_files import load_zero123plus, make_unet
from lift3d.core.networks.zero123plus import NoiseSchedule
from multiview_scenes import TOKENS, make_picture, make_tiny_zero123plus
from tiny_models import TEXT_WIDTH, make_tiny_unet, seeded


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_zero123plus(tmp_path_factory.mktemp("zero123plus"))


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def model(folder):
    return load_zero123plus(folder)


def test_the_published_unet_has_the_listed_keys_and_shapes(shared_dir):
    path = shared_dir / "spec" / "state_dicts" / "flexgen_zero123plus_unet.json"
    listed = json.loads(path.read_text(encoding="utf-8"))
    unet = make_unet()
    assert {key: list(value.shape) for key, value in unet.state_dict().items()} == listed["keys"]
    assert sum(value.numel() for value in unet.parameters()) == 865_910_724


def test_the_unet_has_two_views_of_the_picture_and_none_of_nothing(model):
    other = 1 - make_picture()
    latents = [model.encode_reference(image[None]) for image in (make_picture(), other)]
    tokens = [model.encode_tokens(image[None]) for image in (make_picture(), other)]
    assert latents[0].shape == (2, 4, 6, 6) and tokens[0].shape == (2, TOKENS, TEXT_WIDTH)
    noisy = torch.randn(2, 4, 8, 16, generator=torch.Generator().manual_seed(0))
    first, second = (
        model.predict(noisy, 400, *given) for given in zip(tokens, latents, strict=True)
    )
    assert torch.equal(first[0], second[0])  # nothing is nothing, whatever the picture
    assert not torch.allclose(first[1], second[1], atol=1e-4)
    swapped = model.predict(noisy, 400, tokens[0], latents[1])
    assert not torch.allclose(first[1], swapped[1], atol=1e-4)  # the reference counts
    swapped = model.predict(noisy, 400, tokens[1], latents[0])
    assert not torch.allclose(first[1], swapped[1], atol=1e-4)  # the embedding counts


def test_the_embedding_is_added_along_the_ramp(model):
    image = make_picture()[None]
    tokens = model.encode_tokens(image)
    pixels = model.vision_processor(image)
    embedding = model.vision(pixel_values=pixels).image_embeds[0]
    ramp = torch.tensor([round(0.1 + index / TOKENS, 3) for index in range(TOKENS)])
    torch.testing.assert_close(tokens[1] - tokens[0], ramp[:, None] * embedding)
    torch.testing.assert_close(tokens[:1], model.empty_tokens)


def test_decoding_undoes_the_scaling_of_latents_and_pictures(model):
    latents = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    plain = model.vae.decode((latents / 0.75 + 0.22) / 0.18215).sample * 1.6
    expected = (plain / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0)
    torch.testing.assert_close(model.decode(latents)[0], expected)


def test_encoding_scales_the_other_way(model):
    pictures = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    pixels = (2 * pictures - 1).permute(0, 3, 1, 2) * 0.625
    plain = model.vae.encode(pixels).latent_dist.mode() * 0.18215
    torch.testing.assert_close(model.encode(pictures), (plain - 0.22) * 0.75)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_checkpoint_replaces_the_unet(copied, tmp_path, suffix):
    from safetensors.torch import save_file

    with seeded(7):
        state = make_tiny_unet().state_dict()
    path = tmp_path / f"flexgen{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    for weights in (copied / "unet").glob("*.safetensors"):
        weights.unlink()  # the folder's own weights are not needed
    model = load_zero123plus(copied, path)
    assert torch.equal(model.unet.state_dict()["conv_in.weight"], state["conv_in.weight"])
    assert not any(value.is_meta for value in model.unet.state_dict().values())


def test_a_checkpoint_of_another_model_is_refused_with_its_keys(folder, tmp_path):
    state = make_tiny_unet().state_dict()
    state["conv_in.weight"] = torch.zeros(16, 8, 3, 3)
    state["pose.weight"] = state.pop("conv_out.bias")
    torch.save(state, tmp_path / "flexgen.ckpt")
    with pytest.raises(ValueError, match="flexgen.ckpt does not fit") as caught:
        load_zero123plus(folder, tmp_path / "flexgen.ckpt")
    for part in (
        "missing: conv_out.bias",
        "unexpected: pose.weight",
        "conv_in.weight [16, 8, 3, 3]",
    ):
        assert part in str(caught.value)


def test_pickled_and_truncated_checkpoints_are_refused(folder, tmp_path):
    path = tmp_path / "evil.ckpt"
    torch.save({"a": make_tiny_unet}, path)
    with pytest.raises(ValueError, match=r"evil\.ckpt cannot be read"):
        load_zero123plus(folder, path)
    torch.save(make_tiny_unet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"evil\.ckpt cannot be read"):
        load_zero123plus(folder, path)


def test_missing_files_are_named_with_the_folder_and_the_link(copied, tmp_path):
    shutil.rmtree(copied / "unet")
    with pytest.raises(FileNotFoundError, match="unet/config.json, unet/.*safetensors missing"):
        load_zero123plus(copied)
    (copied / "model_index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model_index\.json does not exist"):
        load_zero123plus(copied)
    with pytest.raises(FileNotFoundError, match="huggingface.co/sudo-ai/zero123plus-v1.2"):
        load_zero123plus(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"flexgen\.ckpt does not exist; download .*flexgen"
    ):
        load_zero123plus(make_tiny_zero123plus(tmp_path / "b"), tmp_path / "flexgen.ckpt")


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_unusable_settings_are_refused(copied, unchecked_shapes):
    index, scheduler = copied / "model_index.json", copied / "scheduler/scheduler_config.json"
    edit(index, ramping_coefficients=[0.5] * 5)
    with pytest.raises(ValueError, match="77 tokens, but there are 5"):
        load_zero123plus(copied)
    edit(index, ramping_coefficients=None)
    with pytest.raises(ValueError, match="no model of the Zero123"):
        load_zero123plus(copied)
    edit(index, ramping_coefficients=[0.5] * TOKENS)
    edit(scheduler, prediction_type="sample")
    with pytest.raises(ValueError, match="v_prediction or epsilon"):
        load_zero123plus(copied)
    scheduler.write_text("{")
    with pytest.raises(ValueError, match="scheduler_config.json cannot be read"):
        load_zero123plus(copied)


def test_a_part_that_lacks_weights_is_refused(copied):
    from safetensors.torch import load_file, save_file

    path = next((copied / "vae").glob("*.safetensors"))
    state = load_file(path)
    save_file({k: v for k, v in state.items() if "conv_in" not in k}, path)
    with pytest.raises(ValueError, match="vae do not fit its config.json: 4 are missing"):
        load_zero123plus(copied)
    path.write_bytes(b"\x08")
    with pytest.raises(ValueError, match="weights in .*vae cannot be read"):
        load_zero123plus(copied)


def test_half_precision_is_for_all_networks(folder):
    model = load_zero123plus(folder, dtype=torch.bfloat16)
    assert model.dtype == model.vae.dtype == model.vision.dtype == torch.bfloat16
    tokens = model.encode_tokens(make_picture()[None])
    reference = model.encode_reference(make_picture()[None])
    made = model.predict(torch.randn(2, 4, 8, 8), 10, tokens, reference)
    assert made.dtype == tokens.dtype == torch.float32


def test_the_schedule_defaults_to_the_published_one():
    assert NoiseSchedule() == NoiseSchedule(1000, 0.00085, 0.012, "linear", "v_prediction")
