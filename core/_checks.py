"""Contains the checks shared by the nouns: messages say what came and what was expected."""

from __future__ import annotations

import torch
from torch import Tensor


def require_shape(name: str, value: Tensor, *shape: int | None) -> None:
    """Raise ValueError unless ``value`` is a tensor of ``shape`` (None stands for any size)."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(value).__name__}.")
    matches = value.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, value.shape, strict=True)
    )
    if not matches:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have shape [{wanted}], got {list(value.shape)}.")


def require_floating(name: str, value: Tensor) -> None:
    """Raise ValueError unless ``value`` holds floating-point numbers."""
    if not value.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {value.dtype}.")


def require_finite(name: str, value: Tensor) -> None:
    """Raise ValueError if ``value`` holds NaN or infinity, saying how many."""
    # NaN and infinity survive a sum, which is much cheaper than counting them.
    if bool(torch.isfinite(value.detach().sum())):
        return
    bad = int((~torch.isfinite(value.detach())).sum())
    if bad:  # none when the sum alone overflowed
        raise ValueError(
            f"{name} holds {bad} NaN or infinite values out of {value.numel()}; "
            "remove or repair them before use."
        )


def require_same_device(**tensors: Tensor | None) -> None:
    """Raise ValueError unless all given tensors lie on one device."""
    devices = {name: value.device for name, value in tensors.items() if value is not None}
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"All tensors must be on one device, got {listed}.")
