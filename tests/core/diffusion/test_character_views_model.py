"""Loading the model of six views: published layout, texts, class vectors, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from lift3d.core.camera import make_stdgen_rig
from lift3d.core.diffusion.character_views_model import (
    LEVELS,
    VIEW_WORDS,
    EmbeddingNoise,
    domain_prompts,
    level_code,
    load_character_views,
)
from stdgen_scenes import make_portrait, make_tiny_views_model
from tiny_models import TEXT_WIDTH


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_views_model(tmp_path_factory.mktemp("views") / "StdGEN-multiview-1024")


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def model(folder):
    return load_character_views(folder)


def edit_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(("level", "slot"), [("whole", 0), ("without_hair", 1), ("body", 2)])
def test_level_codes_of_the_published_length_fill_one_slot(level, slot):
    code = level_code(level, 1024)
    assert code.shape == (1024,) and float(code.sum()) == 256
    assert bool((code[256 * slot : 256 * slot + 256] == 1).all())


def test_the_class_vector_is_the_embedding_and_the_code(model):
    embedding = torch.randn(1, TEXT_WIDTH)
    vector = model.class_vector(embedding, "body")
    assert vector.shape == (1, 2 * TEXT_WIDTH)
    assert torch.equal(vector[:, :TEXT_WIDTH], embedding)
    assert torch.equal(vector[0, TEXT_WIDTH:], level_code("body", TEXT_WIDTH))
    with pytest.raises(ValueError, match="level must be one of whole, without_hair, body"):
        model.class_vector(embedding, "hair")


def test_prompts_name_view_and_domain_normals_first():
    prompts = domain_prompts()
    assert prompts[1] == "a rendering image of 3D models, front_right view, normal map."
    assert prompts[6] == "a rendering image of 3D models, front view, color map."
    assert len(set(prompts)) == 12
    assert make_stdgen_rig().names == VIEW_WORDS
    assert LEVELS == ("whole", "without_hair", "body")


def test_the_text_is_the_last_layer_of_the_encoder(folder, model):
    from transformers import AutoTokenizer, CLIPTextModel

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    ids = tokenizer(domain_prompts(), padding="max_length", max_length=77, return_tensors="pt")
    expected = encoder(ids.input_ids).last_hidden_state.detach()
    assert model.text.shape == (2, 6, 77, TEXT_WIDTH)
    torch.testing.assert_close(model.text.flatten(0, 1), expected)


def test_pictures_are_resized_with_aligned_corners_before_clip(model):
    image = make_portrait(128, 72)[None]
    seen = []
    handle = model.vision.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    embedding = model.embed(image)
    handle.remove()
    mean, std = torch.tensor([0.48, 0.46, 0.41]), torch.tensor([0.27, 0.26, 0.28])
    shown = seen[0][0].permute(1, 2, 0) * std + mean
    assert shown.shape == (24, 24, 3) and embedding.shape == (1, TEXT_WIDTH)
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):  # aligned corners are kept
        torch.testing.assert_close(shown[row, column], image[0, row, column])


def test_embeddings_are_normalised_noised_and_brought_back():
    mean, std = torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.5])
    noise = EmbeddingNoise(mean, std, 0.64)
    made = noise.apply(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.5, -1.0]]))
    # Scaled (1, 2); .8 x + .6 n = (1.1, 1.0); back (3.2, -0.5).
    torch.testing.assert_close(made, torch.tensor([[3.2, -0.5]]))


def test_the_embeddings_noise_is_tiny_and_read_from_the_files(folder, model):
    from diffusers import DDPMScheduler
    from safetensors.torch import load_file

    stored = load_file(folder / "image_normalizer" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(model.embedding_noise.mean, stored["mean"][0])
    theirs = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    expected = float(theirs.alphas_cumprod[0])
    assert model.embedding_noise.alpha_cumprod == pytest.approx(expected, abs=1e-6)
    assert 0.9999 < expected < 1


def test_the_schedule_is_that_of_era3d(model):
    schedule = model.schedule
    assert (schedule.beta_start, schedule.beta_end) == (0.00085, 0.012)
    assert schedule.timesteps(40)[:2].tolist() == [976, 951] and not schedule.zero_terminal_snr


def test_every_key_must_fit(copied):
    from safetensors.torch import load_file, save_file

    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    lost = next(key for key in state if "attn_mv.to_q" in key)
    state["extra.weight"] = state.pop(lost)
    save_file(state, path)
    with pytest.raises(ValueError, match="unet of copy does not fit") as caught:
        load_character_views(copied)
    assert f"missing: {lost}" in str(caught.value) and "extra.weight" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"num_views": 4}, "num_views 4, expected 6"),
        ({"selfattn_block": "custom"}, "selfattn_block 'custom'"),
        ({"cd_attention_mid": True}, "cd_attention_mid True, expected False"),
        ({"regress_focal_length": False}, "regress_focal_length False"),
        ({"projection_class_embeddings_input_dim": None}, "names no projection_class"),
        ({"block_out_channels": [8]}, "describes no usable UNet"),
    ],
)
def test_other_multi_view_models_are_refused(copied, values, part):
    edit_json(copied / "unet" / "config.json", **values)
    with pytest.raises(ValueError, match=part):
        load_character_views(copied)


def test_a_class_vector_of_another_length_is_refused(copied):
    from safetensors.torch import load_file, save_file

    edit_json(copied / "unet" / "config.json", projection_class_embeddings_input_dim=48)
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["class_embedding.linear_1.weight"] = torch.zeros(32, 48)
    save_file(state, path)
    with pytest.raises(ValueError, match="class vector of 48 numbers, expected two times the 32"):
        load_character_views(copied)


def test_missing_and_damaged_files_are_named(copied, unchecked_shapes):
    noising = copied / "image_noising_scheduler" / "scheduler_config.json"
    edit_json(noising, beta_schedule="odd")
    with pytest.raises(ValueError, match="image_noising_scheduler.*beta_schedule must be one of"):
        load_character_views(copied)
    noising.unlink()
    with pytest.raises(FileNotFoundError, match="image_noising_scheduler"):
        load_character_views(copied)
    (copied / "image_normalizer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="image_normalizer/diffusion_pytorch_model"):
        load_character_views(copied)
