from dataclasses import replace

import pytest
import torch
from lift3d.core.diffusion.zero123plus_files import load_zero123plus
from lift3d.core.geometry.repair import signed_volume
from lift3d.core.networks.lrm import LrmGridParams
from lift3d.core.networks.lrm_cameras import make_camera_vectors, turn_to_front
from lift3d.core.pipelines import lrm_to_mesh as lrm_module
from lift3d.core.pipelines.bundle_to_mesh import ReconstructionParams
from lift3d.core.pipelines.image_to_3d import ImageTo3dParams, image_to_bundle, image_to_mesh
from lift3d.core.pipelines.image_to_multiview import MultiviewParams
from lift3d.core.pipelines.isomer_params import load_isomer_params
from lift3d.core.pipelines.lrm_to_mesh import lrm_to_mesh
from lift3d.core.pipelines.prepare_image import PrepareImageParams
from lift3d.core.pipelines.reference_bundle import ReferenceBundleParams
from lrm_scenes import TINY, make_sphere_model, make_views
from multiview_scenes import make_tiny_zero123plus

ISOMER = load_isomer_params("from_hull")
PARAMS = ImageTo3dParams(
    prepare=PrepareImageParams(64),
    multiview=MultiviewParams(steps=2, tile_px=32),
    reference=ReferenceBundleParams(64),
    reconstruction=ReconstructionParams(
        isomer=replace(
            ISOMER, coarse=replace(ISOMER.coarse, steps=1), fine=replace(ISOMER.fine, steps=1)
        )
    ),
)


@pytest.fixture(scope="module")
def multiview(tmp_path_factory):
    return load_zero123plus(make_tiny_zero123plus(tmp_path_factory.mktemp("zero123plus")))


class Recorder:
    """Stands in for a trained transformer: every picture becomes a ball; cameras are kept."""

    def __init__(self, triplane):
        self.triplane, self.views, self.cameras = triplane, [], []

    def __call__(self, model, views, cameras, **_):
        self.views.append(views)
        self.cameras.append(cameras)
        return self.triplane


@pytest.fixture
def ball(monkeypatch):
    grid = LrmGridParams(cells=(16, 16, 16), scale=(2.1, 2.1, 2.1))
    model, triplane = make_sphere_model(replace(TINY, grid=grid), radius=0.6)
    recorder = Recorder(triplane)
    monkeypatch.setattr(lrm_module, "views_to_triplane", recorder)
    return model, recorder


@pytest.fixture
def picture():
    image = torch.full((70, 90, 4), 0.5)
    image[..., 3] = 0.0
    image[10:60, 20:70] = 0.8
    image[10:60, 20:70, 3] = 1.0
    return image


def test_the_stages_hand_on_what_they_made(multiview, ball, picture):
    model, recorder = ball
    made = image_to_bundle(multiview, model, picture, params=PARAMS)
    assert made.prepared.image.shape == (64, 64, 3)
    assert made.multiview.views.shape == (4, 32, 32, 3)
    assert torch.equal(recorder.views[0], made.multiview.views)
    assert torch.equal(recorder.cameras[0], make_camera_vectors("flexgen"))
    assert made.reference.bundle.image().shape == (128, 256, 3)
    resized = torch.nn.functional.avg_pool2d(
        made.reference.bundle.rgb_views.permute(0, 3, 1, 2), 2
    ).permute(0, 2, 3, 1)
    assert float((resized - made.multiview.views).abs().mean()) < 0.05
    # A ball of radius 0.6 at distance 4.15: the share of the tile that it covers.
    share = 3.14159 * (1.866 * 0.6 / (4.15**2 - 0.6**2) ** 0.5) ** 2
    assert float(made.reference.masks.mean()) == pytest.approx(share, rel=0.05)


def test_without_enhancement_the_first_mesh_is_refined(multiview, ball, picture):
    model, recorder = ball
    made = image_to_mesh(multiview, model, picture, params=PARAMS)
    assert len(recorder.views) == 1
    volume = float(signed_volume(made.mesh.vertices, made.mesh.faces))
    assert volume == pytest.approx(4 / 3 * 3.14159 * 0.6**3, rel=0.2)
    assert made.mesh.vertex_colors is not None


def test_an_enhanced_bundle_is_reconstructed_anew(multiview, ball, picture):
    model, recorder = ball

    def enhance(known):
        bundle = known.reference.bundle
        red = torch.tensor([1.0, 0.0, 0.0])
        inside = known.reference.masks[..., None] > 0.5
        return replace(bundle, rgb_views=torch.where(inside, red, torch.ones(3)))

    made = image_to_mesh(multiview, model, picture, params=PARAMS, enhance=enhance)
    assert len(recorder.views) == 2
    assert torch.equal(recorder.cameras[1], make_camera_vectors("kiss3dgen"))
    assert made.mesh.vertex_colors[:, 0].mean() > 0.9 and made.mesh.vertex_colors[:, 1].mean() < 0.1


def test_progress_rises_over_all_stages_and_may_interrupt(multiview, ball, picture):
    steps = []
    image_to_mesh(
        multiview, ball[0], picture, params=PARAMS, on_progress=lambda p: steps.append(p.step)
    )
    assert steps == sorted(steps) and steps[-1] == 100 and len(set(steps)) > 10

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_to_mesh(multiview, ball[0], picture, params=PARAMS, on_progress=stop)


def test_the_mesh_of_flexgens_views_is_turned_to_the_front(monkeypatch):
    grid = LrmGridParams(cells=(12, 12, 12), scale=(2.1, 2.1, 2.1))
    model, triplane = make_sphere_model(replace(TINY, grid=grid), radius=0.6)
    # A bump towards the model's azimuth 270, which is -Y there.
    side = triplane.planes.shape[-1]
    centres = (torch.arange(side) + 0.5) * 2 / side - 1
    triplane.planes[:, 0, 0] += 0.3 * torch.exp(-((centres[:, None] + 0.6) ** 2 + centres**2) * 20)
    monkeypatch.setattr(lrm_module, "views_to_triplane", lambda *given, **_: triplane)
    meshes = [
        lrm_to_mesh(model, make_views(), make_camera_vectors("stdgen")[:3], front_azimuth_deg=front)
        for front in (0.0, 270.0)
    ]
    (first_low, first_high), (low, high) = (mesh.bounds() for mesh in meshes)
    assert float(first_low[0]) < -0.65 and float(first_high[2]) < 0.62  # at azimuth 270
    assert float(high[2]) > 0.65 and float(low[0]) > -0.62  # at the front
    assert torch.equal(turn_to_front(meshes[0].vertices, 270.0), meshes[1].vertices)


def test_bad_pictures_stop_before_any_long_work(multiview, ball):
    with pytest.raises(ValueError, match="no alpha channel and no mask"):
        image_to_bundle(multiview, ball[0], torch.rand(8, 8, 3), params=PARAMS)
    assert not ball[1].views


def test_only_the_four_views_make_a_bundle():
    with pytest.raises(ValueError, match="layout 'flexgen'"):
        ImageTo3dParams(multiview=MultiviewParams(layout="zero123plus"))
