"""Every node that takes a mesh either works on a strange one or says what is wrong with it.

No other exception than ValueError may come out, nothing is written on failure, and the link value
stays as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.mesh import Mesh
from lift3d.nodes import assets, bundle, convert, inspect, reconstruct, splats, texture, views
from lift3d.nodes.sockets_mesh import mesh_to_link

SQUARE = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])
PICTURES = torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0))
SMALL: dict[str, Any] = {
    "tile_px": 64, "size_px": 64, "frames": 1, "gaussians": 100, "steps": 1, "views": 2,
    "points": 100, "coarse_steps": 1, "fine_steps": 1,
}  # fmt: skip
NODES = [
    assets.SaveMesh,
    bundle.RenderBundle,
    convert.MeshToTrimesh,
    inspect.InspectMesh,
    inspect.CompareMeshes,
    reconstruct.FitCameraRadius,
    splats.MeshToSplat,
    texture.ProjectTexture,
    texture.ProjectVertexColors,
    texture.UnwrapMesh,
    texture.SetMaterial,
    views.RenderMesh,
    views.RenderMeshTurntable,
]


def fan() -> Mesh:
    """Three faces at one edge, and a fourth that touches in a corner only: not manifold."""
    vertices = torch.tensor(
        [[0.0, 0, 0], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1], [1, 1, 1], [1, 2, 1]]
    )
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4], [2, 5, 6]]))


STRANGE = {
    "open": Mesh(SQUARE, QUAD),
    "not manifold": fan(),
    "doubled faces": Mesh(SQUARE, torch.cat([QUAD, QUAD.flip(1), QUAD])),
    "faces without area": Mesh(SQUARE, torch.cat([QUAD, torch.tensor([[0, 0, 1], [2, 2, 2]])])),
    "all in one point": Mesh(torch.zeros(4, 3), QUAD),
    "on a line": Mesh(SQUARE * torch.tensor([1.0, 0, 0]), QUAD),
    "huge": Mesh(SQUARE * 5e5, QUAD),
    "tiny": Mesh(SQUARE * 1e-6, QUAD),
    "without faces": Mesh(SQUARE, torch.zeros((0, 3), dtype=torch.int64)),
    "without anything": Mesh(torch.zeros(0, 3), torch.zeros((0, 3), dtype=torch.int64)),
}


def broken_links() -> dict[str, Any]:
    """Link values that no `Mesh` may become."""
    links = {}
    for name, field, value in (
        ("NaN", "vertices", float("nan")),
        ("infinite", "vertices", float("inf")),
        ("far too large", "vertices", 1e9),
        ("faces out of range", "faces", 4),
        ("negative faces", "faces", -1),
    ):
        link = mesh_to_link(Mesh(SQUARE, QUAD))
        getattr(link, field)[0, 1, 2] = value
        links[name] = link
    return links


def run(cls: Any, mesh: Any) -> tuple[Any, ...]:
    inputs = cls.define_schema().inputs
    values = {item.id: SMALL.get(item.id, item.default) for item in inputs if item.is_widget}
    values["mesh"] = mesh
    names = {item.id for item in inputs}
    extra = {
        "images": PICTURES, "rig": make_kiss3dgen_rig(), "masks": PICTURES[..., 0],
        "reference": mesh,
    }  # fmt: skip
    return cls.execute(**values, **{key: extra[key] for key in extra if key in names}).args


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(autouse=True)
def as_in_comfyui(unchecked_shapes):
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("cls", NODES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("name", STRANGE)
def test_strange_meshes_work_or_are_refused_in_words(cls, name: str, out: Path, snapshot) -> None:
    link = mesh_to_link(STRANGE[name])
    before = snapshot(link)
    try:
        results = run(cls, link)
    except ValueError as error:
        assert len(str(error)) > 20 and "Tensor" not in str(error)
        assert not files_below(out)
    else:
        pictures = [item for item in results if isinstance(item, torch.Tensor)]
        assert all(bool(torch.isfinite(item).all()) for item in pictures)
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(link), strict=True))


@pytest.mark.parametrize("cls", NODES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("name", broken_links())
def test_broken_meshes_are_refused_by_every_node(cls, name: str, out: Path) -> None:
    with pytest.raises(ValueError, match=r"vertices|faces"):
        run(cls, broken_links()[name])
    assert not files_below(out)
