"""Contains what all splat backends share: the rules of compositing, one view, and its outputs.

Rules (as gsplat 1.5): a 2D Gaussian covers a pixel where alpha = opacity * exp(-d^T C d / 2)
reaches 1/255, with alpha capped at 0.999; a pixel stops before the Gaussian that would bring its
transmittance to 1e-4; 2D covariances are widened by 0.3 px^2; pixel centres lie at +0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor

ALPHA_MIN = 1.0 / 255.0
ALPHA_MAX = 0.999
MIN_TRANSMITTANCE = 1e-4
COVARIANCE_BLUR_PX2 = 0.3
FRUSTUM_MARGIN = 0.3
"""Share of the half image by which the Jacobian's ray may leave the image (EWA clamp)."""


@dataclass(frozen=True)
class SplatView:
    """One image to be drawn, in the axes of OpenCV (x right, y down, z forward).

    Attributes:
        view_matrix: world to camera.
        focal_px: (x, y); pixels per world unit for an orthographic view.
        center_px: principal point (x, y) from the top-left corner.
        width: pixels.
        height: pixels.
        near: Gaussians whose centre is nearer than this are not drawn.
        far: nor those farther than this.
        perspective: False for an orthographic view.
    """

    view_matrix: Float[Tensor, "4 4"]
    focal_px: tuple[float, float]
    center_px: tuple[float, float]
    width: int
    height: int
    near: float = 0.01
    far: float = 1e10
    perspective: bool = True

    @property
    def eye(self) -> Float[Tensor, 3]:
        """Camera centre in the world; for an orthographic view the viewing direction."""
        rotation = self.view_matrix[:3, :3]
        return -rotation.T @ self.view_matrix[:3, 3] if self.perspective else rotation[2]

    @property
    def ray_limits(self) -> tuple[float, float, float, float]:
        """Range of x/z and y/z within which the projection is linearised: x low, x high, y .."""
        (fx, fy), (cx, cy) = self.focal_px, self.center_px
        margin_x = FRUSTUM_MARGIN * 0.5 * self.width / fx
        margin_y = FRUSTUM_MARGIN * 0.5 * self.height / fy
        return (
            -(cx / fx + margin_x),
            (self.width - cx) / fx + margin_x,
            -(cy / fy + margin_y),
            (self.height - cy) / fy + margin_y,
        )


class ProjectedSplats(NamedTuple):
    """Gaussians as ellipses on the image; rows of undrawn ones hold zeros.

    Attributes:
        means2d: centres in pixels.
        conics: inverse 2D covariances (xx, xy, yy).
        features: red, green, blue, depth, and the normal (x, y, z) if it was asked for.
        radii_px: three standard deviations along the longer axis; 0 where nothing is drawn.
    """

    means2d: Float[Tensor, "gaussian 2"]
    conics: Float[Tensor, "gaussian 3"]
    features: Float[Tensor, "gaussian channel"]
    radii_px: Float[Tensor, " gaussian"]


class CompositedSplats(NamedTuple):
    """Sums over the Gaussians of each pixel, weighted by what reaches the eye.

    Attributes:
        features: weighted sum of the features, no background.
        alpha: sum of the weights.
        median_index: Gaussian at which the transmittance falls below 1/2; -1 where none does.
    """

    features: Float[Tensor, "height width channel"]
    alpha: Float[Tensor, "height width"]
    median_index: Int64[Tensor, "height width"]
