from __future__ import annotations

import numpy as np
import pytest
import torch
from format_samples import build_glb
from lift3d.core.formats import decode_mesh


def _read(document: dict, arrays: list) -> list:
    return decode_mesh(build_glb(document, arrays), ".glb")


def _skinned(joint: dict, weights: list, **skin) -> list:
    """A triangle held by two joints: one at rest at x = 1, one described by the caller."""
    bind = np.tile(np.eye(4, dtype="<f4"), (2, 1, 1))
    bind[:, 0, 3] = -1  # the joints stood at x = 1 when the mesh was bound
    document = {
        "scenes": [{"nodes": [0, 1, 2]}],
        "nodes": [
            {"mesh": 0, "skin": 0, "translation": [50, 50, 50], "name": "body"},
            {"translation": [1, 0, 0]},
            joint,
        ],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": 0, "NORMAL": 1, "JOINTS_0": 2, "WEIGHTS_0": 3}}
                ]
            }
        ],
        "skins": [{"joints": [1, 2], "inverseBindMatrices": 4} | skin],
    }
    arrays = [
        np.eye(3, dtype="<f4"),
        np.tile(np.array([[0, 0, 1]], "<f4"), (3, 1)),
        np.tile(np.array([[0, 1, 0, 0]], "<u1"), (3, 1)),
        np.tile(np.array([[*weights, 0, 0]], "<f4"), (3, 1)),
        bind.transpose(0, 2, 1).reshape(2, 16).copy(),
    ]
    return _read(document, arrays)


def test_skinned_mesh_follows_its_joints_and_not_its_node():
    (mesh,) = _skinned({"translation": [1, 0, 0]}, [0.25, 0.75])
    assert torch.allclose(mesh.vertices, torch.eye(3)) and mesh.name == "body"
    half = 0.5**0.5
    bent = {"translation": [1, 0, 0], "rotation": [half, 0, 0, half]}  # y to z
    (mesh,) = _skinned(bent, [0, 1])
    assert torch.allclose(
        mesh.vertices, torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), atol=1e-6
    )
    assert torch.allclose(mesh.vertex_normals[0], torch.tensor([0.0, -1, 0]), atol=1e-6)
    (mesh,) = _skinned({"translation": [1, 4, 0]}, [0.5, 0.5])
    assert torch.allclose(mesh.vertices[0], torch.tensor([1.0, 2, 0]))
    (mesh,) = _skinned(bent, [0, 0])
    assert torch.allclose(mesh.vertices, torch.eye(3))


def test_lying_skins_are_refused():
    for skin, message in (
        ({"joints": [1]}, "joint 1 of 1"),
        ({"joints": [1, 2, 2]}, "2 matrices for 3 joints"),
        ({"joints": [1, 9]}, "not part of the scene"),
        ({"inverseBindMatrices": 3}, "4 components, expected 16"),
    ):
        with pytest.raises(ValueError, match=message):
            _skinned({}, [0.5, 0.5], **skin)
