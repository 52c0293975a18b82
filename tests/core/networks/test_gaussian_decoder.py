import dataclasses

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.geometry.pluecker import rig_pluecker
from lift3d.core.networks.gaussian_decoder import (
    GaussianDecoder,
    GaussianDecoderParams,
    attend_in_windows,
    decoder_params_from,
    load_decoder_params,
    num_parameters,
    window_side,
)

SMALL = GaussianDecoderParams(
    latent_channels=4, grid=4, patch=2, dim=32, num_layers=2, head_dim=16, context_dim=24,
    upsamplings=1, upsampler_layers=2, smallest_dim=16, window=4,
)  # fmt: skip


def make(params: GaussianDecoderParams, seed: int = 0) -> GaussianDecoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GaussianDecoder(params).eval()


def inputs(params, views=3, height=8, width=8, batch=1):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, views, params.latent_channels, height, width, generator=generator)
    rig = make_orbit_rig([360 * i / views for i in range(views)], 10.0, radius=4.0)
    rays = rig_pluecker(rig, width=width, height=height).expand(batch, -1, -1, -1, -1)
    context = torch.randn(batch, 5, params.context_dim, generator=generator)
    return latents, rays, context if params.context_dim else None


@pytest.mark.parametrize(
    ("views", "height", "width", "patch", "upsamplings"),
    [(1, 8, 8, 2, 1), (4, 8, 12, 2, 2), (2, 6, 6, 1, 0), (5, 12, 8, 4, 3)],
)
def test_any_number_and_size_of_views(views, height, width, patch, upsamplings):
    params = dataclasses.replace(SMALL, patch=patch, upsamplings=upsamplings, smallest_dim=16)
    network = make(params)
    raw = network(*inputs(params, views, height, width, batch=2))
    assert raw.shape == (
        2, views, 12, params.output_side(height), params.output_side(width),
    )  # fmt: skip
    assert bool(torch.isfinite(raw).all())


def test_heads_may_give_several_gaussians_per_pixel():
    params = dataclasses.replace(SMALL, shuffle=2)
    raw = make(params)(*inputs(params))
    assert raw.shape[-2:] == (16, 16) and params.output_side(8) == 16
    plain = make(SMALL)(*inputs(SMALL))
    assert plain.shape[-2:] == (8, 8)


def test_published_size_makes_83_thousand_gaussians_of_16_views():
    params = load_decoder_params("published")
    assert params == GaussianDecoderParams() and params.num_layers == 16
    assert params.output_side(72) ** 2 * 16 == 82_944
    finer = dataclasses.replace(params, upsamplings=3)
    assert finer.output_side(72) ** 2 * 16 == 331_776
    assert params.widths == (768, 384, 192) and finer.widths == (768, 384, 192, 96)
    assert 150e6 < num_parameters(params) < 250e6


@pytest.mark.parametrize("size", ["small", "tiny"])
def test_other_sizes_are_small(size):
    params = load_decoder_params(size)
    assert num_parameters(params) < 8e6
    assert decoder_params_from(dataclasses.asdict(params)) == params


def test_views_may_come_in_any_order():
    network = make(SMALL)
    latents, rays, context = inputs(SMALL, views=4)
    order = torch.tensor([2, 0, 3, 1])
    expected = network(latents, rays, context)[:, order]
    found = network(latents[:, order], rays[:, order], context)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def difference(found, expected):
    """Largest difference in the first view."""
    return (found - expected)[:, 0].detach().abs().max()


def test_views_look_at_each_other_and_at_the_picture():
    network = make(SMALL)
    latents, rays, context = inputs(SMALL)
    before = network(latents, rays, context)
    changed = latents.clone()
    changed[:, 2] += 1
    assert float(difference(network(changed, rays, context), before)) > 1e-6
    assert float(difference(network(latents, rays, context + 1), before)) > 1e-6
    assert float(difference(network(latents, rays * 1.1, context), before)) > 1e-6


def test_objects_of_a_batch_do_not_see_each_other():
    network = make(SMALL)
    latents, rays, context = inputs(SMALL, batch=2)
    both = network(latents, rays, context)
    alone = network(latents[1:], rays[1:], context[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_with_heads_of_zero_every_number_is_zero():
    network = make(SMALL)
    torch.nn.init.zeros_(network.heads.weight)
    assert not network(*inputs(SMALL)).any()


def test_heads_begin_as_small_as_grms():
    heads = make(dataclasses.replace(SMALL, dim=1024, head_dim=64, smallest_dim=512)).heads.weight
    assert float(heads[0].std()) == pytest.approx(0.015, rel=0.1)
    assert float(heads[1:].std()) == pytest.approx(0.02, rel=0.05)


def test_checkpointing_changes_neither_result_nor_gradients():
    network = make(SMALL)
    given = inputs(SMALL)
    plain = network(*given)
    plain.square().mean().backward()
    expected = {name: value.grad.clone() for name, value in network.named_parameters()}
    network.zero_grad()
    network.gradient_checkpointing = True
    found = network(*given)
    found.square().mean().backward()
    torch.testing.assert_close(found, plain)
    for name, value in network.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], atol=1e-7, rtol=1e-4)


def test_positions_are_resized_to_other_latents():
    network = make(SMALL)
    torch.nn.init.constant_(network.positions, 0.3)
    torch.testing.assert_close(network._positions(3, 7), torch.full((1, 32, 3, 7), 0.3))


def test_windows_are_taken_apart_and_put_back():
    maps = torch.randn(2, 6, 4, 3)
    for shifted in (False, True):
        same = attend_in_windows(torch.nn.Identity(), maps, 3, shifted=shifted)
        torch.testing.assert_close(same, maps)
    assert window_side(12, 5) == 4 and window_side(7, 4) == 1 and window_side(8, 8) == 8


def test_a_window_holds_the_pixels_of_one_block():
    rows = torch.arange(4.0)[None, :, None, None].expand(1, 4, 4, 1)

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=1, keepdim=True).expand_as(x)

    blocks = attend_in_windows(Mean(), rows, 2, shifted=False)[0, :, 0, 0]
    assert blocks.tolist() == [0.5, 0.5, 2.5, 2.5]
    moved = attend_in_windows(Mean(), rows, 2, shifted=True)[0, :, 0, 0]
    assert moved.tolist() == [1.5, 1.5, 1.5, 1.5]  # rows 1-2, and 3 with 0 round the border


def test_what_does_not_fit_is_refused():
    network = make(SMALL)
    latents, rays, context = inputs(SMALL)
    with pytest.raises(ValueError, match="latents of 4 channels, got 3"):
        network(latents[:, :, :3], rays, context)
    with pytest.raises(ValueError, match="patches of 2"):
        network(latents[..., :7], rays[..., :7], context)
    with pytest.raises(ValueError, match="made with its features"):
        network(latents, rays)
    plain = dataclasses.replace(SMALL, context_dim=0)
    with pytest.raises(ValueError, match="made with no features"):
        make(plain)(latents, rays, context)
    with pytest.raises(ValueError, match="do not divide into heads"):
        dataclasses.replace(SMALL, dim=33, head_dim=15)
    with pytest.raises(ValueError, match="unexpected keyword"):
        decoder_params_from({"width": 3})
