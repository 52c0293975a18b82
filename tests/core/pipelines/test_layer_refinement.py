"""Refinement of one layer: towards the targets, out of the fixed layers, with published numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.camera import make_stdgen_rig
from lift3d.core.geometry.collision import points_inside
from lift3d.core.geometry.normals import decode_world_normals
from lift3d.core.geometry.repair import is_manifold, is_watertight
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.character_levels import render_levels
from lift3d.core.pipelines.initial_mesh import icosphere
from lift3d.core.pipelines.layer_params import LayerParams, load_layer_params
from lift3d.core.pipelines.layer_refinement import (
    _hair_term,
    image_loss,
    make_backdrop,
    refine_layer,
)
from lift3d.core.pipelines.normal_refinement import NormalTargets
from lift3d.core.progress import Progress

PX = 64


def ball(radius: float, name: str = "body", subdivisions: int = 3) -> Mesh:
    vertices, faces = icosphere(subdivisions)
    return Mesh(vertices * radius, faces, name=name)


def targets_of(*parts: Mesh, size: int = PX) -> NormalTargets:
    (drawn,) = render_levels(list(parts), size_px=size, levels=["whole"])
    views = drawn.views
    return NormalTargets(decode_world_normals(views.normals), views.masks, make_stdgen_rig())


def quick(layer: str = "clothes", steps: tuple[int, int] = (12, 2), **changes) -> LayerParams:
    params = load_layer_params(layer).with_steps(*steps)
    coarse = replace(params.isomer.coarse, edge_length_limits=(0.05, 0.2), initial_edge_length=0.1)
    fine = replace(params.isomer.fine, edge_length_limits=(0.05, 0.1), initial_edge_length=0.08)
    isomer = replace(params.isomer, coarse=coarse, fine=fine, target_raster_px=PX)
    return replace(params, isomer=isomer, **changes)


@pytest.mark.parametrize(("loss", "tolerance"), [("paper", 0.03), ("reference", 0.045)])
def test_a_ball_grows_to_the_ball_of_the_targets(loss, tolerance):
    start = ball(0.5)
    params = quick("body", (14, 2), loss=loss)
    coarse = replace(params.isomer.coarse, uncovered_weight=1.0)
    params = replace(params, isomer=replace(params.isomer, coarse=coarse))
    mesh = refine_layer(start, targets_of(ball(0.6)), [], params)
    radii = mesh.vertices.norm(dim=1)
    assert float((radii - 0.6).abs().mean()) < tolerance  # it started 0.1 off
    assert is_watertight(mesh.faces) and is_manifold(mesh.faces) and mesh.name == "body"
    assert torch.equal(start.vertices, ball(0.5).vertices)


def test_an_outer_layer_leaves_the_fixed_one_alone_and_stays_out_of_it():
    inner, start = ball(0.5), ball(0.47, "clothes")
    mesh = refine_layer(start, targets_of(ball(0.56)), [inner], quick())
    inside = points_inside(mesh.vertices, inner.vertices, inner.faces, tolerance=1e-3)
    assert float(inside.float().mean()) < 0.005
    assert torch.equal(inner.vertices, ball(0.5).vertices)


def test_what_fixed_layers_hide_is_not_moved_by_pictures():
    hidden, inner = ball(0.3, "clothes"), ball(0.5)
    params = quick(steps=(3, 0), collision_weight=0.0, dilation=None, smoothing_rounds=0)
    isomer = replace(params.isomer, optimizer=replace(params.isomer.optimizer, laplacian=0.0))
    params = replace(params, isomer=isomer, remesh_interval=5)
    mesh = refine_layer(hidden, targets_of(inner), [inner], params)
    radii = mesh.vertices.norm(dim=1)  # remeshed once, never moved
    assert float(radii.max()) < 0.3 + 1e-4 and float(radii.min()) > 0.28


def _random_pictures():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 3, 4, generator=generator) for _ in range(3)]


def test_the_paper_form_is_equation_12():
    picture, asked, goal = _random_pictures()
    stage = load_layer_params("body").isomer.coarse
    expected = 0.0
    for p, n, m in zip(
        picture.reshape(-1, 4), asked.reshape(-1, 4), goal.reshape(-1, 4), strict=True
    ):
        expected += (m[3] - p[3]) ** 2 + p[3] * ((n - p)[:3] ** 2).sum()
    expected /= (goal[..., 3] >= 0.5).sum()
    torch.testing.assert_close(image_loss(picture, asked, goal, stage, "paper"), expected)


def test_the_reference_form_counts_covered_pixels_and_the_background():
    picture, _, goal = _random_pictures()
    stage = load_layer_params("body", "published").isomer.coarse
    covered, background = picture[..., 3] > 0.5, goal[..., 3] < 0.5
    expected = (picture - goal)[covered].square().mean() + (picture - goal)[..., 3][
        background
    ].square().mean()
    torch.testing.assert_close(image_loss(picture, goal, goal, stage, "reference"), expected)


def test_the_hair_term_is_zero_where_hair_fills_its_mask_and_grows_outside():
    hair = ball(0.4, "hair")
    targets = targets_of(hair)
    goal, backdrop = targets.picture(), make_backdrop([])
    arguments = (hair.vertices, hair.faces, targets, goal, backdrop, quick("hair"))
    silhouette = (targets.masks[0] > 0.5).float()
    right = float(_hair_term(*arguments, silhouette))
    left_half = silhouette.clone()
    left_half[:, PX // 2 :] = 0
    assert right < 0.02 < 0.1 < float(_hair_term(*arguments, left_half))


def test_published_numbers():
    body, clothes = (load_layer_params(name, "published") for name in ("body", "clothes"))
    ends = [
        stage.learning_rate * stage.learning_rate_decay**stage.steps
        for stage in (body.isomer.coarse, clothes.isomer.coarse, clothes.isomer.fine)
    ]
    assert ends == pytest.approx([0.02936, 0.00367, 0.01098], abs=1e-5)
    assert (body.remesh_interval, clothes.remesh_interval) == (1, 30)
    assert body.isomer.target_view_weights == (2, 0.8, 0.8, 2, 0.8, 0.8)
    assert load_layer_params("hat") == load_layer_params("clothes")


def test_progress_counts_every_step_and_an_interruption_passes():
    reports: list[Progress] = []
    targets = targets_of(ball(0.5), size=32)
    refine_layer(ball(0.45), targets, [], quick(steps=(2, 1)), on_progress=reports.append)
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert {report.total for report in reports} == {4} and reports[0].preview is not None

    def stop(progress: Progress) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        refine_layer(ball(0.45), targets, [], quick(steps=(2, 1)), on_progress=stop)


def test_empty_masks_leave_the_term_out_and_broken_starts_are_repaired():
    targets, params = targets_of(ball(0.5), size=32), quick("hair", (2, 1))
    start = ball(0.45, "hair", 2)
    plain = refine_layer(start, targets, [], params)
    masked = refine_layer(start, targets, [], params, hair_mask=torch.zeros(9, 9))
    assert torch.equal(plain.vertices, masked.vertices)
    doubled = replace(start, faces=torch.cat([start.faces, start.faces[:3]]))
    assert is_manifold(refine_layer(doubled, targets, [], params).faces)
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), name="hair")
    with pytest.raises(ValueError, match="'hair' has no faces"):
        refine_layer(empty, targets, [], params)
    assert is_manifold(refine_layer(start, targets, [empty], params).faces)


def test_senseless_settings_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="remesh_interval"):
        quick(remesh_interval=0)
    with pytest.raises(ValueError, match="loss must be"):
        quick(loss="soft")
    with pytest.raises(ValueError, match="must not be negative"):
        quick(collision_weight=-1.0)
    with pytest.raises(ValueError, match="Unknown preset 'slow'"):
        load_layer_params("body", "slow")
