"""Contains depth from a normal map: one view's surface up to where the normals leave it free.

Symbols: u is the unknown of a pixel in units of pixels (logarithm of depth times focal length for
a perspective camera, depth times pixels per unit for an orthographic one); a link joins two
neighbouring pixels; n the normal and r the ray of a pixel in camera space.

Each link is asked to obey the tangent planes of both of its pixels. Robust weights let go of links
across occlusion edges, where no surface connects the pixels (the idea of bilateral normal
integration). Depth is kept between a lower and an upper bound from the other views' silhouettes
and pulled gently towards the lower one, which settles the constants that normals do not fix.

Reference: Cao et al. 2022, "Bilateral normal integration", Sec. 3 (tangent-plane equations in
log depth); the Cauchy weights and the bounds are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..camera import Camera

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_LINK_WEIGHT = 1e-7


@dataclass(frozen=True)
class NormalIntegrationParams:
    """Weights of the integration; lengths in pixels of the map.

    Attributes:
        iterations: reweighted linear solves.
        settling: solves before links may break, in which the surface finds its bounds as a whole.
        pull: weight of the attraction towards the lower bound.
        pull_scale_px: distance from the bound beyond which the pull no longer grows.
        discontinuity_px: distance of a neighbour from the tangent plane that halves a link.
        lower_weight: penalty on pixels in front of the lower bound.
        upper_weight: penalty on pixels behind the upper bound.
    """

    iterations: int = 8
    settling: int = 3
    pull: float = 2e-5
    pull_scale_px: float = 5.0
    discontinuity_px: float = 1.0
    lower_weight: float = 1.0
    upper_weight: float = 0.1


@dataclass(frozen=True)
class _Links:
    """Neighbouring pixels and what their tangent planes predict; arrays over links."""

    first: NDArray
    second: NDArray
    step_first: NDArray  # u[second] - u[first] on the tangent plane of `first`
    step_second: NDArray
    weight_first: NDArray  # squared cosine between normal and ray
    weight_second: NDArray

    def robust(self, u: NDArray, scale: float) -> _Links:
        """Copy with weights lowered where a neighbour lies off the tangent plane."""
        step = u[self.second] - u[self.first]
        off_first = (step - self.step_first) ** 2 * self.weight_first
        off_second = (step - self.step_second) ** 2 * self.weight_second
        return replace(
            self,
            weight_first=self.weight_first / (1 + off_first / scale**2),
            weight_second=self.weight_second / (1 + off_second / scale**2),
        )


def integrate_normals(
    normals_camera: Float[Tensor, "height width 3"],
    mask: Bool[Tensor, "height width"],
    camera: Camera,
    nearest: Float[Tensor, "height width"],
    farthest: Float[Tensor, "height width"],
    *,
    initial: Float[Tensor, "height width"] | None = None,
    params: NormalIntegrationParams = NormalIntegrationParams(),
) -> Float[Tensor, "height width"]:
    """Camera depth of the visible surface inside ``mask``; ``nearest`` elsewhere.

    Args:
        normals_camera: unit normals in camera axes (x right, y up, z to the viewer).
        mask: pixels to solve for.
        camera: perspective or orthographic.
        nearest: lower bound of the depth, positive inside the mask.
        farthest: upper bound of the depth.
        initial: an earlier solution to start from.
        params: weights.
    """
    if not bool(mask.any()):
        return nearest.clone()
    inside = mask.cpu().numpy()
    height = inside.shape[0]
    low = _to_unknown(nearest, inside, camera, height)
    high = np.maximum(_to_unknown(farthest, inside, camera, height), low)
    start = None if initial is None else _to_unknown(initial, inside, camera, height)
    links = _make_links(normals_camera.detach().cpu().double().numpy(), inside, camera)
    u = _solve_robustly(links, low, high, start, params)

    focal = camera.focal_px(height)
    solved = np.exp(u / focal) if camera.is_perspective else u / focal
    depth = nearest.clone()
    depth[mask] = torch.from_numpy(solved).to(depth)
    return depth


def _to_unknown(depth: Tensor, inside: NDArray, camera: Camera, height: int) -> NDArray:
    values = depth.detach().cpu().double().numpy()[inside]
    return camera.focal_px(height) * (np.log(values) if camera.is_perspective else values)


def _make_links(normals: NDArray, inside: NDArray, camera: Camera) -> _Links:
    height, width = inside.shape
    focal = camera.focal_px(height)
    rows, columns = np.nonzero(inside)
    x, y = (columns + 0.5 - width / 2) / focal, (height / 2 - rows - 0.5) / focal
    index = np.full(inside.shape, -1)
    index[inside] = np.arange(len(rows))
    across, down = inside[:, :-1] & inside[:, 1:], inside[:-1] & inside[1:]
    first = np.concatenate([index[:, :-1][across], index[:-1][down]])
    second = np.concatenate([index[:, 1:][across], index[1:][down]])
    normal = normals[inside]
    if camera.is_perspective:
        ray = np.stack([x, y, -np.ones_like(x)], axis=1)
        predict = _perspective_step
    else:
        ray = np.stack([x, y, np.zeros_like(x)], axis=1)
        predict = _orthographic_step
    step_first, weight_first = predict(normal[first], ray[first], ray[second])
    step_second, weight_second = predict(normal[second], ray[second], ray[first])
    return _Links(
        first, second, focal * step_first, -focal * step_second, weight_first, weight_second
    )


def _perspective_step(normal: NDArray, ray: NDArray, other: NDArray) -> tuple[NDArray, NDArray]:
    """Change of log depth to the pixel ``other`` along the tangent plane, and squared cosine."""
    here, there = (normal * ray).sum(1), (normal * other).sum(1)
    valid = (here < -1e-3) & (there < -1e-3)
    ratio = np.where(valid, here, 1.0) / np.where(valid, there, 1.0)
    cosine = here / np.linalg.norm(ray, axis=1)
    return np.log(ratio), np.where(valid, cosine**2, 0.0)


def _orthographic_step(normal: NDArray, ray: NDArray, other: NDArray) -> tuple[NDArray, NDArray]:
    """As `_perspective_step`, but in depth; here ``ray`` is the ray's offset in the image plane."""
    valid = normal[:, 2] > 1e-3
    slope = (normal * (other - ray)).sum(1) / np.where(valid, normal[:, 2], 1.0)
    return np.where(valid, slope, 0.0), np.where(valid, normal[:, 2] ** 2, 0.0)


