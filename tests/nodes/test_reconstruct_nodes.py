"""Meshes come back from bundles and views through the nodes, also under inference mode."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.datasets.procedural_objects import make_object
from lift3d.core.geometry.repair import is_watertight
from lift3d.core.pipelines.inspect_mesh import compare_meshes
from lift3d.nodes import bundle, reconstruct, views
from lift3d.nodes.sockets_mesh import mesh_from_link, mesh_to_link
from node_calls import outputs

pytestmark = pytest.mark.usefixtures("as_in_comfyui")

STEPS = {"coarse_steps": 4, "fine_steps": 2}


@pytest.fixture(scope="module")
def mushroom():
    return make_object("mushroom", 1).mesh


def test_a_mesh_survives_its_bundle(mushroom, snapshot) -> None:
    link = mesh_to_link(mushroom)
    image, masks, rig = outputs(bundle.RenderBundle, mesh=link, tile_px=96)
    before = image.clone()
    made, used = outputs(reconstruct.ReconstructFromBundle, bundle=image, rig=rig, **STEPS)
    mesh = mesh_from_link(made)
    assert is_watertight(mesh.faces) and mesh.vertex_colors is not None and len(used) == 4
    found = compare_meshes(mesh, mushroom.normalized(), num_points=3000, image_px=96)
    assert found.silhouette_iou > 0.93 and found.f_score_coarse > 0.8
    assert torch.equal(image, before) and not made.vertices.requires_grad


@pytest.mark.slow
def test_views_of_any_rig_become_a_mesh(mushroom) -> None:
    from lift3d.nodes.cameras import MakeRig

    rig, _ = outputs(MakeRig, preset="stdgen")
    images, masks, normals, _, _ = outputs(
        views.RenderMesh,
        mesh=mesh_to_link(mushroom), size_px=96, rig=rig, normal_encoding="world",
    )  # fmt: skip
    (made,) = outputs(
        reconstruct.ReconstructFromViews,
        images=images, normals=normals, masks=masks, rig=rig, normal_encoding="world", **STEPS,
    )  # fmt: skip
    found = compare_meshes(mesh_from_link(made), mushroom, num_points=3000, image_px=96)
    assert found.silhouette_iou > 0.9


@pytest.mark.slow
def test_a_given_mesh_is_refined_instead_of_a_hull(mushroom) -> None:
    link = mesh_to_link(mushroom)
    image, _, _ = outputs(bundle.RenderBundle, mesh=link, tile_px=96)
    first, _ = outputs(reconstruct.ReconstructFromBundle, bundle=image, **STEPS)
    again, _ = outputs(reconstruct.ReconstructFromBundle, bundle=image, initial_mesh=first, **STEPS)
    assert is_watertight(mesh_from_link(again).faces)


@pytest.mark.parametrize("known", ["size", "normals", "mesh"])
def test_the_camera_radius_is_found_again(mushroom, known: str) -> None:
    from lift3d.nodes.cameras import MakeRig

    link = mesh_to_link(mushroom)
    rig, _ = outputs(MakeRig, preset="kiss3dgen", radius=4.0)
    _, masks, normals, *_ = outputs(views.RenderMesh, mesh=link, size_px=96, rig=rig)
    extra = {"size": {}, "normals": {"normals": normals}, "mesh": {"mesh": link}}[known]
    found, radius, score = outputs(reconstruct.FitCameraRadius, masks=masks, **extra)
    assert radius == pytest.approx(4.0, rel=0.02 if known == "mesh" else 0.2) and score > 0.9
    assert float(found[0].position.norm()) == pytest.approx(radius, rel=1e-4)


@pytest.mark.parametrize(
    ("image", "part"),
    [
        (torch.ones(1, 128, 256, 3), "white"),
        (torch.rand(1, 130, 256, 3), "got 256 x 130"),
        (torch.rand(3, 128, 256, 3), "batch of 3"),
    ],
)
def test_bundles_without_an_object_or_of_the_wrong_size_are_refused(image, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        outputs(reconstruct.ReconstructFromBundle, bundle=image)


def test_views_and_rig_must_agree(mushroom) -> None:
    image, masks, rig = outputs(bundle.RenderBundle, mesh=mesh_to_link(mushroom), tile_px=64)
    with pytest.raises(ValueError, match="Got 2 images for 4 cameras"):
        outputs(
            reconstruct.ReconstructFromViews,
            images=torch.rand(2, 64, 64, 3), normals=torch.rand(2, 64, 64, 3), masks=masks[:2],
            rig=rig,
        )  # fmt: skip
