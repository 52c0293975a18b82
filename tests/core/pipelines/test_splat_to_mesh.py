"""Gaussians to a mesh: shape, colours, closed surface, and clear refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import trimesh
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.geometry.repair import is_manifold, is_watertight
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.mesh_to_splat import splats_on_surface
from lift3d.core.pipelines.splat_to_mesh import SplatToMeshParams, solid_bounds, splat_to_mesh

RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)
SMALL = SplatToMeshParams(resolution=40, num_views=14, size_px=96)


def ball(radius: float = 0.6, count: int = 4000, opacity: float = 0.95) -> GaussianCloud:
    """Flat Gaussians on a sphere: red on the right side, blue on the left."""
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    vertices = torch.tensor(sphere.vertices, dtype=torch.float32)
    colors = torch.where(vertices[:, :1] > 0, torch.tensor(RED), torch.tensor(BLUE))
    mesh = Mesh(vertices, torch.tensor(sphere.faces, dtype=torch.int64), vertex_colors=colors)
    cloud = splats_on_surface(mesh, count)
    return replace(cloud, opacities=torch.full((count,), opacity))


def test_a_ball_becomes_a_closed_ball_with_its_colours() -> None:
    mesh = splat_to_mesh(ball(), SMALL)
    distance = mesh.vertices.norm(dim=1)
    voxel = 1.3 / 40
    assert float((distance - 0.6).abs().mean()) < voxel
    assert is_watertight(mesh.faces) and is_manifold(mesh.faces)
    right, left = mesh.vertices[:, 0] > 0.2, mesh.vertices[:, 0] < -0.2
    torch.testing.assert_close(
        mesh.vertex_colors[right].mean(dim=0), torch.tensor(RED), atol=0.05, rtol=0
    )
    torch.testing.assert_close(
        mesh.vertex_colors[left].mean(dim=0), torch.tensor(BLUE), atol=0.05, rtol=0
    )


def test_stray_gaussians_do_not_blow_up_the_box() -> None:
    cloud = ball()
    means = cloud.means.clone()
    means[0] = torch.tensor([50.0, 0.0, 0.0])
    low, high = solid_bounds(replace(cloud, means=means))
    assert float(high.max()) < 1.0 and float(low.min()) > -1.0


@pytest.mark.slow
def test_small_parts_go() -> None:
    cloud = ball()
    means = cloud.means.clone()
    means[:60] = means[:60] * 0.05 + torch.tensor([0.0, 0.9, 0.0])
    mesh = splat_to_mesh(replace(cloud, means=means), replace(SMALL, min_part=0.05))
    assert float(mesh.vertices[:, 1].max()) < 0.75


@pytest.mark.slow
def test_a_texture_can_be_baked_and_faces_reduced() -> None:
    mesh = splat_to_mesh(ball(), replace(SMALL, texture_px=64, max_faces=600))
    assert mesh.texture.shape == (64, 64, 3) and mesh.num_faces <= 800


def test_progress_comes_with_pictures() -> None:
    reports = []
    splat_to_mesh(ball(count=500), replace(SMALL, num_views=4), on_progress=reports.append)
    assert reports[0].preview is not None and reports[-1].step == reports[-1].total
    assert [r.step for r in reports] == sorted(r.step for r in reports)


def test_what_cannot_become_a_mesh_is_refused() -> None:
    with pytest.raises(ValueError, match="opacity of 0.02 or more"):
        splat_to_mesh(ball(opacity=0.01), SMALL)
    with pytest.raises(ValueError, match="too transparent"):
        splat_to_mesh(ball(count=20, opacity=0.03), SMALL)
    with pytest.raises(ValueError, match="within 16..512"):
        SplatToMeshParams(resolution=4)
