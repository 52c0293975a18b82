from __future__ import annotations

import pytest
import torch
from lift3d.core.geometry.sorting import stable_sort


@pytest.mark.parametrize("largest", [1, 7, 2**20, 2**50, 2**62])
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_packed_sort_is_torch_stable_sort(largest: int, count: int) -> None:
    # 2**62 does not fit beside the positions: the other way of sorting is taken.
    generator = torch.Generator().manual_seed(count)
    keys = torch.randint(0, largest, (count,), generator=generator)
    expected = torch.sort(keys, stable=True)
    ordered, order = stable_sort(keys)
    assert torch.equal(ordered, expected.values)
    assert torch.equal(order, expected.indices)


def test_negative_keys_are_sorted_too() -> None:
    ordered, order = stable_sort(torch.tensor([3, -1, 3, -1]))
    assert ordered.tolist() == [-1, -1, 3, 3] and order.tolist() == [1, 3, 0, 2]


def test_input_is_left_alone() -> None:
    keys = torch.tensor([2, 1, 0])
    stable_sort(keys)
    assert keys.tolist() == [2, 1, 0]
