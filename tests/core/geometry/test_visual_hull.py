import math

import pytest
import torch
from lift3d.core.camera import (
    ViewRig,
    make_kiss3dgen_rig,
    make_orbit_rig,
    make_stdgen_rig,
)
from lift3d.core.geometry.repair import is_manifold, is_watertight, signed_volume
from lift3d.core.geometry.transforms import pixel_rays
from lift3d.core.geometry.visual_hull import (
    VisualHullParams,
    outline_distance,
    visual_hull_mesh,
    visual_hull_sdf,
)

COARSE = VisualHullParams(resolution=48)


def sphere_masks(rig: ViewRig, radius: float, size: int = 128) -> torch.Tensor:
    """Coverage of the analytic sphere at the origin, smooth over a pixel."""
    masks = []
    for camera in rig:
        origins, directions = pixel_rays(camera, width=size, height=size)
        closest = torch.linalg.cross(origins, directions).norm(dim=-1)
        distance = float(camera.position.norm()) if camera.is_perspective else 1.0
        pixel = distance / camera.focal_px(size) if camera.is_perspective else 2.4 / size
        masks.append((0.5 + (radius - closest) / pixel).clamp(0, 1))
    return torch.stack(masks)


def test_hull_of_many_views_of_a_sphere_is_the_sphere():
    azimuths = [30.0 * index for index in range(12)] * 2 + [0.0, 0.0]
    elevations = [-30.0] * 12 + [35.0] * 12 + [85.0, -85.0]
    rig = make_orbit_rig(azimuths, elevations, radius=4.5)
    hull = visual_hull_mesh(sphere_masks(rig, 0.7), rig, COARSE)
    distance = hull.vertices.norm(dim=1)
    assert float(distance.min()) == pytest.approx(0.7, abs=0.01)
    assert float(distance.mean()) == pytest.approx(0.72, abs=0.02)


@pytest.mark.parametrize("rig", [make_kiss3dgen_rig(), make_stdgen_rig()], ids=["four", "six"])
def test_hull_holds_the_object_and_is_watertight(rig):
    hull = visual_hull_mesh(sphere_masks(rig, 0.6), rig, COARSE)
    assert is_watertight(hull.faces) and is_manifold(hull.faces)
    assert float(signed_volume(hull.vertices, hull.faces)) > 4 / 3 * math.pi * 0.6**3
    assert float(hull.vertices.norm(dim=1).min()) > 0.59


def test_six_orthographic_side_views_of_a_sphere_give_the_hexagonal_prism_of_its_equator():
    rig = make_stdgen_rig()
    hull = visual_hull_sdf(sphere_masks(rig, 0.6, 256), rig, VisualHullParams(resolution=96))
    equator = hull.points()[hull.values < 0]
    in_plan = equator[equator[:, 1].abs() < hull.cell][:, [0, 2]].norm(dim=1)
    # Views every 45 degrees, also from behind: an octagon with inner radius 0.6.
    assert float(in_plan.max()) == pytest.approx(0.6 / math.cos(math.pi / 8), abs=2 * hull.cell)


def test_soft_outlines_are_placed_between_pixels():
    mask = torch.zeros(20, 20)
    mask[:, 5:10] = 1.0
    mask[:, 10] = 0.25  # the edge runs at 10.25
    distance = outline_distance(mask)[8 + 10, 8:-8]
    assert float(distance[10]) == pytest.approx(0.25)  # centre at 10.5
    assert float(distance[9]) < 0 < float(distance[10])


def test_thin_wires_survive_on_a_coarse_grid():
    rig = make_orbit_rig([0.0, 90.0], 0.0, radius=4.0, ortho_height=2.4)
    masks = torch.zeros(2, 128, 128)
    masks[:, 20:110, 64] = 1.0  # one pixel wide, cells are three pixels
    with_wire = visual_hull_mesh(masks, rig, COARSE)
    height = float(with_wire.vertices[:, 1].max() - with_wire.vertices[:, 1].min())
    assert height == pytest.approx(90 * 2.4 / 128, abs=0.06)
    assert is_watertight(with_wire.faces)


def test_an_object_cut_by_the_border_of_the_picture_stays_closed():
    rig = make_kiss3dgen_rig()
    hull = visual_hull_mesh(torch.ones(4, 64, 64), rig, COARSE)
    assert is_watertight(hull.faces)


def test_an_empty_mask_is_named():
    masks = sphere_masks(make_kiss3dgen_rig(), 0.5, 64)
    masks[1] = 0
    with pytest.raises(ValueError, match="view left is empty"):
        visual_hull_mesh(masks, make_kiss3dgen_rig(), COARSE)


def test_silhouettes_without_a_common_solid_are_refused():
    rig = make_orbit_rig([0.0, 90.0], 0.0, radius=4.0, ortho_height=2.4)
    masks = torch.zeros(2, 64, 64)
    masks[0, 5:15, 20:40] = 1
    masks[1, 45:60, 20:40] = 1
    with pytest.raises(ValueError, match="no solid in common"):
        visual_hull_mesh(masks, rig, COARSE)


def test_nan_masks_and_wrong_counts_are_refused(unchecked_shapes):
    rig = make_kiss3dgen_rig()
    with pytest.raises(ValueError, match="NaN"):
        visual_hull_mesh(torch.full((4, 32, 32), float("nan")), rig)
    with pytest.raises(ValueError, match=r"\[4, any, any\]"):
        visual_hull_mesh(torch.ones(3, 32, 32), rig)


@pytest.mark.slow
def test_a_view_that_disagrees_may_be_outvoted():
    rig = make_orbit_rig([22.5 * index for index in range(16)], 10.0, radius=4.5)
    masks = sphere_masks(rig, 0.6)
    strict = visual_hull_sdf(masks, rig, COARSE)
    masks[3] = masks[3].roll(40, dims=1)  # this view saw the object elsewhere
    cut = visual_hull_sdf(masks, rig, COARSE)
    voted = visual_hull_sdf(masks, rig, VisualHullParams(48, tolerated_views=2))
    volume = [float((grid.values < 0).sum()) * grid.cell**3 for grid in (strict, cut, voted)]
    assert volume[1] < 0.8 * volume[0] <= volume[2] < 1.25 * volume[0]


def test_tolerance_takes_the_next_largest_bounds():
    rig = make_orbit_rig([0.0, 60.0, 120.0], 0.0, radius=4.5)
    masks = sphere_masks(rig, 0.6, 48)
    params = VisualHullParams(16, thin_radius_cells=0.0)
    strict = visual_hull_sdf(masks, rig, params)
    loose = visual_hull_sdf(masks, rig, VisualHullParams(16, 1.25, 0.0, tolerated_views=9))
    alone = [visual_hull_sdf(masks[[i]], rig.select([i]), params) for i in range(3)]
    points = strict.points().reshape(-1, 3)
    each = torch.stack([grid.sample(points) for grid in alone])
    # at points of the strict grid: the smallest of the three, as far as coarse grids agree
    found = loose.sample(points)
    inside = each.min(dim=0).values < -0.1
    assert bool((found[inside] < 0).all()) and int(inside.sum()) > int((strict.values < -0.1).sum())
    with pytest.raises(ValueError, match="tolerated_views not negative"):
        VisualHullParams(tolerated_views=-1)
