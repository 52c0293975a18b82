import pytest
import torch
from lift3d.core.camera import ViewRig, make_kiss3dgen_rig, make_stdgen_rig
from lift3d.core.evaluation.mesh_metrics import volume_iou
from lift3d.core.geometry.depth_carving import CarvingParams, carved_hull_mesh
from lift3d.core.geometry.normals import decode_bundle_normals
from lift3d.core.geometry.repair import is_manifold, is_watertight
from lift3d.core.geometry.visual_hull import VisualHullParams, visual_hull_mesh
from lift3d.core.mesh import Mesh, merge_meshes
from lift3d.core.pipelines.initial_mesh import icosphere
from lift3d.core.pipelines.mesh_to_bundle import render_bundle
from lift3d.core.rendering.mesh import render_mesh

COARSE = CarvingParams(map_px=96, hull=VisualHullParams(resolution=64))


def views_of(mesh: Mesh, rig: ViewRig, size: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    bundle, masks, _ = render_bundle(mesh, tile_px=size, rig=rig, normalize=False)
    covered = masks[..., None].clamp(min=0.1)
    colors = (bundle.normal_views - (1 - covered)) / covered
    return masks, decode_bundle_normals(colors, rig) * (masks[..., None] > 0)


def ellipsoid() -> Mesh:
    vertices, faces = icosphere(4)
    return Mesh(vertices * torch.tensor([0.8, 0.6, 0.7]), faces)


@pytest.mark.parametrize("rig", [make_kiss3dgen_rig(), make_stdgen_rig()], ids=["four", "six"])
def test_an_ellipsoid_comes_out_round(rig):
    truth = ellipsoid()
    masks, normals = views_of(truth, rig)
    carved = carved_hull_mesh(masks, normals, rig, COARSE)
    hull = visual_hull_mesh(masks, rig, COARSE.hull)
    assert is_watertight(carved.faces) and is_manifold(carved.faces)
    assert volume_iou(carved, truth) > max(0.93, volume_iou(hull, truth))


def test_a_hollow_that_no_silhouette_shows_is_carved():
    """A ball with a bite out of its front: only the normals of the front view know of it."""
    vertices, faces = icosphere(5)
    bite = torch.tensor([0.0, 0.0, 1.1])
    away = vertices - bite
    distance = away.norm(dim=1, keepdim=True)
    dented = torch.where(distance < 0.6, bite + away / distance * 0.6, vertices)
    truth = Mesh(0.8 * dented, faces)
    rig = make_kiss3dgen_rig()
    masks, normals = views_of(truth, rig)
    carved = carved_hull_mesh(masks, normals, rig, COARSE)
    hull = visual_hull_mesh(masks, rig, COARSE.hull)
    front = render_mesh(carved, rig.select([0]), width=64, height=64).depth[0, 32, 32]
    true_front = render_mesh(truth, rig.select([0]), width=64, height=64).depth[0, 32, 32]
    hull_front = render_mesh(hull, rig.select([0]), width=64, height=64).depth[0, 32, 32]
    assert float(hull_front) < float(true_front) - 0.1
    found = (front - hull_front) / (true_front - hull_front)
    assert 0.7 < float(found) < 1.1, "share of the hollow's depth"


def test_every_silhouette_is_kept_where_parts_hide_each_other():
    vertices, faces = icosphere(3)
    body = Mesh(0.4 * vertices, faces)
    parts = [body]
    for shift in ([0.6, 0.3, 0.5], [-0.6, -0.3, 0.4], [0.0, 0.6, -0.6]):
        parts.append(Mesh(0.15 * vertices + torch.tensor(shift), faces))
    truth = merge_meshes(parts)
    rig = make_kiss3dgen_rig()
    masks, normals = views_of(truth, rig)
    carved = carved_hull_mesh(masks, normals, rig, COARSE)
    drawn = render_mesh(carved, rig, width=128, height=128).alpha
    missing = ((masks > 0.9) & (drawn < 0.1)).float().mean(dim=(1, 2)) / (masks > 0.5).float().mean(
        dim=(1, 2)
    )
    assert float(missing.max()) < 0.05


def test_wrong_normal_shapes_are_refused(unchecked_shapes):
    masks = torch.ones(4, 32, 32)
    with pytest.raises(ValueError, match="normals_world"):
        carved_hull_mesh(masks, torch.zeros(4, 16, 16, 3), make_kiss3dgen_rig(), COARSE)
