from dataclasses import replace

import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.evaluation.image_metrics import silhouette_iou
from lift3d.core.evaluation.mesh_metrics import normal_map_error_deg
from lift3d.core.geometry.normals import vertex_normals
from lift3d.core.geometry.repair import is_manifold, is_watertight
from lift3d.core.geometry.transforms import normalize, pixel_rays
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.initial_mesh import icosphere
from lift3d.core.pipelines.isomer_params import IsomerParams, StageParams, load_isomer_params
from lift3d.core.pipelines.normal_refinement import (
    NormalTargets,
    expansion_energy,
    explicit_target_normals,
    refine_by_normals,
)
from lift3d.core.progress import Progress
from lift3d.core.rendering.mesh import render_mesh

AXES = torch.tensor([0.8, 0.6, 0.7])


def ellipsoid_targets(size: int) -> NormalTargets:
    """Analytic normals and masks: rays against the ellipsoid, 2 x 2 samples for the coverage."""
    rig = make_kiss3dgen_rig()
    normals, masks = [], []
    for camera in rig:
        origins, directions = pixel_rays(camera, width=2 * size, height=2 * size)
        start, step = origins / AXES, directions / AXES
        a, b, c = (step * step).sum(-1), (start * step).sum(-1), (start * start).sum(-1) - 1
        root = b * b - a * c
        points = start + ((-b - root.clamp(min=0).sqrt()) / a)[..., None] * step
        hit = (root > 0).float()
        layers = torch.cat([normalize(points / AXES) * hit[..., None], hit[..., None]], dim=-1)
        small = torch.nn.functional.avg_pool2d(layers.permute(2, 0, 1)[None], 2)[0]
        normals.append(normalize(small[:3].permute(1, 2, 0)))
        masks.append(small[3])
    return NormalTargets(torch.stack(normals), torch.stack(masks), rig)


def sphere(radius: float, subdivisions: int = 3) -> Mesh:
    vertices, faces = icosphere(subdivisions)
    return Mesh(vertices * radius, faces)


def short(preset: str, coarse_steps: int, fine_steps: int, **changes: object) -> IsomerParams:
    params = load_isomer_params(preset)
    return replace(
        params,
        coarse=replace(params.coarse, steps=coarse_steps),
        fine=replace(params.fine, steps=fine_steps),
        target_raster_px=128,
        **changes,
    )


@pytest.mark.slow
def test_a_sphere_becomes_the_ellipsoid_of_the_targets():
    targets = ellipsoid_targets(96)
    params = short("from_sphere", 45, 6)
    fine = replace(params.fine, edge_length_limits=(0.02, 0.04), initial_edge_length=0.04)
    params = replace(params, fine=fine)
    mesh = refine_by_normals(sphere(0.65), targets, params)
    drawn = render_mesh(mesh, targets.rig, width=96, height=96)
    assert float(silhouette_iou(drawn.alpha, targets.masks).min()) > 0.97
    both = torch.minimum(drawn.alpha, targets.masks)
    assert normal_map_error_deg(drawn.normals_world, targets.normals_world, both) < 5.0
    assert is_watertight(mesh.faces) and is_manifold(mesh.faces)


def test_projected_normals_are_the_analytic_ones_and_unseen_vertices_keep_their_own():
    targets = ellipsoid_targets(256)
    vertices, faces = icosphere(4)
    mesh = Mesh(vertices * AXES, faces)
    params = replace(load_isomer_params("published"), target_raster_px=256)
    asked = explicit_target_normals(mesh, targets, params)
    analytic = normalize(mesh.vertices / AXES**2)
    own = vertex_normals(mesh.vertices, mesh.faces)
    seen = analytic[:, 1].abs() < 0.6
    assert float((asked - analytic)[seen].norm(dim=1).max()) < 0.05
    pole = analytic[:, 1].abs() > 0.999  # edge-on for every camera
    assert bool(pole.any())
    assert torch.allclose(asked[pole], own[pole])


