"""Placement: networks take turns, nothing is moved in inference mode, bad choices are named."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.diffusion.placement import (
    FixedPlacement,
    OneAtATimePlacement,
    SequentialPlacement,
    make_placement,
)
from torch import nn

META = torch.device("meta")


def place(network: nn.Module) -> str:
    return next(network.parameters()).device.type


def test_networks_take_turns() -> None:
    """The meta device stands in for the card."""
    placement = OneAtATimePlacement(META)
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    placement.prepare(first)
    assert (place(first), place(second)) == ("meta", "cpu")
    placement.prepare(first)
    assert place(first) == "meta"
    moved: list[str] = []
    first.to = lambda device: moved.append(str(device))  # type: ignore[method-assign]
    placement.prepare(second)
    assert moved == ["cpu"] and place(second) == "meta"


def test_sequential_placement_gives_the_same_results_with_and_without_new_layers() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).requires_grad_(False)
    inputs = torch.randn(5, 3)
    expected = network(inputs)
    placement = SequentialPlacement("cpu")
    placement.prepare(network)
    placement.prepare(network)
    assert place(network) == "meta"  # the weights wait elsewhere
    assert torch.equal(network(inputs), expected)
    placement.changed(network)
    assert place(network) == "cpu"
    network.append(nn.Linear(2, 1))
    placement.prepare(network)
    assert network(inputs).shape == (5, 1)


def test_ways_are_checked(unchecked_shapes) -> None:
    assert isinstance(make_placement("cpu", "model"), FixedPlacement)  # nothing to offload from
    with pytest.raises(ValueError, match="Unknown offload 'disk'"):
        make_placement("cpu", "disk")  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no NVIDIA card"):
            make_placement("cuda", "none")
