import json

import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig, make_orbit_rig, make_stdgen_rig
from lift3d.core.networks.lrm_cameras import (
    camera_vectors_of_rig,
    kiss3dgen_to_world,
    make_camera_vectors,
    orbit_camera_vectors,
    stdgen_to_world,
)

TABLES = {
    "kiss3dgen": ("kiss3dgen_prm_4", 1e-6),
    "stdgen": ("stdgen_slrm_6", 0.0),
    "zero123plus": ("instantmesh_zero123plus_6", 1e-6),
}


@pytest.mark.parametrize("family", TABLES)
def test_published_tables_are_reproduced(shared_dir, family):
    key, tolerance = TABLES[family]
    table = json.loads((shared_dir / "spec" / "camera_tables.json").read_text(encoding="utf-8"))
    torch.testing.assert_close(
        make_camera_vectors(family), torch.tensor(table[key]), atol=tolerance, rtol=0
    )


def test_the_front_camera_of_kiss3dgen_has_the_published_numbers():
    expected = [0, -0.0872, 0.9962, 3.4867, 1, 0, 0, 0, 0, 0.9962, 0.0872, 0.3050, 1.8660, 1.8660, 0.5, 0.5]  # fmt: skip
    vectors = make_camera_vectors("kiss3dgen")
    torch.testing.assert_close(vectors[0], torch.tensor(expected), atol=1e-4, rtol=0)
    position = vectors[1].reshape(4, 4)[:3, 3]
    torch.testing.assert_close(position, torch.tensor([0.0, 3.4867, 0.3050]), atol=1e-4, rtol=0)


def test_the_table_of_stdgen_is_the_rounded_formula():
    formula = orbit_camera_vectors([0, 45, 90, 180, 270, 315], 0.0, radius=4.47846)
    table = make_camera_vectors("stdgen")
    assert 1e-4 < float((table - formula).abs().max()) < 2e-3
    assert abs(float(table[0, 3]) - 4.4765625) < 1e-9
    row = torch.tensor([-0.70703125, 0.0, 0.70703125, 3.166015625])
    torch.testing.assert_close(table[1, :4], row, atol=2e-7, rtol=0)


@pytest.mark.parametrize("to_world", [kiss3dgen_to_world, stdgen_to_world])
def test_the_models_axes_become_front_left_and_up(to_world):
    axes = to_world(torch.eye(3))
    assert axes.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert float(torch.linalg.det(axes)) == 1.0


@pytest.mark.parametrize(
    ("family", "to_world", "rig", "tolerance"),
    [
        ("kiss3dgen", kiss3dgen_to_world, make_kiss3dgen_rig(radius=3.5), 1e-6),
        ("stdgen", stdgen_to_world, make_stdgen_rig(radius=4.47846), 2e-3),
    ],
)
def test_published_cameras_become_those_of_our_rigs(family, to_world, rig, tolerance):
    for vector, camera in zip(make_camera_vectors(family), rig, strict=True):
        pose = to_world(vector[:12].reshape(3, 4).T).T  # every column is a vector in space
        torch.testing.assert_close(pose, camera.camera_to_world[:3], atol=tolerance, rtol=0)


def test_a_rig_in_the_world_gives_the_published_vectors():
    torch.testing.assert_close(
        camera_vectors_of_rig(make_kiss3dgen_rig(radius=3.5)),
        make_camera_vectors("kiss3dgen"),
        atol=1e-6,
        rtol=0,
    )


def test_orthographic_rigs_are_refused():
    with pytest.raises(ValueError, match="perspective cameras only"):
        camera_vectors_of_rig(make_stdgen_rig())
    assert camera_vectors_of_rig(make_orbit_rig([0.0], 0.0, radius=2.0)).shape == (1, 16)


def test_wrong_orbits_and_families_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="one elevation per azimuth"):
        orbit_camera_vectors([0.0, 1.0], [0.0], radius=1.0)
    with pytest.raises(ValueError, match="radius must be positive"):
        orbit_camera_vectors([0.0], 0.0, radius=0.0)
    with pytest.raises(ValueError, match="Unknown family 'other'"):
        make_camera_vectors("other")
