"""Gaussians are judged by novel views and by the shape that they show."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from lift3d.core.evaluation.shape_scores import ShapeConvention
from lift3d.core.evaluation.view_scores import ViewProtocol
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.initial_mesh import icosphere
from lift3d.core.pipelines.initial_splats import splats_on_surface
from lift3d.core.pipelines.orbit_scores import (
    OrbitScoreParams,
    frame_agreement,
    novel_views,
    score_gaussians,
)
from lift3d.core.pipelines.splat_to_mesh import SplatToMeshParams
from lift3d.core.rendering.splats import render_splats

PARAMS = OrbitScoreParams(
    ViewProtocol(num_views=4, size_px=48),
    ShapeConvention(num_points=800, voxels=24),
    SplatToMeshParams(resolution=32, num_views=12, size_px=64),
)


def ball(radius: float) -> Mesh:
    vertices, faces = icosphere(3)
    colors = torch.tensor([0.8, 0.2, 0.1]).expand_as(vertices).contiguous()
    return Mesh(radius * vertices, faces, vertex_colors=colors)


@pytest.mark.slow
def test_gaussians_on_the_true_surface_score_better_than_on_a_smaller_one() -> None:
    truth = ball(0.9)
    found = []
    for radius in (0.9, 0.6):
        cloud = splats_on_surface(ball(radius), 1500, seed=0)
        solid = replace(cloud, opacities=torch.full_like(cloud.opacities, 0.98))
        found.append(score_gaussians(solid, truth, 0, PARAMS))
    good, bad = found
    assert good.views.psnr > bad.views.psnr + 5
    assert good.shape.iou > 0.75 and bad.shape.iou < 0.5
    assert good.shape.chamfer < bad.shape.chamfer
    assert good.drawn.shape == good.truth.shape == (3, 48, 48, 3)
    assert {"PSNR", "SSIM", "CD", "IoU", "F 0.05"} <= good.columns().keys()


def test_the_input_is_no_novel_view() -> None:
    rig, protocol = novel_views(PARAMS.protocol, 5), PARAMS.protocol
    assert len(rig) == 3
    torch.testing.assert_close(rig[0].position, protocol.rig(5)[1].position)


def test_frames_of_one_object_agree_and_a_frame_that_is_shifted_does_not() -> None:
    rig = PARAMS.protocol.rig(0)
    cloud = splats_on_surface(ball(0.9), 600, seed=0)
    frames = render_splats(cloud, rig, width=48, height=48).rgb.clamp(0, 1)
    shifted = torch.cat([frames[:1].roll(6, dims=2), frames[1:]])
    assert frame_agreement(cloud, frames, rig) > 60
    assert 5 < frame_agreement(cloud, shifted, rig) < 40


def test_gaussians_that_show_nothing_are_a_miss_and_their_views_still_count() -> None:
    cloud = splats_on_surface(ball(0.9), 200, seed=0)
    faint = replace(cloud, opacities=torch.full_like(cloud.opacities, 0.001))
    for nothing in (faint, cloud.select(torch.zeros(0, dtype=torch.int64))):
        found = score_gaussians(nothing, ball(0.9), 0, PARAMS).columns()
        assert found["missed"] == 1 and found["IoU"] == found["F 0.05"] == 0
        assert math.isnan(found["CD"]) and 0 < found["PSNR"] < 20


def test_views_alone_are_judged_without_a_mesh() -> None:
    cloud = splats_on_surface(ball(0.9), 200, seed=0)
    found = score_gaussians(cloud, ball(0.9), 0, replace(PARAMS, mesh=None))
    assert found.shape is None and list(found.columns()) == ["PSNR", "SSIM"]
