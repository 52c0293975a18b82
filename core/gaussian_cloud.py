"""Contains the Gaussian cloud: activated parameters in the world frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ._checks import require_finite, require_floating, require_same_device, require_shape

HARMONIC_DC = 0.28209479177387814
"""Y_00 = 1 / (2 sqrt(pi)): colour = 0.5 + HARMONIC_DC * harmonics[:, 0]."""

MAX_SH_DEGREE = 3


@dataclass(frozen=True)
class GaussianCloud:
    """Anisotropic Gaussians in the world frame (+Y up, +Z front), activated values.

    Attributes:
        means: centres.
        scales: linear standard deviations along the local axes, >= 0.
        quats: unit rotations, wxyz.
        opacities: 0..1.
        harmonics: colour coefficients, DC first; 1, 4, 9 or 16 per Gaussian.
    """

    means: Float[Tensor, "gaussian 3"]
    scales: Float[Tensor, "gaussian 3"]
    quats: Float[Tensor, "gaussian 4"]
    opacities: Float[Tensor, " gaussian"]
    harmonics: Float[Tensor, "gaussian coefficient 3"]

    def __post_init__(self) -> None:
        require_shape("means", self.means, None, 3)
        count = self.means.shape[0]
        require_shape("scales", self.scales, count, 3)
        require_shape("quats", self.quats, count, 4)
        require_shape("opacities", self.opacities, count)
        require_shape("harmonics", self.harmonics, count, None, 3)
        tensors = {
            name: getattr(self, name)
            for name in ("means", "scales", "quats", "opacities", "harmonics")
        }
        for name, value in tensors.items():
            require_floating(name, value)
            require_finite(name, value)
        require_same_device(**tensors)
        if self.harmonics.shape[1] not in (1, 4, 9, 16):
            raise ValueError(
                "harmonics must hold 1, 4, 9 or 16 coefficients (degree 0..3), got "
                f"{self.harmonics.shape[1]}."
            )
        self._check_ranges()

    def _check_ranges(self) -> None:
        if not self.means.shape[0]:
            return
        if float(self.scales.detach().min()) < 0:
            raise ValueError(
                "scales must be linear standard deviations >= 0, got "
                f"{float(self.scales.min()):.3g}; did you pass logarithms?"
            )
        low, high = float(self.opacities.detach().min()), float(self.opacities.detach().max())
        if low < 0 or high > 1:
            raise ValueError(
                f"opacities must lie within 0..1, got {low:.3g}..{high:.3g}; did you pass logits?"
            )
        norm_error = float((self.quats.detach().norm(dim=1) - 1).abs().max())
        if norm_error > 1e-3:
            raise ValueError(
                f"quats must have unit length, got lengths off by {norm_error:.3g}; "
                "use GaussianCloud.from_unnormalized()."
            )

    @classmethod
    def from_unnormalized(
        cls,
        means: Tensor,
        scales: Tensor,
        quats: Tensor,
        opacities: Tensor,
        harmonics: Tensor,
    ) -> GaussianCloud:
        """Cloud from quaternions of any non-zero length (they are normalised, with gradients)."""
        require_shape("quats", quats, None, 4)
        require_finite("quats", quats)
        length = quats.norm(dim=1, keepdim=True)
        zeros = int((length < 1e-12).sum())
        if zeros:
            raise ValueError(f"{zeros} quaternions have length zero: their rotation is undefined.")
        return cls(means, scales, quats / length, opacities, harmonics)

    @property
    def num_gaussians(self) -> int:
        """Number of Gaussians."""
        return int(self.means.shape[0])

    @property
    def sh_degree(self) -> int:
        """Degree of the colour harmonics, 0..3."""
        return math.isqrt(int(self.harmonics.shape[1])) - 1

    @property
    def base_colors(self) -> Float[Tensor, "gaussian 3"]:
        """View-independent colour, display-referred sRGB (not clamped)."""
        return 0.5 + HARMONIC_DC * self.harmonics[:, 0]

    def select(self, index: Tensor) -> GaussianCloud:
        """Cloud of the Gaussians picked by a boolean mask or by indices."""
        return GaussianCloud(
            self.means[index],
            self.scales[index],
            self.quats[index],
            self.opacities[index],
            self.harmonics[index],
        )

    def to(self, device: torch.device | str) -> GaussianCloud:
        """Copy with every tensor on ``device``."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    def clone(self) -> GaussianCloud:
        """Deep copy: no tensor is shared with the original."""
        return replace(self, **{name: value.clone() for name, value in vars(self).items()})


def color_to_harmonic(colors: Float[Tensor, "gaussian 3"]) -> Float[Tensor, "gaussian 1 3"]:
    """Degree-0 harmonics that show ``colors`` (sRGB 0..1) from every side."""
    return ((colors - 0.5) / HARMONIC_DC)[:, None, :]
