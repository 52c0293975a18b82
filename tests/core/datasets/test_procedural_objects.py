from __future__ import annotations

import numpy as np
import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.datasets.materials import hue_shares
from lift3d.core.datasets.procedural_objects import (
    ACCENT_PARTS,
    CATEGORIES,
    HUES,
    LONGEST_SIDE,
    make_object,
    make_random_object,
)
from lift3d.core.geometry.repair import is_manifold, is_watertight, signed_volume
from lift3d.core.rendering.mesh import render_mesh


def silhouettes(category: str, seed: int, shape=None) -> torch.Tensor:
    mesh = make_object(category, seed, shape=shape).mesh
    rendered = render_mesh(mesh, make_kiss3dgen_rig(), width=40, height=40, antialias=False)
    return rendered.alpha.reshape(-1) > 0.5


def part_center(made, name: str) -> torch.Tensor:
    faces = made.mesh.faces[made.part_labels == made.part_names.index(name)]
    return made.mesh.vertices[faces.reshape(-1)].mean(dim=0)


def test_there_are_at_least_sixteen_categories():
    assert len(CATEGORIES) >= 20
    assert len(set(CATEGORIES)) == len(CATEGORIES)


def test_same_seed_same_object_bit_for_bit():
    for category in CATEGORIES:
        first, second = (make_object(category, 5, shape="tall") for _ in range(2))
        assert torch.equal(first.mesh.vertices, second.mesh.vertices)
        assert torch.equal(first.mesh.faces, second.mesh.faces)
        assert torch.equal(first.mesh.vertex_colors, second.mesh.vertex_colors)
        assert first.captions == second.captions
        assert torch.equal(first.part_labels, second.part_labels)


def test_different_seeds_give_different_shapes():
    for category in CATEGORIES:
        first, second = (make_object(category, seed).mesh.vertices for seed in (1, 2))
        assert first.shape != second.shape or (first - second).abs().max() > 0.01


def test_hue_does_not_change_the_shape():
    red, blue = (make_object("mug", 4, hue=hue, second_hue="teal") for hue in ("red", "blue"))
    assert torch.equal(red.mesh.vertices, blue.mesh.vertices)
    assert not torch.equal(red.mesh.vertex_colors, blue.mesh.vertex_colors)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_shell_is_closed_manifold_and_outward(category):
    for seed, shape in ((0, None), (1, "tall"), (2, "wide"), (3, None)):
        made = make_object(category, seed, shape=shape)
        for shell in range(int(made.shell_labels.max()) + 1):
            faces = made.mesh.faces[made.shell_labels == shell]
            assert is_watertight(faces)
            assert is_manifold(faces)
            assert float(signed_volume(made.mesh.vertices.double(), faces)) > 0


@pytest.mark.parametrize("category", CATEGORIES)
def test_objects_are_centred_at_the_agreed_size_and_light(category):
    made = make_object(category, 11)
    low, high = made.mesh.bounds()
    assert float((high - low).max()) == pytest.approx(LONGEST_SIDE, abs=1e-5)
    torch.testing.assert_close(low + high, torch.zeros(3), atol=1e-5, rtol=0)
    assert 500 <= made.mesh.num_faces <= 12_000
    assert made.part_labels.shape == made.shell_labels.shape == (made.mesh.num_faces,)
    assert ACCENT_PARTS[category] in made.part_names


def test_shells_share_no_vertices_so_that_colours_are_crisp():
    made = make_object("car", 0)
    shells = [
        set(made.mesh.faces[made.shell_labels == shell].reshape(-1).tolist())
        for shell in range(int(made.shell_labels.max()) + 1)
    ]
    assert sum(map(len, shells)) == len(set.union(*shells)) == made.mesh.num_vertices


