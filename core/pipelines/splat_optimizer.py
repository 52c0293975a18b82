"""Contains the optimiser of Gaussian clouds: raw parameters, Adam, densification and pruning.

Scales are optimised as logarithms, opacities as logits, quaternions unnormalised. Whenever
Gaussians are added or removed, the moments of Adam follow row by row.

Reference: Kerbl et al. 2023, "3D Gaussian Splatting", Sec. 5; learning rates, thresholds and
schedules of GE3D's released configurations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..gaussian_cloud import GaussianCloud
from ..geometry.transforms import quat_to_matrix
from ..rendering.splats import SplatRender, screen_gradient_norms

PARAMETERS = ("means", "log_scales", "quats", "opacity_logits", "base", "rest")
STATISTICS = ("norm_sum", "seen_count", "max_radius")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
SPLIT_SHRINK = 1.6
MIN_SCALE = 1e-7
MIN_LOGIT_OPACITY = 1e-5


@dataclass(frozen=True)
class LearningRates:
    """Adam's step sizes, (first, last), log-linear in between.

    Attributes:
        means: times the extent of the scene.
        base: view-independent colour (DC harmonics).
        rest: higher harmonics.
        opacity_logits: per unit of logit.
        log_scales: per unit of natural logarithm.
        quats: per unit of quaternion.
    """

    means: tuple[float, float] = (2e-4, 1.6e-6)
    base: tuple[float, float] = (0.010, 0.003)
    rest: tuple[float, float] = (5e-4, 1.5e-4)
    opacity_logits: tuple[float, float] = (0.05, 0.05)
    log_scales: tuple[float, float] = (5e-3, 1e-3)
    quats: tuple[float, float] = (1e-3, 2e-4)

    def at(self, name: str, progress: float) -> float:
        """Step size of one parameter at ``progress`` 0..1 of the run."""
        first, last = getattr(self, name)
        return math.exp((1 - progress) * math.log(first) + progress * math.log(last))


@dataclass(frozen=True)
class DensifyParams:
    """When and where Gaussians are added and removed.

    Attributes:
        every: steps between two densifications; 0 never.
        start: first step at which it may happen.
        stop_at: share of the run after which it stops.
        gradient_threshold: mean screen gradient (normalised device coordinates) above which a
            Gaussian is cloned (small ones) or split (large ones).
        clone_below: boundary between small and large, times the extent.
        min_opacity: below this, Gaussians are removed.
        max_radius_px: above this, too; infinity switches it off.
        max_scale: largest allowed scale times the extent; infinity switches it off.
        oversize_after: step after which the two size limits hold.
        reset_opacity_every: steps between resets of the opacities to ``reset_opacity``; 0 never.
        reset_opacity: the value.
        max_gaussians: never more than this; the strongest gradients win.
    """

    every: int = 100
    start: int = 100
    stop_at: float = 1.0
    gradient_threshold: float = 7.5e-4
    clone_below: float = 0.003
    min_opacity: float = 0.005
    max_radius_px: float = 20.0
    max_scale: float = 0.1
    oversize_after: int = 300
    reset_opacity_every: int = 300
    reset_opacity: float = 0.01
    max_gaussians: int = 500_000


@dataclass(frozen=True)
class SplatOptimizerParams:
    """Everything the optimiser needs to know.

    Attributes:
        rates: step sizes.
        densify: adding and removing.
        betas: Adam's decay rates.
        epsilon: Adam's stabiliser.
    """

    rates: LearningRates = field(default_factory=LearningRates)
    densify: DensifyParams = field(default_factory=DensifyParams)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-15


class SplatOptimizer:
    """A Gaussian cloud under optimisation.

    Usage per step: ``cloud = optimizer.cloud()``, render, ``loss.backward()``,
    ``optimizer.observe(render)``, ``optimizer.step()``.

    Attributes:
        steps_done: so far.
        refused_prunes: how often pruning would have removed every Gaussian; nothing was removed.
    """

    def __init__(
        self,
        cloud: GaussianCloud,
        params: SplatOptimizerParams | None = None,
        *,
        num_steps: int,
        extent: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Start from a copy of ``cloud``.

        Args:
            cloud: initial Gaussians.
            params: settings.
            num_steps: length of the run, over which the step sizes decay.
            extent: size of the scene in world units.
            generator: source of the positions of split Gaussians (CPU).
        """
        if num_steps < 1 or not extent > 0:
            raise ValueError(
                f"num_steps must be at least 1 and extent positive, got {num_steps} and {extent}."
            )
        self.params = params or SplatOptimizerParams()
        self.num_steps, self.extent, self.steps_done = num_steps, extent, 0
        self._generator = generator or torch.Generator().manual_seed(0)
        self.refused_prunes = 0
        self._last_reset = -1
        self._raw = _raw_parameters(cloud)
        self._adam = torch.optim.Adam(
            [{"params": [self._raw[name]], "name": name} for name in PARAMETERS],
            lr=0.0,
            betas=self.params.betas,
            eps=self.params.epsilon,
        )
        self._clear_statistics()

    @property
    def num_gaussians(self) -> int:
        """Present number of Gaussians."""
        return int(self._raw["means"].shape[0])

    def cloud(self) -> GaussianCloud:
        """Activated parameters; gradients of the cloud reach the optimiser."""
        raw = self._raw
        return GaussianCloud.from_unnormalized(
            means=raw["means"],
            scales=raw["log_scales"].exp(),
            quats=raw["quats"],
            opacities=raw["opacity_logits"].sigmoid(),
            harmonics=torch.cat([raw["base"], raw["rest"]], dim=1),
        )

    @property
    def largest_opacity(self) -> float:
        """Opacity of the most opaque Gaussian."""
        return float(self._raw["opacity_logits"].detach().max().sigmoid())

    @property
    def steps_since_reset(self) -> int | None:
        """Steps since the opacities were last lowered; None if they never were."""
        return None if self._last_reset < 0 else self.steps_done - self._last_reset

    def detached_cloud(self) -> GaussianCloud:
        """Copy of the present cloud, apart from the optimisation."""
        with torch.no_grad():
            return self.cloud().clone()

    def observe(self, render: SplatRender) -> None:
        """Collect what densification looks at; call it after ``backward()``."""
        norms, radii = screen_gradient_norms(render), render.radii_px
        seen = radii > 0
        self._norm_sum.add_(norms.sum(dim=0).to(self._norm_sum))
        self._seen_count.add_(seen.sum(dim=0).to(self._seen_count))
        largest = radii.amax(dim=0).to(self._max_radius)
        self._max_radius.copy_(torch.maximum(self._max_radius, largest))

    def gradients_are_finite(self) -> bool:
        """Whether no parameter has NaN or infinity in its gradient."""
        gradients = [self._raw[name].grad for name in PARAMETERS]
        return all(g is None or bool(torch.isfinite(g).all()) for g in gradients)

    def discard_gradients(self) -> None:
        """Forget the gradients of the present step."""
        self._adam.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move the parameters, then add and remove Gaussians where the schedule says so."""
        progress = self.steps_done / max(self.num_steps - 1, 1)
        for group in self._adam.param_groups:
            rate = self.params.rates.at(group["name"], progress)
            group["lr"] = rate * self.extent if group["name"] == "means" else rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self.steps_done += 1
        rules = self.params.densify
        done = self.steps_done
        if rules.every and done >= rules.start and done <= rules.stop_at * self.num_steps:
            if done % rules.every == 0 and done < self.num_steps:
                self.densify_and_prune()
            if rules.reset_opacity_every and done % rules.reset_opacity_every == 0:
                self.reset_opacities()

    @torch.no_grad()
    def densify_and_prune(self) -> None:
        """Clone small and split large Gaussians with strong gradients; remove useless ones."""
        rules = self.params.densify
        strength = self._norm_sum / self._seen_count.clamp(min=1)
        chosen = self._strongest(strength >= rules.gradient_threshold, strength)
        largest = self._raw["log_scales"].exp().amax(dim=1)
        large = largest > rules.clone_below * self.extent
        clones, halves = chosen & ~large, chosen & large
        keep = ~halves & (self._raw["opacity_logits"].sigmoid() >= rules.min_opacity)
        if self.steps_done > rules.oversize_after:
            keep &= self._max_radius <= rules.max_radius_px
            keep &= largest <= rules.max_scale * self.extent
        if not bool(keep.any() | halves.any()):
            keep = ~halves  # never remove everything
            self.refused_prunes += 1
        added = [self._rows(clones), self._split_rows(halves), self._split_rows(halves)]
        self._replace(keep, added)
        self._clear_statistics()

    @torch.no_grad()
    def reset_opacities(self) -> None:
        """Lower every opacity to at most ``reset_opacity`` and forget its momentum."""
        self._last_reset = self.steps_done
        ceiling = _logit(torch.tensor(self.params.densify.reset_opacity))
        self._raw["opacity_logits"].clamp_(max=float(ceiling))
        state = self._adam.state[self._raw["opacity_logits"]]
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name].zero_()

    def state(self) -> dict[str, Tensor]:
        """Copy of everything that the next steps depend on, by name."""
        counters = [self.steps_done, self.refused_prunes, self._last_reset]
        state = {
            "counters": torch.tensor(counters),
            "generator": self._generator.get_state(),
            **{name: getattr(self, f"_{name}").clone() for name in STATISTICS},
        }
        for name in PARAMETERS:
            state[name] = self._raw[name].detach().clone()
            for key, value in self._adam.state.get(self._raw[name], {}).items():
                state[f"{name}.{key}"] = value.clone()
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a copy that `state` made, with the same settings.

        Raises:
            ValueError: parts are missing.
        """
        wanted = {*PARAMETERS, *STATISTICS, "counters", "generator"}
        missing = sorted(wanted - set(state))
        if missing:
            raise ValueError(f"The saved optimisation lacks {', '.join(missing)}.")
        device = self._raw["means"].device
        self.steps_done, self.refused_prunes, self._last_reset = state["counters"].tolist()
        self._generator.set_state(state["generator"].cpu())
        for name in STATISTICS:
            setattr(self, f"_{name}", state[name].clone().to(device))
        self._adam.state.clear()
        for group in self._adam.param_groups:
            name = group["name"]
            value = state[name].clone().to(device).requires_grad_()
            moments = {k: state[f"{name}.{k}"].clone() for k in MOMENTS if f"{name}.{k}" in state}
            if moments:
                self._adam.state[value] = {
                    k: v if k == "step" else v.to(device) for k, v in moments.items()
                }
            group["params"] = [value]
            self._raw[name] = value

    def _strongest(self, chosen: Bool[Tensor, " gaussian"], strength: Tensor) -> Tensor:
        room = max(self.params.densify.max_gaussians - self.num_gaussians, 0)
        if int(chosen.sum()) <= room:
            return chosen
        order = torch.argsort(torch.where(chosen, strength, -1.0), descending=True, stable=True)
        limited = torch.zeros_like(chosen)
        limited[order[:room]] = True
        return limited & chosen

    def _rows(self, chosen: Tensor) -> dict[str, Tensor]:
        return {name: self._raw[name][chosen] for name in PARAMETERS}

    def _split_rows(self, chosen: Tensor) -> dict[str, Tensor]:
        """One smaller Gaussian for each chosen one, at a random place inside it."""
        rows = self._rows(chosen)
        noise = torch.randn(rows["means"].shape, generator=self._generator).to(rows["means"])
        offsets = (noise * rows["log_scales"].exp())[..., None]
        rows["means"] = rows["means"] + (quat_to_matrix(rows["quats"]) @ offsets)[..., 0]
        rows["log_scales"] = rows["log_scales"] - math.log(SPLIT_SHRINK)
        return rows

    def _replace(self, keep: Tensor, added: list[dict[str, Tensor]]) -> None:
        """Keep some rows and append others; Adam's moments of new rows start at zero."""
        for group in self._adam.param_groups:
            name = group["name"]
            old = self._raw[name]
            state = self._adam.state.pop(old, None)
            new_rows = [rows[name] for rows in added]
            value = torch.cat([old.detach()[keep], *new_rows]).requires_grad_()
            num_new = sum(len(rows) for rows in new_rows)
            for moment in ("exp_avg", "exp_avg_sq"):
                if state and moment in state:
                    zeros = state[moment].new_zeros(num_new, *old.shape[1:])
                    state[moment] = torch.cat([state[moment][keep], zeros])
            group["params"] = [value]
            if state:
                self._adam.state[value] = state
            self._raw[name] = value

    def _clear_statistics(self) -> None:
        like = self._raw["means"].detach()
        self._norm_sum: Float[Tensor, " gaussian"] = like.new_zeros(len(like))
        self._seen_count: Float[Tensor, " gaussian"] = like.new_zeros(len(like))
        self._max_radius: Float[Tensor, " gaussian"] = like.new_zeros(len(like))


def _raw_parameters(cloud: GaussianCloud) -> dict[str, Tensor]:
    raw = {
        "means": cloud.means,
        "log_scales": cloud.scales.clamp(min=MIN_SCALE).log(),
        "quats": cloud.quats,
        "opacity_logits": _logit(cloud.opacities),
        "base": cloud.harmonics[:, :1],
        "rest": cloud.harmonics[:, 1:],
    }
    return {name: value.detach().clone().requires_grad_() for name, value in raw.items()}


def _logit(opacities: Tensor) -> Tensor:
    return torch.logit(opacities.clamp(MIN_LOGIT_OPACITY, 1 - MIN_LOGIT_OPACITY))