def test_the_mesh_is_watertight_and_manifold_after_every_step():
    targets = ellipsoid_targets(64)
    params = short("from_sphere", 3, 1)
    for steps in (3, 6):
        staged = replace(params, coarse=replace(params.coarse, steps=steps))
        mesh = refine_by_normals(sphere(0.6, 2), targets, staged)
        assert is_watertight(mesh.faces) and is_manifold(mesh.faces)


def test_same_seed_same_mesh():
    targets = ellipsoid_targets(64)
    params = short("from_sphere", 3, 2)
    first, second = (refine_by_normals(sphere(0.6, 2), targets, params) for _ in range(2))
    assert torch.equal(first.faces, second.faces)
    assert torch.equal(first.vertices, second.vertices)


def test_progress_counts_every_step_and_shows_pictures():
    reports: list[Progress] = []
    params = short("from_sphere", 2, 1, preview_interval=2)
    refine_by_normals(sphere(0.6, 2), ellipsoid_targets(64), params, on_progress=reports.append)
    assert [report.step for report in reports] == [1, 2, 3]
    assert {report.total for report in reports} == {3}
    preview = reports[0].preview
    assert preview is not None and preview.shape[-1] == 3
    assert float(preview[0, 0].min()) == 1.0, "white background"


def test_an_interruption_passes_and_leaves_the_input_alone():
    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        raise Stop

    start = sphere(0.6, 2)
    before = start.vertices.clone()
    with pytest.raises(Stop):
        refine_by_normals(
            start, ellipsoid_targets(64), short("from_sphere", 2, 0), on_progress=stop
        )
    assert torch.equal(start.vertices, before)


def test_expansion_energy_pushes_outwards():
    ball = sphere(0.5, 2)
    vertices = ball.vertices.clone().requires_grad_()
    energy = expansion_energy(vertices, ball.faces)
    energy.backward()
    assert vertices.grad is not None
    assert float(energy) == pytest.approx(1 / 6, rel=1e-4)  # half of |n|^2, mean over 3 components
    assert bool(((vertices.grad * ball.vertices).sum(1) < 0).all())


def test_published_numbers_are_those_of_the_released_code():
    params = load_isomer_params("published")
    coarse, fine = params.coarse, params.fine
    assert (coarse.edge_length_limits, coarse.gain, coarse.ramp) == ((0.02, 0.1), 0.05, 1.0)
    assert (coarse.learning_rate, coarse.learning_rate_decay) == (0.3, 0.995)
    assert (coarse.expansion_weight, coarse.initial_edge_length) == (0.1, 0.1)
    assert (fine.edge_length_limits, fine.gain, fine.ramp) == ((0.005, 0.02), 0.2, 5.0)
    assert (fine.learning_rate_decay, fine.expansion_weight) == (0.99, 0.0)
    assert (fine.explicit_target, coarse.explicit_target) == (True, False)
    assert (params.target_first_steps, params.target_interval) == (5, 20)
    assert params.target_view_weights == (1.0, 0.9, 1.0, 0.9)
    optimizer = params.mesh_optimizer(fine)
    assert optimizer.betas == (0.8, 0.8, 0.0) and not optimizer.local_edge_length
    assert optimizer.laplacian == 0.02 and optimizer.nu_ref == 0.3


def test_edges_can_be_kept_from_getting_finer_than_the_pixels():
    params = load_isomer_params("from_hull")
    assert params.limited_to(0.002) == params
    coarser = params.limited_to(0.02)
    assert coarser.fine.edge_length_limits == (0.02, 0.04)
    assert coarser.fine.initial_edge_length == pytest.approx(0.04)
    assert coarser.coarse.edge_length_limits == params.coarse.edge_length_limits


def test_the_raster_shrinks_with_the_pictures_and_never_grows():
    params = load_isomer_params("published")
    assert params.for_pictures(256).target_raster_px == params.target_raster_px // 2
    assert params.for_pictures(2048) == params


def test_unknown_presets_and_negative_weights_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="from_hull"):
        load_isomer_params("magic")  # type: ignore[arg-type]
    stage: StageParams = load_isomer_params("published").coarse
    with pytest.raises(ValueError, match="negative"):
        replace(stage, background_weight=-1.0)


def test_an_empty_initial_mesh_is_refused():
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="no faces"):
        refine_by_normals(empty, ellipsoid_targets(64))
