import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.networks.lrm import (
    LargeReconstructionModel,
    LrmGridParams,
    LrmParams,
    load_lrm,
    load_lrm_params,
    make_lrm,
)
from lift3d.core.networks.lrm_cameras import make_camera_vectors
from lift3d.core.networks.triplane_decoder import TriplaneDecoderParams
from lift3d.core.rendering.volume import VolumeParams, render_density
from lift3d.core.triplane import Triplane
from lrm_scenes import TINY, golden_model, load_golden, make_views
from safetensors.torch import save_file

PUBLISHED = {
    "prm": 378_681_518,
    "instantmesh_large": 378_657_644,
    "instantmesh_large_nerf": 378_477_332,
    "stdgen_slrm": 406_993_200,
}
SPECS = {
    "prm": "prm_lrm",
    "instantmesh_large": "instantmesh_large_mesh",
    "instantmesh_large_nerf": "instantmesh_large_nerf",
    "stdgen_slrm": "stdgen_slrm_lora128",
}


def _on_meta(params: LrmParams) -> LargeReconstructionModel:
    with torch.device("meta"):
        return LargeReconstructionModel(params)


def _layout(model: torch.nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in model.state_dict().items()}


def _expand(patterns: dict[str, list[int]]) -> dict[str, list[int]]:
    keys = {}
    for pattern, shape in patterns.items():
        count = re.search(r"\{(\d+)\}", pattern)
        for index in range(int(count[1])) if count else [0]:
            keys[re.sub(r"\{\d+\}", str(index), pattern)] = shape
    return keys


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layouts_have_the_listed_keys_and_shapes(name):
    path = Path(__file__).parents[2] / "data" / "lrm_keys.json"
    listed = json.loads(path.read_text(encoding="utf-8"))
    assert _layout(_on_meta(load_lrm_params(name))) == _expand({**listed["common"], **listed[name]})


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layouts_equal_the_state_dicts_of_the_authors_code(shared_dir, name):
    path = shared_dir / "spec" / "state_dicts" / f"{SPECS[name]}.json"
    listed = json.loads(path.read_text(encoding="utf-8"))["keys"]
    assert _layout(_on_meta(load_lrm_params(name))) == listed


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_published_sizes_have_the_published_number_of_parameters(name, count):
    model = _on_meta(load_lrm_params(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert not list(model.buffers())


def test_the_parts_of_slrm_add_up():
    model = _on_meta(load_lrm_params("stdgen_slrm"))
    counts = {"lora": 0, "modulation": 0, "camera": 0, "decoder": 0, "vit": 0, "transformer": 0}
    for key, value in model.state_dict().items():
        kind = (
            "lora" if "_lora_" in key
            else "modulation" if "adaLN" in key
            else "camera" if "camera_embedder" in key
            else "decoder" if "decoder" in key
            else "transformer" if key.startswith("transformer") else "vit"
        )  # fmt: skip
        counts[kind] += value.numel()
    assert counts == {
        "vit": 85_798_656,
        "modulation": 28_348_416,
        "camera": 603_648,
        "transformer": 263_702_608,
        "lora": 28_311_552,
        "decoder": 228_320,
    }


def test_slrm_turns_six_views_into_planes_of_64():
    model = _on_meta(load_lrm_params("stdgen_slrm"))
    tokens = model.encoder(
        torch.empty(1, 6, 3, 320, 320, device="meta"), torch.empty(1, 6, 16, device="meta")
    )
    assert tokens.shape == (1, 2406, 768)
    assert model.transformer(tokens).shape == (1, 3, 80, 64, 64)


def test_the_reference_is_reproduced_from_views_to_planes(shared_dir):
    golden = load_golden(shared_dir, "forward")
    planes = golden_model(shared_dir)(golden["images"], golden["cameras"])
    torch.testing.assert_close(planes, golden["planes"], atol=1e-4, rtol=0)


def test_unmerged_adapters_give_the_same_planes(shared_dir):
    golden = load_golden(shared_dir, "forward")
    model = make_lrm(TINY)
    model.load_state_dict(load_golden(shared_dir, "weights"))
    with torch.no_grad():
        planes = model.eval()(golden["images"], golden["cameras"])
    torch.testing.assert_close(planes, golden["planes"], atol=1e-4, rtol=0)


def test_the_same_seed_gives_the_same_model_and_planes_and_leaves_the_global_seed_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    images, cameras = (
        make_views().permute(0, 3, 1, 2)[None],
        make_camera_vectors("stdgen")[None, :3],
    )
    first, second, other = (make_lrm(TINY, seed=seed).eval()(images, cameras) for seed in (0, 0, 1))
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert (first - other).abs().max() > 1e-3
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.fixture
def adapted() -> LargeReconstructionModel:
    model = make_lrm(TINY)
    for key, value in model.state_dict().items():
        if key.endswith("_lora_B"):
            value.normal_(generator=torch.Generator().manual_seed(0))
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["lightning", "bare", "safetensors"])
def test_checkpoints_load_merged_whatever_their_wrapping(tmp_path, adapted, kind):
    state = adapted.state_dict()
    if kind == "lightning":
        path = tmp_path / "final_ckpt.ckpt"
        wrapped = {f"lrm_generator.{key}": value for key, value in state.items()}
        torch.save({"state_dict": {**wrapped, "lpips.lin0": torch.zeros(1)}, "epoch": 1}, path)
    elif kind == "bare":
        torch.save(state, path := tmp_path / "slrm.pth")
    else:
        save_file(state, path := tmp_path / "slrm.safetensors")
    model = load_lrm(path, TINY)
    assert not any("lora" in key for key in model.state_dict())
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    images, cameras = (
        make_views().permute(0, 3, 1, 2)[None],
        make_camera_vectors("stdgen")[None, :3],
    )
    torch.testing.assert_close(
        model(images, cameras), adapted(images, cameras), atol=1e-4, rtol=1e-4
    )


def test_saving_and_loading_a_merged_model_adds_nothing(tmp_path, adapted):
    torch.save(adapted.state_dict(), tmp_path / "first.pth")
    once = load_lrm(tmp_path / "first.pth", TINY)
    torch.save(once.state_dict(), tmp_path / "second.pth")
    twice = load_lrm(tmp_path / "second.pth", TINY)
    for key, value in once.state_dict().items():
        assert torch.equal(twice.state_dict()[key], value)


def test_another_models_checkpoint_is_refused_with_its_keys(tmp_path, adapted):
    torch.save(adapted.state_dict(), tmp_path / "slrm.pth")
    other = replace(TINY, decoder=TriplaneDecoderParams(plane_channels=8), label_names=())
    with pytest.raises(ValueError, match="slrm.pth does not fit .* 8 keys unexpected") as caught:
        load_lrm(tmp_path / "slrm.pth", other)
    assert "semantic_net.0.weight" in str(caught.value)
    smaller = replace(TINY, encoder=replace(TINY.encoder, position_grid=4))
    with pytest.raises(
        ValueError, match=r"1 keys of another shape: .*\[1, 10, 32\] for \[1, 17, 32\]"
    ):
        load_lrm(tmp_path / "slrm.pth", smaller)


def test_half_precision_is_for_all_but_the_heads(tmp_path, adapted):
    torch.save(adapted.state_dict(), tmp_path / "slrm.pth")
    model = load_lrm(tmp_path / "slrm.pth", TINY, dtype=torch.bfloat16)
    assert {p.dtype for p in model.encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.decoder.parameters()} == {torch.float32}
    images, cameras = (
        make_views().permute(0, 3, 1, 2)[None],
        make_camera_vectors("stdgen")[None, :3],
    )
    assert model(images, cameras).dtype == torch.bfloat16


def test_world_and_model_frames_invert_each_other():
    model = _on_meta(TINY)
    points = torch.randn(5, 3)
    torch.testing.assert_close(model.from_world(model.to_world(points)), points)
    front = model.from_world(torch.tensor([[0.0, 0.0, 1.0]]))
    assert front.tolist() == [[1.0, 0.0, 0.0]]


def test_the_nerf_stage_can_be_drawn():
    decoder = TriplaneDecoderParams(stage="nerf", plane_channels=8)
    params = replace(TINY, decoder=decoder, label_names=(), frame="kiss3dgen")
    model = make_lrm(params).eval().requires_grad_(False)
    triplane = Triplane(torch.zeros(1, 3, 8, 4, 4))
    rig = make_kiss3dgen_rig()
    picture = render_density(
        model.density_field(triplane), rig, width=8, height=8, params=VolumeParams(num_samples=8)
    )
    assert picture.rgb.shape == (4, 8, 8, 3) and float(picture.alpha[0, 4, 4]) > 0


def test_the_grid_has_the_published_extent():
    grid = load_lrm_params("stdgen_slrm").grid
    points = grid.points()
    assert points.shape == (101, 101, 151, 3)
    assert points[0, 0, 0].tolist() == pytest.approx([-0.7, -0.7, -1.05])
    assert points[-1, -1, -1].tolist() == pytest.approx([0.7, 0.7, 1.05])
    assert (points[1, 1, 1] - points[0, 0, 0]).tolist() == pytest.approx([0.014] * 3, abs=1e-6)
    largest = grid.displacement(torch.full((1, 3), 1e6))
    assert largest[0, 0].item() == pytest.approx(1 / 600)


def test_parts_that_do_not_fit_together_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="tokens of width 768"):
        LrmParams(transformer=replace(TINY.transformer, num_channels=80))
    with pytest.raises(ValueError, match="makes 80 channels"):
        LrmParams(decoder=TriplaneDecoderParams(plane_channels=8))
    with pytest.raises(ValueError, match="need as many names"):
        replace(TINY, label_names=("hair",))
    with pytest.raises(ValueError, match="Unknown frame"):
        LrmParams(frame="sideways")
    with pytest.raises(ValueError, match="must be positive"):
        LrmGridParams(cells=(0, 1, 1))
    with pytest.raises(ValueError, match="Unknown model 'huge'"):
        load_lrm_params("huge")
