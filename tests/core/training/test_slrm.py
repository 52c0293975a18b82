"""Training of S-LRM: data, losses by hand, all stages move the model, stages hand over, resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lift3d.core.datasets.characters import CharacterLabel, make_character
from lift3d.core.networks.lrm import make_lrm, read_lrm_params
from lift3d.core.networks.lrm_checkpoint import load_lrm_checkpoint
from lift3d.core.pipelines.character_levels import LEVELS
from lift3d.core.training.character_dataset import (
    NO_LABEL,
    CharacterData,
    CharacterDataParams,
    LevelTruth,
    draw_characters,
)
from lift3d.core.training.config import read_config
from lift3d.core.training.loop import LoopParams
from lift3d.core.training.slrm import SlrmParams, SlrmTraining, model_params, train_slrm
from lift3d.core.training.slrm_losses import (
    SlrmLossParams,
    edge_difference,
    picture_losses,
    point_losses,
    semantic_entropy,
    surface_losses,
)
from lift3d.core.training.slrm_start import start_from, with_surface_heads
from safetensors.torch import load_file

MODEL = """
frame: stdgen
image_px: 32
encoder: {dim: 16, num_layers: 1, num_heads: 2, mlp_dim: 32, patch_px: 16, position_grid: 2}
transformer:
  {dim: 16, condition_dim: 16, num_layers: 1, num_heads: 2, low_res: 4, num_channels: 4, lora_rank: 2}
decoder: {plane_channels: 4, num_labels: 4, hidden_dim: 16}
grid: {cells: [10, 10, 14], scale: [1.4, 1.4, 2.1]}
label_names: [hair, face, skin, clothes]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> CharacterData:
    folder = tmp_path_factory.mktemp("characters")
    return draw_characters(
        CharacterDataParams(
            folder, characters=2, held_out=1, image_px=32, points=256,
            level_views=2, render_px=16, cell=0.03,
        )
    )  # fmt: skip


@pytest.fixture
def params(data, tmp_path) -> SlrmParams:
    model = tmp_path / "model.yaml"
    model.write_text(MODEL, encoding="utf-8")
    return SlrmParams(
        output=tmp_path / "run", result=tmp_path / "slrm.safetensors", data=data.params,
        model=str(model), batch=1, points=128, samples=8, views=1,
        loop=LoopParams(steps=2, warmup_steps=1, save_every=1),
    )  # fmt: skip


def test_characters_are_drawn_once_and_agree_with_their_distances(data):
    item = data[0]
    assert item.images.shape == (6, 32, 32, 3) and len(data) == 2 and data.num_trained == 1
    sdf, labels = make_character(0).solid(item.points)
    torch.testing.assert_close(item.sdf, sdf)
    assert torch.equal(item.labels, labels)
    assert 0.1 < float((item.sdf < 0).float().mean()) < 0.6
    before = [path.stat().st_mtime_ns for path in sorted(data.params.folder.iterdir())]
    draw_characters(data.params)
    assert before == [path.stat().st_mtime_ns for path in sorted(data.params.folder.iterdir())]


def test_levels_show_their_classes_only(data):
    shown = {name: set(data[0].levels[name].labels.unique().tolist()) for name in LEVELS}
    hair, clothes = int(CharacterLabel.HAIR), int(CharacterLabel.CLOTHES)
    assert hair in shown["whole"] and hair not in shown["without_hair"]
    assert clothes in shown["without_hair"] and clothes not in shown["body"]
    level = data[0].levels["body"]
    covered = level.labels != NO_LABEL
    torch.testing.assert_close(
        level.normals_world[covered].norm(dim=-1), torch.ones(int(covered.sum()))
    )
    assert bool((level.depth[covered] > 3).all()) and float(level.depth[~covered].max()) == 0


def _truth(size: int = 4) -> LevelTruth:
    labels = torch.full((1, size, size), NO_LABEL)
    labels[0, 1:3, 1:3] = 2
    inside = (labels != NO_LABEL).float()
    normals = torch.zeros(1, size, size, 3)
    normals[..., 2] = inside
    return LevelTruth(inside[..., None].expand(-1, -1, -1, 3), inside, labels, normals, 4 * inside)


def test_perfect_pictures_cost_nothing_but_their_classes():
    truth, params = _truth(), SlrmLossParams()
    semantics = torch.zeros(1, 4, 4, 4)
    semantics[..., 2] = truth.alpha
    losses = picture_losses(truth.rgb, truth.alpha, semantics, truth, params)
    assert float(losses["total"]) == 0
    semantics[0, 1, 1, 2] = 0.5
    assert float(semantic_entropy(semantics, truth)) == pytest.approx(np.log(2) / 4)
    shape = surface_losses(truth.normals_world, truth.depth + 0.5, torch.ones(3), truth, params)
    assert float(shape["total"]) == pytest.approx(0.5 * 0.5 + 0.5 * 1.0)
    turned = surface_losses(-truth.normals_world, truth.depth, torch.zeros(0), truth, params)
    assert float(turned["total"]) == pytest.approx(0.2 * 2)


def test_edges_in_other_places_cost_and_equal_brightness_does_not():
    step = torch.zeros(1, 8, 8, 3)
    step[:, :, 4:] = 1
    assert float(edge_difference(step + 0.3, step)) == pytest.approx(0, abs=1e-6)
    assert float(edge_difference(step, step.flip(2))) > 0.1


