from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.geometry.transforms import pixel_rays
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.merge_parts import merge_parts
from lift3d.core.pipelines.mesh_region import (
    BoxRegion,
    ColorRegion,
    PartRegion,
    SphereRegion,
    labels_of_parts,
    project_region,
)
from lift3d.core.pipelines.mesh_to_bundle import render_bundle

TILE = 64
HALF = torch.tensor([0.5, 0.9, 0.4])


def box(half: torch.Tensor = HALF, center=(0.0, 0.0, 0.0), color=None) -> Mesh:
    shape = trimesh.creation.box(extents=(2 * half).tolist())
    vertices = torch.tensor(np.asarray(shape.vertices)).float() + torch.tensor(center)
    colors = None if color is None else torch.tensor(color).expand(len(vertices), 3)
    return Mesh(vertices, torch.tensor(np.asarray(shape.faces)).long(), vertex_colors=colors)


def rays_onto_the_box(camera, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slow reference: where the rays of a tile enter the box, in double precision."""
    origins, directions = pixel_rays(camera, width=TILE * samples, height=TILE * samples)
    origins, directions = origins.double(), directions.double()
    near = (-HALF.double() - origins) / directions
    far = (HALF.double() - origins) / directions
    enter, leave = torch.minimum(near, far).amax(-1), torch.maximum(near, far).amin(-1)
    return origins + enter[..., None] * directions, enter < leave


@pytest.mark.parametrize(
    ("region", "holds"),
    [
        (
            BoxRegion((0.0, 0.55, 0.1), (2.0, 0.7, 0.5)),
            lambda p: (p[..., 1] >= 0.2) & (p[..., 2] >= -0.15) & (p[..., 2] <= 0.35),
        ),
        (
            SphereRegion((0.5, 0.0, 0.4), 0.45),
            lambda p: (p - torch.tensor([0.5, 0.0, 0.4])).norm(dim=-1) <= 0.45,
        ),
    ],
)
def test_the_mask_is_that_of_rays_against_the_analytic_box(region, holds):
    masks = project_region(box(), region, tile_px=TILE, normalize=False)
    for mask, camera in zip(masks, make_kiss3dgen_rig(), strict=True):
        points, hit = rays_onto_the_box(camera, 2)
        expected = (hit & holds(points)).float()
        expected = torch.nn.functional.avg_pool2d(expected[None], 2)[0]
        assert float((mask - expected).abs().mean()) < 2e-3
        assert float(expected.mean()) == pytest.approx(float(mask.mean()), abs=2e-3)


def test_a_region_behind_the_object_is_seen_from_the_rear_only():
    masks = project_region(box(), SphereRegion((0.0, 0.0, -0.4), 0.1), tile_px=TILE)
    assert not masks[0].any() and float(masks[2].max()) == 1.0


def test_the_whole_mesh_gives_the_silhouettes():
    everything = BoxRegion((0.0, 0.0, 0.0), (4.0, 4.0, 4.0))
    masks = project_region(box(), everything, tile_px=TILE)
    _, silhouettes, _ = render_bundle(box(), tile_px=TILE)
    torch.testing.assert_close(masks, silhouettes)


def test_normalising_moves_the_mesh_into_the_frame_of_the_region():
    large = replace(box(), vertices=10 * box().vertices + 7)
    region = BoxRegion((0.0, 0.9, 0.0), (4.0, 0.6, 4.0))
    torch.testing.assert_close(
        project_region(large, region, tile_px=TILE), project_region(box(), region, tile_px=TILE)
    )


def test_colours_choose_what_is_painted_so():
    small = torch.tensor([0.3, 0.3, 0.3])
    red = box(small, (0.0, -0.5, 0.0), (0.9, 0.1, 0.1))
    blue = box(small, (0.0, 0.5, 0.0), (0.1, 0.2, 0.8))
    pair = merge_parts([red, blue])
    masks = project_region(pair, ColorRegion((0.1, 0.2, 0.8), 0.05), tile_px=TILE, normalize=False)
    rows = (masks.amax(dim=2) > 0.5).nonzero()[:, 1]
    assert int(rows.max()) < TILE // 2 and int(rows.min()) > 0
    by_part = project_region(
        pair,
        PartRegion((1,)),
        tile_px=TILE,
        normalize=False,
        face_labels=labels_of_parts([red, blue]),
    )
    torch.testing.assert_close(masks, by_part)


def test_growing_widens_the_mask_by_so_many_pixels():
    region = SphereRegion((0.0, 0.0, 0.4), 0.3)
    plain = project_region(box(), region, tile_px=TILE)[0] > 0.5
    grown = project_region(box(), region, tile_px=TILE, grow_px=3)[0] > 0.5
    rows, wider = plain.any(dim=1).nonzero()[:, 0], grown.any(dim=1).nonzero()[:, 0]
    assert int(rows.min()) - int(wider.min()) == int(wider.max()) - int(rows.max()) == 3


def test_a_region_that_no_view_sees_is_refused_with_the_bounds():
    with pytest.raises(ValueError, match=r"from \[-0.5, -0.9, -0.4\] to \[0.5, 0.9, 0.4\]"):
        project_region(box(), SphereRegion((0.0, 0.0, 0.0), 0.1), tile_px=TILE)


def test_bad_regions_and_meshes_are_refused():
    with pytest.raises(ValueError, match="sides of the box must be positive"):
        BoxRegion((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="radius of the sphere must be positive"):
        SphereRegion((0.0, 0.0, 0.0), 0.0)
    with pytest.raises(ValueError, match="tolerance must lie within 0..1"):
        ColorRegion((0.0, 0.0, 0.0), 2.0)
    whole = BoxRegion((0.0, 0.0, 0.0), (4.0, 4.0, 4.0))
    empty = Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="has no faces"):
        project_region(empty, whole, tile_px=TILE)
    with pytest.raises(ValueError, match="Got 2 face labels for 12 faces"):
        project_region(box(), whole, tile_px=TILE, face_labels=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="within 64..1024"):
        project_region(box(), whole, tile_px=16)
