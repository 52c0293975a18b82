from dataclasses import replace

import pytest
import torch
import trimesh
from lift3d.core.bundle_image import BundleImage
from lift3d.core.camera import make_kiss3dgen_rig, make_stdgen_rig
from lift3d.core.evaluation.image_metrics import silhouette_iou
from lift3d.core.evaluation.mesh_metrics import normal_error_deg
from lift3d.core.geometry.depth_carving import CarvingParams
from lift3d.core.geometry.repair import is_manifold, is_watertight, signed_volume
from lift3d.core.geometry.visual_hull import VisualHullParams
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.bundle_to_mesh import (
    CleanUpParams,
    ReconstructionParams,
    clean_up,
    reconstruct_from_bundle,
    reconstruct_from_views,
)
from lift3d.core.pipelines.bundle_views import read_bundle_views
from lift3d.core.pipelines.initial_mesh import InitialMeshParams, enclosed_sphere, icosphere
from lift3d.core.pipelines.isomer_params import load_isomer_params
from lift3d.core.pipelines.mesh_to_bundle import render_bundle
from lift3d.core.progress import Progress
from lift3d.core.rendering.mesh import render_mesh


def egg() -> Mesh:
    """An ellipsoid, red above and blue below."""
    vertices, faces = icosphere(4)
    upper = (vertices[:, 1:2] > 0).float()
    colors = torch.cat([upper, torch.full_like(upper, 0.2), 1 - upper], dim=1)
    return Mesh(vertices * torch.tensor([0.7, 0.9, 0.6]), faces, vertex_colors=colors)


def quick(shape: str = "carved_hull", coarse: int = 4, fine: int = 2) -> ReconstructionParams:
    isomer = load_isomer_params("from_hull")
    isomer = replace(
        isomer,
        coarse=replace(isomer.coarse, steps=coarse, initial_edge_length=0.06),
        fine=replace(
            isomer.fine, steps=fine, initial_edge_length=0.04, edge_length_limits=(0.03, 0.05)
        ),
        target_raster_px=128,
    )
    carving = CarvingParams(map_px=64, hull=VisualHullParams(resolution=40))
    return ReconstructionParams(InitialMeshParams(shape, carving), isomer)  # type: ignore[arg-type]


def test_an_egg_comes_back_with_its_shape_and_colours():
    truth = egg()
    bundle, masks, rig = render_bundle(truth, tile_px=128)
    result = reconstruct_from_bundle(bundle, params=quick())
    mesh = result.mesh
    assert is_watertight(mesh.faces) and is_manifold(mesh.faces)
    drawn = render_mesh(mesh, rig, width=128, height=128)
    assert float(silhouette_iou(drawn.alpha, masks).min()) > 0.96
    assert normal_error_deg(mesh, truth, rig, image_px=128) < 8.0
    assert mesh.vertex_colors is not None
    top = mesh.vertices[:, 1] > 0.2
    assert float(mesh.vertex_colors[top, 0].mean()) > 0.9
    assert float(mesh.vertex_colors[~top & (mesh.vertices[:, 1] < -0.2), 2].mean()) > 0.9
    assert result.used_views == (0, 1, 2, 3) and not result.warnings


@pytest.mark.slow
def test_small_tiles_are_enlarged_and_their_mesh_is_no_finer_than_they_are():
    truth = egg()
    bundle, _, rig = render_bundle(truth, tile_px=64, supersampling=4)
    isomer = load_isomer_params("from_hull")
    isomer = replace(
        isomer, coarse=replace(isomer.coarse, steps=6), fine=replace(isomer.fine, steps=5)
    )
    initial = quick().initial
    results = {}
    for size in (0, 192):
        params = ReconstructionParams(initial, isomer, working_px=size)
        mesh = reconstruct_from_bundle(bundle, params=params).mesh
        drawn = render_mesh(mesh, rig, width=192, height=192)
        true = render_mesh(truth, rig, width=192, height=192)
        iou = float(silhouette_iou(drawn.alpha, true.alpha).min())
        results[size] = (iou, normal_error_deg(mesh, truth, rig, image_px=192))
        sides = mesh.vertices[mesh.faces] - mesh.vertices[mesh.faces.roll(1, dims=1)]
        assert float(sides.norm(dim=-1).median()) > 0.012  # a third of a pixel of the bundle
    assert results[192][0] > max(0.98, results[0][0]) and results[192][1] < results[0][1]