def _solve_robustly(
    links: _Links,
    low: NDArray,
    high: NDArray,
    start: NDArray | None,
    params: NormalIntegrationParams,
) -> NDArray:
    """Iteratively reweighted least squares with one-sided penalties for the bounds."""
    active = links
    pull = np.full(len(low), params.pull)
    below, above = np.zeros(len(low)), np.zeros(len(low))
    u = low if start is None else start
    settling = params.settling if start is None else 0
    for iteration in range(settling + params.iterations):
        if iteration or start is not None:
            if iteration >= settling:
                active = links.robust(u, params.discontinuity_px)
            pull = params.pull / np.sqrt(1 + ((u - low) / params.pull_scale_px) ** 2)
            below, above = (u < low).astype(float), (u > high).astype(float)
        to_low = pull + params.lower_weight * below
        to_high = params.upper_weight * above
        u = _solve_links(active, to_low, to_high, low, high)
    return np.clip(u, low, high)


def _solve_links(
    links: _Links, to_low: NDArray, to_high: NDArray, low: NDArray, high: NDArray
) -> NDArray:
    """Minimise the weighted squares: links to their predicted steps, pixels to their bounds."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    count = len(low)
    a, b = links.first, links.second
    weight = links.weight_first + links.weight_second + MIN_LINK_WEIGHT
    flow = links.weight_first * links.step_first + links.weight_second * links.step_second
    origin = low.mean()  # solve for the difference, which keeps digits
    right = np.bincount(b, flow, count) - np.bincount(a, flow, count)
    right += to_low * (low - origin) + to_high * (high - origin)
    diagonal = np.bincount(a, weight, count) + np.bincount(b, weight, count) + to_low + to_high
    each = np.arange(count)
    matrix = sparse.csc_matrix(
        (
            np.concatenate([diagonal, -weight, -weight]),
            (np.concatenate([each, a, b]), np.concatenate([each, b, a])),
        ),
        shape=(count, count),
    )
    factors = splu(
        matrix,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return factors.solve(right) + origin
