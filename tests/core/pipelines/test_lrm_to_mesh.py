import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lift3d.core.geometry.flexicubes import flexicubes, weights_from_logits
from lift3d.core.geometry.isosurface_tables import CORNER_OFFSETS
from lift3d.core.geometry.repair import is_manifold, is_watertight, signed_volume
from lift3d.core.geometry.semantic_parts import StdgenPart, stdgen_part_sdf
from lift3d.core.networks.lrm import LargeReconstructionModel, LrmGridParams
from lift3d.core.networks.lrm_cameras import make_camera_vectors
from lift3d.core.pipelines.lrm_to_mesh import (
    LrmToMeshParams,
    grid_to_mesh,
    grid_to_semantic_field,
    lrm_to_mesh,
    triplane_to_grid,
    views_to_triplane,
)
from lift3d.core.triplane import Triplane
from lrm_scenes import (
    TINY,
    golden_model,
    load_golden,
    make_lively_model,
    make_sphere_model,
    make_views,
)

CAMERAS = make_camera_vectors("stdgen")[:3]


@pytest.fixture(scope="module")
def model() -> LargeReconstructionModel:
    return make_lively_model()


@pytest.fixture(scope="module")
def triplane() -> Triplane:
    return Triplane(torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(1)))


def _match(found: torch.Tensor, expected: torch.Tensor) -> tuple[float, np.ndarray]:
    """Largest distance to the nearest expected vertex, and which it is."""
    from scipy.spatial import cKDTree

    distances, index = cKDTree(expected.numpy()).query(found.numpy())
    return float(distances.max()), index


def _turned(faces: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(np.roll(face, -int(np.argmin(face)))) for face in faces}


@pytest.mark.parametrize("part", StdgenPart, ids=lambda part: part.name.lower())
def test_the_published_parts_are_reproduced(shared_dir, part):
    golden = load_golden(shared_dir, "meshes")
    model = golden_model(shared_dir)
    planes = Triplane(load_golden(shared_dir, "forward")["planes"])
    grid = triplane_to_grid(model, planes)
    sdf = stdgen_part_sdf(grid.sdf, grid.logits.softmax(dim=-1), part)
    torch.testing.assert_close(sdf.reshape(-1), golden[f"code{part}_sdf"], atol=2e-4, rtol=0)
    mesh = grid_to_mesh(model, grid, sdf=sdf)
    vertices = model.to_world(golden[f"code{part}_eval_vertices"])
    assert mesh.vertices.shape == vertices.shape
    distance, index = _match(mesh.vertices, vertices)
    assert distance < 1e-4 and len(set(index.tolist())) == len(vertices)
    assert _turned(index[mesh.faces.numpy()]) == _turned(golden[f"code{part}_eval_faces"].numpy())


def test_a_sphere_in_the_planes_becomes_a_closed_outward_sphere():
    grid_params = LrmGridParams(cells=(24, 24, 24), scale=(2.1, 2.1, 2.1))
    model, planes = make_sphere_model(replace(TINY, grid=grid_params), radius=0.8)
    mesh = grid_to_mesh(model, triplane_to_grid(model, planes))
    assert is_watertight(mesh.faces) and is_manifold(mesh.faces)
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(
        4 / 3 * np.pi * 0.8**3, rel=0.02
    )
    error = (mesh.vertices.norm(dim=1) - 0.8).abs().max()
    assert float(error) < 0.3 * 2.1 / 24  # of a cell


def test_chunks_give_the_mesh_of_an_evaluation_at_once(model, triplane):
    small = LrmToMeshParams(chunk_points=97, chunk_cells=13)
    grid = triplane_to_grid(model, triplane, params=small)
    mesh = grid_to_mesh(model, grid, params=small)

    # All heads at all points and cells at once, as the published program does.
    decoder, points = model.decoder, model.params.grid.points()
    features = model.features(triplane, points.reshape(-1, 3))
    volume = features.reshape(*points.shape[:3], -1)
    nx, ny, nz = (size - 1 for size in points.shape[:3])
    corners = [volume[i : nx + i, j : ny + j, k : nz + k] for i, j, k in CORNER_OFFSETS]
    weights = weights_from_logits(decoder.weight_logits(torch.stack(corners, dim=3).flatten(0, 2)))
    moved = points + model.params.grid.displacement(decoder.deformation(volume))
    whole = flexicubes(decoder.sdf(volume), moved, weights)

    assert len(whole.faces) > 100
    torch.testing.assert_close(mesh.vertices, model.to_world(whole.vertices), atol=1e-5, rtol=0)
    assert torch.equal(mesh.faces, whole.faces)
    colors = decoder.rgb(model.features(triplane, whole.vertices)).clamp(0, 1)
    torch.testing.assert_close(mesh.vertex_colors, colors, atol=1e-5, rtol=0)


def test_views_become_a_coloured_mesh_and_the_same_one_again(model):
    meshes = [lrm_to_mesh(model, make_views(), CAMERAS) for _ in range(2)]
    assert not meshes[0].is_empty
    assert torch.equal(meshes[0].vertices, meshes[1].vertices)
    assert torch.equal(meshes[0].vertex_colors, meshes[1].vertex_colors)
    low, high = meshes[0].bounds()
    slack = 1 / 48 + 1e-6
    assert bool((high <= torch.tensor([0.7, 1.05, 0.7]) + slack).all())  # +Y is up
    assert bool((low >= -torch.tensor([0.7, 1.05, 0.7]) - slack).all())


