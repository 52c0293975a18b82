import torch
import trimesh
from lift3d.core.camera import make_orbit_rig
from lift3d.core.geometry.normals import vertex_normals
from lift3d.core.mesh import Mesh, merge_meshes
from lift3d.core.pipelines.mesh_to_bundle import render_bundle
from lift3d.core.pipelines.render_views import ViewsParams, render_mesh_views
from lift3d.core.rendering.facing_normals import (
    facing_normals,
    sheet_normals,
    with_sheet_normals,
)
from lift3d.core.rendering.mesh import render_mesh


def sphere(subdivisions: int = 3) -> Mesh:
    source = trimesh.creation.icosphere(subdivisions)
    return Mesh(torch.tensor(source.vertices).float(), torch.tensor(source.faces).long())


def with_both_sides(mesh: Mesh) -> Mesh:
    """Each face and its turned copy, in mixed order: what some programs write for sheets."""
    faces = torch.cat([mesh.faces, mesh.faces.flip(1)])
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
    return Mesh(mesh.vertices, faces[order])


def angles_deg(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.rad2deg(torch.acos((first * second).sum(dim=-1).clamp(-1, 1)))


def test_faces_that_agree_have_the_usual_normals():
    mesh = sphere()
    expected = vertex_normals(mesh.vertices, mesh.faces)
    torch.testing.assert_close(sheet_normals(mesh.vertices, mesh.faces), expected)


def test_doubled_faces_have_the_normals_of_the_sheet_up_to_its_side():
    mesh = with_both_sides(sphere())
    found = sheet_normals(mesh.vertices, mesh.faces)
    side = (found * mesh.vertices).sum(dim=1)
    assert bool((side > 0.99).all()) or bool((side < -0.99).all())
    cancelled = vertex_normals(mesh.vertices, mesh.faces)
    assert float((cancelled * mesh.vertices).sum(dim=1).abs().mean()) < 0.9, "why it is needed"


def test_faces_of_mixed_winding_are_turned_alike_and_degenerate_ones_do_not_count():
    mesh = sphere()
    flip = torch.rand(mesh.num_faces, generator=torch.Generator().manual_seed(1)) < 0.4
    faces = torch.where(flip[:, None], mesh.faces.flip(1), mesh.faces)
    faces = torch.cat([faces, torch.tensor([[5, 5, 9]])])
    found = sheet_normals(mesh.vertices, faces)
    assert float(angles_deg(found, mesh.vertices).max()) < 3


def test_every_pixel_of_a_doubled_sphere_looks_to_the_viewer_along_its_radius():
    rig = make_orbit_rig([0.0, 120.0], [10.0, -30.0], radius=4.0)
    mesh = with_sheet_normals(with_both_sides(sphere(4)))
    drawn = render_mesh(mesh, rig, width=64, height=64, antialias=False)
    found = facing_normals(drawn, mesh, rig)
    truth = render_mesh(sphere(4), rig, width=64, height=64, antialias=False)
    inside = truth.face_index >= 0
    assert float(angles_deg(found, truth.normals_world)[inside].max()) < 1
    assert float(found[~inside].abs().max()) == 0


def test_bundles_and_views_of_a_doubled_mesh_are_those_of_the_single_one():
    pair = merge_meshes([sphere(), Mesh(sphere().vertices + 1.5, sphere().faces)])
    single, _, rig = render_bundle(pair, tile_px=64)
    doubled, _, _ = render_bundle(with_both_sides(pair), tile_px=64)
    assert float((single.normal_views - doubled.normal_views).abs().max()) < 0.02
    params = ViewsParams(size_px=64)
    first, second = (
        render_mesh_views(m, rig, params=params) for m in (pair, with_both_sides(pair))
    )
    assert float((first.normals - second.normals).abs().max()) < 0.02


def test_normals_that_a_file_brought_and_empty_meshes_are_left_alone():
    own = Mesh(sphere().vertices, sphere().faces, vertex_normals=-sphere().vertices)
    assert with_sheet_normals(own) is own
    empty = Mesh(torch.zeros(0, 3), torch.zeros((0, 3), dtype=torch.int64))
    assert with_sheet_normals(empty) is empty
    rig = make_orbit_rig([0.0], [0.0], radius=4.0)
    drawn = render_mesh(empty, rig, width=8, height=8)
    assert float(facing_normals(drawn, empty, rig).abs().max()) == 0
