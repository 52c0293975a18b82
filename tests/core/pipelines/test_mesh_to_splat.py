"""Fitting of Gaussians: quality on novel views, determinism, interruption, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.evaluation.image_metrics import psnr
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.geometry.transforms import project_points, quat_to_matrix
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.mesh_to_splat import (
    MeshToSplatParams,
    SplatFitParams,
    fit_splats,
    make_sphere_rig,
    mesh_to_splat,
    splats_on_surface,
)
from lift3d.core.progress import Progress
from lift3d.core.rendering.mesh import render_mesh
from lift3d.core.rendering.splats import render_splats


def _octahedron(levels: int = 4) -> Mesh:
    """Sphere of radius 0.8, coloured by position."""
    vertices = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = torch.tensor(
        [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    )
    for _ in range(levels):
        a, b, c = vertices[faces].unbind(dim=1)
        count = len(vertices)
        vertices = torch.cat([vertices, (a + b) / 2, (b + c) / 2, (c + a) / 2])
        n = len(faces)
        ab, bc, ca = (torch.arange(n) + count + k * n for k in range(3))
        i, j, k = faces.unbind(dim=1)
        corners = [(i, ab, ca), (ab, j, bc), (ca, bc, k), (ab, bc, ca)]
        faces = torch.cat([torch.stack(face, dim=1) for face in corners])
        vertices = vertices / vertices.norm(dim=1, keepdim=True)
    colors = 0.5 + 0.4 * torch.sin(4 * vertices)
    return Mesh(vertices * 0.8, faces, vertex_colors=colors)


SMALL = MeshToSplatParams(num_gaussians=800, num_views=10, size_px=64)


def _small(steps: int, **changes: object) -> MeshToSplatParams:
    return replace(SMALL, fit=replace(SMALL.fit, num_steps=steps, **changes))


def test_discs_lie_on_the_surface_with_its_colours_and_normals() -> None:
    cloud = splats_on_surface(_octahedron(), 500)
    radii = cloud.means.norm(dim=1)
    assert 0.79 < float(radii.min()) and float(radii.max()) <= 0.8001
    outward = cloud.means / radii[:, None]
    shortest = quat_to_matrix(cloud.quats)[:, :, 2]
    assert float((shortest * outward).sum(dim=1).min()) > 0.98
    torch.testing.assert_close(
        cloud.base_colors, 0.5 + 0.4 * torch.sin(4 * outward), atol=0.03, rtol=0
    )
    assert bool((cloud.scales.argmin(dim=1) == 2).all())


def test_textured_discs_take_the_texture() -> None:
    square = Mesh(
        torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]),
        torch.tensor([[0, 1, 2], [0, 2, 3]]),
        uvs=torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]]),
        texture=torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]]).repeat_interleave(16, 0).repeat_interleave(16, 1),
    )  # fmt: skip
    cloud = splats_on_surface(square, 300)
    x, y = cloud.means[:, 0], cloud.means[:, 1]
    corner = (x > -0.8) & (x < -0.2) & (y > 0.2) & (y < 0.8)  # the texture repeats at its border
    torch.testing.assert_close(
        cloud.base_colors[corner].mean(dim=0), torch.tensor([1.0, 0, 0]), atol=1e-5, rtol=0
    )


def test_sphere_cameras_see_the_whole_mesh() -> None:
    mesh = _octahedron().with_vertices(_octahedron().vertices + torch.tensor([3.0, 1.0, -2.0]))
    for camera in make_sphere_rig(mesh, SMALL):
        pixels, depth = project_points(mesh.vertices, camera, width=64, height=64)
        assert float(depth.min()) > camera.near
        assert float(pixels.min()) > 0 and float(pixels.max()) < 64


def test_fitted_gaussians_show_the_mesh_from_new_sides() -> None:
    mesh = _octahedron()
    rig = make_orbit_rig([33.0, 150.0], [20.0, -35.0], radius=4.5)
    want = render_mesh(mesh, rig, width=64, height=64).rgb
    laid_out = render_splats(splats_on_surface(mesh, 800), rig, width=64, height=64).rgb
    cloud = mesh_to_splat(mesh, _small(120))
    fitted = render_splats(cloud, rig, width=64, height=64).rgb
    assert psnr(fitted, want) > 28.0
    assert psnr(fitted, want) > psnr(laid_out, want) + 3.0


def test_same_seed_gives_the_same_gaussians() -> None:
    clouds = [mesh_to_splat(_octahedron(2), _small(12, seed=5)) for _ in range(2)]
    for name, value in vars(clouds[0]).items():
        assert torch.equal(value, getattr(clouds[1], name)), name
    other = mesh_to_splat(_octahedron(2), _small(12, seed=6))
    assert not torch.equal(other.means, clouds[0].means)


def test_progress_counts_steps_and_shows_previews() -> None:
    reports: list[Progress] = []
    mesh_to_splat(_octahedron(2), _small(6, preview_every=3), on_progress=reports.append)
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
    assert [report.preview is not None for report in reports] == [True, False, False] * 2
    assert reports[0].preview is not None and reports[0].preview.shape == (64, 64, 3)


def test_interruption_passes_through() -> None:
    def stop(progress: Progress) -> None:
        raise InterruptedError("stopped by the user")

    with pytest.raises(InterruptedError):
        mesh_to_splat(_octahedron(2), _small(6), on_progress=stop)


def test_fitting_works_inside_inference_mode() -> None:
    with torch.inference_mode():
        mesh = _octahedron(2)
        cloud = mesh_to_splat(mesh, _small(3))
    assert cloud.num_gaussians == 800


def test_no_steps_leave_the_layout() -> None:
    cloud = mesh_to_splat(_octahedron(2), _small(0))
    torch.testing.assert_close(cloud.means, splats_on_surface(_octahedron(2), 800).means)


def test_views_without_masks_are_fitted_with_their_background() -> None:
    mesh = _octahedron(2)
    rig = make_orbit_rig([0.0, 120.0, 240.0], 10.0, radius=4.5)
    views = render_mesh(mesh, rig, width=48, height=48, background=(0.0, 0.0, 0.0)).rgb
    params = SplatFitParams(
        num_steps=20, views_background=(0.0, 0.0, 0.0), optimizer=SMALL.fit.optimizer
    )
    start = splats_on_surface(mesh, 300)

    def error(cloud: GaussianCloud) -> float:
        drawn = render_splats(cloud, rig, width=48, height=48, background=(0.0, 0.0, 0.0)).rgb
        return float((drawn - views).abs().mean())

    assert error(fit_splats(views, rig, initial_cloud=start, params=params)) < 0.8 * error(start)


def test_pictures_that_do_not_match_the_rig_are_refused(unchecked_shapes: None) -> None:
    rig = make_orbit_rig([0.0, 90.0], 0.0, radius=3.0)
    cloud = splats_on_surface(_octahedron(1), 10)
    with pytest.raises(ValueError, match="views must have shape"):
        fit_splats(torch.zeros(3, 8, 8, 3), rig, initial_cloud=cloud)
    with pytest.raises(ValueError, match="masks must have shape"):
        fit_splats(torch.zeros(2, 8, 8, 3), rig, torch.zeros(2, 4, 4), initial_cloud=cloud)
    with pytest.raises(ValueError, match="NaN"):
        fit_splats(torch.full((2, 8, 8, 3), float("nan")), rig, initial_cloud=cloud)


def test_empty_cloud_is_refused() -> None:
    rig = make_orbit_rig([0.0], 0.0, radius=3.0)
    empty = splats_on_surface(_octahedron(1), 10).select(torch.zeros(10, dtype=torch.bool))
    with pytest.raises(ValueError, match="empty"):
        fit_splats(torch.zeros(1, 8, 8, 3), rig, initial_cloud=empty)


@pytest.mark.slow
def test_duck_reaches_30_db_on_new_views(shared_dir: Path) -> None:
    from lift3d.core.formats.mesh_files import read_mesh

    mesh = read_mesh(shared_dir / "meshes" / "Duck.glb")[0]
    low, high = mesh.bounds()
    mesh = mesh.with_vertices((mesh.vertices - (low + high) / 2) / (high - low).max() * 1.8)
    rig = make_orbit_rig([17.0, 107.0, 240.0], [10.0, 10.0, -40.0], radius=4.5)
    want = render_mesh(mesh, rig, width=256, height=256).rgb
    cloud = mesh_to_splat(
        mesh, replace(MeshToSplatParams(), fit=replace(MeshToSplatParams().fit, num_steps=150))
    )
    assert psnr(render_splats(cloud, rig, width=256, height=256).rgb, want) > 30.0
