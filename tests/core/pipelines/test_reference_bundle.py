import math

import pytest
import torch
from lift3d.core.bundle_image import masks_from_white
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.mesh import Mesh
from lift3d.core.networks.lrm_cameras import (
    FLEXGEN_AZIMUTHS_DEG,
    FRONT_AZIMUTH_DEG,
    kiss3dgen_to_world,
    make_camera_vectors,
    orbit_camera_vectors,
    turn_to_front,
)
from lift3d.core.pipelines.mesh_to_bundle import render_bundle
from lift3d.core.pipelines.reference_bundle import ReferenceBundleParams, make_reference_bundle


def make_box(low=(-0.5, -0.2, -0.3), high=(0.5, 0.2, 0.3)):
    """A box whose faces share no vertices, so that normals are flat."""
    vertices, faces = [], []
    for axis in range(3):
        for side in (low, high):
            u, v = [other for other in range(3) if other != axis]
            corners = []
            for a, b in ((low, low), (high, low), (high, high), (low, high)):
                corner = [0.0, 0.0, 0.0]
                corner[axis], corner[u], corner[v] = side[axis], a[u], b[v]
                corners.append(corner)
            # Counter-clockwise seen from outside.
            if (side is high) == (axis == 1):
                corners.reverse()
            faces += [[len(vertices), len(vertices) + 1, len(vertices) + 2],
                      [len(vertices), len(vertices) + 2, len(vertices) + 3]]  # fmt: skip
            vertices += corners
    return Mesh(torch.tensor(vertices), torch.tensor(faces))


def project(points, vector):
    """Image coordinates 0..1 of points in the frame of a 16-number camera vector."""
    pose = torch.cat([vector[:12].reshape(3, 4), torch.tensor([[0.0, 0, 0, 1]])]).double()
    seen = (points.double() - pose[:3, 3]) @ pose[:3, :3]
    fx, fy, cx, cy = vector[12:].double()
    return torch.stack([cx - fx * seen[:, 0] / seen[:, 2], cy + fy * seen[:, 1] / seen[:, 2]], -1)


