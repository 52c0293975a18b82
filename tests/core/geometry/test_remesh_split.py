import itertools

import pytest
import torch
import trimesh
from lift3d.core.geometry.edges import build_edges
from lift3d.core.geometry.normals import face_normals
from lift3d.core.geometry.remesh_split import divide_faces, split_edges
from lift3d.core.geometry.repair import euler_characteristic, is_watertight

TRIANGLE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("split", list(itertools.product([False, True], repeat=3)))
def test_every_template_covers_the_face_with_the_right_number_of_pieces(split):
    faces = torch.tensor([[0, 1, 2]])
    middles = torch.full((1, 3), -1)
    vertices = [TRIANGLE]
    for side in range(3):
        if split[side]:
            middles[0, side] = 3 + sum(split[:side])
            vertices.append((TRIANGLE[side] + TRIANGLE[(side + 1) % 3])[None] / 2)
    points = torch.cat(vertices)
    pieces = divide_faces(faces, middles)
    assert len(pieces) == 1 + sum(split)
    normals = face_normals(points, pieces, unit=False)
    assert bool((normals[:, 2] > 0).all())
    assert float(normals[:, 2].sum()) == pytest.approx(1.0)
    assert set(pieces.reshape(-1).tolist()) == set(range(len(points)))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_random_splits_of_a_sphere_open_no_crack(share: float):
    mesh = trimesh.creation.icosphere(2)
    vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces).long()
    table = build_edges(faces)
    generator = torch.Generator().manual_seed(0)
    is_split = torch.rand(len(table.edges), generator=generator) < share
    columns, divided = split_edges(vertices, faces, table, is_split)
    assert len(columns) == len(vertices) + int(is_split.sum())
    assert len(divided) == len(faces) + 2 * int(is_split.sum())
    assert is_watertight(divided) and euler_characteristic(divided) == 2
    torch.testing.assert_close(
        columns[len(vertices) :], vertices[table.edges[is_split]].mean(dim=1)
    )
