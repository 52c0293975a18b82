"""Every node runs under inference mode, as in ComfyUI, and leaves its cached inputs alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import trimesh
from lift3d.core.formats import read_mesh
from lift3d.core.mesh import Mesh
from lift3d.nodes import (
    assets,
    bundle,
    cameras,
    convert,
    health,
    host,
    inspect,
    splats,
    texture,
    views,
)
from lift3d.nodes.sockets_mesh import mesh_from_link, mesh_to_link, meshes_from_link
from lift3d.nodes.sockets_splat import cloud_from_link, cloud_to_link
from node_calls import outputs

pytestmark = pytest.mark.usefixtures("as_in_comfyui")


@pytest.fixture
def mesh_link(tetrahedron: Mesh):
    return mesh_to_link(tetrahedron)


@pytest.fixture
def splat_link(cloud):
    return cloud_to_link(cloud)


# -- bundles ---------------------------------------------------------------------------------


def test_a_bundle_splits_and_joins_bit_exactly(mesh_link) -> None:
    image, masks, rig = outputs(bundle.RenderBundle, mesh=mesh_link, tile_px=64)
    assert image.shape == (1, 128, 256, 3) and masks.shape == (4, 64, 64) and len(rig) == 4
    rgb, normals, from_white, _ = outputs(bundle.SplitBundle, bundle=image)
    assert float(((from_white > 0.5) == (masks > 0.5)).float().mean()) > 0.97
    (again,) = outputs(bundle.JoinBundle, rgb_views=rgb, normal_views=normals)
    assert torch.equal(again, image)


@pytest.mark.parametrize(
    ("image", "part"),
    [
        (torch.ones(1, 100, 256, 3), "got 256 x 100"),
        (torch.ones(2, 128, 256, 3), "batch of 2"),
        (torch.ones(128, 256, 3), "must be an IMAGE"),
    ],
)
def test_bundles_of_the_wrong_size_are_refused(image, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        outputs(bundle.SplitBundle, bundle=image)


def test_a_bundle_with_alpha_is_put_on_white() -> None:
    rgb = outputs(bundle.SplitBundle, bundle=torch.zeros(1, 128, 256, 4))[0]
    assert float(rgb.min()) == 1


def test_an_empty_mesh_cannot_be_drawn() -> None:
    empty = mesh_to_link(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match="no faces"):
        outputs(bundle.RenderBundle, mesh=empty)


# -- views -----------------------------------------------------------------------------------


def test_a_mesh_is_drawn_from_every_camera(mesh_link) -> None:
    rig, count = outputs(cameras.MakeRig, preset="orbit", views=3)
    images, masks, normals, depth, used = outputs(
        views.RenderMesh, mesh=mesh_link, size_px=32, rig=rig
    )
    assert count == len(used) == 3
    assert images.shape == normals.shape == depth.shape == (3, 32, 32, 3)
    assert masks.shape == (3, 32, 32) and 0.05 < float(masks.mean()) < 0.9
    assert float(images[masks == 0].min()) == 1 and float(depth[masks == 0].max()) == 0
    assert float(depth.max()) == 1


def test_the_background_can_be_chosen(mesh_link) -> None:
    images, masks, *_ = outputs(views.RenderMesh, mesh=mesh_link, size_px=16, background="black")
    assert float(images[masks == 0].max()) == 0


def test_turntables_have_the_asked_number_of_frames(mesh_link, splat_link) -> None:
    assert outputs(views.RenderMeshTurntable, mesh=mesh_link, frames=2, size_px=16)[0].shape[0] == 2
    images, masks = outputs(views.RenderSplatTurntable, splat=splat_link, frames=2, size_px=16)
    assert images.shape == (2, 16, 16, 3) and float(masks.max()) > 0.1


def test_splats_are_drawn_from_every_camera(splat_link) -> None:
    images, masks, normals, depth, rig = outputs(views.RenderSplat, splat=splat_link, size_px=24)
    assert images.shape == normals.shape == depth.shape == (4, 24, 24, 3) and len(rig) == 4


def test_rigs_go_through_comfyui_cameras(mesh_link) -> None:
    rig, _ = outputs(cameras.MakeRig, preset="stdgen")
    (infos,) = outputs(cameras.RigToCameras, rig=rig)
    assert len(infos) == 6 and infos[0]["cameraType"] == "orthographic"
    (back,) = outputs(cameras.CamerasToRig, camera_info=infos)
    first, second = (
        outputs(views.RenderMesh, mesh=mesh_link, size_px=24, rig=r)[0] for r in (rig, back)
    )
    assert torch.allclose(first, second, atol=1e-3)


# -- textures and Gaussians ------------------------------------------------------------------


def test_drawn_views_come_back_as_texture(mesh_link, tetrahedron: Mesh) -> None:
    rig, _ = outputs(cameras.MakeRig, preset="orbit", views=4, elevation_deg=20.0)
    images, masks, *_ = outputs(views.RenderMesh, mesh=mesh_link, size_px=64, rig=rig)
    textured, picture, coverage, best_view = outputs(
        texture.ProjectTexture, mesh=mesh_link, images=images, rig=rig, masks=masks, size_px=64
    )
    assert picture.shape == coverage.shape == best_view.shape == (1, 64, 64, 3)
    drawn = outputs(views.RenderMesh, mesh=textured, size_px=64, rig=rig)[0]
    assert float((drawn - images).abs().mean()) < 0.03


@pytest.mark.parametrize("from_views", [True, False])
def test_named_parts_become_one_glb_with_a_texture_each(out: Path, from_views: bool) -> None:
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.4)
    parts = [
        Mesh(
            torch.tensor(ball.vertices + [x, 0, 0], dtype=torch.float32),
            torch.tensor(ball.faces),
            vertex_colors=torch.tensor(color).expand(len(ball.vertices), 3),
            name=name,
        )
        for x, color, name in ((-0.5, (0.8, 0.1, 0.1), "body"), (0.5, (0.1, 0.1, 0.8), "hair"))
    ]
    link = mesh_to_link(parts)
    if from_views:
        rig, _ = outputs(cameras.MakeRig)
        images = outputs(views.RenderMesh, mesh=link, size_px=64, rig=rig)[0]
        link, pictures, *_ = outputs(
            texture.ProjectTexture, mesh=link, images=images, rig=rig, size_px=64
        )
        assert pictures.shape == (2, 64, 64, 3)
    else:
        (link,) = outputs(texture.UnwrapMesh, mesh=link, resolution_px=64, bake_colors=True)
    _, relative = outputs(assets.SaveMesh, mesh=link)
    for part, back in zip(parts, read_mesh(out / relative), strict=True):
        assert back.name == part.name and back.num_faces == part.num_faces
        assert back.texture.shape == (64, 64, 3) and back.vertex_colors is None
        middle = back.texture.flatten(0, 1).median(dim=0).values
        assert torch.allclose(middle, part.vertex_colors[0], atol=0.03)


def test_drawn_views_come_back_as_vertex_colors() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.9)
    rig, _ = outputs(cameras.MakeRig, preset="orbit", views=4)
    images = torch.full((4, 64, 64, 3), 0.25)
    colored, seen = outputs(texture.ProjectVertexColors, mesh=ball, images=images, rig=rig)
    colors = mesh_from_link(colored).vertex_colors
    assert torch.allclose(colors, torch.full_like(colors, 0.25), atol=0.02)
    assert 0.5 < seen <= 1
    half = ball.copy().apply_scale(0.5)
    pair, _ = outputs(texture.ProjectVertexColors, mesh=[ball, half], images=images, rig=rig)
    assert [part.num_vertices for part in meshes_from_link(pair)] == [642, 642]


def test_the_number_of_views_must_be_that_of_the_rig(mesh_link) -> None:
    rig, _ = outputs(cameras.MakeRig)
    with pytest.raises(ValueError, match="Got 2 images for 4 cameras"):
        outputs(texture.ProjectTexture, mesh=mesh_link, images=torch.rand(2, 32, 32, 3), rig=rig)


def test_unwrapped_meshes_have_uvs(mesh_link) -> None:
    (unwrapped,) = outputs(texture.UnwrapMesh, mesh=mesh_link)
    uvs = mesh_from_link(unwrapped).uvs
    assert float(uvs.min()) >= 0 and float(uvs.max()) <= 1


def test_a_material_reaches_the_glb(mesh_link, out: Path) -> None:
    (shiny,) = outputs(texture.SetMaterial, mesh=mesh_link, metallic=0.75, roughness=0.25)
    _, relative = outputs(assets.SaveMesh, mesh=shiny)
    material = read_mesh(out / relative)[0].material
    assert (material.metallic, material.roughness) == (0.75, 0.25)


def test_a_mesh_becomes_gaussians_by_gradients(mesh_link) -> None:
    (link,) = outputs(
        splats.MeshToSplat, mesh=mesh_link, gaussians=200, steps=2, views=2, size_px=32
    )
    assert cloud_from_link(link).num_gaussians == 200
    assert not link.positions.requires_grad


def test_gaussians_are_fitted_from_masks_mesh_or_splat(mesh_link, splat_link) -> None:
    images, masks, _, _, rig = outputs(views.RenderMesh, mesh=mesh_link, size_px=32)
    starts = ({"masks": masks}, {"mesh": mesh_link}, {"splat": splat_link})
    counts = [
        cloud_from_link(
            outputs(splats.FitSplats, images=images, rig=rig, gaussians=100, steps=1, **start)[0]
        ).num_gaussians
        for start in starts
    ]
    assert counts == [100, 100, 12]
    with pytest.raises(ValueError, match="connect masks"):
        outputs(splats.FitSplats, images=images, rig=rig)


# -- measures, bridges, health ---------------------------------------------------------------


def test_a_mesh_equals_itself(mesh_link) -> None:
    report, chamfer, f_score, normal_error = outputs(
        inspect.CompareMeshes, mesh=mesh_link, reference=mesh_link, points=500
    )
    assert chamfer < 1e-6 and f_score == 1 and normal_error < 0.1 and "Chamfer" in report


def test_mesh_info_sees_a_closed_tetrahedron(mesh_link) -> None:
    report, vertices, faces, watertight = outputs(inspect.InspectMesh, mesh=mesh_link)
    # edge length 1.8 sqrt(2): volume = edge^3 / (6 sqrt 2), area = sqrt 3 edge^2
    assert (vertices, faces, watertight) == (4, 4, True)
    assert f"volume {(1.8 * math.sqrt(2)) ** 3 / (6 * math.sqrt(2)):.4g}" in report
    assert f"area {math.sqrt(3) * (1.8 * math.sqrt(2)) ** 2:.4g}" in report


def test_mesh_info_does_not_take_seams_for_holes(mesh_link) -> None:
    (unwrapped,) = outputs(texture.UnwrapMesh, mesh=mesh_link)
    assert outputs(inspect.InspectMesh, mesh=unwrapped)[3] is True


def test_pictures_are_compared() -> None:
    image = torch.rand(1, 16, 16, 3)
    report, ratio, likeness = outputs(
        inspect.CompareImages, images=image, reference=(image - 0.1).abs()
    )
    assert 15 < ratio < 25 and likeness < 1 and "PSNR" in report


def test_bridges_lead_there_and_back(mesh_link, splat_link, cloud) -> None:
    (foreign,) = outputs(convert.MeshToTrimesh, mesh=mesh_link)
    (back,) = outputs(convert.TrimeshToMesh, trimesh=foreign)
    assert mesh_from_link(back).num_faces == 4
    (ply,) = outputs(convert.SplatToGsPly, splat=splat_link)
    (splat,) = outputs(convert.GsPlyToSplat, gs_ply=ply)
    assert torch.allclose(cloud_from_link(splat).means, cloud.means, atol=1e-5)


def test_health_names_remedies_for_what_is_missing(monkeypatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "xatlas" else find(name, *a)
    )
    report, healthy = outputs(health.CheckHealth)
    assert not healthy and "pip install xatlas" in report
    assert "MISSING  Project views onto a texture" in report


# -- all of them -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "extra"),
    [
        (bundle.RenderBundle, {"tile_px": 64}),
        (views.RenderMesh, {"size_px": 16}),
        (texture.UnwrapMesh, {}),
        (texture.SetMaterial, {"metallic": 1.0}),
        (splats.MeshToSplat, {"gaussians": 100, "steps": 1, "views": 1, "size_px": 32}),
        (inspect.InspectMesh, {}),
        (convert.MeshToTrimesh, {}),
        (assets.SaveMesh, {}),
    ],
)
def test_cached_meshes_are_not_touched(mesh_link, snapshot, out, cls, extra) -> None:
    before = snapshot(mesh_link)
    outputs(cls, mesh=mesh_link, **extra)
    assert all(torch.equal(a, b) for a, b in zip(snapshot(mesh_link), before, strict=True))


def test_cached_splats_are_not_touched(splat_link, mesh_link, snapshot, out) -> None:
    before = snapshot(splat_link)
    images, _, _, _, rig = outputs(views.RenderMesh, mesh=mesh_link, size_px=32)
    outputs(splats.FitSplats, images=images, rig=rig, splat=splat_link, steps=2)
    outputs(assets.SaveSplat, splat=splat_link)
    outputs(views.RenderSplat, splat=splat_link, size_px=16)
    assert all(torch.equal(a, b) for a, b in zip(snapshot(splat_link), before, strict=True))


def test_progress_reaches_the_listener(mesh_link) -> None:
    seen = []
    host.standalone_progress_hook.append(seen.append)
    try:
        outputs(views.RenderMeshTurntable, mesh=mesh_link, frames=3, size_px=16)
    finally:
        host.standalone_progress_hook.remove(seen.append)
    assert [progress.step for progress in seen] == [1, 2, 3] and seen[0].preview is not None


def test_an_interruption_passes_through(mesh_link) -> None:
    class Interrupted(BaseException):
        pass

    def stop(progress) -> None:
        raise Interrupted

    host.standalone_progress_hook.append(stop)
    try:
        with pytest.raises(Interrupted):
            outputs(splats.MeshToSplat, mesh=mesh_link, gaussians=100, steps=5)
    finally:
        host.standalone_progress_hook.remove(stop)
