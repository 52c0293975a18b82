"""The painting UNet and its reference net: published layout, and a slow version of the exchange."""

from __future__ import annotations

import json

import pytest
import torch
from lift3d.core.diffusion.character_files import empty_unet, published_config
from lift3d.core.diffusion.pose_canonicalizer import UNUSED, empty_pose_networks
from reference_scenes import storing_and_joining
from stdgen_scenes import POSE_CONFIG, fill
from tiny_models import TEXT_WIDTH


@pytest.fixture(scope="module")
def networks():
    return fill(empty_pose_networks(POSE_CONFIG), 0)


def inputs(seed=0, batch=2):
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, 4, 6, 4, generator=draw),
        700,
        torch.randn(batch, 1, TEXT_WIDTH, generator=draw),
        torch.randn(batch, 4, 4, 6, generator=draw),  # of another shape
        torch.randn(batch, 7, TEXT_WIDTH, generator=draw),
    )


@pytest.mark.parametrize("source", ["published", "ours"])
def test_the_published_unets_have_the_listed_keys_and_shapes(shared_dir, source):
    for part, attribute in (("unet", "unet"), ("ref_unet", "reference")):
        path = shared_dir / "spec" / "state_dicts" / f"stdgen_canonicalize_{part}.json"
        listed = json.loads(path.read_text(encoding="utf-8"))
        config = listed["meta"]["config"] if source == "published" else published_config("pose")
        network = getattr(empty_pose_networks(config), attribute)
        used = {key: shape for key, shape in listed["keys"].items() if not key.startswith(UNUSED)}
        found = {key: list(value.shape) for key, value in network.state_dict().items()}
        assert found == used and len(listed["keys"]) - len(used) == 8


def test_the_reference_net_lacks_what_lies_behind_its_last_stored_tokens():
    networks = empty_pose_networks(published_config("pose"))
    whole, cut = networks.unet.state_dict(), networks.reference.state_dict()
    missing = set(whole) - set(cut)
    assert len(whole) == 686 and len(cut) == 662 and set(cut) < set(whole)
    last = "up_blocks.3.attentions.2."
    block = f"{last}transformer_blocks.0."
    heads = (f"{block}attn1.", f"{block}norm2.", f"{block}attn2.", f"{block}norm3.", f"{block}ff.",
             f"{last}proj_out.", "conv_norm_out.", "conv_out.")  # fmt: skip
    assert len(missing) == 24 and all(key.startswith(heads) for key in missing)


def slow_run(networks, latents, step, tokens, picture, text):
    """Whole UNets of diffusers, with processors that store and join."""
    processor, mode, stored = storing_and_joining()
    wholes = []
    for network in (networks.reference, networks.unet):
        whole = empty_unet(POSE_CONFIG, in_channels=4).to_empty(device="cpu")
        # What the reference net lacks may have any values: nothing of it is seen.
        torch.nn.utils.vector_to_parameters(
            torch.randn(sum(v.numel() for v in whole.parameters())), whole.parameters()
        )
        whole.load_state_dict(network.state_dict(), strict=False)
        whole.set_attn_processor({name: processor(name) for name in whole.attn_processors})
        wholes.append(whole)
    mode[0] = "w"
    wholes[0](picture, step, encoder_hidden_states=text)
    mode[0] = "r"
    made = wholes[1](latents, step, encoder_hidden_states=tokens).sample
    assert not stored
    return made


@torch.no_grad()
def test_the_painting_unet_looks_at_the_tokens_of_the_reference_net(networks):
    given = inputs()
    made = networks(*given)
    torch.testing.assert_close(made, slow_run(networks, *given), atol=2e-5, rtol=1e-4)
    assert not networks.bank.features  # nothing is kept


@torch.no_grad()
def test_every_input_counts(networks):
    given = list(inputs())
    before = networks(*given)
    others = inputs(1)
    for index in (0, 2, 3, 4):
        changed = [*given[:index], others[index], *given[index + 1 :]]
        assert float((networks(*changed) - before).abs().max()) > 1e-3


def test_a_unet_without_attention_at_its_end_is_no_reference_net():
    config = {**POSE_CONFIG, "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}
    with pytest.raises(ValueError, match=r"last block of this UNet \(UpBlock2D\) has no attention"):
        empty_pose_networks(config)
