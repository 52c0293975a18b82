"""Nodes for ComfyUI's own models, as far as they can be run without ComfyUI: by stand-ins."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lift3d.core.pipelines.bundle_prompt import BUNDLE_PREFIX
from lift3d.nodes.native import EncodeBundlePrompt, MakeBundleSigmas, SetControlMode
from lift3d.nodes.native_attachments import SDXL_UNION_MODES, NativeControl, control_from_link

# Kiss3DGen's noise levels of 20 steps (measured in the released pipeline).
PUBLISHED = [
    1.0, 0.9819, 0.9624, 0.9414, 0.9187, 0.8940, 0.8672, 0.8379, 0.8057, 0.7702, 0.7310, 0.6872,
    0.6382, 0.5829, 0.5201, 0.4479, 0.3644, 0.2663, 0.1498, 0.0089, 0.0,
]  # fmt: skip


class Clip:
    """Says which text each encoder got."""

    def __init__(self, **options: int) -> None:
        self.tokenizer_options = options
        self.asked: list[dict[str, int]] = []

    def tokenize(self, text: str, tokenizer_options: dict[str, int]) -> dict[str, str]:
        self.asked.append(tokenizer_options)
        return {"l": text, "t5xxl": text}

    def encode_from_tokens_scheduled(self, tokens: Any, add_dict: Any) -> Any:
        return [[tokens, add_dict]]


class Network:
    """A CONTROL_NET: a Flux union of 7 modes, an SDXL union of 8, or one without modes."""

    def __init__(self, *, flux: int = 0, sdxl: int = 0) -> None:
        inner = SimpleNamespace(num_union_modes=flux)
        if sdxl:
            inner.control_add_embedding = SimpleNamespace(num_control_type=sdxl)
        self.control_model = inner
        self.extra_args: dict[str, Any] = {}

    def set_cond_hint(self) -> None:
        """Every CONTROL_NET has one."""

    def copy(self) -> Network:
        made = Network()
        made.control_model, made.extra_args = self.control_model, dict(self.extra_args)
        return made

    def set_extra_arg(self, name: str, value: Any) -> None:
        self.extra_args[name] = value


def sigmas(steps: int = 20, strength: float = 1.0, shift: float = 3.0) -> torch.Tensor:
    return MakeBundleSigmas.execute(steps, strength, shift).result[0]


def test_bundle_sigmas_are_the_published_list() -> None:
    torch.testing.assert_close(sigmas(), torch.tensor(PUBLISHED), atol=1e-4, rtol=0)


def test_strength_95_leaves_out_the_first_level() -> None:
    torch.testing.assert_close(sigmas(strength=0.95), sigmas()[1:])


def test_a_strength_that_keeps_nothing_of_the_latent_is_warned_of(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert sigmas(steps=10, strength=0.95)[0] == 1.0
    assert "no effect" in caplog.text
    caplog.clear()
    sigmas(strength=0.95)
    assert not caplog.text


def test_clip_l_gets_the_prefix_alone_and_t5_the_whole_text() -> None:
    clip = Clip()
    [[tokens, told]] = EncodeBundlePrompt.execute(clip, "a red mug", 3.5, BUNDLE_PREFIX).result[0]
    assert tokens == {"l": BUNDLE_PREFIX, "t5xxl": f"{BUNDLE_PREFIX} a red mug"}
    assert told == {"guidance": 3.5}
    assert all(asked == {"t5xxl_min_length": 512} for asked in clip.asked)


def test_a_text_length_that_the_user_set_is_kept() -> None:
    clip = Clip(t5xxl_min_length=256, t5xxl_min_padding=1)
    EncodeBundlePrompt.execute(clip, "a red mug", 3.5, BUNDLE_PREFIX)
    assert clip.asked[0] == {"t5xxl_min_length": 256, "t5xxl_min_padding": 1}


def test_an_empty_prompt_is_refused_before_anything_runs() -> None:
    assert EncodeBundlePrompt.validate_inputs(prompt="a mug") is True
    assert EncodeBundlePrompt.validate_inputs(prompt=None) is True, "linked: not known yet"
    assert "empty" in EncodeBundlePrompt.validate_inputs(prompt=" \n")


@pytest.mark.parametrize(
    ("network", "kind", "mode"),
    [
        (Network(flux=7), "tile", 1),
        (Network(flux=7), "depth", 2),
        (Network(sdxl=8), "tile", 6),
        (Network(sdxl=8), "depth", 1),
    ],
)
def test_each_union_network_gets_its_own_number(network: Network, kind: str, mode: int) -> None:
    changed = SetControlMode.execute(network, kind).result[0]
    assert changed.extra_args == {"control_type": [mode]}
    assert network.extra_args == {}, "the input is left as it is"


def test_modes_that_a_network_lacks_are_named() -> None:
    with pytest.raises(ValueError, match="no mode 'segment'; it knows canny, tile"):
        SetControlMode.execute(Network(flux=7), "segment")
    with pytest.raises(ValueError, match="no mode 'blur'; it knows pose"):
        SetControlMode.execute(Network(sdxl=8), "blur")
    with pytest.raises(ValueError, match="no modes"):
        SetControlMode.execute(Network(), "tile")
    with pytest.raises(ValueError, match=r"modes 0\.\.3"):
        NativeControl(Network(flux=4)).require_mode(4)


def test_links_bring_handles_of_both_kinds() -> None:
    network = Network(flux=7)
    wrapped = control_from_link(network)
    assert isinstance(wrapped, NativeControl) and wrapped.network is network
    assert wrapped.num_modes == 7 and wrapped.modes["tile"] == 1
    assert NativeControl(Network(sdxl=8)).modes == SDXL_UNION_MODES
    own = object()
    assert control_from_link(own) is own
    with pytest.raises(ValueError, match="Expected a CONTROL_NET of ComfyUI, got a str"):
        NativeControl("file")
