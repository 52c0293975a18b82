import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from lift3d.core.geometry.edges import build_edges, edge_lengths
from lift3d.core.geometry.isosurface import extract_isosurface
from lift3d.core.geometry.remesh import (
    MeshAdamState,
    MeshOptimizer,
    MeshOptimizerParams,
    remesh,
)
from lift3d.core.geometry.repair import (
    euler_characteristic,
    is_manifold,
    is_watertight,
    signed_volume,
)

DATA = Path(__file__).resolve().parents[2] / "data"
GOLDEN_CASES = ["a_global", "b_local", "c_first"]

TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
TETRAHEDRON_VERTICES = torch.tensor(
    [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
)


def _from_trimesh(mesh: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces).long()


def _sphere(subdivisions: int = 3, radius: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    return _from_trimesh(trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius))


def _double_torus() -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.linspace(-1, 1, 28)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")

    def torus(center: float) -> torch.Tensor:
        ring = ((x - center) ** 2 + y**2).sqrt() - 0.3
        return (ring**2 + z**2).sqrt() - 0.14

    sdf = torch.minimum(torus(-0.4), torus(0.4))
    return extract_isosurface(sdf, (-1.0,) * 3, (1.0,) * 3)


def _thin_plate() -> tuple[torch.Tensor, torch.Tensor]:
    box = trimesh.creation.box(extents=(1.0, 0.6, 0.01)).subdivide().subdivide().subdivide()
    return _from_trimesh(box)


def _half_sphere() -> tuple[torch.Tensor, torch.Tensor]:
    vertices, faces = _sphere(3)
    upper = faces[(vertices[faces][..., 1] > -1e-6).all(dim=1)]
    used, faces = torch.unique(upper, return_inverse=True)
    return vertices[used], faces


SHAPES = {
    "sphere": _sphere,
    "torus": lambda: _from_trimesh(trimesh.creation.torus(0.5, 0.15)),
    "double_torus": _double_torus,
    "thin_plate": _thin_plate,
    "needle": lambda: _from_trimesh(trimesh.creation.cylinder(0.01, 1.5, sections=8)),
    "tetrahedron": lambda: (TETRAHEDRON_VERTICES, TETRAHEDRON),
    "box": lambda: _from_trimesh(trimesh.creation.box()),
    "two_spheres": lambda: _from_trimesh(
        trimesh.util.concatenate(
            [trimesh.creation.icosphere(1), trimesh.creation.icosphere(2, 0.3)]
        )
    ),
}


def _edge_set(faces: torch.Tensor) -> set[tuple[int, int]]:
    return {tuple(edge) for edge in build_edges(faces).edges.tolist()}


def _golden(case: str) -> tuple[dict[str, torch.Tensor], dict]:
    arrays = np.load(DATA / "remeshing.npz")
    settings = json.loads((DATA / "remeshing.json").read_text())[case]
    prefix = case + "_"
    return {
        k[len(prefix) :]: torch.tensor(arrays[k]) for k in arrays if k.startswith(prefix)
    }, settings


def _golden_optimizer(golden: dict[str, torch.Tensor], settings: dict) -> MeshOptimizer:
    params = MeshOptimizerParams(
        learning_rate=settings["lr"],
        betas=tuple(float(beta) for beta in settings["betas"]),
        edge_length_limits=tuple(settings["edge_len_lims"]),
        edge_length_tolerance=settings["edge_len_tol"],
        local_edge_length=settings["local_edgelen"],
        gain=settings["gain"],
        nu_ref=settings["nu_ref"],
        laplacian=settings["laplacian_weight"],
        gradient_clamp=settings["grad_lim"],
        ramp=settings["ramp"],
        shortest_probability=settings["shortest_probability"],
    )
    state = MeshAdamState(
        golden["m1"], golden["m2"], golden["nu"], golden["ref_len"], settings["step_before"]
    )
    optimizer = MeshOptimizer(golden["vertices"], golden["faces"].long(), params, state=state)
    optimizer.vertices.grad = golden["grad"]
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_a_step_matches_the_reference_implementation(case: str):
    golden, settings = _golden(case)
    optimizer = _golden_optimizer(golden, settings)
    state = optimizer.state
    for ours, name in (
        (optimizer.vertices.detach(), "vertices"),
        (state.mean_gradient, "m1"),
        (state.mean_square, "m2"),
        (state.relative_speed, "nu"),
        (state.reference_length, "ref_len"),
    ):
        torch.testing.assert_close(ours, golden["step_" + name], atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_remeshing_matches_the_reference_implementation_edge_by_edge(case: str):
    golden, settings = _golden(case)
    optimizer = _golden_optimizer(golden, settings)
    vertices, faces = optimizer.remesh()
    state = optimizer.state
    ours = torch.cat(
        [
            vertices.detach(),
            state.mean_square[:, None],
            state.relative_speed[:, None],
            state.mean_gradient,
            state.reference_length[:, None],
        ],
        dim=1,
    )
    expected = golden["remesh_etc"]
    assert ours.shape == expected.shape
    nearest = torch.cdist(ours[:, :3].double(), expected[:, :3].double()).argmin(dim=1)
    assert len(nearest.unique()) == len(expected)
    torch.testing.assert_close(ours, expected[nearest], atol=1e-6, rtol=0)
    assert len(faces) == len(golden["remesh_faces"])
    assert _edge_set(nearest[faces]) == _edge_set(golden["remesh_faces"].long())
    assert is_watertight(faces) and euler_characteristic(faces) == 2


def _fit_sphere(optimizer: MeshOptimizer, steps: int, radius: float = 0.5):
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((optimizer.vertices.norm(dim=-1) - radius) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.remesh()
        yield optimizer


def test_twenty_steps_keep_an_icosphere_watertight_and_reach_the_target():
    params = MeshOptimizerParams(edge_length_limits=(0.03, 0.2), learning_rate=0.1)
    optimizer = MeshOptimizer(*_sphere(2, 0.8), params)
    for _ in _fit_sphere(optimizer, 50):
        assert is_watertight(optimizer.faces) and is_manifold(optimizer.faces)
        assert euler_characteristic(optimizer.faces) == 2
    radii = optimizer.vertices.detach().norm(dim=-1)
    assert float((radii - 0.5).abs().mean()) < 0.02
    assert float(signed_volume(optimizer.vertices.detach(), optimizer.faces)) > 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_random_forces_never_break_the_surface(shape: str, seed: int):
    vertices, faces = SHAPES[shape]()
    before = euler_characteristic(faces)
    assert is_watertight(faces)
    params = MeshOptimizerParams(
        edge_length_limits=(0.12, 0.3),
        learning_rate=0.4,
        gain=0.5,
        seed=seed,
        local_edge_length=seed % 2 == 0,
    )
    optimizer = MeshOptimizer(vertices, faces, params)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(15):
        optimizer.vertices.grad = torch.randn(optimizer.vertices.shape, generator=generator)
        optimizer.step()
        _, faces = optimizer.remesh()
        assert is_watertight(faces) and is_manifold(faces)
        assert euler_characteristic(faces) == before
        assert bool(torch.isfinite(optimizer.vertices).all())


@pytest.mark.parametrize("seed", range(3))
def test_an_open_mesh_stays_manifold_and_keeps_its_topology(seed: int):
    vertices, faces = _half_sphere()
    before = euler_characteristic(faces)
    params = MeshOptimizerParams(edge_length_limits=(0.05, 0.3), learning_rate=0.5, seed=seed)
    optimizer = MeshOptimizer(vertices, faces, params)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(15):
        optimizer.vertices.grad = torch.randn(optimizer.vertices.shape, generator=generator)
        optimizer.step()
        _, faces = optimizer.remesh()
        assert is_manifold(faces) and euler_characteristic(faces) == before


def _columns(vertices: torch.Tensor, faces: torch.Tensor, low: float, high: float, passes: int):
    for _ in range(passes):
        size = len(vertices)
        vertices, faces = remesh(
            vertices,
            faces,
            min_length=torch.full((size,), low),
            max_length=torch.full((size,), high),
        )
    return vertices, faces


def test_a_huge_minimal_length_shrinks_a_sphere_to_few_faces_but_not_to_nothing():
    vertices, faces = _columns(*_sphere(2), low=5.0, high=20.0, passes=150)
    assert is_watertight(faces) and is_manifold(faces) and 4 <= len(faces) <= 20


def test_a_tetrahedron_is_never_collapsed():
    _, faces = _columns(TETRAHEDRON_VERTICES, TETRAHEDRON, low=10.0, high=20.0, passes=3)
    assert len(faces) == 4


def test_edges_come_to_lie_between_the_limits():
    vertices, faces = _columns(*_sphere(2), low=0.05, high=0.15, passes=12)
    lengths = edge_lengths(vertices, build_edges(faces).edges)
    assert float(lengths.max()) <= 0.15
    assert float(lengths.quantile(0.02)) > 0.05
    assert is_watertight(faces) and euler_characteristic(faces) == 2


def test_flips_even_out_the_degrees():
    generator = torch.Generator().manual_seed(0)
    vertices, faces = _sphere(3)
    vertices = vertices + 0.01 * torch.randn(vertices.shape, generator=generator)
    vertices, faces = _columns(vertices, faces, low=0.03, high=0.09, passes=10)
    degrees = torch.bincount(build_edges(faces).edges.reshape(-1))
    assert float(((degrees - 6) ** 2).float().mean()) < 1.0


def test_the_vertex_cap_splits_the_longest_edges_first():
    vertices, faces = _sphere(1)
    size = len(vertices)
    new, _ = remesh(
        vertices,
        faces,
        min_length=torch.zeros(size),
        max_length=torch.zeros(size),
        max_vertices=size + 7,
    )
    assert len(new) == size + 7


def test_attributes_are_interpolated_like_positions():
    vertices, faces = _sphere(2)
    params = MeshOptimizerParams(edge_length_limits=(0.05, 0.06), learning_rate=0.0)
    optimizer = MeshOptimizer(vertices, faces, params, attributes=vertices * 2 + 1)
    for _ in range(5):
        optimizer.vertices.grad = torch.zeros_like(optimizer.vertices)
        optimizer.step()
        optimizer.remesh()
    assert len(optimizer.vertices) > len(vertices)
    torch.testing.assert_close(optimizer.attributes, optimizer.vertices.detach() * 2 + 1)


def test_equal_seeds_give_equal_meshes_and_inputs_stay_untouched():
    vertices, faces = _sphere(2)
    copies = vertices.clone(), faces.clone()
    results = []
    for seed in (1, 1, 2):
        params = MeshOptimizerParams(edge_length_limits=(0.05, 0.3), learning_rate=0.5, seed=seed)
        optimizer = MeshOptimizer(vertices, faces, params)
        generator = torch.Generator().manual_seed(0)
        for _ in range(8):
            optimizer.vertices.grad = torch.randn(optimizer.vertices.shape, generator=generator)
            optimizer.step()
            optimizer.remesh()
        results.append(optimizer.vertices.detach())
    assert torch.equal(results[0], results[1])
    assert results[0].shape != results[2].shape or not torch.equal(results[0], results[2])
    assert torch.equal(vertices, copies[0]) and torch.equal(faces, copies[1])


def test_the_reference_length_follows_the_controller_between_its_limits():
    vertices, faces = _sphere(1)
    params = MeshOptimizerParams(
        edge_length_limits=(0.1, 0.5),
        initial_edge_length=0.2,
        local_edge_length=False,
        gain=0.5,
        laplacian=0.0,
    )
    optimizer = MeshOptimizer(vertices, faces, params)
    optimizer.vertices.grad = vertices.clone()  # the first step has relative speed 1
    optimizer.step()
    factor = 1 + (1 - 0.3) * 0.5
    torch.testing.assert_close(
        optimizer.state.reference_length, torch.full((len(vertices),), 0.2 * factor)
    )
    for _ in range(9):
        optimizer.vertices.grad = torch.zeros_like(vertices)
        optimizer.step()
    assert float(optimizer.state.reference_length[0]) >= 0.1


def test_bad_input_is_refused_with_a_remedy(unchecked_shapes):
    vertices, faces = _sphere(1)
    with pytest.raises(ValueError, match="without faces"):
        MeshOptimizer(vertices, faces[:0])
    with pytest.raises(ValueError, match="NaN or infinite"):
        MeshOptimizer(vertices * torch.nan, faces)
    with pytest.raises(ValueError, match="point at vertices"):
        MeshOptimizer(vertices[:5], faces)
    with pytest.raises(ValueError, match="repair_mesh"):
        MeshOptimizer(vertices, torch.cat([faces, faces[:1]]))
    optimizer = MeshOptimizer(vertices, faces)
    with pytest.raises(ValueError, match="backward"):
        optimizer.step()
    optimizer.vertices.grad = torch.full_like(vertices, torch.nan)
    with pytest.raises(ValueError, match="gradient of the vertices"):
        optimizer.step()
    with pytest.raises(ValueError, match="edge_length_limits"):
        MeshOptimizerParams(edge_length_limits=(0.2, 0.1))


@pytest.mark.parametrize(("reference", "change"), [(2.2, "fewer"), (1.0, "same"), (0.6, "four")])
def test_edges_below_half_the_reference_collapse_and_above_one_and_a_half_split(reference, change):
    vertices, faces = _sphere(2)
    lengths = edge_lengths(vertices, build_edges(faces).edges)
    length = reference * float(lengths.mean())
    assert float(lengths.max() / lengths.min()) < 1.2
    params = MeshOptimizerParams(
        edge_length_limits=(length, length), learning_rate=0.0, initial_edge_length=length
    )
    optimizer = MeshOptimizer(vertices, faces, params)
    _, after = optimizer.remesh()
    if change == "fewer":
        assert len(after) < len(faces)
    elif change == "same":
        assert torch.equal(after, faces)
    else:
        assert len(after) == 4 * len(faces)