@pytest.mark.slow
def test_six_orthographic_views_work_as_well():
    truth = egg()
    rig = make_stdgen_rig()
    bundle, masks, _ = render_bundle(truth, tile_px=96, rig=rig)
    result = reconstruct_from_bundle(bundle, rig=rig, masks=masks, params=quick())
    drawn = render_mesh(result.mesh, rig, width=96, height=96)
    assert float(silhouette_iou(drawn.alpha, masks).min()) > 0.95


@pytest.mark.parametrize("start", ["visual_hull", "sphere", "mesh"])
def test_other_initial_meshes_are_refined(start):
    bundle, masks, rig = render_bundle(egg(), tile_px=64)
    given = enclosed_sphere(masks, rig, 3) if start == "mesh" else None
    shape = "visual_hull" if start == "mesh" else start
    result = reconstruct_from_bundle(bundle, initial_mesh=given, params=quick(shape, 3, 1))
    assert is_watertight(result.mesh.faces)
    if given is not None:
        assert torch.equal(result.initial_mesh.vertices, given.vertices)


def test_masks_are_found_to_a_fraction_of_a_pixel():
    bundle, masks, rig = render_bundle(egg(), tile_px=128)
    found = read_bundle_views(bundle, rig)
    assert float((found.masks - masks).abs().max()) < 0.35
    assert float((found.masks - masks).abs().mean()) < 1e-3
    inside = masks > 0.9
    length = found.normals_world[inside].norm(dim=-1)
    assert float((length - 1).abs().max()) < 1e-4


@pytest.mark.slow
def test_progress_runs_from_one_to_its_total_with_previews():
    bundle, _, _ = render_bundle(egg(), tile_px=64)
    reports: list[Progress] = []
    reconstruct_from_bundle(bundle, params=quick(coarse=2, fine=1), on_progress=reports.append)
    steps = [report.step for report in reports]
    assert steps == list(range(1, reports[-1].total + 1))
    assert any(report.preview is not None for report in reports)


def test_a_white_bundle_is_refused():
    white = torch.ones(4, 64, 64, 3)
    with pytest.raises(ValueError, match="Every view is empty"):
        reconstruct_from_bundle(BundleImage(white, white))


def blanked(bundle: BundleImage, *views: int) -> BundleImage:
    rgb, normals = bundle.rgb_views.clone(), bundle.normal_views.clone()
    for view in views:
        rgb[view], normals[view] = 1.0, 1.0
    return BundleImage(rgb, normals)


def test_one_empty_view_is_left_out_and_named():
    bundle, _, _ = render_bundle(egg(), tile_px=64)
    result = reconstruct_from_bundle(blanked(bundle, 2), params=quick(coarse=1, fine=1))
    assert result.used_views == (0, 1, 3)
    assert "rear" in result.warnings[0]


def test_a_single_view_is_not_enough():
    bundle, _, _ = render_bundle(egg(), tile_px=64)
    with pytest.raises(ValueError, match="Only view front"):
        reconstruct_from_bundle(blanked(bundle, 1, 2, 3))


def test_wrong_numbers_of_cameras_sizes_and_nan_are_refused(unchecked_shapes):
    bundle, masks, rig = render_bundle(egg(), tile_px=64)
    with pytest.raises(ValueError, match="4 views, the rig 6"):
        reconstruct_from_bundle(bundle, rig=make_stdgen_rig())
    with pytest.raises(ValueError, match="masks must have shape"):
        reconstruct_from_bundle(bundle, masks=masks[:, :32])
    normals = torch.zeros(4, 64, 64, 3)
    with pytest.raises(ValueError, match="masks holds"):
        reconstruct_from_views(bundle.rgb_views, normals, masks * float("nan"), rig)
    with pytest.raises(ValueError, match="rgb_views must have shape"):
        reconstruct_from_views(bundle.rgb_views[None], normals, masks, make_kiss3dgen_rig())


def test_clean_up_keeps_rods_of_a_few_edges_round():
    source = trimesh.creation.torus(0.8, 0.01, major_sections=500, minor_sections=6)
    rod = Mesh(torch.tensor(source.vertices).float(), torch.tensor(source.faces).long())
    volume = float(signed_volume(rod.vertices, rod.faces))
    kept = clean_up(rod)
    released = clean_up(rod, CleanUpParams(inflation=0.0))
    assert float(signed_volume(kept.vertices, kept.faces)) > 0.9 * volume
    assert float(signed_volume(released.vertices, released.faces)) < 0.85 * volume
