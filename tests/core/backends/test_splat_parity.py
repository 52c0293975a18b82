"""Every importable splat backend against the float64 reference: pictures and gradients.

Also the reference against published goldens and finite differences, so that the chain has an end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lift3d.core.backends.probe import backend_status, numba_problem
from lift3d.core.backends.splat_view import SplatView
from lift3d.core.backends.torch_reference import splats as reference
from lift3d.core.camera import Camera, ViewRig, make_orbit_pose
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.rendering.splats import SplatRender, render_splats
from torch import Tensor

needs_numba = pytest.mark.skipif(bool(numba_problem()), reason="needs numba")
needs_cuda = pytest.mark.skipif(
    not {state.name: state.ready for state in backend_status("splats")}["cuda"],
    reason="needs an NVIDIA GPU and gsplat",
)
FAST_BACKENDS = [
    pytest.param("numba", marks=needs_numba),
    pytest.param("cuda", marks=[needs_cuda, pytest.mark.cuda]),
]


@dataclass(frozen=True)
class Tolerance:
    """Largest absolute error of a picture, and of a gradient relative to its largest entry."""

    image: float = 1e-5
    ratio: float = 5e-5  # depth and normals are divided by alphas down to 0.05
    gradient: float = 1e-4


@dataclass(frozen=True)
class Scene:
    """One cloud with one camera, and what makes it hard."""

    count: int = 300
    coefficients: int = 1
    spread: float = 0.45
    size: float = 0.05
    opaque: float = 0.0  # shift of the opacity logits
    radius: float = 3.0
    ortho_height: float | None = None
    seed: int = 0
    tolerance: Tolerance = Tolerance()

    def cloud(self) -> GaussianCloud:
        generator = torch.Generator().manual_seed(self.seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        return GaussianCloud.from_unnormalized(
            means=self.spread * random(self.count, 3),
            scales=self.size * (0.7 * random(self.count, 3)).exp(),
            quats=random(self.count, 4),
            opacities=(self.opaque + random(self.count)).sigmoid(),
            harmonics=0.4 * random(self.count, self.coefficients, 3),
        )

    def pose(self) -> Tensor:
        return make_orbit_pose(25.0, 15.0, self.radius)

    def rig(self, pose: Tensor) -> ViewRig:
        fov = None if self.ortho_height else 40.0
        return ViewRig((Camera(pose, fov_y_deg=fov, ortho_height=self.ortho_height),), ("view",))


SCENES = {
    "plain": Scene(),
    "degree 1": Scene(coefficients=4, seed=1),
    "degree 2": Scene(coefficients=9, seed=2),
    "degree 3": Scene(coefficients=16, seed=3),
    "camera inside the cloud": Scene(count=200, radius=0.4, size=0.1, coefficients=4, seed=4),
    "below one pixel": Scene(size=0.003, seed=5),
    # Where alpha saturates, many factors of 1 - alpha = 1e-3 amplify rounding before the stop.
    "opaque, stops early": Scene(count=500, opaque=4.0, size=0.12, seed=6),
    "orthographic": Scene(ortho_height=2.0, coefficients=16, seed=7),
    "many": Scene(count=5000, size=0.02, seed=8),
}
WIDTH, HEIGHT = 150, 70  # no multiple of the tile


def _weights(render: SplatRender, seed: int = 9) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ("rgb", "alpha", "depth", "median_depth", "normals_world")
    return {
        name: torch.randn(getattr(render, name).shape, generator=generator, dtype=torch.float64)
        for name in names
    }


def _draw(
    scene: Scene, backend: str, dtype: torch.dtype, *, with_median: bool = True
) -> tuple[SplatRender, dict[str, Tensor]]:
    """Picture and gradients of a fixed random loss to all parameters and the pose."""
    device = "cuda" if backend == "cuda" else "cpu"
    leaves = {
        name: value.to(device, dtype).requires_grad_()
        for name, value in vars(scene.cloud()).items()
    }
    pose = scene.pose().to(dtype).requires_grad_()
    render = render_splats(
        GaussianCloud(**leaves), scene.rig(pose), width=WIDTH, height=HEIGHT, backend=backend,
        background=(0.2, 0.5, 0.9),
    )  # fmt: skip
    weights = _weights(render)
    # Depth and normals are ratios: where almost nothing is seen they amplify rounding.
    solid = (render.alpha.detach() > 0.05).double()
    loss = torch.zeros((), dtype=torch.float64)
    if not with_median:
        del weights["median_depth"]
    for name, weight in weights.items():
        value = getattr(render, name).double().cpu()
        mask = solid.cpu() if value.ndim == 3 else solid.cpu()[..., None]
        loss = loss + (weight * value * (mask if name in ("depth", "normals_world") else 1)).sum()
    loss.backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items()} | {"pose": pose.grad}
    gradients["means2d"] = render.means2d.grad
    assert all(value is not None for value in gradients.values())
    return render, {name: value.double().cpu() for name, value in gradients.items()}


@pytest.mark.parametrize("name", list(SCENES))
@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_pictures_and_gradients_equal_the_float64_reference(backend: str, name: str) -> None:
    scene = SCENES[name]
    median = backend != "cuda"  # gsplat has none
    want, want_gradients = _draw(scene, "torch", torch.float64, with_median=median)
    got, got_gradients = _draw(scene, backend, torch.float32, with_median=median)
    limit = scene.tolerance
    solid = want.alpha > 0.05
    for field in ("rgb", "alpha", "depth", "normals_world"):
        error = (getattr(got, field).double().cpu() - getattr(want, field)).abs().detach()
        if field in ("depth", "normals_world"):
            assert float(error[solid].max()) <= limit.ratio, field
        else:
            assert float(error.max()) <= limit.image, field
    if median:
        crossed = (got.median_depth.double().cpu() - want.median_depth).abs() > 1e-5
        assert float(crossed.double().mean()) <= 1e-3  # the nearest of two equals may change
    torch.testing.assert_close(got.radii_px.double().cpu(), want.radii_px, rtol=1e-4, atol=1e-3)
    for field, value in want_gradients.items():
        error = (got_gradients[field] - value).abs().max() / value.abs().max()
        assert float(error) <= limit.gradient, (field, float(error))


@needs_numba
def test_backward_is_bit_identical_over_runs_and_thread_counts() -> None:
    import numba

    scene = SCENES["many"]
    _, first = _draw(scene, "numba", torch.float32)
    _, second = _draw(scene, "numba", torch.float32)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        _, single = _draw(scene, "numba", torch.float32)
    finally:
        numba.set_num_threads(threads)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        assert torch.equal(value, single[name]), name


@needs_numba
@pytest.mark.parametrize("size", [(1, 1), (64, 16), (65, 17), (7, 200)])
def test_image_sizes_beside_the_tile_grid_agree(size: tuple[int, int]) -> None:
    scene = Scene(size=0.1)
    pictures = [
        render_splats(
            scene.cloud(), scene.rig(scene.pose()), width=size[0], height=size[1], backend=backend
        )
        for backend in ("torch", "numba")
    ]
    torch.testing.assert_close(pictures[0].rgb, pictures[1].rgb, atol=1e-5, rtol=0)


@needs_numba
def test_equal_depths_are_drawn_in_the_order_of_the_cloud() -> None:
    scene = Scene(count=50, size=0.3, ortho_height=2.0)
    cloud = scene.cloud()
    flat = replace(cloud, means=cloud.means * torch.tensor([1.0, 1.0, 0.0]))
    rig = ViewRig(
        (Camera(make_orbit_pose(0.0, 0.0, 3.0), fov_y_deg=None, ortho_height=2.0),), ("v",)
    )
    pictures = [
        render_splats(flat, rig, width=WIDTH, height=HEIGHT, backend=backend).rgb
        for backend in ("torch", "numba")
    ]
    torch.testing.assert_close(*pictures, atol=1e-5, rtol=0)


def test_reference_gradients_equal_finite_differences() -> None:
    scene = Scene(count=6, coefficients=16, size=0.3, spread=0.3)
    cloud, pose = scene.cloud(), scene.pose().double()
    values = {name: value.double() for name, value in vars(cloud).items()}

    def loss(**changes: Tensor) -> Tensor:
        moved = {**values, **changes}
        turned = moved.pop("pose", pose)
        render = render_splats(
            GaussianCloud.from_unnormalized(**moved), scene.rig(turned), width=24, height=20,
            backend="torch", background=(0.0, 0.0, 0.0),
        )  # fmt: skip
        return sum((weight * getattr(render, name)).sum() for name, weight in _weights(render).items() if name in ("rgb", "alpha"))  # fmt: skip

    step = 1e-6
    for name, value in {**values, "pose": pose}.items():
        leaf = value.clone().requires_grad_()
        loss(**{name: leaf}).backward()
        assert leaf.grad is not None
        direction = torch.randn(
            value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        )
        if name == "pose":
            direction = torch.cat([torch.zeros(4, 3), direction[:, 3:]], dim=1) * torch.tensor(
                [[1.0], [1], [1], [0]]
            )
        slope = (
            loss(**{name: value + step * direction}) - loss(**{name: value - step * direction})
        ) / (2 * step)
        # Pairs that cross alpha = 1/255 within the step leave jumps of 1/255: hence the tolerance.
        torch.testing.assert_close((leaf.grad * direction).sum(), slope, rtol=2e-3, atol=2e-3)


def _golden_view(data: np.lib.npyio.NpzFile, scene: str, dtype: torch.dtype) -> SplatView:
    k = data[f"{scene}_K"].astype(float)
    return SplatView(
        torch.from_numpy(data[f"{scene}_viewmat"]).to(dtype),
        (float(k[0, 0]), float(k[1, 1])), (float(k[0, 2]), float(k[1, 2])), 64, 48,
    )  # fmt: skip


def _golden_modules() -> list[object]:
    return ["torch", pytest.param("numba", marks=needs_numba)]


@pytest.mark.parametrize("backend", _golden_modules())
def test_goldens_of_gsplats_rules_are_met(backend: str, shared_dir: Path) -> None:
    data = np.load(shared_dir / "goldens" / "gaussian_splats.npz")
    scenes = sorted({name.split("_")[0] for name in data.files if name.endswith("_viewmat")})
    assert {"s0", "s1", "s2"} <= set(scenes)
    for scene in scenes:
        leaves, features, alpha = _draw_golden(data, scene, backend)
        fragile = data[f"{scene}_fragile_pixels"]
        got = {"rgb": features[..., :3], "alpha": alpha, "depth_sum": features[..., 3]}
        for name, value in got.items():
            error = np.abs(value.detach().double().numpy() - data[f"{scene}_{name}"])
            error = error.max(axis=-1) if error.ndim == 3 else error
            assert error[~fragile].max() <= 1e-4 and error.mean() <= 1e-5, (scene, name)
            assert not fragile.any() or error[fragile].max() <= 5e-3, (scene, name)
        if (
            scene
            == json.loads((shared_dir / "goldens" / "gaussian_splats.json").read_text())[
                "gradients"
            ]["scene"]
        ):
            weights = {name: torch.from_numpy(data[f"grad_w_{name.split('_')[0]}"]) for name in got}
            sum((weights[name] * value).sum() for name, value in got.items()).backward()
            for name, leaf in leaves.items():
                want = data[f"grad_{name}_f64"]
                error = np.abs(leaf.grad.double().numpy() - want).max() / np.abs(want).max()
                assert error <= (1e-6 if backend == "torch" else 1e-4), (name, error)


def _draw_golden(
    data: np.lib.npyio.NpzFile, scene: str, backend: str
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    dtype = torch.float64 if backend == "torch" else torch.float32
    module = reference
    if backend == "numba":
        from lift3d.core.backends.numba_cpu import splats as module  # type: ignore[no-redef]
    names = ("means", "scales", "quats", "opacities", "sh")
    leaves = {
        name: torch.from_numpy(data[f"{scene}_{name}"]).to(dtype).requires_grad_() for name in names
    }
    degree = int(leaves["sh"].shape[1] ** 0.5) - 1
    ellipses = module.project_splats(
        *leaves.values(), _golden_view(data, scene, dtype), sh_degree=degree, with_normals=False
    )
    image = module.composite_splats(
        ellipses.means2d, ellipses.conics, leaves["opacities"], ellipses.features,
        ellipses.radii_px, width=64, height=48,
    )  # fmt: skip
    return leaves, image.features, image.alpha
