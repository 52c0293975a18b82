"""Contains named tensors under Adam whose state can be saved and restored exactly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..diffusion.schedules import interpolate_log

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class AdamParameters:
    """Tensors of fixed size, each with its own log-linear step size.

    Args:
        values: what to start from; copied.
        rates: first and last step size of each.
        num_steps: over which the step sizes change.

    Attributes:
        steps_done: so far.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        rates: Mapping[str, tuple[float, float]],
        num_steps: int,
    ) -> None:
        self.num_steps, self.steps_done = num_steps, 0
        self._rates = {name: rates[name] for name in values}
        self._values = {
            name: value.detach().clone().float().requires_grad_() for name, value in values.items()
        }
        self._adam = torch.optim.Adam(
            [{"params": [value], "name": name} for name, value in self._values.items()],
            lr=0.0,
            eps=1e-15,
        )

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def step(self) -> bool:
        """Move all tensors; False, and no step, if a gradient is not finite."""
        gradients = [value.grad for value in self._values.values()]
        if not all(g is None or bool(torch.isfinite(g).all()) for g in gradients):
            self.discard()
            return False
        for group in self._adam.param_groups:
            first, last = self._rates[group["name"]]
            last_step = max(self.num_steps - 1, 1)
            group["lr"] = interpolate_log(first, last, self.steps_done, last_step)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self.steps_done += 1
        return True

    def discard(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Copy of tensors, moments and the counter."""
        state = {"steps_done": torch.tensor(self.steps_done)}
        for name, value in self._values.items():
            state[name] = value.detach().clone()
            for key, moment in self._adam.state.get(value, {}).items():
                state[f"{name}.{key}"] = moment.clone()
        return state

    def restore(self, state: Mapping[str, Tensor], *, keep_clock: bool = False) -> None:
        """Go on from a copy that `state` made.

        Raises:
            ValueError: parts are missing or of another size.
        """
        for name, value in self._values.items():
            if name not in state or state[name].shape != value.shape:
                raise ValueError(f"The saved optimisation does not fit: {name} is missing or odd.")
        if not keep_clock:
            self.steps_done = int(state["steps_done"])
        for name, value in self._values.items():
            value.data.copy_(state[name])
            self._adam.state.pop(value, None)
            moments = {k: state[f"{name}.{k}"].clone() for k in MOMENTS if f"{name}.{k}" in state}
            if moments:
                self._adam.state[value] = {
                    k: v if k == "step" else v.to(value.device) for k, v in moments.items()
                }
