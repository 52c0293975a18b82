"""Contains Gaussians as a target of distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..gaussian_cloud import GaussianCloud
from ..rendering.splats import SplatRender, render_splats
from .distill_target import Drawn, State
from .splat_optimizer import SplatOptimizer, SplatOptimizerParams

RECOVERY_STEPS = 60
VISIBLE_OPACITY = 0.05


@dataclass(frozen=True)
class SplatTargetParams:
    """How Gaussians are drawn and optimised.

    Attributes:
        optimizer: step sizes and densification.
        extent: size of the scene in world units; scales the step of the means and the size limits.
        scale_noise: variance of random changes of every scale, in units of (scale / 4)^2, anew in
            every picture.
        scale_weight: of the mean scale, as a penalty.
        coverage_weight: of the mean alpha, as a penalty: what has the colour of the background
            becomes transparent. For models that know one background only.
        statistics: densification looks at all pictures of an iteration, or at the last only as
            the released code does.
    """

    optimizer: SplatOptimizerParams = field(default_factory=SplatOptimizerParams)
    extent: float = 3.5
    scale_noise: float = 0.2
    scale_weight: float = 1.0
    coverage_weight: float = 0.0
    statistics: Literal["all", "last"] = "all"

    def __post_init__(self) -> None:
        weights = (self.scale_noise, self.scale_weight, self.coverage_weight)
        if min(weights) < 0 or not self.extent > 0:
            raise ValueError(
                "scale_noise, scale_weight and coverage_weight must not be negative and extent "
                f"positive, got {weights} and {self.extent}."
            )


class SplatTarget:
    """A Gaussian cloud under distillation; see `DistillationTarget`."""

    def __init__(
        self,
        cloud: GaussianCloud,
        params: SplatTargetParams,
        *,
        iterations: int,
        seed: int = 0,
    ) -> None:
        """Start from a copy of a cloud.

        Raises:
            ValueError: it has no Gaussians.
        """
        if not cloud.num_gaussians:
            raise ValueError("There are no Gaussians to optimise: the initial splat is empty.")
        self.params = params
        self.optimizer = SplatOptimizer(
            cloud,
            params.optimizer,
            num_steps=iterations,
            extent=params.extent,
            generator=torch.Generator().manual_seed(seed),
        )
        self._device = cloud.means.device
        self._renders: list[SplatRender] = []

    @property
    def device(self) -> torch.device:
        """Where the Gaussians live."""
        return self._device

    @property
    def collapses(self) -> int:
        """How often pruning would have removed every Gaussian."""
        return self.optimizer.refused_prunes

    @property
    def is_presentable(self) -> bool:
        """False for some steps after the opacities were lowered, and while nearly nothing shows."""
        since = self.optimizer.steps_since_reset
        if since is not None and since < RECOVERY_STEPS:
            return False
        return self.optimizer.largest_opacity >= VISIBLE_OPACITY

    def draw(
        self,
        rig: ViewRig,
        size_px: int,
        backgrounds: Float[Tensor, "view 3"],
        generator: torch.Generator,
    ) -> Drawn:
        """Pictures with gradients; each has its own noise on the scales."""
        cloud = self.optimizer.cloud()
        self._renders = [
            render_splats(
                self._with_scale_noise(cloud, generator),
                rig.select([index]),
                width=size_px,
                height=size_px,
                background=backgrounds[index],
                with_normals=False,
            )
            for index in range(len(rig))
        ]
        alpha = torch.cat([render.alpha for render in self._renders])
        penalty = self.params.scale_weight * cloud.scales.mean()
        if self.params.coverage_weight:
            penalty = penalty + self.params.coverage_weight * alpha.mean()
        return Drawn(
            torch.cat([render.rgb for render in self._renders]),
            alpha,
            torch.cat([render.depth for render in self._renders]),
            penalty,
        )

    def _with_scale_noise(self, cloud: GaussianCloud, generator: torch.Generator) -> GaussianCloud:
        if not self.params.scale_noise:
            return cloud
        noise = torch.randn(cloud.scales.shape, generator=generator).to(cloud.scales)
        factor = 1 + noise * math.sqrt(self.params.scale_noise) / 4
        return replace(cloud, scales=cloud.scales * factor.clamp(min=0))

    def update(self) -> bool:
        """Step, densify and prune; False if a gradient is not finite."""
        if not self.optimizer.gradients_are_finite():
            self.discard()
            return False
        seen = self._renders if self.params.statistics == "all" else self._renders[-1:]
        for render in seen:
            self.optimizer.observe(render)
        self._renders = []
        self.optimizer.step()
        return True

    def discard(self) -> None:
        """Forget the gradients of this iteration."""
        self._renders = []
        self.optimizer.discard_gradients()

    @torch.no_grad()
    def look(self, rig: ViewRig, size_px: int) -> Float[Tensor, "view height width 3"]:
        """Pictures on white."""
        render = render_splats(
            self.optimizer.detached_cloud(), rig, width=size_px, height=size_px, with_normals=False
        )
        return render.rgb.clamp(0, 1)

    def describe(self) -> str:
        """Number of Gaussians."""
        return f"{self.optimizer.num_gaussians} Gaussians"

    def cloud(self) -> GaussianCloud:
        """Copy of the present Gaussians."""
        return self.optimizer.detached_cloud()

    def state(self) -> State:
        """Copy of parameters, moments, statistics and counters."""
        return self.optimizer.state()

    def restore(self, state: State, *, keep_clock: bool = False) -> None:
        """Go on from a saved state, at its step or at the present one."""
        self._renders = []
        now = self.optimizer.steps_done
        self.optimizer.restore(state)
        if keep_clock:
            self.optimizer.steps_done = now
