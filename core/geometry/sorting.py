"""Contains the stable sort of whole-number keys, which edge tables are made of."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

MAX_BITS = 63


def stable_sort(
    keys: Int64[Tensor, " item"],
) -> tuple[Int64[Tensor, " item"], Int64[Tensor, " item"]]:
    """Keys >= 0 in ascending order and where each stood before; equal keys keep their order.

    On the CPU, key and position are packed into one number when they fit, which numpy sorts many
    times faster than torch sorts pairs.
    """
    position_bits = max(1, (len(keys) - 1).bit_length())
    if keys.device.type == "cpu" and len(keys):
        if int(keys.max()).bit_length() + position_bits <= MAX_BITS and int(keys.min()) >= 0:
            packed = (keys << position_bits) | torch.arange(len(keys))
            packed = torch.from_numpy(np.sort(packed.numpy()))
            return packed >> position_bits, packed & ((1 << position_bits) - 1)
    ordered, order = torch.sort(keys, stable=True)
    return ordered, order
