"""Pictures of levels: what they leave out, normal colours, part numbers, and rough starts."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.camera import make_stdgen_rig
from lift3d.core.geometry.repair import is_watertight
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.character_levels import (
    LEVELS,
    level_alpha,
    parts_of_level,
    render_levels,
    roughen,
)
from mesh_scenes import make_sphere


def ball(name: str, radius: float, height: float = 0.0) -> Mesh:
    vertices, faces = make_sphere(2000)
    return Mesh(vertices * radius / 0.95 + torch.tensor([0.0, height, 0.0]), faces, name=name)


PARTS = [ball("body", 0.5), ball("clothes", 0.6, -0.3), ball("hair", 0.4, 0.5)]


def test_levels_leave_their_parts_out():
    whole, without_hair, body = render_levels(PARTS, size_px=48)
    assert [images.level for images in (whole, without_hair, body)] == list(LEVELS)
    assert set(whole.parts.unique().tolist()) == {-1, 0, 1, 2}
    assert set(without_hair.parts.unique().tolist()) == {-1, 0, 1}
    assert set(body.parts.unique().tolist()) == {-1, 0}
    assert bool((whole.views.masks.sum() > without_hair.views.masks.sum()).all())
    assert bool(((body.parts >= 0) == (body.views.masks > 0.5)).float().mean() > 0.98)


def test_normal_colours_have_the_published_values():
    (body,) = render_levels(PARTS[:1], size_px=96, levels=["body"])
    colors, centre = body.views.normals, 47
    torch.testing.assert_close(
        colors[0, 48, centre], torch.tensor([0.5, 0.5, 1]), atol=0.03, rtol=0
    )
    torch.testing.assert_close(
        colors[3, 48, centre], torch.tensor([0.5, 0.5, 0]), atol=0.03, rtol=0
    )
    assert float(colors[2, 48, centre, 0]) == pytest.approx(1, abs=0.03)
    limb = int((body.views.masks[0, 48] > 0.99).nonzero().max())
    assert float(colors[0, 48, limb, 0]) > 0.9  # image right
    assert torch.equal(colors[0, 0, 0], torch.ones(3))


def test_silhouettes_are_found_in_normal_maps():
    (body,) = render_levels(PARTS[:1], size_px=64, levels=["body"])
    found = level_alpha(body.views.normals)
    assert float((found - (body.views.masks > 0.5).float()).abs().mean()) < 0.02


def test_levels_without_parts_are_refused():
    with pytest.raises(ValueError, match="level 'body' shows nothing; the parts are hair"):
        render_levels([ball("hair", 0.3)], size_px=16, levels=["body"])
    with pytest.raises(ValueError, match="level must be one of"):
        parts_of_level(PARTS, "shoes")


def test_rough_starts_are_off_by_the_amount_and_repeat():
    smooth = PARTS[0]
    rough = roughen(smooth, 0.02, seed=4)
    off = rough.vertices.norm(dim=1) - 0.5
    assert 0.01 < float(off.std()) < 0.03 and is_watertight(rough.faces)
    assert torch.equal(rough.vertices, roughen(smooth, 0.02, seed=4).vertices)
    assert not torch.equal(rough.vertices, roughen(smooth, 0.02, seed=5).vertices)
    assert roughen(smooth, 0.0) is smooth


def test_any_rig_will_do():
    (whole,) = render_levels(PARTS, make_stdgen_rig().select([2, 3]), size_px=16, levels=["whole"])
    assert whole.views.rgb.shape == (2, 16, 16, 3)
