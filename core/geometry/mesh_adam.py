"""Contains the optimiser step of continuous remeshing: Adam with one step length per vertex.

Symbols: t the number of the step from 1; m1 the mean gradient, m2 the mean squared length of the
gradient (one number per vertex), nu = |m1| / sqrt(m2) the relative speed of a vertex: 1 when all
recent gradients agree, near 0 when they cancel. Vertices that keep moving fast are on a coarse mesh
with work to do; where nu falls below a reference value, edges may become shorter.

Reference: Palfinger 2022, "Continuous remeshing for inverse rendering", sections 3.1 and 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .edges import neighbour_mean

EPSILON = 1e-8


@dataclass(frozen=True)
class MeshOptimizerParams:
    """Settings of the optimiser; defaults are those of the paper's code as ISOMER uses it.

    Attributes:
        learning_rate: step of a vertex at full relative speed, in units of the reference length.
        betas: memory of m1, of m2 and of nu (0: no memory).
        edge_length_limits: bounds of the reference length, in world units.
        initial_edge_length: reference length at the start; None: the mean edge of the mesh.
        edge_length_tolerance: edges outside reference * (1 -+ this) are collapsed or split.
        local_edge_length: control the reference length per vertex instead of globally.
        gain: relative change of the reference length per step and unit of nu.
        control_interval: steps between two changes of the reference length.
        nu_ref: relative speed at which the reference length rests.
        laplacian: weight of the pull to the mean of the neighbours, times nu.
        gradient_clamp: bound of a gradient component in units of |m1|, from the second step on;
            0 for none. It suppresses spikes.
        ramp: the learning rate grows to its value over ramp / (1 - beta1) steps.
        shortest_probability: chance that a bad face gives up its shortest side and not another.
        max_vertices: edges are no longer split beyond this count.
        seed: of the random choice of sides.
    """

    learning_rate: float = 0.3
    betas: tuple[float, float, float] = (0.8, 0.8, 0.0)
    edge_length_limits: tuple[float, float] = (0.01, 0.15)
    initial_edge_length: float | None = None
    edge_length_tolerance: float = 0.5
    local_edge_length: bool = True
    gain: float = 0.2
    control_interval: int = 1
    nu_ref: float = 0.3
    laplacian: float = 0.02
    gradient_clamp: float = 10.0
    ramp: float = 1.0
    shortest_probability: float = 0.8
    max_vertices: int = 1_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.edge_length_limits
        if not 0 < low <= high:
            raise ValueError(
                f"edge_length_limits must be (low, high) with 0 < low <= high, got {(low, high)}."
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie within 0..1, below 1, got {self.betas}.")
        if not 0 < self.edge_length_tolerance < 1:
            raise ValueError(
                f"edge_length_tolerance must lie between 0 and 1, got {self.edge_length_tolerance}."
            )
        if self.learning_rate < 0 or self.ramp <= 0 or self.control_interval < 1:
            raise ValueError(
                "learning_rate must not be negative, ramp must be positive and control_interval "
                f"at least 1; got {self.learning_rate}, {self.ramp}, {self.control_interval}."
            )


@dataclass(frozen=True)
class MeshAdamState:
    """What the optimiser remembers for each vertex.

    Attributes:
        mean_gradient: m1.
        mean_square: m2, of the length of the gradient.
        relative_speed: nu.
        reference_length: edge length aimed at, in world units.
        num_steps: steps done so far.
    """

    mean_gradient: Float[Tensor, "vertex 3"]
    mean_square: Float[Tensor, " vertex"]
    relative_speed: Float[Tensor, " vertex"]
    reference_length: Float[Tensor, " vertex"]
    num_steps: int = 0

    def columns(self) -> Float[Tensor, "vertex 6"]:
        """Everything per vertex side by side, to be averaged when vertices merge or split."""
        return torch.cat(
            [
                self.mean_gradient,
                self.mean_square[:, None],
                self.relative_speed[:, None],
                self.reference_length[:, None],
            ],
            dim=1,
        )

    def with_columns(self, columns: Float[Tensor, "other_vertex 6"]) -> MeshAdamState:
        """State for other vertices, inverse of `columns`."""
        return replace(
            self,
            mean_gradient=columns[:, :3],
            mean_square=columns[:, 3],
            relative_speed=columns[:, 4],
            reference_length=columns[:, 5],
        )


def initial_state(vertices: Float[Tensor, "vertex 3"], reference_length: float) -> MeshAdamState:
    """The state before the first step: at rest."""
    scalar = torch.zeros_like(vertices[:, 0])
    return MeshAdamState(
        mean_gradient=torch.zeros_like(vertices),
        mean_square=scalar,
        relative_speed=scalar,
        reference_length=torch.full_like(scalar, reference_length),
    )


def lerp_unbiased(mean: Tensor, value: Tensor, beta: float, step: int) -> Tensor:
    """Moving average whose weights sum to one from the first step on (no bias to correct)."""
    total = 1 - beta**step
    return mean * (beta * (1 - beta ** (step - 1)) / total) + value * ((1 - beta) / total)


def adam_step(
    vertices: Float[Tensor, "vertex 3"],
    gradient: Float[Tensor, "vertex 3"],
    edges: Int64[Tensor, "edge 2"],
    state: MeshAdamState,
    params: MeshOptimizerParams,
    *,
    learning_rate: float | None = None,
) -> tuple[Float[Tensor, "vertex 3"], MeshAdamState]:
    """One step of all vertices; lengths scale with the reference length of each.

    Args:
        vertices: present positions.
        gradient: of the loss with respect to them.
        edges: of the present mesh, for the Laplacian.
        state: what the previous step returned.
        params: settings.
        learning_rate: replaces that of ``params`` (for schedules).
    """
    step = state.num_steps + 1
    beta1, beta2, beta3 = params.betas
    pull = vertices - neighbour_mean(vertices, edges)
    gradient = gradient + params.laplacian * state.relative_speed[:, None] * pull
    if step > 1 and params.gradient_clamp > 0:
        bound = params.gradient_clamp * state.mean_gradient.abs()
        gradient = torch.minimum(torch.maximum(gradient, -bound), bound)
    mean_gradient = lerp_unbiased(state.mean_gradient, gradient, beta1, step)
    mean_square = lerp_unbiased(state.mean_square, gradient.square().sum(dim=-1), beta2, step)
    velocity = mean_gradient / (mean_square.sqrt()[:, None] + EPSILON)
    speed = lerp_unbiased(state.relative_speed, velocity.norm(dim=-1), beta3, step)

    rate = params.learning_rate if learning_rate is None else learning_rate
    rate *= min(1.0, step * (1 - beta1) / params.ramp)
    moved = vertices - rate * velocity * state.reference_length[:, None]
    reference_length = state.reference_length
    if step % params.control_interval == 0:
        reference_length = controlled_length(reference_length, speed, params)
    return moved, MeshAdamState(mean_gradient, mean_square, speed, reference_length, step)


def controlled_length(
    reference_length: Float[Tensor, " vertex"],
    relative_speed: Float[Tensor, " vertex"],
    params: MeshOptimizerParams,
) -> Float[Tensor, " vertex"]:
    """Reference length after one turn of the controller: shorter where vertices have settled."""
    speed = relative_speed if params.local_edge_length else relative_speed.mean()
    factor = 1 + (speed - params.nu_ref) * params.gain
    low, high = params.edge_length_limits
    return (reference_length * factor).clamp(min=low, max=high)
