"""Small scenes for the nodes, and output folders that vanish."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.mesh import Mesh
from lift3d.standalone import folders


@pytest.fixture
def as_in_comfyui() -> Iterator[None]:
    """ComfyUI runs all nodes under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    with folders.use_folders(folders.RunFolders(tmp_path / "out", tmp_path / "input")):
        yield tmp_path / "out"


@pytest.fixture
def tetrahedron() -> Mesh:
    vertices = torch.tensor(
        [[0.9, 0.9, 0.9], [-0.9, -0.9, 0.9], [-0.9, 0.9, -0.9], [0.9, -0.9, -0.9]]
    )
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    colors = torch.tensor([[1.0, 0.2, 0.2], [0.2, 1.0, 0.2], [0.2, 0.2, 1.0], [0.8, 0.8, 0.1]])
    return Mesh(vertices, faces, vertex_colors=colors, name="tetra")


@pytest.fixture
def textured_quad() -> Mesh:
    vertices = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    texture = torch.rand(4, 6, 3, generator=torch.Generator().manual_seed(1))
    return Mesh(
        vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), uvs=uvs, texture=texture, name="quad"
    )


@pytest.fixture
def cloud() -> GaussianCloud:
    generator = torch.Generator().manual_seed(2)
    return GaussianCloud.from_unnormalized(
        means=torch.rand(12, 3, generator=generator) - 0.5,
        scales=torch.rand(12, 3, generator=generator) * 0.1 + 0.02,
        quats=torch.randn(12, 4, generator=generator),
        opacities=torch.rand(12, generator=generator) * 0.9 + 0.05,
        harmonics=torch.randn(12, 16, 3, generator=generator) * 0.3,
    )


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Copies of all tensors of a link value, to compare with afterwards."""
    fields = value if isinstance(value, dict) else vars(value)
    return [item.clone() for item in fields.values() if isinstance(item, torch.Tensor)]


@pytest.fixture
def snapshot():
    return tensors_of
