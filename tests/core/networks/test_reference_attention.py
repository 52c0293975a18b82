from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lift3d.core.networks.reference_attention import (
    ReferenceAttention,
    ReferenceBank,
    add_reference_attention,
)
from tiny_models import TEXT_WIDTH, make_tiny_unet, seeded


class SlowLayer:
    """An attention layer with the members that a processor uses, all weights random."""

    def __init__(self, dim=12, heads=3):
        generator = torch.Generator().manual_seed(0)
        draw = lambda: torch.randn(dim, dim, generator=generator, dtype=torch.float64)  # noqa: E731
        self.heads = heads
        self.weights = {name: draw() for name in ("q", "k", "v", "out")}
        self.to_q, self.to_k, self.to_v = (
            (lambda x, w=self.weights[name]: x @ w.T) for name in ("q", "k", "v")
        )
        self.to_out = [lambda x: x @ self.weights["out"].T]

    def slow(self, x, context):
        """Attention entry by entry."""
        batch, tokens, dim = x.shape
        size = dim // self.heads
        out = torch.zeros_like(x)
        for b in range(batch):
            for head in range(self.heads):
                part = slice(head * size, (head + 1) * size)
                q = (x[b] @ self.weights["q"].T)[:, part]
                k = (context[b] @ self.weights["k"].T)[:, part]
                v = (context[b] @ self.weights["v"].T)[:, part]
                for token in range(tokens):
                    scores = (k @ q[token]) / size**0.5
                    shares = (scores - scores.max()).exp()
                    out[b, token, part] = (shares / shares.sum()) @ v
        return out @ self.weights["out"].T


def test_the_read_pass_attends_to_own_and_stored_tokens():
    generator = torch.Generator().manual_seed(1)
    reference = torch.randn(2, 7, 12, generator=generator, dtype=torch.float64)
    tokens = torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)
    layer, bank = SlowLayer(), ReferenceBank()
    process = ReferenceAttention("a", bank)
    with bank.writing():
        written = process(layer, reference)
    with bank.reading():
        read = process(layer, tokens)
    torch.testing.assert_close(written, layer.slow(reference, reference))
    both = torch.cat([tokens, reference], dim=1)
    torch.testing.assert_close(read, layer.slow(tokens, both))
    torch.testing.assert_close(process(layer, tokens), layer.slow(tokens, tokens))  # off again


def test_the_reference_implementations_numbers_are_reproduced(shared_dir):
    with np.load(shared_dir / "goldens" / "reference_attention.npz") as arrays:
        golden = {key: torch.tensor(arrays[key]) for key in arrays}
    linear = torch.nn.functional.linear
    project = {
        f"to_{name}": lambda x, w=golden[f"w_to_{name}.weight"]: linear(x, w) for name in "qkv"
    }
    out = [lambda x: linear(x, golden["w_to_out.0.weight"], golden["w_to_out.0.bias"])]
    layer, bank = SimpleNamespace(heads=4, to_out=out, **project), ReferenceBank()
    process = ReferenceAttention("attn1", bank)
    with bank.writing():
        written = process(layer, golden["reference_tokens"])
    with bank.reading():
        read = process(layer, golden["tokens"])
    torch.testing.assert_close(written, golden["write_output"], atol=1e-5, rtol=0)
    torch.testing.assert_close(read, golden["read_output"], atol=1e-5, rtol=0)


@pytest.fixture
def unet():
    with seeded(0):
        return make_tiny_unet().requires_grad_(False)


def run(unet, latents, text):
    return unet(latents, torch.tensor(500), encoder_hidden_states=text).sample


def inputs(side, batch=2):
    generator = torch.Generator().manual_seed(side)
    return (
        torch.randn(batch, 4, side, side, generator=generator),
        torch.randn(batch, 3, TEXT_WIDTH, generator=generator),
    )


def test_without_a_pass_the_unet_is_the_plain_one(unet):
    latents, text = inputs(8)
    before = run(unet, latents, text)
    keys = list(unet.state_dict())
    add_reference_attention(unet)
    torch.testing.assert_close(run(unet, latents, text), before, atol=1e-5, rtol=1e-5)
    assert list(unet.state_dict()) == keys  # no weights are added


def test_every_self_attention_and_no_other_stores_its_input(unet):
    bank = add_reference_attention(unet)
    latents, text = inputs(8)
    with bank.writing():
        run(unet, latents, text)
        layers = set(bank.features)
    assert (
        layers == {name for name in unet.attn_processors if ".attn1." in name} and len(layers) > 2
    )


def test_entries_of_the_batch_see_their_own_reference_only(unet):
    bank = add_reference_attention(unet)
    latents, text = inputs(8)
    reference, _ = inputs(6)  # of another size

    def read(reference):
        with bank.writing():
            run(unet, reference, text)
        with bank.reading():
            return run(unet, latents, text)

    changed = reference.clone()
    changed[1] += 1.0
    before, after = read(reference), read(changed)
    assert torch.equal(before[0], after[0])
    assert float((before[1] - after[1]).abs().max()) > 1e-4


def test_features_are_let_go_after_reading_and_cannot_be_read_twice(unet):
    bank = add_reference_attention(unet)
    latents, text = inputs(8)
    with bank.writing():
        run(unet, latents, text)
    with bank.reading():
        run(unet, latents, text)
    assert not bank.features and bank.current == "off"
    with pytest.raises(ValueError, match="No features of the reference"), bank.reading():
        run(unet, latents, text)
    assert bank.current == "off"
