"""Skeletons: structure, skinning by hand, weights, and the fit to bodies with known joints."""

from __future__ import annotations

import math

import pytest
import torch
from lift3d.core.datasets.characters import character_meshes, make_character
from lift3d.core.geometry.skeleton import (
    HUMANOID,
    Skeleton,
    SkinWeights,
    joint_matrices,
    make_humanoid,
    pose_vertices,
    strongest_four,
)
from lift3d.core.geometry.skeleton_fit import bind_body, bind_to_surface, fit_skeleton
from lift3d.core.mesh import Mesh
from mesh_scenes import make_sphere

KNOWN = {
    "hips": "hips",
    "spine": "spine",
    "chest": "chest",
    "neck": "neck",
    "leftUpperArm": "shoulder",
    "leftLowerArm": "elbow",
    "leftHand": "wrist",
    "leftUpperLeg": "hip",
    "leftLowerLeg": "knee",
    "leftFoot": "ankle",
}
QUARTER = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # 90 degrees about Z


def chain() -> Skeleton:
    places = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    return Skeleton(("a", "b", "c"), (-1, 0, 1), places, places + torch.tensor([1.0, 0, 0]))


@pytest.fixture(scope="module")
def doll():
    character = make_character(2)
    parts = character_meshes(character, cell=0.03)
    return character, parts, fit_skeleton(parts["body"])


def test_parents_stand_before_their_children_and_both_sides_are_there():
    names = list(HUMANOID)
    for name, parent in HUMANOID.items():
        assert parent is None or names.index(parent) < names.index(name)
    assert len([name for name in names if name.startswith("left")]) == 7
    assert sum(parent is None for parent in HUMANOID.values()) == 1


def test_turned_joints_carry_their_children():
    matrices = joint_matrices(chain(), {"b": QUARTER})
    end = matrices @ torch.tensor([3.0, 0, 0, 1])
    torch.testing.assert_close(end[:, :3], torch.tensor([[3.0, 0, 0], [1, 2, 0], [1, 2, 0]]))
    both = joint_matrices(chain(), {"b": QUARTER, "c": QUARTER})
    torch.testing.assert_close(both[2] @ torch.tensor([3.0, 0, 0, 1]), torch.tensor([0.0, 1, 0, 1]))


def test_vertices_move_by_the_mean_of_their_joints():
    skin = SkinWeights(
        torch.tensor([[0, 1, 0, 0]] * 3),
        torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0, 0]]),
    )
    points = torch.tensor([[2.0, 0, 0]]).expand(3, 3)
    moved = pose_vertices(points, skin, joint_matrices(chain(), {"b": QUARTER}))
    torch.testing.assert_close(moved, torch.tensor([[2.0, 0, 0], [1, 1, 0], [1.5, 0.5, 0]]))


def test_the_strongest_four_sum_to_one():
    table = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05], [0, 0, 0, 0, 0], [1, 1e-5, 0, 0, 0]])
    skin = strongest_four(table)
    torch.testing.assert_close(skin.weights.sum(dim=1), torch.ones(3))
    assert skin.joints[0].tolist() == [0, 1, 2, 3]
    assert skin.joints[1:].tolist() == [[0] * 4] * 2 and skin.weights[2].tolist() == [1, 0, 0, 0]
    torch.testing.assert_close(skin.dense(5)[0, :4], table[0, :4] / 0.95)
    assert strongest_four(torch.ones(2, 1)).weights[0].tolist() == [1, 0, 0, 0]


def test_joints_are_found_where_the_body_has_them(doll):
    character, _, skeleton = doll
    for name, joint in KNOWN.items():
        found = skeleton.positions[skeleton.index(name)]
        off = float((found - torch.tensor(getattr(character.joints, joint))).norm())
        assert off < 0.06, f"{name} is {off:.3f} off"
    for name in HUMANOID:
        if name.startswith("left"):
            other = skeleton.positions[skeleton.index(name.replace("left", "right"))]
            mine = skeleton.positions[skeleton.index(name)]
            assert float((mine * torch.tensor([-1.0, 1, 1]) - other).norm()) < 0.03


def test_a_turned_arm_leaves_the_rest_alone(doll):
    _, parts, skeleton = doll
    body = parts["body"]
    skin = bind_body(body, skeleton)
    turn = math.radians(40)
    rotation = torch.tensor(
        [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]]
    )
    moved = pose_vertices(body.vertices, skin, joint_matrices(skeleton, {"leftUpperArm": rotation}))
    way = (moved - body.vertices).norm(dim=1)
    hand = body.vertices[:, 0] > 0.5
    elsewhere = (body.vertices[:, 0] < 0) | (body.vertices[:, 1] < -0.3)
    assert float(way[hand].min()) > 0.2 and float(way[elsewhere].max()) < 0.01


def test_legs_move_apart_from_each_other(doll):
    _, parts, skeleton = doll
    table = bind_body(parts["body"], skeleton).dense(len(HUMANOID))
    left = [skeleton.index(name) for name in HUMANOID if name.startswith("left")]
    right_leg = (parts["body"].vertices[:, 0] < 0) & (parts["body"].vertices[:, 1] < -0.4)
    assert float(table[right_leg][:, left].sum(dim=1).max()) < 0.02


def test_outer_parts_follow_the_nearest_place_of_the_body(doll):
    _, parts, skeleton = doll
    body = parts["body"]
    skin = bind_body(body, skeleton)
    twin = bind_to_surface(body, body, skin, len(HUMANOID)).dense(len(HUMANOID))
    assert float((twin - skin.dense(len(HUMANOID))).abs().mean()) < 0.01
    hair = bind_to_surface(parts["hair"], body, skin, len(HUMANOID)).dense(len(HUMANOID))
    on_top = parts["hair"].vertices[:, 1] > 0.8
    assert float(hair[on_top][:, skeleton.index("head")].min()) > 0.9
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert len(bind_to_surface(empty, body, skin, len(HUMANOID)).joints) == 0


def test_bodies_without_limbs_are_refused_with_what_is_missing(doll):
    vertices, faces = make_sphere(300)
    with pytest.raises(ValueError, match="legs are not apart"):
        fit_skeleton(Mesh(vertices, faces))
    with pytest.raises(ValueError, match="no triangles"):
        fit_skeleton(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)))
    body = doll[1]["body"]
    armless = body.faces[(body.vertices[body.faces][..., 0].abs() < 0.2).all(dim=1)]
    with pytest.raises(ValueError, match="A-pose|arm"):
        fit_skeleton(Mesh(body.vertices * torch.tensor([1.0, 1, 1]), armless))


def test_broken_skeletons_are_refused(unchecked_shapes):
    places = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="before their children"):
        Skeleton(("a", "b"), (1, -1), places, places)
    with pytest.raises(ValueError, match="names that differ"):
        Skeleton(("a", "a"), (-1, 0), places, places)
    with pytest.raises(ValueError, match="have no place"):
        make_humanoid({}, {})
    with pytest.raises(ValueError, match="no joints d"):
        joint_matrices(chain(), {"d": QUARTER})
    with pytest.raises(ValueError, match="no joint 'd'; there are a, b, c"):
        chain().index("d")