@pytest.mark.parametrize(
    ("category", "part", "axis", "sign"),
    [
        ("mug", "handle", 0, 1),
        ("teapot", "spout", 0, 1),
        ("teapot", "handle", 0, -1),
        ("chair", "back", 2, -1),
        ("sofa", "back", 2, -1),
        ("house", "door", 2, 1),
        ("castle", "gate", 2, 1),
        ("lighthouse", "door", 2, 1),
        ("car", "lamps", 2, 1),
        ("train", "lamp", 2, 1),
        ("rocket", "glass", 2, 1),
        ("snowman", "nose", 2, 1),
        ("bird", "beak", 2, 1),
        ("duck", "bill", 2, 1),
        ("fish", "eyes", 2, 1),
        ("robot", "face", 2, 1),
        ("rabbit", "tail", 2, -1),
        ("turtle", "head", 2, 1),
        ("flower", "center", 2, 1),
    ],
)
def test_fronts_face_plus_z_and_handles_plus_x(category, part, axis, sign):
    for seed in range(4):
        center = part_center(make_object(category, seed), part)
        assert sign * float(center[axis]) > 0.05


@pytest.mark.parametrize("category", CATEGORIES)
def test_tall_is_taller_than_usual_and_wide_is_lower(category):
    def slenderness(shape) -> float:
        ratios = []
        for seed in range(5):
            low, high = make_object(category, seed, shape=shape).mesh.bounds()
            size = (high - low).tolist()
            ratios.append(size[1] / max(size[0], size[2]))
        return float(np.median(ratios))

    assert slenderness("tall") > 1.08 * slenderness(None)
    assert slenderness("wide") < 0.92 * slenderness(None)


def test_dominant_hue_of_the_views_is_the_named_one():
    rig = make_kiss3dgen_rig()
    right = both = both_asked = 0
    count = 50
    for seed in range(count):
        made = make_random_object(1000 + seed)
        rendered = render_mesh(made.mesh, rig, width=48, height=48, antialias=False)
        shares = hue_shares(rendered.rgb[rendered.alpha > 0.5].double().numpy())
        right += next(iter(shares)) == made.hue
        if made.second_hue is not None:
            both_asked += 1
            both += {made.hue, made.second_hue} <= {h for h, s in shares.items() if s > 0.02}
    assert right / count >= 0.9
    assert both / both_asked >= 0.9


@pytest.mark.parametrize(
    ("num_known", "num_unknown"), [(4, 1), pytest.param(10, 5, marks=pytest.mark.slow)]
)
def test_categories_are_told_apart_by_their_silhouettes(num_known, num_unknown):
    known = torch.stack([silhouettes(c, seed) for c in CATEGORIES for seed in range(num_known)])
    hits = total = 0
    for index, category in enumerate(CATEGORIES):
        for seed in range(100, 100 + num_unknown):
            unknown = silhouettes(category, seed)
            overlap = (known & unknown).sum(dim=1) / (known | unknown).sum(dim=1)
            hits += int(overlap.argmax()) // num_known == index
            total += 1
    assert hits / total >= 0.95


def test_random_objects_vary_in_every_respect_and_repeat_by_seed():
    made = [make_random_object(seed) for seed in range(60)]
    assert len({one.category for one in made}) > 15
    assert {one.hue for one in made} == set(HUES)
    assert {one.shape for one in made} == {None, "tall", "wide"}
    assert any(one.second_hue is None for one in made)
    assert all(one.second_hue != one.hue for one in made)
    assert make_random_object(7).caption == made[7].caption
    assert make_random_object(7, category="mug").category == "mug"


def test_bad_requests_say_what_is_possible():
    with pytest.raises(ValueError, match="Unknown category 'cup'; choose one of chair"):
        make_object("cup", 0)
    with pytest.raises(ValueError, match="seed must be 0 or more"):
        make_object("mug", -1)
    with pytest.raises(ValueError, match="Unknown hue 'mauve'"):
        make_object("mug", 0, hue="mauve")


def test_an_unknown_shape_is_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="Unknown shape"):
        make_object("mug", 0, shape="narrow")
