import pytest
import torch
import trimesh
from lift3d.core.bundle_image import BundleImage
from lift3d.core.evaluation.image_metrics import silhouette_iou
from lift3d.core.mesh import Mesh, merge_meshes
from lift3d.core.pipelines.bundle_views import read_bundle_views, soft_masks_from_white
from lift3d.core.pipelines.mesh_to_bundle import render_bundle


def to_mesh(source: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(source.vertices).float(), torch.tensor(source.faces).long())


def cross_of_rods(radius: float) -> Mesh:
    """Three rods; at a tile of 192 a radius of 0.012 is two pixels across."""
    rods = []
    for axis in ([1, 0, 0], [0, 1, 0], [0.6, 0.3, 0.8]):
        turn = trimesh.geometry.align_vectors([0, 0, 1], axis)
        rods.append(to_mesh(trimesh.creation.cylinder(radius, 1.8, sections=24, transform=turn)))
    return merge_meshes(rods)


def facing_colors(count: int) -> torch.Tensor:
    """Bundle colours of random normals that a camera can see."""
    normals = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    normals[:, 2] = normals[:, 2].abs() + 0.05
    normals = normals / normals.norm(dim=1, keepdim=True)
    return (normals + 1) / 2


def coverage_beside(solids: torch.Tensor, colors: torch.Tensor, share: float) -> torch.Tensor:
    """Found coverage of a column that shows ``share`` of one colour beside a solid of another."""
    views = torch.ones(len(colors), 24, 24, 3)
    views[:, :, :12] = solids[:, None, None]
    views[:, :, 12] = (share * colors + 1 - share)[:, None]
    found = soft_masks_from_white(views)
    assert bool((found[:, 1:-1, 1:11] == 1).all()) and bool((found[:, :, 13:] == 0).all())
    return found[:, 12, 12]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_coverage_of_an_edge_is_exact_where_the_normal_bends(share: float):
    """Only |n| = 1 can tell: the colour inside is that of another normal."""
    solids = facing_colors(60)
    bent = 2 * solids - 1 + 0.3 * torch.randn(60, 3, generator=torch.Generator().manual_seed(2))
    bent[:, 2] = bent[:, 2].abs()
    colors = (bent / bent.norm(dim=1, keepdim=True) + 1) / 2
    off = (coverage_beside(solids, colors, share) - share).abs()
    assert float(off.median()) < 1e-3 and float((off < 0.02).float().mean()) > 0.6
    assert float((off < 0.3).float().mean()) > 0.9


@pytest.mark.parametrize(("radius", "least"), [(0.012, 0.8), (0.02, 0.9), (0.03, 0.95)])
def test_masks_of_rods_of_two_to_five_pixels_hold_their_coverage(radius: float, least: float):
    bundle, masks, rig = render_bundle(cross_of_rods(radius), tile_px=192, normalize=False)
    found = read_bundle_views(bundle, rig).masks
    assert float(silhouette_iou(found, masks).mean()) > least
    assert float(found.sum() / masks.sum()) == pytest.approx(1.0, abs=0.16)


def test_masks_withstand_noise_of_a_decoder():
    bundle, masks, rig = render_bundle(to_mesh(trimesh.creation.icosphere(3)), tile_px=128)
    noise = torch.randn(bundle.normal_views.shape, generator=torch.Generator().manual_seed(0))
    noisy = (bundle.normal_views + noise * 4 / 255).clamp(0, 1)
    found = read_bundle_views(BundleImage(bundle.rgb_views, noisy), rig).masks
    assert float(silhouette_iou(found, masks).min()) > 0.99


def test_a_given_mask_is_taken_as_it_is():
    bundle, masks, rig = render_bundle(to_mesh(trimesh.creation.icosphere(2)), tile_px=64)
    given = masks * 0.5
    found = read_bundle_views(bundle, rig, given)
    assert torch.equal(found.masks, given)
    assert bool((found.normals_world[given > 0].norm(dim=-1) > 0.99).all())


def test_a_rig_of_another_size_is_refused():
    bundle, _, rig = render_bundle(to_mesh(trimesh.creation.icosphere(1)), tile_px=64)
    with pytest.raises(ValueError, match="4 views, the rig 2 cameras"):
        read_bundle_views(bundle, rig.select([0, 1]))