def test_exact_points_cost_only_the_certainty_of_their_classes(data):
    item = data[0]
    logits = 20.0 * torch.nn.functional.one_hot(item.labels, 4).float()
    losses = point_losses(item.sdf.clamp(-0.1, 0.1), logits, item.colors, item, SlrmLossParams())
    assert float(losses["total"]) < 1e-4
    off = point_losses(-item.sdf, logits, item.colors, item, SlrmLossParams())
    assert float(off["total"]) > 0.5


@pytest.mark.parametrize("stage", ["points", "nerf_single", "nerf_multi", "mesh_multi"])
def test_every_stage_trains_adapters_and_heads(params, data, stage):
    training = SlrmTraining(replace(params, stage=stage), data)
    if stage == "mesh_multi":  # a fresh network has no surface
        torch.manual_seed(0)
        head = training.model.decoder.net_sdf
        torch.nn.init.normal_(head[0].weight)
        torch.nn.init.normal_(head[-1].weight)
        torch.nn.init.normal_(training.model.transformer.pos_embed)
    losses = training.loss(0, torch.Generator().manual_seed(0))
    assert torch.isfinite(losses["total"])
    losses["total"].backward()
    moved = {
        name
        for name, value in training.model.named_parameters()
        if value.grad is not None and float(value.grad.abs().max()) > 0
    }
    assert any("semantic_net" in name for name in moved)
    assert any(name.endswith("_lora_B") for name in moved)
    frozen = dict(training.model.named_parameters())["transformer.layers.0.mlp.0.weight"]
    assert not frozen.requires_grad


def test_a_run_is_resumed_and_its_model_loads(params, data):
    whole = train_slrm(params, lambda progress: None)
    assert [path.name for path in whole] == ["slrm.safetensors", "slrm.yaml"]
    loaded = load_lrm_checkpoint(whole[0])
    assert loaded.model.params == replace(
        model_params(params).without_lora(), label_names=("hair", "face", "skin", "clothes")
    )
    first = loaded.model.state_dict()

    def stop(progress):
        if not progress.message.startswith("drew"):
            raise InterruptedError

    other = replace(params, output=params.output / "again", result=params.result.with_stem("again"))
    with pytest.raises(InterruptedError):
        train_slrm(other, stop)
    train_slrm(other, lambda progress: None)
    again = load_lrm_checkpoint(other.result).model.state_dict()
    fresh = make_lrm(loaded.model.params, seed=0).state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert not torch.equal(first["transformer.pos_embed"], fresh["transformer.pos_embed"])


def test_the_embedded_result_is_half_as_large_and_tells_its_settings(params, data, tmp_path):
    folder = tmp_path / "slrm"
    embedded = replace(
        params, result=folder / "slrm.safetensors", half_precision=True, facts=True,
        output=tmp_path / "half", loop=replace(params.loop, average=0.9),
    )  # fmt: skip
    files = train_slrm(embedded, lambda progress: None)
    assert [path.name for path in files] == ["slrm.safetensors", "slrm.yaml", "lift3d.json"]
    stored = load_file(folder / "slrm.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    loaded = load_lrm_checkpoint(files[0]).model
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    facts = json.loads(files[2].read_text(encoding="utf-8"))["training"]
    assert facts["characters"] == 1 and facts["steps"] == 2
    assert facts["settings"]["loop"]["average"] == 0.9 and facts["history"][-1]["step"] == 2


def test_a_mesh_stage_starts_from_a_density(params, tmp_path):
    size = read_lrm_params(params.model)
    nerf = make_lrm(
        replace(size, decoder=replace(size.decoder, stage="nerf")).without_lora(), seed=3
    )
    path = tmp_path / "nerf.pt"
    torch.save(nerf.state_dict(), path)
    mesh = make_lrm(size, seed=4)
    new = start_from(mesh, path)
    assert all("lora" in key or "net_deformation" in key or "net_weight" in key for key in new)
    features = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    raw = nerf.decoder.net(features)
    torch.testing.assert_close(mesh.decoder.sdf(features), 10 - raw[:, 0])
    torch.testing.assert_close(mesh.decoder.net_rgb(features), raw[:, 1:])
    assert with_surface_heads(mesh.state_dict()).keys() == mesh.state_dict().keys()


def test_other_checkpoints_and_senseless_settings_are_refused(params, data, tmp_path):
    size = read_lrm_params(params.model)
    wide = replace(size, decoder=replace(size.decoder, hidden_dim=8))
    path = tmp_path / "wide.pt"
    torch.save(make_lrm(wide).state_dict(), path)
    with pytest.raises(ValueError, match="cannot start this model"):
        start_from(make_lrm(size), path)
    with pytest.raises(ValueError, match="level_views is 2"):
        replace(params, stage="nerf_single", views=3)
    with pytest.raises(ValueError, match="must be a .safetensors"):
        replace(params, result=Path("x.pth"))
    with pytest.raises(ValueError, match="has no classes"):
        model_params(replace(params, model="prm"))
    with pytest.raises(ValueError, match="lacks 1 of 3"):
        CharacterData(replace(data.params, characters=3))


def test_the_shipped_configurations_fit():
    small = read_config(SlrmParams, "embedded_slrm")
    count = sum(value.numel() for value in make_lrm(model_params(small)).parameters())
    assert 4e6 < count < 8e6 and small.stage == "points"
    published = read_config(SlrmParams, "train_slrm")
    assert published.loop.learning_rate == 4e-5 and model_params(published).decoder.stage == "nerf"
