import numpy as np
import pytest
import torch
from lift3d.core.geometry.edges import build_edges
from lift3d.core.geometry.flexicubes import (
    FlexiCubesWeights,
    flexicubes,
    weights_from_logits,
)
from lift3d.core.geometry.isosurface import extract_isosurface
from lift3d.core.geometry.repair import (
    euler_characteristic,
    is_manifold,
    is_watertight,
    signed_volume,
)

CASES = ["sphere", "sphere_weighted", "torus", "torus_weighted", "random"]
SIZE = 17


def _grid(*sizes: int) -> torch.Tensor:
    axes = [torch.linspace(-0.5, 0.5, size) for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _load(shared_dir, case: str):
    arrays = np.load(shared_dir / "goldens" / "flexicubes.npz")
    golden = {k[len(case) + 1 :]: torch.tensor(arrays[k]) for k in arrays if k.startswith(case)}
    grid = torch.tensor(arrays["grid_vertices"])
    sdf = golden["sdf"].requires_grad_()
    leaves = {"sdf": sdf}
    if "deformation" in golden:
        leaves["deformation"] = golden["deformation"].requires_grad_()
        leaves["weights"] = golden["weights"].requires_grad_()
        grid = grid + torch.tanh(leaves["deformation"]) / (4 * 16)
    weights = weights_from_logits(leaves["weights"]) if "weights" in leaves else None
    arguments = sdf.reshape(SIZE, SIZE, SIZE), grid.reshape(SIZE, SIZE, SIZE, 3), weights
    return golden, leaves, arguments


def _triangles(vertices: torch.Tensor, faces: torch.Tensor) -> np.ndarray:
    """Coordinates of the triangles, each turned to begin at its lowest corner, in order."""
    corners = vertices.detach().numpy()[faces.numpy()].round(6) + 0.0
    turned = []
    for triangle in corners:
        first = min(range(3), key=lambda k: tuple(triangle[k]))
        turned.append(np.roll(triangle, -first, axis=0).reshape(-1))
    return np.array(turned)


def _same_triangles(first: np.ndarray, second: np.ndarray, tolerance: float = 2e-5) -> bool:
    from scipy.spatial import cKDTree

    if len(first) != len(second):
        return False
    shifts = [np.roll(second.reshape(-1, 3, 3), k, axis=1).reshape(-1, 9) for k in range(3)]
    distances, index = cKDTree(np.concatenate(shifts)).query(first)
    return distances.max() < tolerance and len(set((index % len(second)).tolist())) == len(second)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_published_meshes_are_reproduced(shared_dir, case: str, training: bool):
    golden, _, arguments = _load(shared_dir, case)
    mode = "train" if training else "eval"
    mesh = flexicubes(*arguments, training=training)
    expected_vertices = golden[f"{mode}_vertices"]
    assert mesh.vertices.shape == expected_vertices.shape
    if not training and case != "random":  # whose cells with several vertices stand at the end
        torch.testing.assert_close(mesh.vertices.detach(), expected_vertices, atol=1e-5, rtol=0)
    ours = _triangles(mesh.vertices, mesh.faces)
    assert _same_triangles(ours, _triangles(expected_vertices, golden[f"{mode}_faces"].long()))
    deviation = mesh.deviation.detach().sort().values
    torch.testing.assert_close(deviation, golden[f"{mode}_ldev"].sort().values, atol=1e-5, rtol=0)
    assert is_watertight(mesh.faces) and is_manifold(mesh.faces)


def test_the_published_gradients_are_reproduced(shared_dir):
    golden, leaves, arguments = _load(shared_dir, "random")
    mesh = flexicubes(*arguments, training=True)
    loss = mesh.vertices.square().sum() + mesh.deviation.mean()
    assert float(loss.detach()) == pytest.approx(float(golden["grad_loss"]), rel=1e-5)
    loss.backward()
    for name, leaf in leaves.items():
        expected = golden["grad_" + name]
        scale = float(expected.abs().max())
        torch.testing.assert_close(leaf.grad, expected, atol=1e-3 * scale, rtol=1e-3, msg=name)


def test_zero_logits_are_the_neutral_weights():
    weights = weights_from_logits(torch.zeros(5, 21))
    assert bool((weights.beta == 1).all()) and bool((weights.alpha == 1).all())
    assert bool((weights.gamma == 0.5).all())
    extreme = weights_from_logits(torch.full((1, 21), 100.0))
    assert float(extreme.beta.max()) == 1.5 and float(extreme.gamma) == 0.75


def test_an_analytic_sphere_is_met_within_a_fraction_of_a_cell():
    grid = _grid(33, 33, 33)
    mesh = flexicubes(grid.norm(dim=-1) - 0.3, grid)
    assert is_watertight(mesh.faces) and euler_characteristic(mesh.faces) == 2
    assert float((mesh.vertices.norm(dim=-1) - 0.3).abs().max()) < 0.2 / 32
    volume = float(signed_volume(mesh.vertices, mesh.faces))
    assert volume == pytest.approx(4 / 3 * torch.pi * 0.027, rel=0.02)


def test_without_weights_it_has_the_vertices_of_the_simple_extraction():
    grid = _grid(12, 9, 15)
    sdf = (grid * torch.tensor([1.0, 0.7, 1.3])).norm(dim=-1) - 0.28
    mesh = flexicubes(sdf, grid)
    vertices, faces = extract_isosurface(sdf, (-0.5,) * 3, (0.5,) * 3)
    torch.testing.assert_close(mesh.vertices, vertices)
    assert mesh.faces.shape == faces.shape


def _slow_dual_vertex(sdf, grid, weights: FlexiCubesWeights) -> torch.Tensor:
    """Dual vertex of a single cell with a single patch, in plain loops."""
    from lift3d.core.geometry.isosurface_tables import CORNER_OFFSETS, EDGE_CORNERS

    value = [sdf[o] * weights.alpha[0, i] for i, o in enumerate(CORNER_OFFSETS)]
    point = [grid[o] for o in CORNER_OFFSETS]
    total, weight = torch.zeros(3, dtype=sdf.dtype), 0.0
    for edge, (i, j) in enumerate(EDGE_CORNERS):
        if (value[i] < 0) != (value[j] < 0):
            crossing = (value[i] * point[j] - value[j] * point[i]) / (value[i] - value[j])
            total = total + weights.beta[0, edge] * crossing
            weight = weight + weights.beta[0, edge]
    return total / weight


@pytest.mark.parametrize("inside", [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4, 5, 6, 7]])
def test_a_single_cell_agrees_with_the_equations_in_float64(inside: list[int]):
    generator = torch.Generator().manual_seed(1)
    sdf = torch.rand(8, generator=generator, dtype=torch.float64) + 0.1
    sdf[inside] *= -1
    sdf = sdf.reshape(2, 2, 2).permute(2, 1, 0).contiguous()  # corner i: x is the lowest bit
    grid = _grid(2, 2, 2).double()
    weights = weights_from_logits(torch.randn(1, 21, generator=generator, dtype=torch.float64))
    mesh = flexicubes(sdf, grid, weights)
    assert mesh.vertices.dtype == torch.float64 and len(mesh.faces) == 0
    torch.testing.assert_close(mesh.vertices[0], _slow_dual_vertex(sdf, grid, weights))


