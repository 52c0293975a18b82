"""Placement: networks take turns, nothing is moved in inference mode, bad choices are named."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.diffusion.placement import (
    FixedPlacement,
    OneAtATimePlacement,
    SequentialPlacement,
    ensure_plain,
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


def test_weights_moved_in_inference_mode_become_plain_again() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval().requires_grad_(False)
    with torch.inference_mode():
        network.to(torch.float64)  # as a host does when it moves a network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inputs = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="Inference tensors"):
        network(inputs)
    ensure_plain(network)
    network(inputs).sum().backward()
    assert inputs.grad is not None and inputs.grad.abs().sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    kept = network[0].weight
    ensure_plain(network)
    assert network[0].weight is kept


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
