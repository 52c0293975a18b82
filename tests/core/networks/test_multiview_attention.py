"""The transformer of Era3D: rows of views, twins of domains; against loops and stored numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lift3d.core.networks.multiview_attention import (
    MultiviewBlock,
    MultiviewTransformer,
    gather_rows,
    join_domains,
    scatter_rows,
    split_domains,
)

VIEWS, HEIGHT, WIDTH, DIM, TEXT = 3, 2, 4, 8, 6


def plain_block(dim=DIM, heads=2, text=TEXT):
    from diffusers.models.attention import BasicTransformerBlock

    return BasicTransformerBlock(dim, heads, dim // heads, cross_attention_dim=text)


def slow_attention(layer, x, context):
    """Attention of one sample, head by head and token by token."""
    size = x.shape[1] // layer.heads
    q, k, v = layer.to_q(x), layer.to_k(context), layer.to_v(context)
    out = torch.zeros_like(x)
    for head in range(layer.heads):
        part = slice(head * size, (head + 1) * size)
        for token in range(len(x)):
            scores = k[:, part] @ q[token, part] / size**0.5
            out[token, part] = torch.softmax(scores, dim=0) @ v[:, part]
    return layer.to_out[0](out)


def slow_block(block, tokens, text):
    """The block, sample by sample; tokens [2, branch, view, row, column, dim]."""
    x = tokens.clone()
    normed = block.norm1(x)
    for branch in range(x.shape[1]):
        for view in range(VIEWS):
            own = [normed[domain, branch, view].reshape(-1, DIM) for domain in range(2)]
            for domain in range(2):
                made = slow_attention(block.attn1, own[domain], torch.cat(own))
                x[domain, branch, view] += made.reshape(HEIGHT, WIDTH, DIM)
    normed = block.norm_mv(x)
    for domain in range(2):
        for branch in range(x.shape[1]):
            for row in range(HEIGHT):
                whole = normed[domain, branch, :, row].reshape(-1, DIM)
                made = slow_attention(block.attn_mv, whole, whole)
                x[domain, branch, :, row] += made.reshape(VIEWS, WIDTH, DIM)
    normed, words = block.norm2(x), text.reshape(2, -1, VIEWS, *text.shape[1:])
    for index in np.ndindex(*x.shape[:3]):
        made = slow_attention(block.attn2, normed[index].reshape(-1, DIM), words[index])
        x[index] += made.reshape(HEIGHT, WIDTH, DIM)
    return x + block.ff(block.norm3(x))


def make_block():
    torch.manual_seed(0)
    block = MultiviewBlock(plain_block(), VIEWS).double().requires_grad_(False)
    for value in block.parameters():
        value.normal_(std=0.4)
    return block


def test_a_block_equals_loops_over_views_rows_and_tokens():
    block = make_block()
    tokens = torch.randn(2, 2, VIEWS, HEIGHT, WIDTH, DIM, dtype=torch.float64)
    text = torch.randn(2 * 2 * VIEWS, 5, TEXT, dtype=torch.float64)
    expected = slow_block(block, tokens, text)
    made = block(tokens.reshape(2 * 2 * VIEWS, HEIGHT * WIDTH, DIM), text, HEIGHT)
    torch.testing.assert_close(made, expected.reshape(made.shape))


def test_the_reference_implementations_numbers_are_reproduced(shared_dir):
    with np.load(shared_dir / "goldens" / "era3d_block.npz") as arrays:
        golden = {key: torch.tensor(arrays[key]) for key in arrays}
    block = MultiviewBlock(plain_block(32, 2, 16), 6).requires_grad_(False)
    weights = {key[2:]: value for key, value in golden.items() if key.startswith("w_")}
    block.load_state_dict(weights)
    made = block(golden["input"], golden["text"], 4)
    torch.testing.assert_close(made, golden["output"], atol=1e-5, rtol=0)


def test_rows_and_domains_are_put_back_where_they_were():
    tokens = torch.arange(24.0 * 12 * 2).reshape(24, 12, 2)
    rows = gather_rows(tokens, 6, 4)
    assert rows.shape == (4 * 4, 6 * 3, 2)
    assert torch.equal(rows[1], tokens[:6, 3:6].flatten(0, 1))  # row 1 of the first object
    assert torch.equal(scatter_rows(rows, 6, 4), tokens)
    joined = join_domains(tokens)
    assert torch.equal(joined[5], torch.cat([tokens[5], tokens[17]]))
    assert torch.equal(split_domains(joined), tokens)


@pytest.mark.parametrize(("height", "length"), [(128, 432), (64, 216), (32, 108), (16, 54)])
def test_rows_of_the_published_size_have_six_widths_of_tokens(height, length):
    width = height * 9 // 16
    rows = gather_rows(torch.zeros(6, height * width, 1), 6, height)
    assert rows.shape == (height, length, 1)


def test_maps_keep_their_shape_and_add_to_their_input():
    from diffusers.models import Transformer2DModel

    def make(**settings):
        torch.manual_seed(0)
        return Transformer2DModel(
            2, 4, in_channels=DIM, num_layers=1, norm_num_groups=4, cross_attention_dim=TEXT,
            **settings,
        )  # fmt: skip

    layer = MultiviewTransformer(make(use_linear_projection=True), VIEWS).requires_grad_(False)
    maps, text = torch.randn(2 * VIEWS, DIM, HEIGHT, WIDTH), torch.randn(2 * VIEWS, 5, TEXT)
    (made,) = layer(maps, text, attention_mask=None, return_dict=False)
    assert made.shape == maps.shape and not torch.allclose(made, maps)
    layer.proj_out.weight.zero_()
    layer.proj_out.bias.zero_()
    assert torch.equal(layer(maps, text)[0], maps)
    with pytest.raises(ValueError, match="use_linear_projection false"):
        MultiviewTransformer(make(), VIEWS)
