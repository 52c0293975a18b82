"""Contains the slow float64 renderer of Gaussians: oracle of the kernels and fallback without them.

All pairs of pixel and Gaussian are listed, sorted and composited with tensor operations; gradients
come from autograd. Which pairs are drawn is decided once, on detached values.

Symbols: t mean in camera space, J Jacobian of the projection, W view rotation, S covariance.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..splat_view import (
    ALPHA_MAX,
    ALPHA_MIN,
    COVARIANCE_BLUR_PX2,
    MIN_TRANSMITTANCE,
    CompositedSplats,
    ProjectedSplats,
    SplatView,
)
from .harmonics import harmonic_basis


def project_splats(
    means: Float[Tensor, "gaussian 3"],
    scales: Float[Tensor, "gaussian 3"],
    quats: Float[Tensor, "gaussian 4"],
    opacities: Float[Tensor, " gaussian"],
    harmonics: Float[Tensor, "gaussian coefficient 3"],
    view: SplatView,
    *,
    sh_degree: int,
    with_normals: bool,
) -> ProjectedSplats:
    """Project Gaussians to ellipses with colour, depth and normal (EWA splatting).

    Reference: Zwicker et al. 2001, "EWA Splatting", Eq. 24-31; Kerbl et al. 2023, Sec. 4.
    """
    means, scales, quats = _precise(means), _precise(scales), _precise(quats)
    view_matrix, eye = _precise(view.view_matrix), _precise(view.eye)
    rotations = _rotations(quats)
    points = means @ view_matrix[:3, :3].T + view_matrix[:3, 3]  # [N, 3]
    depths = points[:, 2]
    in_range = (depths > view.near) & (depths < view.far)
    points = torch.where(in_range[:, None], points, points.new_tensor([0.0, 0.0, 1.0]))
    means2d, jacobians = _linearized_projection(points, view)

    factors = jacobians @ view_matrix[:3, :3] @ rotations * scales[:, None, :]  # [N, 2, 3]
    covariances = factors @ factors.transpose(1, 2)
    xx = covariances[:, 0, 0] + COVARIANCE_BLUR_PX2
    yy = covariances[:, 1, 1] + COVARIANCE_BLUR_PX2
    xy = covariances[:, 0, 1]
    determinant = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], dim=1) / determinant[:, None]

    offsets = means - eye if view.perspective else eye.expand_as(means)
    directions = offsets / offsets.norm(dim=1, keepdim=True).clamp(min=1e-12)
    basis = harmonic_basis(directions, sh_degree)
    colors = torch.einsum("gk,gkc->gc", basis, _precise(harmonics)[:, : (sh_degree + 1) ** 2])
    features = [(colors + 0.5).clamp(min=0), points[:, 2:]]
    if with_normals:
        features.append(_facing_normals(rotations, scales, directions))

    middle = 0.5 * (xx + yy)
    spread = (middle * middle - determinant).clamp(min=0).sqrt()
    radii = 3.0 * (middle + spread).sqrt()
    drawn = in_range & _touches_image(means2d, xx, yy, _precise(opacities), view)
    keep = drawn[:, None]
    return ProjectedSplats(
        torch.where(keep, means2d, torch.zeros_like(means2d)),
        torch.where(keep, conics, torch.zeros_like(conics)),
        torch.where(keep, torch.cat(features, dim=1), torch.zeros(())),
        torch.where(drawn, radii, torch.zeros_like(radii)).detach(),
    )


def composite_splats(
    means2d: Float[Tensor, "gaussian 2"],
    conics: Float[Tensor, "gaussian 3"],
    opacities: Float[Tensor, " gaussian"],
    features: Float[Tensor, "gaussian channel"],
    radii_px: Float[Tensor, " gaussian"],
    *,
    width: int,
    height: int,
) -> CompositedSplats:
    """Blend ellipses front to back; ``features[:, 3]`` is the depth by which they are sorted.

    Reference: Kerbl et al. 2023, "3D Gaussian Splatting", Eq. 2-3.
    """
    means2d, conics = _precise(means2d), _precise(conics)
    opacities, features = _precise(opacities), _precise(features)
    pixel, gaussian = _list_pairs(
        means2d.detach(), conics.detach(), opacities.detach(), features.detach(), radii_px,
        width=width, height=height,
    )  # fmt: skip
    alpha = _pair_alpha(means2d, conics, opacities, pixel, gaussian, width)
    before, after = _transmittances(alpha, pixel)
    added = after.detach() > MIN_TRANSMITTANCE
    pixel, gaussian = pixel[added], gaussian[added]
    weight = (alpha * before)[added]

    num_pixels = width * height
    summed = weight.new_zeros(num_pixels, features.shape[1])
    summed = summed.index_add(0, pixel, weight[:, None] * features[gaussian])
    covered = weight.new_zeros(num_pixels).index_add(0, pixel, weight)
    median = torch.full((num_pixels,), -1, dtype=torch.int64, device=weight.device)
    crossing = (before[added] >= 0.5) & (after[added] < 0.5)
    median[pixel[crossing]] = gaussian[crossing]
    return CompositedSplats(
        summed.reshape(height, width, -1),
        covered.reshape(height, width),
        median.reshape(height, width),
    )


def _precise(tensor: Tensor) -> Tensor:
    # Transmittances come from sums of logarithms over the whole image: too long for float32.
    if tensor.device.type == "mps":
        tensor = tensor.cpu()
    return tensor.double()


def _rotations(quats: Tensor) -> Tensor:
    w, x, y, z = (quats / quats.norm(dim=1, keepdim=True)).unbind(dim=1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def _linearized_projection(points: Tensor, view: SplatView) -> tuple[Tensor, Tensor]:
    """Pixel coordinates [N, 2] and Jacobians [N, 2, 3] of points in camera space."""
    x, y, z = points.unbind(dim=1)
    (fx, fy), (cx, cy) = view.focal_px, view.center_px
    zeros = torch.zeros_like(z)
    if not view.perspective:
        means2d = torch.stack([fx * x + cx, fy * y + cy], dim=1)
        rows = [zeros + fx, zeros, zeros, zeros, zeros + fy, zeros]
        return means2d, torch.stack(rows, dim=1).reshape(-1, 2, 3)
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=1)
    x_low, x_high, y_low, y_high = view.ray_limits
    ray_x = (x / z).clamp(x_low, x_high)  # outside the image the linearisation explodes
    ray_y = (y / z).clamp(y_low, y_high)
    rows = [fx / z, zeros, -fx * ray_x / z, zeros, fy / z, -fy * ray_y / z]
    return means2d, torch.stack(rows, dim=1).reshape(-1, 2, 3)


def _facing_normals(rotations: Tensor, scales: Tensor, directions: Tensor) -> Tensor:
    """Shortest axis of each Gaussian, on the side that faces the camera."""
    shortest = scales.detach().argmin(dim=1)[:, None, None].expand(-1, 3, 1)
    axes = torch.gather(rotations, 2, shortest).squeeze(2)
    away = (axes.detach() * directions.detach()).sum(dim=1, keepdim=True) > 0
    return torch.where(away, -axes, axes)


def _half_extents(xx: Tensor, yy: Tensor, opacities: Tensor) -> tuple[Tensor, Tensor]:
    """Half width and half height of the ellipse alpha = 1/255; NaN-free below that opacity."""
    reach = 2 * (opacities.clamp(min=ALPHA_MIN) / ALPHA_MIN).log()
    return (reach * xx).sqrt(), (reach * yy).sqrt()


def _touches_image(
    means2d: Tensor, xx: Tensor, yy: Tensor, opacities: Tensor, view: SplatView
) -> Tensor:
    half_x, half_y = _half_extents(xx.detach(), yy.detach(), opacities.detach())
    x, y = means2d.detach().unbind(dim=1)
    inside_x = (x + half_x >= 0.5) & (x - half_x <= view.width - 0.5)
    inside_y = (y + half_y >= 0.5) & (y - half_y <= view.height - 0.5)
    return inside_x & inside_y & (opacities.detach() >= ALPHA_MIN)


def _list_pairs(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    radii_px: Tensor,
    *,
    width: int,
    height: int,
) -> tuple[Int64[Tensor, " pair"], Int64[Tensor, " pair"]]:
    """Pixels and Gaussians that meet, pixel by pixel from front to back."""
    drawn = torch.nonzero(radii_px.to(means2d.device) > 0).squeeze(1)
    drawn = drawn[torch.argsort(features[drawn, 3], stable=True)]
    a, b, c = conics[drawn].unbind(dim=1)
    determinant = a * c - b * b
    half_x, half_y = _half_extents(c / determinant, a / determinant, opacities[drawn])
    x, y = means2d[drawn].unbind(dim=1)
    left = (x - half_x - 0.5).ceil().clamp(0, width).long()
    right = (x + half_x - 0.5).floor().clamp(-1, width - 1).long()
    top = (y - half_y - 0.5).ceil().clamp(0, height).long()
    bottom = (y + half_y - 0.5).floor().clamp(-1, height - 1).long()
    columns, rows = (right - left + 1).clamp(min=0), (bottom - top + 1).clamp(min=0)

    rank = torch.repeat_interleave(torch.arange(len(drawn), device=drawn.device), rows * columns)
    first = torch.cumsum(rows * columns, 0) - rows * columns
    inner = torch.arange(len(rank), device=drawn.device) - first[rank]
    row = top[rank] + inner // columns[rank].clamp(min=1)
    pixel = row * width + left[rank] + inner % columns[rank].clamp(min=1)
    gaussian = drawn[rank]

    kept = _pair_alpha(means2d, conics, opacities, pixel, gaussian, width) >= ALPHA_MIN
    pixel, gaussian = pixel[kept], gaussian[kept]
    order = torch.argsort(pixel, stable=True)  # pairs of a pixel stay in depth order
    return pixel[order], gaussian[order]


def _pair_alpha(
    means2d: Tensor, conics: Tensor, opacities: Tensor, pixel: Tensor, gaussian: Tensor, width: int
) -> Tensor:
    dx = (pixel % width) + 0.5 - means2d[gaussian, 0]
    dy = (pixel // width) + 0.5 - means2d[gaussian, 1]
    a, b, c = conics[gaussian].unbind(dim=1)
    power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    return (opacities[gaussian] * torch.exp(-power)).clamp(max=ALPHA_MAX)


def _transmittances(alpha: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Transmittance before and after each pair, as if no pixel ever stopped."""
    if not len(alpha):
        return alpha, alpha
    logs = torch.log1p(-alpha)
    running = torch.cumsum(logs, 0)
    starts = torch.cat([pixel.new_ones(1, dtype=torch.bool), pixel[1:] != pixel[:-1]])
    segment = torch.cumsum(starts, 0) - 1
    offset = (running - logs)[starts][segment]
    return (running - logs - offset).exp(), (running - offset).exp()
