"""Registration of views against a slow search, and the check for a mirror."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.camera import make_stdgen_rig
from lift3d.core.geometry.repair import signed_volume
from lift3d.core.mesh import Mesh, merge_meshes
from lift3d.core.pipelines.align_levels import (
    find_shifts,
    is_mirrored,
    mirrored,
    shift_views,
    silhouettes,
)
from mesh_scenes import make_sphere

RIG = make_stdgen_rig()


def lopsided(wing: float = 0.3) -> Mesh:
    vertices, faces = make_sphere(300)
    body = Mesh(vertices * 0.5, faces)
    arm = Mesh(vertices * wing + torch.tensor([0.6, 0.4, 0.0]), faces)
    return merge_meshes([body, arm])


def test_known_shifts_are_found_and_undone():
    masks = silhouettes(lopsided(), RIG, size_px=64)
    off = torch.tensor([3, -5, 0, 12, -12, 1])
    found = find_shifts(shift_views(masks, off), masks)
    assert torch.equal(found, -off)
    assert torch.equal(shift_views(shift_views(masks, off), found), masks)


def test_shifts_are_those_of_a_slow_search():
    generator = torch.Generator().manual_seed(0)
    masks, reference = (torch.rand(2, 3, 7, 20, generator=generator) > 0.5).float()
    found = find_shifts(masks, reference, max_shift=0.3)
    for view in range(3):
        scores = {
            shift: float(((1 - masks[view].roll(shift, dims=1)) * (1 - reference[view])).sum())
            for shift in range(-6, 7)
        }
        best = max(scores.values())
        assert int(found[view]) in [shift for shift, score in scores.items() if score == best]


def test_empty_views_stay_where_they_are():
    assert torch.equal(
        find_shifts(torch.zeros(2, 4, 8), torch.zeros(2, 4, 8)), torch.zeros(2).long()
    )


def test_a_mirrored_mesh_is_noticed_and_a_symmetric_one_left_alone():
    mesh = lopsided()
    masks = silhouettes(mesh, RIG, size_px=128)
    assert not is_mirrored(mesh, masks, RIG)
    assert is_mirrored(mirrored(mesh), masks, RIG)
    ball = Mesh(*make_sphere(300))
    assert not is_mirrored(ball, silhouettes(ball, RIG, size_px=64), RIG)


def test_a_mirrored_mesh_still_faces_outwards():
    mesh = lopsided()
    twin = mirrored(mesh)
    volumes = [float(signed_volume(item.vertices, item.faces)) for item in (mesh, twin)]
    assert volumes[0] == pytest.approx(volumes[1])
    assert torch.equal(mirrored(twin).vertices, mesh.vertices)
