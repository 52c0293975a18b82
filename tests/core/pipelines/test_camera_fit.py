import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig, make_stdgen_rig
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.camera_fit import (
    RadiusFitParams,
    fit_camera_radius,
    fit_camera_radius_to_mesh,
)
from lift3d.core.pipelines.initial_mesh import icosphere
from lift3d.core.pipelines.mesh_to_bundle import render_bundle


def ellipsoid() -> Mesh:
    vertices, faces = icosphere(4)
    return Mesh(vertices * torch.tensor([0.9, 0.6, 0.5]), faces)


def masks_at(radius: float) -> torch.Tensor:
    rig = make_kiss3dgen_rig(radius)
    return render_bundle(ellipsoid(), tile_px=128, rig=rig, normalize=False)[1]


@pytest.mark.parametrize("radius", [3.8, 4.5])
def test_radius_is_found_from_the_longest_side(radius):
    fit = fit_camera_radius(masks_at(radius), make_kiss3dgen_rig(4.15), longest_side=1.8)
    assert fit.radius == pytest.approx(radius, rel=0.03)
    assert fit.score > 0.97


def test_radius_is_found_from_a_mesh_of_the_object():
    fit = fit_camera_radius_to_mesh(
        ellipsoid(), masks_at(4.2), make_kiss3dgen_rig(4.5), RadiusFitParams(image_px=128)
    )
    assert fit.radius == pytest.approx(4.2, abs=0.03)
    assert fit.score > 0.97
    assert fit.score == max(score for _, score in fit.tried)


def test_orthographic_views_are_refused():
    with pytest.raises(ValueError, match="ortho_height"):
        fit_camera_radius(torch.ones(6, 32, 32), make_stdgen_rig())


def test_an_empty_view_is_named():
    masks = torch.ones(4, 32, 32)
    masks[2] = 0
    with pytest.raises(ValueError, match="rear"):
        fit_camera_radius(masks, make_kiss3dgen_rig())