def test_gradients_agree_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    grid = _grid(3, 3, 4).double()
    sdf = (grid.norm(dim=-1) - 0.33).requires_grad_()
    grid.requires_grad_()
    logits = torch.randn(2 * 2 * 3, 21, generator=generator, dtype=torch.float64).requires_grad_()

    def measure(sdf, grid, logits):
        mesh = flexicubes(sdf, grid, weights_from_logits(logits), training=True)
        return mesh.vertices.square().sum(), mesh.deviation.sum()

    assert len(flexicubes(sdf, grid).faces) > 0
    assert torch.autograd.gradcheck(measure, (sdf, grid, logits), atol=1e-6)


def test_gradients_are_finite_where_samples_are_exactly_zero():
    grid = _grid(5, 5, 5)
    sdf = (grid.abs().amax(dim=-1) - 0.25).requires_grad_()  # whole planes of zeros
    mesh = flexicubes(sdf, grid, training=True)
    (mesh.vertices.square().sum() + mesh.deviation.sum()).backward()
    assert bool(torch.isfinite(sdf.grad).all())


def test_one_sign_gives_an_empty_mesh_and_the_border_stays_open():
    grid = _grid(4, 4, 4)
    empty = flexicubes(torch.ones(4, 4, 4), grid, training=True)
    assert empty.vertices.shape == (0, 3) and empty.faces.shape == (0, 3)
    plane = flexicubes(grid[..., 0], grid)
    assert is_manifold(plane.faces) and not is_watertight(plane.faces)


def test_bad_input_is_refused(unchecked_shapes):
    grid = _grid(4, 4, 4)
    with pytest.raises(ValueError, match="NaN or infinite"):
        flexicubes(torch.full((4, 4, 4), torch.nan), grid)
    with pytest.raises(ValueError, match="27 cells"):
        flexicubes(torch.ones(4, 4, 4), grid, weights_from_logits(torch.zeros(26, 21)))
    with pytest.raises(ValueError, match="grid_vertices"):
        flexicubes(torch.ones(4, 4, 5), grid)
    with pytest.raises(ValueError, match=r"\[any, 21\]"):
        weights_from_logits(torch.zeros(3, 20))
    with pytest.raises(ValueError, match="turn negative"):
        weights_from_logits(torch.zeros(3, 21), scale=1.5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("code", range(5))
def test_open_meshes_on_an_anisotropic_grid_are_reproduced(shared_dir, code: int, training: bool):
    golden = np.load(shared_dir / "goldens" / "slrm_tiny_meshes.npz")
    shape = (9, 9, 13)
    grid = torch.tensor(golden["grid_verts"] + golden["deformation_scaled"][0]).reshape(*shape, 3)
    weights = weights_from_logits(torch.tensor(golden["raw_weights"][0]))
    sdf = torch.tensor(golden[f"code{code}_sdf"]).reshape(shape)
    mesh = flexicubes(sdf, grid, weights, training=training)
    prefix = f"code{code}_{'train' if training else 'eval'}"
    expected_vertices = torch.tensor(golden[prefix + "_vertices"])
    assert mesh.vertices.shape == expected_vertices.shape
    expected = _triangles(expected_vertices, torch.tensor(golden[prefix + "_faces"]).long())
    assert _same_triangles(_triangles(mesh.vertices, mesh.faces), expected, tolerance=1e-4)
    mean_deviation = float(golden[f"code{code}_regs"][1])
    assert float(mesh.deviation.mean()) == pytest.approx(mean_deviation, rel=1e-4)
    assert int(build_edges(mesh.faces).face_count.max()) == 2
