"""Rigged characters: files that read back in place and in a pose, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from lift3d.core.datasets.characters import character_meshes, make_character
from lift3d.core.formats import read_mesh
from lift3d.core.formats.glb_rig import GlbRig
from lift3d.core.formats.glb_write import encode_glb
from lift3d.core.geometry.chart_segmentation import weld_positions
from lift3d.core.geometry.closest import closest_surface_points
from lift3d.core.geometry.skeleton import HUMANOID
from lift3d.core.geometry.uv import UnwrapParams, unwrap_mesh
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.rig_character import (
    POSES,
    euler_matrix,
    pose_character,
    rig_character,
    write_rigged,
)

EMPTY = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), name="hat")


@pytest.fixture(scope="module")
def rigged():
    parts = character_meshes(make_character(0), cell=0.03)
    return rig_character([*parts.values(), EMPTY])


def document_of(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def test_a_file_reads_back_in_the_rest_pose_with_its_names(rigged, tmp_path):
    path = write_rigged(tmp_path / "doll.glb", rigged)
    parts = read_mesh(path)
    assert [mesh.name for mesh in parts] == ["body", "clothes", "hair"]
    for mesh, part in zip(parts, rigged.parts, strict=True):
        torch.testing.assert_close(mesh.vertices, part.vertices, atol=1e-5, rtol=0)
        torch.testing.assert_close(mesh.vertex_colors, part.vertex_colors, atol=1e-4, rtol=0)


def test_the_file_holds_a_humanoid_that_deforms(rigged, tmp_path):
    """Turning a joint's node and skinning by the stored numbers gives the pose of the library."""
    path = write_rigged(tmp_path / "doll.glb", rigged)
    document, binary = document_of(path)
    nodes, skin = document["nodes"], document["skins"][0]
    joints = skin["joints"]
    assert [nodes[joint]["name"] for joint in joints] == list(HUMANOID)
    assert {node["skin"] for node in nodes if "mesh" in node} == {0}
    assert document["scenes"][0]["nodes"] == [0, 1, 2, joints[0]]

    def array(index: int, columns: int, kind: str) -> np.ndarray:
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        count = accessor["count"] * columns
        return np.frombuffer(binary, kind, count, view["byteOffset"]).reshape(-1, columns)

    turn = euler_matrix(0, 0, 40).double().numpy()
    world: dict[int, np.ndarray] = {}

    def walk(node: int, parent: np.ndarray) -> None:
        local = np.eye(4)
        local[:3, 3] = nodes[node]["translation"]
        if nodes[node]["name"] == "leftUpperArm":
            local[:3, :3] = turn
        world[node] = parent @ local
        for child in nodes[node].get("children", []):
            walk(child, world[node])

    walk(joints[0], np.eye(4))
    inverse = array(skin["inverseBindMatrices"], 16, "<f4").reshape(-1, 4, 4).transpose(0, 2, 1)
    matrices = np.stack([world[joint] for joint in joints]) @ inverse
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    places = array(attributes["POSITION"], 3, "<f4")
    which = array(attributes["JOINTS_0"], 4, "<u1")
    weights = array(attributes["WEIGHTS_0"], 4, "<f4")
    blended = np.einsum("vk,vkij->vij", weights, matrices[which])
    moved = np.einsum("vij,vj->vi", blended, np.pad(places, ((0, 0), (0, 1)), constant_values=1))
    expected = pose_character(rigged, {"leftUpperArm": (0, 0, 40)})[0].vertices.numpy()
    np.testing.assert_allclose(moved[:, :3], expected, atol=1e-4)
    assert np.abs(expected - places).max() > 0.3


@pytest.mark.parametrize("pose", POSES)
def test_layers_stay_together_in_every_pose(rigged, pose):
    body, clothes, _ = pose_character(rigged, pose)

    away = [
        closest_surface_points(outer.vertices[::7], inner.vertices, inner.faces).distance
        for outer, inner in ((clothes, body), (rigged.parts[1], rigged.parts[0]))
    ]
    assert float(away[0].max()) < float(away[1].max()) + 0.08


def test_hair_over_the_shoulders_stays_where_the_arms_move_and_follows_the_head(rigged):
    hair = rigged.parts[2].vertices
    raised = pose_character(rigged, {"leftUpperArm": (0, 0, 75), "rightUpperArm": (0, 0, -75)})
    torch.testing.assert_close(raised[2].vertices, hair, atol=1e-6, rtol=0)
    assert float((raised[1].vertices - rigged.parts[1].vertices).norm(dim=1).max()) > 0.2
    nodded = pose_character(rigged, {"head": (20, 0, 0)})[2].vertices
    assert float((nodded - hair).norm(dim=1).max()) > 0.05


def test_texture_seams_do_not_open_in_a_pose(rigged):
    textured = [unwrap_mesh(mesh, UnwrapParams("parts")) for mesh in rigged.parts]
    posed = pose_character(rig_character(textured), "t_pose")
    for before, after in zip(textured, posed, strict=True):
        place = weld_positions(before.vertices)
        assert int(place.max()) + 1 < before.num_vertices  # there are seams
        first = torch.zeros(int(place.max()) + 1, 3).index_copy(0, place, after.vertices)
        torch.testing.assert_close(first[place], after.vertices, atol=1e-6, rtol=0)


def test_the_rest_pose_is_the_start_and_left_and_right_arms_mirror(rigged):
    rest = pose_character(rigged, "rest")
    torch.testing.assert_close(rest[0].vertices, rigged.parts[0].vertices, atol=1e-6, rtol=0)
    low, high = pose_character(rigged, "t_pose")[0].bounds()
    assert float(high[0]) > 0.7 and float(low[0]) < -0.7


def test_parts_without_triangles_are_left_out_and_told(rigged):
    assert len(rigged.parts) == 3 and rigged.lines[-1] == "hat: has no triangles and was left out."
    with pytest.raises(ValueError, match="nothing to rig"):
        rig_character([EMPTY])
    with pytest.raises(ValueError, match="no part 'skin'"):
        rig_character(rigged.parts, body="skin")


def test_rigs_of_other_meshes_and_other_formats_are_refused(rigged, tmp_path, unchecked_shapes):
    with pytest.raises(ValueError, match="bind these"):
        encode_glb(rigged.parts[:1], rig=GlbRig(rigged.skeleton, rigged.skins))
    with pytest.raises(ValueError, match="written as .glb"):
        write_rigged(tmp_path / "doll.obj", rigged)
    with pytest.raises(ValueError, match="pose must be one of"):
        pose_character(rigged, "dance")
