"""Nodes that load models: names, folders, messages before any work, and a whole small chain."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from lift3d.core.diffusion import embedded
from lift3d.core.diffusion.diffusers_model import DiffusersModel
from lift3d.core.pipelines.bundle_prompt import BundlePrompt
from lift3d.nodes import diffusion as nodes
from lift3d.nodes.generate import SampleBundle

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/tiny_models.py

import tiny_models  # noqa: E402


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with models in the places that users put them."""
    root = tmp_path_factory.mktemp("home")
    tiny_models.make_tiny_flux_folder(root / "models" / "diffusers" / "tiny-flux")
    tiny_models.make_tiny_flux_control(root / "models" / "controlnet" / "tiny-tile")
    tiny_models.make_tiny_redux_folder(root / "models" / "lift3d" / "redux", side_tokens=4)
    (root / "models" / "loras").mkdir()
    from safetensors.torch import save_file

    name = "transformer.transformer_blocks.0.attn.to_q"
    lora = {
        f"{name}.lora_A.weight": torch.randn(2, 32),
        f"{name}.lora_B.weight": torch.randn(32, 2),
    }
    save_file(lora, root / "models" / "loras" / "style.safetensors")
    return root


@pytest.fixture
def home(written: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(written)
    return written


@pytest.fixture(scope="module")
def model(written: Path) -> DiffusersModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(written)
        return nodes.LoadDiffusion.execute("tiny-flux", "float32", "auto").result[0]


def options(cls: type, name: str) -> list[str]:
    item = next(item for item in cls.define_schema().inputs if item.id == name)
    return item.options["options"]


def test_choices_are_embedded_published_and_found_names(home) -> None:
    assert options(nodes.LoadDiffusion, "model")[:2] == ["embedded: bundle", "FLUX.1-dev"]
    assert "tiny-flux" in options(nodes.LoadDiffusion, "model")
    assert {"rgb_normal.safetensors", "style.safetensors"} <= set(options(nodes.ApplyLora, "lora"))
    controls = options(nodes.LoadControl, "control")
    assert controls[0] == "FLUX.1-dev-Controlnet-Union" and "tiny-tile" in controls
    assert "redux" in options(nodes.LoadImagePrompt, "encoder")


def test_a_chain_of_nodes_makes_a_bundle(home, model) -> None:
    (styled,) = nodes.ApplyLora.execute(model, "style.safetensors", 0.5).result
    (seeing,) = nodes.LoadImagePrompt.execute(styled, "redux").result
    (control,) = nodes.LoadControl.execute(seeing, "tiny-tile").result
    assert control.architecture == "Flux" and control.num_modes is None
    assert seeing.image_prompt is not None and model.image_prompt is None and not model.loras
    settings = {
        "seed": 0, "steps": 2, "batch": 1, "tile_px": 64, "sampler": "euler", "guidance": 1.0,
        "shift": 3.0, "clean": False, "strength": 1.0,
    }  # fmt: skip
    made, latent = SampleBundle.execute(seeing, BundlePrompt("a red mug"), **settings).result
    assert made.shape == (1, 128, 256, 3) and latent["samples"].shape == (1, 16, 16, 32)
    other, _ = SampleBundle.execute(model, BundlePrompt("a red mug"), **settings).result
    assert not torch.equal(made, other)


def test_missing_weights_name_file_folder_and_link_before_anything_runs(home) -> None:
    verdict = nodes.ApplyLora.validate_inputs("rgb_normal.safetensors")
    for word in ("'rgb_normal.safetensors' is not there", "huggingface.co/LTT/Kiss3DGen", "loras"):
        assert word in verdict
    verdict = nodes.LoadDiffusion.validate_inputs("FLUX.1-dev")
    assert "black-forest-labs/FLUX.1-dev" in verdict and "models/diffusers/FLUX.1-dev" in verdict
    assert "InstantX" in nodes.LoadControl.validate_inputs("FLUX.1-dev-Controlnet-Union")
    assert "FLUX.1-Redux-dev" in nodes.LoadImagePrompt.validate_inputs("FLUX.1-Redux-dev")
    assert nodes.LoadDiffusion.validate_inputs("tiny-flux") is True
    assert nodes.LoadDiffusion.validate_inputs(None) is True


def test_incomplete_folders_are_found_before_anything_runs(home, tmp_path) -> None:
    import shutil

    folder = shutil.copytree(home / "models/diffusers/tiny-flux", home / "models/diffusers/half")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    try:
        verdict = nodes.LoadDiffusion.validate_inputs("half")
        assert "vae/diffusion_pytorch_model.safetensors missing" in verdict
    finally:
        shutil.rmtree(folder)


def test_names_cannot_lead_out_of_the_folders(home) -> None:
    for name in ("../secret", "embedded: ../../core", "embedded: "):
        assert nodes.LoadDiffusion.validate_inputs(name) is not True


def test_image_prompts_need_a_model_of_ours(home) -> None:
    with pytest.raises(ValueError, match="works on models of Load Diffusion Model, got str"):
        nodes.LoadImagePrompt.execute("native", "redux")


def test_embedded_models_are_found_by_kind(tmp_path, monkeypatch) -> None:
    tiny_models.make_tiny_flux_folder(tmp_path / "bundle")
    tiny_models.make_tiny_flux_control(tmp_path / "bundle_tile")
    (tmp_path / "bundle_doll.safetensors").write_bytes(b"")
    # Parts of orbit models and Gaussian decoders are neither ControlNets nor LoRAs.
    for name in ("orbit/orbit.json", "orbit/unet/config.json", "decoder/decoder.json",
                 "decoder/decoder.safetensors", "decoder/image_encoder/config.json"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert embedded.list_embedded("model", tmp_path) == ["bundle"]
    assert embedded.list_embedded("control", tmp_path) == ["bundle_tile"]
    assert embedded.list_embedded("lora", tmp_path) == ["bundle_doll.safetensors"]
    assert embedded.embedded_path("bundle", tmp_path) == tmp_path / "bundle"
    assert embedded.embedded_path("../x", tmp_path) is None
