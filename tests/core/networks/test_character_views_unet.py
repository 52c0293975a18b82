"""The UNet of six views: published layout, diffusers' UNet as a special case, the pose head."""

from __future__ import annotations

import json
import math

import pytest
import torch
from lift3d.core.diffusion.character_files import empty_unet, published_config
from lift3d.core.diffusion.character_views_model import empty_views_unet
from lift3d.core.networks.character_views_unet import NUM_VIEWS, Regressor
from stdgen_scenes import VIEWS_CONFIG, fill
from tiny_models import TEXT_WIDTH

BATCH = 2 * 2 * NUM_VIEWS


@pytest.fixture(scope="module")
def unet():
    return fill(empty_views_unet(VIEWS_CONFIG), 0)


def inputs(seed=0, batch=BATCH, height=6, width=4):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, 8, height, width, generator=generator),
        400,
        torch.randn(batch, 5, TEXT_WIDTH, generator=generator),
        torch.randn(batch, 2 * TEXT_WIDTH, generator=generator),
    )


@pytest.mark.parametrize("source", ["published", "ours"])
def test_the_published_unet_has_the_listed_keys_and_shapes(shared_dir, source):
    path = shared_dir / "spec" / "state_dicts" / "era3d_stdgen_multiview_unet.json"
    listed = json.loads(path.read_text(encoding="utf-8"))
    config = listed["meta"]["config"] if source == "published" else published_config("views")
    unet = empty_views_unet(config)
    assert {key: list(value.shape) for key, value in unet.state_dict().items()} == listed["keys"]


def test_the_published_unet_has_its_number_of_parameters():
    unet = empty_views_unet(published_config("views"))
    assert len(unet.state_dict()) == 838
    assert sum(value.numel() for value in unet.parameters()) == 947_664_646


def test_twins_without_rows_and_pose_make_the_unet_of_diffusers():
    """Twice the same tokens change no attention: the rest must be diffusers' own forward pass."""
    unet = fill(empty_views_unet(VIEWS_CONFIG), 3)
    for key, value in unet.named_parameters():
        if ".attn_mv.to_out." in key or key.startswith("camera_embedding.linear_2"):
            value.zero_()
    plain = empty_unet(
        VIEWS_CONFIG, class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * TEXT_WIDTH,
    ).to_empty(device="cpu").requires_grad_(False)  # fmt: skip
    plain.load_state_dict(unet.state_dict(), strict=False)
    sample, step, text, classes = inputs(1, height=6, width=5)  # odd: sizes must be passed on
    half = BATCH // 2
    twins = [torch.cat([value[:half]] * 2) for value in (sample, text, classes)]
    made = unet(twins[0], step, *twins[1:])
    expected = plain(
        sample[:half], step, encoder_hidden_states=text[:half], class_labels=classes[:half]
    ).sample
    assert float(expected.std()) > 0.05
    torch.testing.assert_close(made, torch.cat([expected] * 2), atol=2e-5, rtol=1e-4)


def test_branches_do_not_see_each_other_but_views_and_domains_do(unet):
    sample, step, text, classes = inputs()
    before = unet(sample, step, text, classes).unflatten(0, (2, 2, NUM_VIEWS))
    changed = sample.clone()
    changed[0] += 1.0  # normals, first branch, front
    after = unet(changed, step, text, classes).unflatten(0, (2, 2, NUM_VIEWS))
    differs = (before - after).abs().amax(dim=(3, 4, 5)) > 1e-6
    assert bool(differs[:, 0].all()) and not bool(differs[:, 1].any())


def test_a_regressor_is_its_formula():
    network = fill(Regressor(6, 4, 2), 0).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    silu = lambda v: v * torch.sigmoid(v)  # noqa: E731
    hidden = silu(x @ network.linear_in[0].weight.T + network.linear_in[0].bias)
    for block in network.blocks:
        inner = silu(hidden @ block.linear1.weight.T + block.linear1.bias)
        hidden = silu(hidden + inner @ block.linear2.weight.T + block.linear2.bias)
    expected = hidden @ network.linear_out.weight.T + network.linear_out.bias
    torch.testing.assert_close(network(x), expected)


def test_the_pose_is_read_from_both_domains_and_shared_by_the_views(unet):
    middle = torch.randn(BATCH, 16, 3, 2, generator=torch.Generator().manual_seed(2))
    made = unet.embed_pose(middle).unflatten(0, (2, 2, NUM_VIEWS))
    grid = middle.unflatten(0, (2, 2, NUM_VIEWS))
    for branch in range(2):
        elevations, focals = [], []
        for view in range(NUM_VIEWS):
            pooled = [grid[domain, branch, view].flatten(1).mean(1) for domain in range(2)]
            features = torch.cat(pooled)[None]
            elevations.append(float(unet.elevation_regressor(features)))
            focals.append(float(unet.focal_regressor(features)))
        e, f = sum(elevations) / NUM_VIEWS, sum(focals) / NUM_VIEWS
        pose = torch.tensor([[math.sin(e), math.sin(f), math.cos(e), math.cos(f)]])
        expected = unet.camera_embedding(pose)[0].expand(2, NUM_VIEWS, -1)
        torch.testing.assert_close(made[:, branch], expected, atol=1e-5, rtol=1e-4)


def test_only_the_second_half_is_told_the_pose(unet):
    told, handles = {}, []
    for name in ("down_blocks", "up_blocks"):
        for block in getattr(unet, name):
            hook = lambda module, args, kwargs, name=name: told.setdefault(name, []).append(  # noqa: E731
                kwargs["temb"]
            )
            handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
    middle = []
    handles.append(
        unet.mid_block.register_forward_hook(lambda module, args, made: middle.append(made))
    )
    unet(*inputs())
    for handle in handles:
        handle.remove()
    for value in told["up_blocks"]:
        torch.testing.assert_close(value - told["down_blocks"][0], unet.embed_pose(middle[0]))


def test_gradients_do_not_pass_through_the_pose(unet):
    middle = torch.randn(BATCH, 16, 2, 2, requires_grad=True)
    assert not unet.embed_pose(middle).requires_grad


def test_batches_that_are_no_views_are_refused(unet):
    with pytest.raises(ValueError, match="a batch of 10 is no multiple of 12"):
        unet(*inputs(batch=10))
