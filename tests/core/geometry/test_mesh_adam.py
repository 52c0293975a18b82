import pytest
import torch
import trimesh
from lift3d.core.geometry.edges import build_edges
from lift3d.core.geometry.mesh_adam import (
    MeshOptimizerParams,
    adam_step,
    controlled_length,
    initial_state,
    lerp_unbiased,
)


def _sphere() -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(1)
    edges = build_edges(torch.tensor(mesh.faces).long()).edges
    return torch.tensor(mesh.vertices).double(), edges


def test_the_moving_average_of_a_constant_is_that_constant():
    mean = torch.zeros(3)
    for step in range(1, 20):
        mean = lerp_unbiased(mean, torch.full((3,), 2.5), 0.8, step)
        torch.testing.assert_close(mean, torch.full((3,), 2.5))


def test_the_moving_average_is_adams_with_its_correction():
    values = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, biased = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for step, value in enumerate(values, start=1):
        mean = lerp_unbiased(mean, value, 0.9, step)
        biased = 0.9 * biased + 0.1 * value
        torch.testing.assert_close(mean, biased / (1 - 0.9**step))


def test_a_steady_gradient_moves_each_vertex_by_rate_times_reference_length():
    vertices, edges = _sphere()
    params = MeshOptimizerParams(
        learning_rate=0.3, laplacian=0.0, gain=0.0, betas=(0.8, 0.8, 0.0), ramp=0.1
    )
    state = initial_state(vertices, 0.1)
    gradient = 100 * vertices  # its size does not matter
    moved, state = adam_step(vertices, gradient, edges, state, params)
    torch.testing.assert_close(moved, vertices * (1 - 0.3 * 0.1))
    torch.testing.assert_close(state.relative_speed, torch.ones_like(state.relative_speed))
    assert state.num_steps == 1


def test_the_ramp_begins_with_short_steps_and_a_given_rate_replaces_that_of_the_params():
    vertices, edges = _sphere()
    params = MeshOptimizerParams(learning_rate=0.3, laplacian=0.0, ramp=5)
    state = initial_state(vertices, 0.1)
    moved, _ = adam_step(vertices, vertices, edges, state, params)
    torch.testing.assert_close(moved, vertices * (1 - 0.3 * 0.1 * 0.2 / 5))
    moved, _ = adam_step(vertices, vertices, edges, state, params, learning_rate=0.6)
    torch.testing.assert_close(moved, vertices * (1 - 0.6 * 0.1 * 0.2 / 5))


def test_a_spike_is_clamped_to_ten_times_the_mean_gradient():
    vertices, edges = _sphere()
    params = MeshOptimizerParams(laplacian=0.0, local_edge_length=False)
    _, state = adam_step(vertices, vertices, edges, initial_state(vertices, 0.1), params)
    _, after = adam_step(vertices, 1e6 * vertices, edges, state, params)
    _, expected = adam_step(vertices, 10 * vertices, edges, state, params)
    torch.testing.assert_close(after.mean_gradient, expected.mean_gradient)


def test_the_laplacian_pulls_moving_vertices_to_their_neighbours():
    vertices, edges = _sphere()
    params = MeshOptimizerParams(laplacian=0.5, local_edge_length=False, gradient_clamp=0.0)
    _, state = adam_step(vertices, vertices, edges, initial_state(vertices, 0.1), params)
    bumped = vertices.clone()
    bumped[0] *= 2
    _, after = adam_step(bumped, torch.zeros_like(bumped), edges, state, params)
    assert float((after.mean_gradient[0] - 0.44 * state.mean_gradient[0]) @ bumped[0]) > 0


@pytest.mark.parametrize("local", [False, True])
def test_the_controller_follows_its_formula_and_its_limits(local: bool):
    params = MeshOptimizerParams(
        edge_length_limits=(0.05, 0.2), gain=0.5, nu_ref=0.3, local_edge_length=local
    )
    length = torch.tensor([0.1, 0.1, 0.19, 0.051])
    speed = torch.tensor([0.3, 0.5, 1.0, 0.0])
    used = speed if local else speed.mean()
    expected = (length * (1 + (used - 0.3) * 0.5)).clamp(0.05, 0.2)
    torch.testing.assert_close(controlled_length(length, speed, params), expected)


def test_the_controller_rests_between_its_turns():
    vertices, edges = _sphere()
    params = MeshOptimizerParams(control_interval=3, laplacian=0.0)
    state = initial_state(vertices, 0.1)
    lengths = []
    for _ in range(6):
        _, state = adam_step(vertices, vertices, edges, state, params)
        lengths.append(float(state.reference_length[0]))
    assert lengths[0] == lengths[1] == pytest.approx(0.1)
    assert lengths[2] > lengths[1] and lengths[3] == lengths[2] == lengths[4] < lengths[5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edge_length_limits": (0.0, 0.1)}, "edge_length_limits"),
        ({"betas": (1.0, 0.8, 0.0)}, "betas"),
        ({"edge_length_tolerance": 1.0}, "edge_length_tolerance"),
        ({"ramp": 0.0}, "ramp"),
        ({"control_interval": 0}, "control_interval"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        MeshOptimizerParams(**settings)
