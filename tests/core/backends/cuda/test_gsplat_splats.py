"""The gsplat wrapper without a GPU: a stand-in records the call and draws with the reference."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from lift3d.core.backends.cuda.gsplat_splats import draw_views
from lift3d.core.backends.splat_view import SplatView
from lift3d.core.backends.torch_reference import splats as reference
from lift3d.core.camera import make_orbit_rig
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.rendering.splats import make_splat_view
from torch import Tensor


def _rasterization(
    *, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    viewmats: Tensor, Ks: Tensor, width: int, height: int, near_plane: float, far_plane: float,
    eps2d: float, packed: bool, render_mode: str, camera_model: str,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """What gsplat.rasterization documents, by our reference: [view, h, w, channel + depth]."""
    assert (eps2d, packed, render_mode) == (0.3, False, "RGB+D")
    images, alphas, centers, radii = [], [], [], []
    for matrix, k, features in zip(viewmats, Ks, colors, strict=True):
        view = SplatView(
            matrix, (float(k[0, 0]), float(k[1, 1])), (float(k[0, 2]), float(k[1, 2])),
            width, height, near_plane, far_plane, camera_model == "pinhole",
        )  # fmt: skip
        plain = torch.zeros(len(means), 1, 3)
        ellipses = reference.project_splats(
            means, scales, quats, opacities, plain, view, sh_degree=0, with_normals=False
        )
        order_last = torch.cat([features[:, :3], ellipses.features[:, 3:4], features[:, 3:]], dim=1)
        image = reference.composite_splats(
            ellipses.means2d, ellipses.conics, opacities, order_last, ellipses.radii_px,
            width=width, height=height,
        )  # fmt: skip
        drawn = image.features
        images.append(torch.cat([drawn[..., :3], drawn[..., 4:], drawn[..., 3:4]], dim=-1))
        alphas.append(image.alpha[..., None])
        centers.append(ellipses.means2d)
        radii.append(ellipses.radii_px[:, None].expand(-1, 2).ceil().int())
    meta = {"means2d": torch.stack(centers), "radii": torch.stack(radii)}
    return torch.stack(images), torch.stack(alphas), meta


@pytest.fixture
def fake_gsplat(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("gsplat")
    module.rasterization = _rasterization  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gsplat", module)


def _cloud() -> GaussianCloud:
    generator = torch.Generator().manual_seed(0)
    return GaussianCloud.from_unnormalized(
        means=0.4 * torch.randn(50, 3, generator=generator),
        scales=0.1 * torch.randn(50, 3, generator=generator).exp(),
        quats=torch.randn(50, 4, generator=generator),
        opacities=torch.rand(50, generator=generator),
        harmonics=0.4 * torch.randn(50, 9, 3, generator=generator),
    )


def _views(ortho_height: float | None) -> list[SplatView]:
    rig = make_orbit_rig([0.0, 80.0], 10.0, radius=3.0, ortho_height=ortho_height)
    return [make_splat_view(camera, width=24, height=20, like=torch.zeros(1)) for camera in rig]


@pytest.mark.parametrize("ortho_height", [None, 2.0])
def test_channels_come_back_in_our_order(fake_gsplat: None, ortho_height: float | None) -> None:
    parameters = tuple(vars(_cloud()).values())
    views = _views(ortho_height)
    features, alpha, _, means2d, radii = draw_views(
        *parameters, views, sh_degree=2, with_normals=True
    )
    assert means2d.shape == (2, 50, 2) and radii.shape == (2, 50)
    for number, view in enumerate(views):
        ellipses = reference.project_splats(*parameters, view, sh_degree=2, with_normals=True)
        want = reference.composite_splats(
            ellipses.means2d, ellipses.conics, parameters[3], ellipses.features, ellipses.radii_px,
            width=24, height=20,
        )  # fmt: skip
        torch.testing.assert_close(features[number].double(), want.features, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alpha[number].double(), want.alpha, atol=1e-5, rtol=1e-5)


def test_screen_centres_keep_their_gradient(fake_gsplat: None) -> None:
    parameters = tuple(value.clone().requires_grad_() for value in vars(_cloud()).values())
    features, _, _, means2d, _ = draw_views(
        *parameters, _views(None), sh_degree=2, with_normals=False
    )
    features.sum().backward()
    assert features.shape[-1] == 4
    assert all(value.grad is not None for value in parameters)
    assert means2d.retains_grad


def test_mixed_projections_are_refused(fake_gsplat: None) -> None:
    views = [_views(None)[0], _views(2.0)[0]]
    with pytest.raises(ValueError, match="either perspective or orthographic"):
        draw_views(*vars(_cloud()).values(), views, sh_degree=0, with_normals=False)
