"""Scores of Gaussians: hue, silhouette and sharpness of objects that are known."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.datasets.procedural_objects import make_object
from lift3d.core.pipelines.mesh_to_splat import splats_on_surface
from lift3d.core.pipelines.prompt_fidelity import PromptCase, make_silhouette_library
from lift3d.core.pipelines.splat_fidelity import edge_width_px, score_splats, sharpness
from lift3d.core.pipelines.splat_tools import move_splats, placement_matrix


@pytest.fixture(scope="module")
def library():
    return make_silhouette_library(("mushroom", "car"), per_category=3)


def test_gaussians_of_a_known_object_keep_to_its_prompt(library) -> None:
    cloud = splats_on_surface(make_object("car", 5, hue="green").mesh, 3000)
    moved = move_splats(cloud, placement_matrix(translation=(3.0, 0, 0), scale=0.4))
    score = score_splats(moved, PromptCase("a green car", "car", "green"), library)
    assert score.category_is_right and score.nearest_iou > 0.6
    assert score.shares.get("green", 0) > 0.3 and score.hue_is_dominant
    wrong = score_splats(cloud, PromptCase("a red mushroom", "mushroom", "red"), library)
    assert not wrong.category_is_right and not wrong.hue_is_dominant


def test_a_blurred_picture_is_less_sharp() -> None:
    stripes = (torch.arange(32) // 4 % 2).float().expand(1, 32, 32)
    picture = stripes[..., None].expand(1, 32, 32, 3)
    soft = torch.nn.functional.avg_pool2d(picture.permute(0, 3, 1, 2), 5, 1, 2).permute(0, 2, 3, 1)
    masks = torch.ones(1, 32, 32)
    # one step of sqrt(3) in every fourth column
    assert sharpness(picture, masks) == pytest.approx(3**0.5 * 7 / 31, rel=1e-3)
    assert sharpness(soft.contiguous() * 0.5, masks) < sharpness(picture, masks)
    assert sharpness(picture, 0 * masks) == 0.0


def test_soft_silhouettes_are_wide() -> None:
    crisp = torch.zeros(1, 32, 32)
    crisp[:, 8:24, 8:24] = 1
    soft = torch.nn.functional.avg_pool2d(crisp[:, None], 5, 1, 2)[:, 0]
    assert edge_width_px(crisp) == 0.0
    assert edge_width_px(soft) > 1.0
