import json
from pathlib import Path

import pytest
import torch
from lift3d.core.diffusion.orbit_conditioning import embed_poses, make_orbit_poses
from lift3d.core.diffusion.orbit_files import (
    load_orbit_model,
    make_orbit_unet,
    with_orbit_lora,
)
from lift3d.core.diffusion.orbit_model import OrbitFacts, require_latents_of
from lift3d.core.diffusion.orbit_names import orbit_unet_names
from lift3d.core.networks.orbit_unet import OrbitUNet
from omegaconf import OmegaConf
from orbit_scenes import (
    make_tiny_unet,
    make_tiny_vision,
    open_clip_of,
    tiny_unet_config,
    write_tiny_orbit,
    write_tiny_sv3d,
)
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[3]
LAYOUTS = ROOT.parent / "shared" / "spec" / "state_dicts"


def random_inputs(frames: int = 3, told: int = 1280) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, frames, 8, 4, 4, generator=generator)
    tokens = torch.randn(2, 1, 16, generator=generator)
    vectors = torch.randn(2, frames, told, generator=generator)
    return sample, torch.tensor([0.3, -0.7]), tokens, vectors


@pytest.mark.parametrize("kind", ["p", "u"])
def test_every_key_of_the_published_layout_has_its_place(kind):
    path = LAYOUTS / f"sv3d_{kind}_unet.json"
    if not path.is_file():
        pytest.skip("the layouts of the published checkpoints are not in this checkout")
    published = json.loads(path.read_text())["keys"]
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "core" / "configs" / "sv3d.yaml").unet)
    told = {"p": 1280, "u": 256}[kind]
    unet = make_orbit_unet({**config, "projection_class_embeddings_input_dim": told})
    found = {}
    for key, names in orbit_unet_names(unet).items():
        (name,) = [n for n in names if f"model.diffusion_model.{n}" in published]
        found[f"model.diffusion_model.{name}"] = list(unet.state_dict()[key].shape)
    assert found == published


def test_with_one_vector_for_all_frames_it_is_diffusers_own_network():
    unet = make_tiny_unet(256)
    sample, code, tokens, _ = random_inputs()
    level = torch.tensor([0.02, 0.5])
    poses = make_orbit_poses(3, 0.0)
    vectors = torch.stack([embed_poses(poses, "u", float(value)) for value in level])
    expected = unet(sample, code, tokens, level[:, None]).sample
    found = OrbitUNet(unet)(sample, code, tokens, vectors)
    assert float(expected.abs().mean()) > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_pose_of_one_frame_reaches_all_frames_but_that_one_most():
    network = OrbitUNet(make_tiny_unet(1280))
    sample, code, tokens, vectors = random_inputs()
    changed = vectors.clone()
    changed[:, 1] += 1
    moved = (network(sample, code, tokens, changed) - network(sample, code, tokens, vectors)).abs()
    per_frame = moved.mean(dim=(0, 2, 3, 4))
    assert int(per_frame.argmax()) == 1 and float(per_frame.min()) > 0


@pytest.mark.parametrize("kind", ["p", "u"])
def test_a_single_file_gives_the_networks_it_was_written_from(tmp_path, kind):
    path = write_tiny_sv3d(tmp_path / f"sv3d_{kind}.safetensors", kind)
    model = load_orbit_model(path)
    told = {"p": 1280, "u": 256}[kind]
    assert model.facts.kind == kind and model.facts.size_px == 32
    assert f"SV3D_{kind}" in model.report and "1 keys are not needed" in model.report
    inputs = random_inputs(told=told)
    expected = OrbitUNet(make_tiny_unet(told))(*inputs)
    torch.testing.assert_close(model.unet(*inputs), expected)
    picture = torch.rand(1, 40, 40, 3, generator=torch.Generator().manual_seed(1))
    pixels = model.processor(picture)
    assert pixels.shape == (1, 3, 28, 28)
    expected = make_tiny_vision()(pixel_values=pixels).image_embeds[:, None]
    torch.testing.assert_close(model.encode_tokens(picture), expected)


def test_fused_attention_is_taken_apart_in_the_right_order():
    from lift3d.core.diffusion.orbit_names import open_clip_vision_state

    vision = make_tiny_vision()
    again = open_clip_vision_state(vision, open_clip_of(vision))
    assert set(again) == set(vision.state_dict())
    for key, value in vision.state_dict().items():
        torch.testing.assert_close(again[key], value)


def test_an_own_folder_keeps_its_facts(tmp_path):
    model = load_orbit_model(write_tiny_orbit(tmp_path / "orbit"))
    assert model.facts.order == "input first" and model.facts.sigma_range == (0.02, 80.0)
    assert model.facts.num_frames == 4 and model.multiple_px == 16


