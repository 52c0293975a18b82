import pytest
import torch
import trimesh
from lift3d.core.geometry.components import connected_components
from lift3d.core.geometry.edges import build_edges
from lift3d.core.geometry.manifold_cut import cut_non_manifold
from lift3d.core.geometry.repair import (
    is_manifold,
    is_watertight,
    merge_duplicate_vertices,
    signed_volume,
)
from lift3d.core.mesh import Mesh, merge_meshes


def _mesh(source: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(source.vertices).float(), torch.tensor(source.faces).long())


def _box(center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    box = trimesh.creation.box()
    box.apply_translation(center)
    return _mesh(box)


def test_two_boxes_that_share_an_edge_come_apart_as_two_closed_boxes():
    boxes = merge_meshes([_box(), _box((1.0, 1.0, 0.0))])
    welded = merge_duplicate_vertices(boxes)
    assert int(build_edges(welded.faces).face_count.max()) == 4
    cut = cut_non_manifold(welded)
    assert is_watertight(cut.faces) and is_manifold(cut.faces)
    assert int(connected_components(cut.faces).max()) == 1
    assert float(signed_volume(cut.vertices, cut.faces)) == pytest.approx(2.0, rel=1e-5)


def test_two_boxes_that_share_a_corner_come_apart():
    welded = merge_duplicate_vertices(merge_meshes([_box(), _box((1.0, 1.0, 1.0))]))
    assert not is_manifold(welded.faces)
    cut = cut_non_manifold(welded)
    assert is_manifold(cut.faces) and cut.num_vertices == 16


def test_a_sheet_that_touches_itself_along_an_edge_gets_one_edge_per_sheet():
    # A closed ring of four boxes whose last box meets the first along one edge.
    corners = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (2.0, 1.0, 0.0), (1.0, 2.0, 0.0)]
    ring = merge_duplicate_vertices(merge_meshes([_box(corner) for corner in corners]))
    cut = cut_non_manifold(ring)
    assert is_manifold(cut.faces) and is_watertight(cut.faces)


@pytest.mark.parametrize("seed", range(4))
def test_random_faces_become_manifold_without_losing_area(seed: int):
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randn(12, 3, generator=generator)
    triples = torch.combinations(torch.arange(12), 3)
    faces = triples[torch.randperm(len(triples), generator=generator)[:80]]
    cut = cut_non_manifold(Mesh(vertices, faces))
    assert is_manifold(cut.faces)

    def area(mesh: Mesh) -> float:
        a, b, c = mesh.vertices[mesh.faces].unbind(dim=1)
        return float(torch.linalg.cross(b - a, c - a).norm(dim=-1).sum())

    assert area(cut) == pytest.approx(area(Mesh(vertices, faces)), rel=1e-4)


def test_a_manifold_mesh_comes_back_as_it_was():
    box = _box()
    assert cut_non_manifold(box) is box
