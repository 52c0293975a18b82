"""ComfyUI's models seen as a `DiffusionModel`, beside diffusers and beside ComfyUI's samplers.

Needs COMFYUI_PATH, and in COMFYUI_PYTHON the requirements of both. The measuring is done by
`drive_native.py` in a process of its own; every model there is tiny and random.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.comfyui

CLOSE = 1e-4
"""Largest difference, relative to the largest value, of single precision in another order."""

SAMPLED = 2e-3
"""The same after a whole run, in which a random network enlarges differences."""


@pytest.fixture(scope="session")
def measured(drive, comfyui_root: Path) -> dict:
    def prepare(folder: Path) -> dict:
        (folder / "tiny").mkdir()
        return {"comfyui": str(comfyui_root)}

    return drive("drive_native.py", prepare)


def result(measured: dict, name: str) -> dict:
    found = measured[name]
    assert "error" not in found, found.get("error")
    return found


@pytest.mark.parametrize("kind", ["flux", "sd15", "sd21", "sdxl"])
def test_one_set_of_weights_gives_the_same_latents_in_diffusers(measured, kind: str) -> None:
    found = result(measured, f"{kind}_agrees_with_diffusers")
    for name in ("tokens", "pooled", "denoised", "encoded", "decoded"):
        assert found[name] < CLOSE, (name, found)
    assert found["sampled"] < SAMPLED and found["size"] > 0.1
    assert found["scale"] < 1e-6 and found["shift"] < 1e-6 and found["same_family"]


def test_a_lora_file_acts_alike_in_both_and_leaves_the_original(measured) -> None:
    found = result(measured, "flux_with_lora_agrees")
    assert found["changed"] > 0.01 and found["original_kept"] == 0.0
    assert found["denoised"] < CLOSE and found["sampled"] < SAMPLED


@pytest.mark.parametrize("dialect", ["xlabs", "kohya"])
def test_loras_of_other_trainers_act_alike_in_both(measured, dialect: str) -> None:
    found = result(measured, "lora_dialects_agree")[dialect]
    assert found["changed"] > 0.02 and found["gap"] < CLOSE


def test_it_follows_the_protocol(measured) -> None:
    found = result(measured, "follows_the_protocol")
    assert found["is_one"]
    assert found["flux"]["guidance_kind"] == "distilled" and found["flux"]["guidance"] == 3.5
    assert found["stable"]["guidance_kind"] == "classifier_free"
    assert 0 < found["flux_range"][0] < 0.01 and found["flux_range"][1] == 1.0
    assert found["stable_range"] == pytest.approx([0.0292, 14.6146], rel=1e-2)


def test_two_union_controls_act_alike_in_both(measured) -> None:
    found = result(measured, "flux_with_controls_agrees")
    assert found["changed"] > 0.01
    assert found["denoised"] < CLOSE


@pytest.mark.parametrize("kind", ["flux", "sdxl", "sd3"])
def test_our_sampler_over_it_equals_comfyuis_own(measured, kind: str) -> None:
    found = result(measured, f"{kind}_samples_like_comfyui")
    assert found["sampled"] < 1e-5


def test_gradients_reach_the_picture_though_weights_are_inference_tensors(measured) -> None:
    found = result(measured, "gradients_reach_the_picture")
    assert found["loaded_in_inference_mode"]
    assert found["gradient"] < CLOSE
    assert found["again"] < CLOSE, "weights that were moved in inference mode"


def test_gradients_pass_a_vae_in_dynamic_video_memory_or_the_remedy_is_named(measured) -> None:
    found = result(measured, "gradients_with_dynamic_video_memory")
    assert found["gradient"] < CLOSE
    assert "--disable-dynamic-vram" in found["refused"] and "Load VAE" in found["refused"]


def test_predictions_may_stand_in_a_loss(measured) -> None:
    found = result(measured, "predictions_can_be_used_with_gradients")
    assert not found["is_inference"] and found["gradient"] > 0


def test_model_patches_of_other_nodes_act(measured) -> None:
    assert result(measured, "patches_of_other_nodes_act") == {"gap": 0.0, "calls": 1}


def test_comfyui_manages_the_memory_of_all_models(measured) -> None:
    found = result(measured, "comfyui_loads_the_models")
    assert found["loaded"] == ["model", "clip", "control", "vae", "gradient copy"]


def test_a_hint_is_encoded_once_for_all_evaluations(measured) -> None:
    assert result(measured, "comfyui_loads_the_models")["hints_encoded"] == 2  # two pictures


def test_tile_is_mode_1_of_the_flux_union_not_6(measured) -> None:
    found = result(measured, "union_modes")
    assert found["ours"] == [1] and found["sent"] == [1]
    assert found["stock"] == [6], "ComfyUI has changed its table: our node may be needless"
    assert found["original"] is None


def test_bundle_conditioning_equals_the_stock_node_with_both_texts(measured) -> None:
    found = result(measured, "text_like_the_stock_node")
    assert found["tokens"] == 0.0 and found["pooled"] == 0.0
    assert found["pooled_of_other_text"] > 1e-3
    assert found["guidance"] == 3.5
    assert found["length"] == 512 and found["length_set_by_the_user"] == 300


def test_stock_heun_asks_39_times_and_37_from_strength_95(measured) -> None:
    found = result(measured, "evaluations_of_stock_heun")
    assert found["1.0"] == {"evaluations": 39, "first": 1.0}
    assert found["0.95"]["evaluations"] == 37
    assert found["0.95"]["first"] == pytest.approx(0.9819, abs=1e-4)


def test_redux_puts_729_tokens_behind_512_and_scales_only_those(measured) -> None:
    found = result(measured, "redux_tokens")
    assert found["tokens"] == 512 + 729
    assert found["text_kept"] == 0.0 and found["picture"] == pytest.approx(0.5 * 3)
    assert found["finite"]
    assert "CLIP_VISION" in found["refused"] and "STYLE_MODEL" in found["refused"]


def test_short_prompts_beside_long_ones_mean_the_same(measured) -> None:
    found = result(measured, "long_prompts")
    assert found["lengths"] == [231, 77, 231]
    assert found["same"] < CLOSE


def test_previews_have_the_size_of_the_picture(measured) -> None:
    found = result(measured, "previews")
    assert found["shape"] == [64, 128, 3]
    assert 0 <= found["low"] < found["high"] <= 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vae", ("4 channels", "needs 16")),
        ("clip", ("64", "32")),
        ("lora for flux on sd", ("lora.safetensors", "another architecture")),
        ("lora of another size", ("wide.safetensors", "999", "128")),
        ("union without mode", ("union", "tile 1")),
        ("mode beyond", ("0..6", "9")),
        ("mode of a plain network", ("no modes",)),
        ("handle", ("CONTROL_NET",)),
        ("not a controlnet", ("CONTROL_NET", "ModelPatcher")),
        ("no controlnet file", ("lora.safetensors",)),
        ("set mode of plain", ("no modes",)),
        ("set unknown mode", ("segment", "tile")),
        ("odd size", ("multiples of 8",)),
        ("empty prompt", ("empty",)),
        ("empty prompt before running", ("empty",)),
        ("other kind of model", ("X0",)),
    ],
)
def test_bad_input_is_named(measured, name: str, words: tuple[str, ...]) -> None:
    message = result(measured, "messages")[name]
    assert all(word in message for word in words), message