def test_normals_are_those_of_the_plain_camera():
    """The colours of an axis box at elevation 5 (kiss3dgen.md, section 1), in the front column."""
    tiles = make_reference_bundle(make_box(), params=ReferenceBundleParams(tile_px=128)).bundle
    front = tiles.normal_views[0] * 255
    middle = front[64, 64]
    assert middle.tolist() == pytest.approx([127.5, 116.4, 255], abs=1.0)
    top = front[(front[..., 1] > 250) & (front[..., 0] < 140)]
    assert len(top) > 20  # the top face is seen, as from above
    assert top[len(top) // 2].tolist() == pytest.approx([127.5, 255, 138.6], abs=1.0)


def test_normals_are_not_tilted_as_in_the_released_program():
    """Its camera at elevation -26.6 degrees would give the front face another green and blue."""
    tiles = make_reference_bundle(make_box(), params=ReferenceBundleParams(tile_px=64)).bundle
    tilted = math.radians(-26.565)
    defect = torch.tensor([0.5, 0.5 - math.sin(tilted) / 2, 0.5 + math.cos(tilted) / 2])
    assert float((tiles.normal_views[0, 32, 32] - defect).abs().max()) > 0.2


def test_columns_are_the_models_azimuths_270_0_90_180():
    """In the model's frame the bundle is drawn from these azimuths; in the world from 0 to 270."""
    assert FLEXGEN_AZIMUTHS_DEG == (270.0, 0.0, 90.0, 180.0)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    world = turn_to_front(kiss3dgen_to_world(points), FRONT_AZIMUTH_DEG["flexgen"])
    vectors = orbit_camera_vectors(FLEXGEN_AZIMUTHS_DEG, 5.0, radius=4.15)
    for vector, camera in zip(vectors, make_kiss3dgen_rig(4.15), strict=True):
        clip = torch.cat([world, torch.ones(50, 1)], -1) @ camera.world_to_clip(1, 1).T
        expected = (clip[:, :2] / clip[:, 3:] * torch.tensor([0.5, -0.5]) + 0.5).double()
        torch.testing.assert_close(project(points, vector), expected, atol=1e-5, rtol=0)


def test_the_input_view_of_flexgen_is_the_front():
    """Tile 3 lies at azimuth 270 of the model's frame, and becomes column 0 and +Z."""
    vectors = make_camera_vectors("flexgen")
    torch.testing.assert_close(vectors, make_camera_vectors("kiss3dgen")[[3, 0, 1, 2]])
    position = kiss3dgen_to_world(vectors[0].reshape(4, 4)[:3, 3])
    front = turn_to_front(position, FRONT_AZIMUTH_DEG["flexgen"])
    assert front.tolist() == pytest.approx([0.0, 0.3050, 3.4867], abs=1e-4)


def test_turning_by_quarters_is_exact():
    points = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    turned = points
    for _ in range(4):
        turned = turn_to_front(turned, 90.0)
    assert torch.equal(turned, points) and torch.equal(turn_to_front(points, 0.0), points)
    assert turn_to_front(torch.tensor([1.0, 2.0, 0.0]), 90.0).tolist() == [0.0, 2.0, 1.0]


def test_views_fill_the_rgb_row_unless_the_mesh_shall():
    views = torch.rand(4, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    params = ReferenceBundleParams(tile_px=64)
    tiles = make_reference_bundle(make_box(), views, params).bundle
    assert torch.equal(tiles.rgb_views, views)
    plain = make_reference_bundle(make_box(), params=params)
    own = make_reference_bundle(make_box(), views, ReferenceBundleParams(64, use_views=False))
    assert torch.equal(own.bundle.rgb_views, plain.bundle.rgb_views)
    assert torch.equal(own.bundle.normal_views, tiles.normal_views)
    assert [float(camera.position.norm()) for camera in plain.rig] == pytest.approx([4.15] * 4)


def test_views_of_another_size_are_resized():
    views = torch.full((4, 20, 20, 3), 0.25)
    tiles = make_reference_bundle(make_box(), views, ReferenceBundleParams(64)).bundle
    torch.testing.assert_close(tiles.rgb_views, torch.full((4, 64, 64, 3), 0.25))


def test_the_distance_can_be_fitted_to_the_views():
    box = make_box()
    drawn, _, _ = render_bundle(box, tile_px=96, rig=make_kiss3dgen_rig(3.6), normalize=False)
    made = make_reference_bundle(box, drawn.rgb_views, ReferenceBundleParams(96, fit_radius=True))
    assert float(made.rig[0].position.norm()) == pytest.approx(3.6, abs=0.05)
    masks = masks_from_white(drawn.normal_views)
    assert float((made.masks - masks).abs().mean()) < 0.01


def test_progress_rises_to_the_end():
    steps = []
    make_reference_bundle(
        make_box(), params=ReferenceBundleParams(64), on_progress=lambda p: steps.append(p.step)
    )
    assert steps == sorted(steps) and steps[-1] == 100


@pytest.mark.parametrize(
    ("views", "params", "part"),
    [
        (torch.rand(3, 8, 8, 3), {}, "4 square pictures"),
        (torch.rand(4, 8, 9, 3), {}, "4 square pictures"),
        (torch.rand(4, 8, 8), {}, "views must have shape"),
        (torch.full((4, 8, 8, 3), torch.nan), {}, "NaN"),
        (None, {"fit_radius": True}, "fit_radius needs views"),
    ],
)
def test_bad_views_are_refused(unchecked_shapes, views, params, part):
    with pytest.raises(ValueError, match=part):
        make_reference_bundle(make_box(), views, ReferenceBundleParams(64, **params))
    with pytest.raises(ValueError, match="radius must be positive"):
        ReferenceBundleParams(radius=0.0)