def test_half_precision_gives_about_the_same_planes(model):
    half = copy.deepcopy(model).bfloat16()
    half.synthesizer.float()
    coarse, fine = (views_to_triplane(m, make_views(), CAMERAS).planes for m in (half, model))
    assert coarse.dtype == torch.float32
    assert float((coarse - fine).abs().max()) < 0.05 * float(fine.abs().max())
    assert not lrm_to_mesh(half, make_views(), CAMERAS).is_empty


def test_views_are_resized_to_what_the_model_expects(model):
    flat = torch.full((3, 1, 1, 3), 0.25)
    small, exact = (
        views_to_triplane(model, flat.expand(3, side, side, 3), CAMERAS) for side in (33, 80)
    )
    torch.testing.assert_close(small.planes, exact.planes, atol=1e-4, rtol=0)
    assert torch.equal(flat, torch.full((3, 1, 1, 3), 0.25))


def test_progress_rises_from_0_to_100_and_may_interrupt(model):
    steps = []
    params = LrmToMeshParams(chunk_points=200, chunk_cells=50)
    lrm_to_mesh(
        model,
        make_views(),
        CAMERAS,
        params=params,
        on_progress=lambda p: steps.append((p.step, p.total)),
    )
    assert steps == sorted(steps) and steps[-1] == (100, 100) and len(steps) > 10

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lrm_to_mesh(model, make_views(), CAMERAS, on_progress=stop)


def test_a_part_that_is_nowhere_is_an_empty_mesh(model, triplane):
    grid = triplane_to_grid(model, triplane)
    mesh = grid_to_mesh(model, grid, sdf=torch.ones_like(grid.sdf), name="hat")
    assert mesh.is_empty and mesh.num_vertices == 0 and mesh.name == "hat"


def test_an_object_that_is_nowhere_is_an_error():
    model = make_lively_model()
    model.decoder.net_sdf[6].bias += 1e4
    with pytest.raises(ValueError, match="no surface in these views"):
        lrm_to_mesh(model, make_views(), CAMERAS)


def test_the_semantic_field_stands_in_the_world(model, triplane):
    grid = triplane_to_grid(model, triplane)
    field = grid_to_semantic_field(model, grid)
    assert field.sdf.shape == (9, 13, 9) and field.upper == pytest.approx((0.7, 1.05, 0.7))
    x, y, z = 2, 7, 5  # world (x, y, z) is (y, z, x) of the model
    world = torch.tensor(
        [low + index * (high - low) / (count - 1) for index, low, high, count in
         zip((x, y, z), field.lower, field.upper, field.sdf.shape, strict=True)]
    )  # fmt: skip
    features = model.features(triplane, model.from_world(world)[None])
    torch.testing.assert_close(
        field.sdf[x, y, z], model.decoder.sdf(features)[0], atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        field.logits[x, y, z], model.decoder.semantic_logits(features)[0], atol=1e-4, rtol=0
    )


MEMORY_SCRIPT = """
import resource, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
import run
run.register_package()
import torch
from lift3d.core.networks.lrm import load_lrm_params
from lift3d.core.pipelines.lrm_to_mesh import grid_to_mesh, triplane_to_grid
from dataclasses import replace
from lrm_scenes import TINY, make_sphere_model
params = load_lrm_params(sys.argv[2]).without_lora()
transformer = replace(TINY.transformer, num_channels=params.transformer.num_channels)
model, planes = make_sphere_model(
    replace(params, encoder=TINY.encoder, transformer=transformer), radius=0.65
)
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
before = peak()
mesh = grid_to_mesh(model, triplane_to_grid(model, planes))
assert mesh.num_faces > 10_000
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is not on Windows")
@pytest.mark.parametrize("name", ["prm", "stdgen_slrm"])
def test_published_grids_take_less_than_2_gb_beside_the_weights(name):
    result = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, str(Path(__file__).parents[3]), name],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 2e9


def test_wrong_views_are_refused(model, unchecked_shapes):
    views = make_views()
    with pytest.raises(ValueError, match="square picture"):
        lrm_to_mesh(model, views[:, :40], CAMERAS)
    with pytest.raises(ValueError, match="within 0..1"):
        lrm_to_mesh(model, views * 255, CAMERAS)
    with pytest.raises(ValueError, match="cameras must have shape"):
        lrm_to_mesh(model, views, CAMERAS[:2])
    with pytest.raises(ValueError, match="NaN"):
        lrm_to_mesh(model, views * torch.nan, CAMERAS)
    with pytest.raises(ValueError, match="views must have shape"):
        lrm_to_mesh(model, views.permute(0, 3, 1, 2), CAMERAS)


def test_wrong_chunks_and_batches_are_refused(model):
    with pytest.raises(ValueError, match="at least 1"):
        LrmToMeshParams(chunk_points=0)
    with pytest.raises(ValueError, match="triplane of one object"):
        triplane_to_grid(model, Triplane(torch.zeros(2, 3, 8, 8, 8)))
