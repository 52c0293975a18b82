import pytest
import torch
from lift3d.core.networks.lrm import empty_lrm, load_lrm_params, read_lrm_params
from lift3d.core.networks.lrm_checkpoint import PUBLISHED, load_lrm_checkpoint, recognize_size
from lrm_scenes import TINY_PRM_CONFIG, write_tiny_prm

KEY_ROOTS = {
    "encoder.model.embeddings", "encoder.model.encoder", "encoder.model.layernorm",
    "encoder.camera_embedder.0", "encoder.camera_embedder.2",
    "transformer.pos_embed", "transformer.layers.0", "transformer.layers.1", "transformer.norm",
    "transformer.deconv",
    "synthesizer.decoder.net_sdf", "synthesizer.decoder.net_rgb",
    "synthesizer.decoder.net_material", "synthesizer.decoder.net_deformation",
    "synthesizer.decoder.net_weight",
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path):
    return write_tiny_prm(tmp_path / "final_ckpt.ckpt")


def test_a_lightning_checkpoint_loads_without_its_prefix_and_other_keys(checkpoint):
    raw = torch.load(checkpoint, weights_only=True)["state_dict"]
    loaded = load_lrm_checkpoint(checkpoint)
    state = loaded.model.state_dict()
    assert set(state) == {key[14:] for key in raw if key.startswith("lrm_generator.")}
    assert all(torch.equal(value, raw[f"lrm_generator.{key}"]) for key, value in state.items())
    roots = {".".join(key.split(".")[:depth]) for key in state for depth in (2, 3)}
    assert roots >= KEY_ROOTS
    assert loaded.size == "final_ckpt.yaml"
    assert "all keys fit" in loaded.report and "1 keys outside 'lrm_generator.'" in loaded.report
    assert "lpips" in loaded.report and "material head" in loaded.report


def test_a_bare_state_dict_loads_too(tmp_path):
    loaded = load_lrm_checkpoint(write_tiny_prm(tmp_path / "bare.pth", lightning=False))
    assert "ignored" not in loaded.report


def change(path, edit):
    content = torch.load(path, weights_only=True)
    edit(content["state_dict"])
    torch.save(content, path)


def test_every_key_that_does_not_fit_is_reported(checkpoint):
    def edit(state):
        del state["lrm_generator.transformer.norm.bias"]
        state["lrm_generator.extra.weight"] = torch.zeros(1)
        state["lrm_generator.transformer.pos_embed"] = torch.zeros(1, 3, 16)

    change(checkpoint, edit)
    with pytest.raises(ValueError, match=r"final_ckpt\.ckpt does not fit") as caught:
        load_lrm_checkpoint(checkpoint)
    for part in (
        "1 keys missing: transformer.norm.bias",
        "1 keys unexpected: extra.weight",
        "transformer.pos_embed [1, 3, 16] for [1, 48, 16]",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes_are_recognized_by_their_keys(size):
    params = load_lrm_params(size)
    assert recognize_size(empty_lrm(params).state_dict()) == size
    if params.transformer.lora_rank:
        merged = empty_lrm(params.without_lora()).state_dict()
        # Without its adapters, and the semantic head tells it from InstantMesh.
        assert recognize_size(merged) == size


def test_an_unknown_size_is_compared_with_the_nearest(checkpoint):
    checkpoint.with_suffix(".yaml").unlink()
    with pytest.raises(ValueError, match="no published reconstruction model.* same name beside"):
        load_lrm_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=r"does not fit .*\[1, 1, 16\] for \[1, 1, 768\]"):
        load_lrm_checkpoint(checkpoint, "prm")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (TINY_PRM_CONFIG.replace("image_px", "image_size"), "image_size"),
        (TINY_PRM_CONFIG.replace("num_layers: 1", "layers: 1"), "layers"),
        (TINY_PRM_CONFIG.replace("num_heads: 2, mlp_dim", "num_heads: 3, mlp_dim"), "multiple of"),
        (TINY_PRM_CONFIG.replace("frame: kiss3dgen", "frame: sideways"), "Unknown frame"),
        ("- 1\n- 2\n", "describes no reconstruction model"),
        ("encoder: [", "describes no reconstruction model"),
    ],
)
def test_unusable_descriptions_are_refused(checkpoint, unchecked_shapes, text, part):
    checkpoint.with_suffix(".yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=part):
        load_lrm_checkpoint(checkpoint)


def test_messages_are_short_but_the_log_names_every_key(checkpoint, caplog):
    with pytest.raises(ValueError, match="and [0-9]+ more") as caught:
        load_lrm_checkpoint(checkpoint, "prm")
    last = "encoder.model.encoder.layer.11.output.dense.bias"
    assert last not in str(caught.value) and last in caplog.text


def test_a_missing_description_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_lrm_params(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("damage", ["truncated", "pickled", "empty", "text"])
def test_unreadable_checkpoints_are_refused(checkpoint, damage):
    content = checkpoint.read_bytes()
    if damage == "truncated":
        checkpoint.write_bytes(content[: len(content) // 2])
    elif damage == "pickled":
        torch.save({"state_dict": {}, "callback": write_tiny_prm}, checkpoint)
    else:
        checkpoint.write_bytes(b"" if damage == "empty" else b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"final_ckpt\.ckpt"):
        load_lrm_checkpoint(checkpoint)
