"""Contains a radiance field in a triplane as a target of distillation.

Features of three planes go through a small network that says density and colour; pictures come from
volume rendering.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..camera import ViewRig
from ..geometry.isosurface import extract_isosurface
from ..geometry.triplane_sampling import query_triplane
from ..mesh import Mesh
from ..rendering.volume import VolumeParams, render_density
from ..triplane import Triplane
from .adam_parameters import AdamParameters
from .distill_target import Drawn, State

EXTRACTION_CHUNK = 1 << 17


@dataclass(frozen=True)
class VolumeTargetParams:
    """Size of the field, and how it is optimised.

    Attributes:
        plane_px: side of each plane.
        channels: features per plane.
        hidden: width of the network.
        bound: half the side of the cube that the field fills.
        samples: points per ray.
        start_density: in the middle of the first, soft ball.
        start_radius: of that ball.
        plane_rate: first and last step of the planes.
        network_rate: first and last step of the network.
        smoothness: weight of the total variation of the planes.
    """

    plane_px: int = 48
    channels: int = 12
    hidden: int = 32
    bound: float = 1.0
    samples: int = 48
    start_density: float = 8.0
    start_radius: float = 0.5
    plane_rate: tuple[float, float] = (0.02, 0.005)
    network_rate: tuple[float, float] = (3e-3, 1e-3)
    smoothness: float = 0.01

    def __post_init__(self) -> None:
        if min(self.plane_px, self.channels, self.hidden, self.samples) < 2:
            raise ValueError("Planes, channels, hidden width and samples must be at least 2.")


class VolumeTarget:
    """A triplane field under distillation; see `DistillationTarget`."""

    def __init__(
        self,
        params: VolumeTargetParams,
        *,
        iterations: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Start from a soft grey ball."""
        self.params = params
        generator = torch.Generator().manual_seed(seed)
        size = (1, 3, params.channels, params.plane_px, params.plane_px)
        inputs = 3 * params.channels
        first = torch.randn(params.hidden, inputs, generator=generator) / inputs**0.5
        second = 0.1 * torch.randn(4, params.hidden, generator=generator)
        values = {
            "planes": 0.1 * torch.randn(size, generator=generator),
            "first": first,
            "first_bias": torch.zeros(params.hidden),
            "second": second,
            "second_bias": torch.zeros(4),
        }
        rates = {name: params.network_rate for name in values} | {"planes": params.plane_rate}
        placed = {name: value.to(device) for name, value in values.items()}
        self._adam = AdamParameters(placed, rates, iterations)

    @property
    def device(self) -> torch.device:
        """Where the field lives."""
        return self._adam["planes"].device

    @property
    def collapses(self) -> int:
        """The field has no parts to lose: always 0."""
        return 0

    @property
    def is_presentable(self) -> bool:
        """Always."""
        return True

    def field(
        self, points: Float[Tensor, "point 3"]
    ) -> tuple[Float[Tensor, " point"], Float[Tensor, "point 3"]]:
        """Density per world unit, and colour."""
        planes = Triplane(self._adam["planes"], self.params.bound)
        features = query_triplane(planes, points[None])[0]
        hidden = nn.functional.softplus(
            features @ self._adam["first"].T + self._adam["first_bias"], beta=10
        )
        raw = hidden @ self._adam["second"].T + self._adam["second_bias"]
        # A ball to begin with: the network only adds to it.
        ball = 1 - points.norm(dim=1) / self.params.start_radius
        density = nn.functional.softplus(raw[:, 0] + self.params.start_density * ball)
        return density, raw[:, 1:].sigmoid()

    def draw(
        self,
        rig: ViewRig,
        size_px: int,
        backgrounds: Float[Tensor, "view 3"],
        generator: torch.Generator,
    ) -> Drawn:
        """Pictures with gradients to planes and network; samples are jittered along the rays."""
        seeds = torch.randint(2**31, (len(rig),), generator=generator).tolist()
        views = []
        for index, seed in enumerate(seeds):
            settings = replace(
                self._volume_params(),
                stratified=True,
                seed=seed,
                background=tuple(backgrounds[index].tolist()),
            )
            part = rig.select([index])
            views.append(
                render_density(self.field, part, width=size_px, height=size_px, params=settings)
            )
        planes = self._adam["planes"]
        rough = (planes[..., 1:, :] - planes[..., :-1, :]).square().mean()
        rough = rough + (planes[..., 1:] - planes[..., :-1]).square().mean()
        return Drawn(
            torch.cat([view.rgb for view in views]),
            torch.cat([view.alpha for view in views]),
            torch.cat([view.depth for view in views]),
            self.params.smoothness * rough,
        )

    def _volume_params(self) -> VolumeParams:
        return VolumeParams(num_samples=self.params.samples, bound=self.params.bound)

    def update(self) -> bool:
        """Step; False if a gradient is not finite."""
        return self._adam.step()

    def discard(self) -> None:
        """Forget the gradients."""
        self._adam.discard()

    @torch.no_grad()
    def look(self, rig: ViewRig, size_px: int) -> Float[Tensor, "view height width 3"]:
        """Pictures on white."""
        drawn = render_density(
            self.field, rig, width=size_px, height=size_px, params=self._volume_params()
        )
        return drawn.rgb.clamp(0, 1)

    def describe(self) -> str:
        """Size of the planes."""
        return f"3 planes of {self.params.plane_px} px"

    @torch.no_grad()
    def mesh(self, *, resolution: int = 96, level: float = 5.0) -> Mesh:
        """Closed surface where the density passes a level, with the field's colours.

        Args:
            resolution: samples along each side of the cube.
            level: density per world unit.

        Raises:
            ValueError: the density reaches the level nowhere.
        """
        bound = self.params.bound
        axis = torch.linspace(-bound, bound, resolution, device=self.device)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
        density = torch.cat([self.field(part)[0] for part in grid.split(EXTRACTION_CHUNK)])
        if float(density.max()) < level:
            raise ValueError(
                f"The density reaches only {float(density.max()):.2f}, below the level {level}."
            )
        # Logarithms, because densities fall off steeply and crossings are found linearly.
        sdf = (level / density.clamp(min=1e-6)).log().reshape(resolution, resolution, resolution)
        vertices, faces = extract_isosurface(sdf, [-bound] * 3, [bound] * 3)
        return Mesh(vertices, faces, vertex_colors=self.field(vertices)[1], name="field")

    def state(self) -> State:
        """Copy of planes, network and moments."""
        return self._adam.state()

    def restore(self, state: State, *, keep_clock: bool = False) -> None:
        """Go on from a saved state."""
        self._adam.restore(state, keep_clock=keep_clock)
