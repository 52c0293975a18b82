import pytest
import torch
import trimesh
from lift3d.core.geometry.components import (
    component_areas,
    connected_components,
    drop_small_components,
    keep_largest_component,
    split_components,
)
from lift3d.core.mesh import Mesh, merge_meshes


def _sphere(subdivisions: int, radius: float, x: float) -> Mesh:
    source = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    source.apply_translation((x, 0, 0))
    vertices = torch.tensor(source.vertices).float()
    return Mesh(vertices, torch.tensor(source.faces).long(), vertex_colors=vertices.abs() / 10)


def _three() -> Mesh:
    return merge_meshes([_sphere(3, 0.1, -2.0), _sphere(1, 1.0, 0.0), _sphere(2, 0.5, 3.0)])


def test_three_spheres_are_three_components_in_order():
    components = connected_components(_three().faces)
    assert torch.bincount(components).tolist() == [1280, 80, 320]
    assert bool((components.diff() >= 0).all())


def test_components_agree_with_trimesh():
    mesh = _three()
    source = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert source.body_count == int(connected_components(mesh.faces).max()) + 1


def test_faces_that_share_only_a_vertex_hang_together_by_vertex_but_not_by_edge():
    faces = torch.tensor([[0, 1, 2], [2, 3, 4]])
    assert connected_components(faces).tolist() == [0, 0]
    assert connected_components(faces, connectivity="edge").tolist() == [0, 1]


def test_the_largest_area_wins_and_keeps_its_colours():
    largest = keep_largest_component(_three())
    expected = _sphere(1, 1.0, 0.0)
    assert torch.equal(largest.vertices, expected.vertices)
    assert torch.equal(largest.faces, expected.faces)
    assert torch.equal(largest.vertex_colors, expected.vertex_colors)


@pytest.mark.parametrize(
    ("limits", "faces_left"),
    [
        ({"min_area_fraction": 0.05}, [80, 320]),
        ({"min_vertices": 100}, [1280, 80, 320]),
        ({"min_faces": 400}, [1280, 80]),
        ({"min_vertices": 10_000}, [80]),
    ],
)
def test_small_parts_go_by_each_measure_but_the_largest_stays(limits, faces_left):
    left = drop_small_components(_three(), **limits)
    assert torch.bincount(connected_components(left.faces)).tolist() == faces_left


def test_splitting_gives_each_part_by_area():
    parts = split_components(_three())
    assert [part.num_faces for part in parts] == [80, 320, 1280]
    areas = [float(component_areas(part, connected_components(part.faces))[0]) for part in parts]
    assert areas == sorted(areas, reverse=True)


def test_an_empty_mesh_has_no_components():
    empty = Mesh(torch.zeros(0, 3), torch.zeros((0, 3), dtype=torch.int64))
    assert split_components(empty) == [] and keep_largest_component(empty).is_empty
    assert drop_small_components(empty, min_faces=3).is_empty
    assert connected_components(empty.faces).shape == (0,)


def test_an_unknown_connectivity_is_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="'vertex' or 'edge'"):
        connected_components(torch.tensor([[0, 1, 2]]), connectivity="face")
