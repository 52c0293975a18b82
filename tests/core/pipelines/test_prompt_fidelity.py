"""True objects keep to their prompts; wrong hues and wrong shapes are noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lift3d.core.datasets.materials import HUE_COLORS
from lift3d.core.datasets.procedural_objects import make_object
from lift3d.core.pipelines.initial_mesh import icosphere
from lift3d.core.pipelines.prompt_fidelity import (
    PromptCase,
    SilhouetteLibrary,
    make_silhouette_library,
    mesh_hue_shares,
    score_prompt,
)

CATEGORIES = ("mug", "sword", "chair", "car")


@pytest.fixture(scope="module")
def library() -> SilhouetteLibrary:
    return make_silhouette_library(CATEGORIES, per_category=4)


def test_a_ball_of_two_halves_has_both_hues_in_equal_shares() -> None:
    from lift3d.core.mesh import Mesh

    vertices, faces = icosphere(4)
    colors = torch.where(
        vertices[:, :1] > 0, torch.tensor(HUE_COLORS["red"]), torch.tensor(HUE_COLORS["blue"])
    )
    shares = mesh_hue_shares(Mesh(vertices=vertices, faces=faces, vertex_colors=colors))
    assert shares["red"] == pytest.approx(0.5, abs=0.06)
    assert shares["blue"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_true_object_keeps_to_its_prompt(category, library) -> None:
    made = make_object(category, 7, hue="green")
    score = score_prompt(made.mesh, PromptCase(made.caption, category, "green"), library)
    assert score.hue_is_dominant and score.category_is_right and score.both_present is None
    assert score.nearest_iou > 0.5


def test_another_hue_and_another_shape_are_noticed(library) -> None:
    made = make_object("mug", 7, hue="green", second_hue="pink")
    wrong = score_prompt(made.mesh, PromptCase("", "sword", "red", "pink"), library)
    assert not (wrong.hue_is_dominant or wrong.category_is_right or wrong.both_present)
    right = score_prompt(made.mesh, PromptCase("", "mug", "green", "pink"), library)
    assert right.hue_is_dominant and right.category_is_right and right.both_present


def test_size_and_place_of_the_mesh_do_not_matter(library) -> None:
    made = make_object("chair", 3, hue="blue")
    case = PromptCase(made.caption, "chair", "blue")
    moved = replace(made.mesh, vertices=made.mesh.vertices * 5 + 2)
    first, second = (score_prompt(mesh, case, library) for mesh in (made.mesh, moved))
    assert second.nearest_category == first.nearest_category
    assert second.nearest_iou == pytest.approx(first.nearest_iou, abs=1e-3)


def test_a_library_can_be_cut_to_the_first_objects_of_each_category(library) -> None:
    fewer = library.first_of_each(2)
    assert fewer.categories == tuple(name for name in CATEGORIES for _ in range(2))
    torch.testing.assert_close(fewer.masks[2:4], library.masks[4:6])
    assert library.first_of_each(4).categories == library.categories