def test_a_lora_file_with_original_names_changes_the_network_as_if_merged(tmp_path):
    model = load_orbit_model(write_tiny_orbit(tmp_path / "orbit"))
    generator = torch.Generator().manual_seed(3)
    layer = "input_blocks.1.1.time_stack.0.attn1.to_q"
    down, up = torch.randn(2, 32, generator=generator), torch.randn(32, 2, generator=generator)
    keys = {f"diffusion_model.{layer}.lora_A.weight": down,
            f"diffusion_model.{layer}.lora_B.weight": up}  # fmt: skip
    save_file(keys, tmp_path / "lora.safetensors")
    inputs = random_inputs()
    before = model.unet(*inputs)
    changed = with_orbit_lora(model, tmp_path / "lora.safetensors", 0.5)
    changed.bank.activate(changed.loras)
    found = changed.unet(*inputs)
    changed.bank.activate(())
    torch.testing.assert_close(model.unet(*inputs), before)
    merged = make_tiny_unet(1280)
    block = merged.down_blocks[0].attentions[0].temporal_transformer_blocks[0]
    block.attn1.to_q.weight.data += 0.5 * up @ down
    torch.testing.assert_close(found, OrbitUNet(merged)(*inputs), atol=1e-5, rtol=1e-4)
    assert float((found - before).abs().max()) > 1e-3


def test_a_lora_for_another_model_is_refused(tmp_path):
    model = load_orbit_model(write_tiny_orbit(tmp_path / "orbit"))
    keys = {"transformer.a.lora_A.weight": torch.ones(1, 4),
            "transformer.a.lora_B.weight": torch.ones(4, 1)}  # fmt: skip
    save_file(keys, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors does not fit 'orbit': 1 layers"):
        with_orbit_lora(model, tmp_path / "other.safetensors")


def test_files_of_another_kind_or_size_are_refused_with_the_reason(tmp_path):
    path = write_tiny_sv3d(tmp_path / "sv3d_p.safetensors")
    state = load_file(path)
    label = "model.diffusion_model.label_emb.0.0.weight"
    save_file({**state, label: torch.zeros(128, 768)}, tmp_path / "svd.safetensors")
    with pytest.raises(ValueError, match="768 is Stable Video Diffusion"):
        load_orbit_model(tmp_path / "svd.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no checkpoint of SV3D"):
        load_orbit_model(tmp_path / "other.safetensors")
    save_file(state, tmp_path / "published_size.safetensors")  # no folder with sizes beside it
    with pytest.raises(ValueError, match="does not fit this network"):
        load_orbit_model(tmp_path / "published_size.safetensors")
    del state["model.diffusion_model.out.2.bias"]
    save_file(state, path)
    with pytest.raises(ValueError, match=r"1 keys missing: conv_out\.bias"):
        load_orbit_model(path)
    rest = {k: v for k, v in state.items() if k.startswith("model.")}
    save_file(rest, path)
    with pytest.raises(ValueError, match="lacks the image_encoder, vae"):
        load_orbit_model(path)
    with pytest.raises(FileNotFoundError, match="huggingface"):
        load_orbit_model(tmp_path / "absent.safetensors")


def test_weights_that_the_network_does_not_have_are_refused(tmp_path):
    path = write_tiny_sv3d(tmp_path / "sv3d_p.safetensors")
    state = load_file(path)
    save_file({**state, "model.diffusion_model.input_blocks.9.0.op.weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"1 weights that a UNet .* input_blocks\.9"):
        load_orbit_model(path)


def test_latents_of_another_autoencoder_are_refused():
    from lift3d.core.diffusion.model import STABLE_DIFFUSION_LATENTS

    def check(latents):
        require_latents_of(latents, STABLE_DIFFUSION_LATENTS, "The decoder")

    latents = torch.randn(4, 4, 8, 8)
    check(latents)
    with pytest.raises(ValueError, match="latents of 4 channels, got 16"):
        check(torch.randn(4, 16, 8, 8))
    with pytest.raises(ValueError, match="another scale"):
        check(latents / 0.05)
    with pytest.raises(ValueError, match="NaN"):
        check(latents * float("nan"))


def test_facts_out_of_range_are_refused():
    for wrong in ({"num_frames": 1}, {"sigma_range": (1.0, 0.5)}, {"fov_y_deg": 0.0}):
        with pytest.raises(ValueError):
            OrbitFacts(**wrong)
    assert tiny_unet_config()["in_channels"] == 8
