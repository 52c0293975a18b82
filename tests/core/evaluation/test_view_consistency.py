"""True views agree; a view of another colour or of turned normals does not."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.evaluation.view_consistency import view_consistency
from lift3d.core.mesh import Mesh
from lift3d.core.rendering.mesh import render_mesh

SIZE = 96


@pytest.fixture(scope="module")
def ball() -> dict:
    from lift3d.core.pipelines.initial_mesh import icosphere

    vertices, faces = icosphere(4)
    mesh = Mesh(vertices=vertices * 0.9, faces=faces, vertex_colors=vertices * 0.25 + 0.5)
    rig = make_kiss3dgen_rig()
    drawn = render_mesh(mesh, rig, width=SIZE, height=SIZE)
    return {
        "mesh": mesh,
        "rgb_views": drawn.rgb,
        "normals_world": drawn.normals_world,
        "masks": drawn.alpha,
        "rig": rig,
    }


def test_true_views_agree(ball) -> None:
    found = view_consistency(**ball, num_points=5000)
    assert found.shared_points > 1000
    assert found.color_error < 0.01 and found.normal_error_deg < 1.5


def test_one_view_with_other_colours_shows_by_its_share_of_the_pairs(ball) -> None:
    changed = ball["rgb_views"].clone()
    changed[1] += 0.2  # two of four pairs
    before = view_consistency(**ball, num_points=5000).color_error
    after = view_consistency(**{**ball, "rgb_views": changed}, num_points=5000).color_error
    assert after - before == pytest.approx(0.1, abs=0.015)


def test_turned_normals_show_by_their_angle(ball) -> None:
    angle = torch.deg2rad(torch.tensor(30.0))
    turn = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
    turned = ball["normals_world"].clone()
    turned[2] = turned[2] @ turn.T
    found = view_consistency(**{**ball, "normals_world": turned}, num_points=5000)
    assert 8 < found.normal_error_deg < 20  # half of the pairs, up to 30 degrees each


def test_views_that_do_not_fit_the_rig_are_refused(ball, unchecked_shapes) -> None:
    with pytest.raises(ValueError, match="rgb_views"):
        view_consistency(**{**ball, "rgb_views": ball["rgb_views"][:3]})
