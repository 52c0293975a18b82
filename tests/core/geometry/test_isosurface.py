import pytest
import torch
import trimesh
from lift3d.core.geometry.isosurface import dual_topology, extract_isosurface
from lift3d.core.geometry.isosurface_tables import (
    CORNER_OFFSETS,
    EDGE_CORNERS,
    FACE_CORNERS,
    cell_patches,
    dual_tables,
    face_arcs,
    pinched_face,
)
from lift3d.core.geometry.repair import (
    euler_characteristic,
    is_manifold,
    is_watertight,
    signed_volume,
)

UNIT = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


def _grid(*sizes: int) -> torch.Tensor:
    axes = [torch.linspace(-1, 1, size) for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _sphere(size: int, radius: float = 0.7) -> torch.Tensor:
    return _grid(size, size, size).norm(dim=-1) - radius


def test_every_crossed_edge_has_one_patch_and_no_other_has():
    for code in range(256):
        for edge, patch in enumerate(cell_patches(code)):
            start, end = EDGE_CORNERS[edge]
            assert (patch >= 0) == ((code >> start & 1) != (code >> end & 1))


def test_every_patch_is_a_single_loop_of_at_least_three_edges():
    for code in range(256):
        patches = cell_patches(code, pinched_face(code))
        for patch in range(max(patches) + 1):
            assert patches.count(patch) >= 3


def test_an_inverted_code_splits_its_pinched_patch_and_touches_no_other_ambiguous_face():
    for code in range(256):
        face = pinched_face(code)
        if face is None:
            continue
        ambiguous = [f for f in range(6) if len(face_arcs(code, f, cut_off_inside=True)) == 2]
        assert ambiguous == [face]
        first, second = face_arcs(code, face, cut_off_inside=False)
        inverted = cell_patches(code, face)
        assert inverted[first[0]] != inverted[second[0]]


def test_36_codes_are_pinched_as_the_cube_has_24_plus_12_such_placements():
    counts = [bin(code).count("1") for code in range(256) if pinched_face(code) is not None]
    assert sorted(counts) == [5] * 24 + [6] * 12


def test_faces_are_numbered_so_that_the_last_bit_names_the_neighbour():
    for face, corners in enumerate(FACE_CORNERS):
        assert all(CORNER_OFFSETS[corner][face // 2] == face % 2 for corner in corners)


def test_the_four_edges_along_each_axis_are_all_found_by_offset():
    assert sorted(dual_tables().edge_by_offset.reshape(-1).tolist()) == list(range(12))


@pytest.mark.parametrize(("size", "tolerance"), [(24, 0.02), (48, 0.006)])
def test_a_sphere_has_its_volume_and_radius(size: int, tolerance: float):
    vertices, faces = extract_isosurface(_sphere(size), *UNIT)
    assert is_watertight(faces) and is_manifold(faces) and euler_characteristic(faces) == 2
    exact = 4 / 3 * torch.pi * 0.7**3
    assert float(signed_volume(vertices, faces)) == pytest.approx(exact, rel=tolerance)
    assert float((vertices.norm(dim=-1) - 0.7).abs().max()) < 1 / size**1.5


def test_the_vertices_agree_with_marching_cubes_of_trimesh():
    vertices, faces = extract_isosurface(_sphere(32), *UNIT)
    ours = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    reference = trimesh.creation.icosphere(subdivisions=5, radius=0.7)
    assert ours.is_watertight and ours.is_winding_consistent
    assert ours.area == pytest.approx(reference.area, rel=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_white_noise_is_watertight_and_manifold_whatever_the_ambiguous_cells(seed: int):
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(14, 17, 12, generator=generator)
    _, faces = extract_isosurface(field, *UNIT)
    assert is_watertight(faces) and is_manifold(faces)


def test_all_patterns_of_signs_on_a_block_of_two_cells_are_manifold():
    # 2^12 patterns, here every 29th.
    for pattern in range(0, 4096, 29):
        bits = [(pattern >> i & 1) for i in range(12)]
        field = 0.5 - torch.tensor(bits, dtype=torch.float32).reshape(3, 2, 2)
        _, faces = extract_isosurface(field, *UNIT)
        assert is_manifold(faces)
        assert not len(faces) or is_watertight(faces)


def test_an_anisotropic_grid_keeps_world_units():
    lower, upper = (-2.0, -1.0, -3.0), (2.0, 1.0, 3.0)
    axes = [torch.linspace(lower[i], upper[i], size) for i, size in enumerate((33, 21, 60))]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    vertices, faces = extract_isosurface(points.norm(dim=-1) - 0.8, lower, upper)
    assert float((vertices.norm(dim=-1) - 0.8).abs().max()) < 0.02
    assert is_watertight(faces) and float(signed_volume(vertices, faces)) > 0


def test_a_region_that_touches_the_border_is_closed_on_the_border():
    vertices, faces = extract_isosurface(_grid(9, 9, 9)[..., 1], *UNIT)  # y < 0: half of the cube
    assert is_watertight(faces) and is_manifold(faces)
    assert float(vertices.abs().max()) <= 1.0
    assert float(signed_volume(vertices, faces)) == pytest.approx(4.0, rel=0.2)


def test_all_inside_gives_the_box_and_all_outside_an_empty_mesh():
    _, faces = extract_isosurface(torch.full((4, 4, 4), -1.0), *UNIT)
    assert is_watertight(faces) and euler_characteristic(faces) == 2
    vertices, faces = extract_isosurface(torch.full((4, 4, 4), 1.0), *UNIT)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)


def test_samples_exactly_at_the_level_stay_watertight():
    field = torch.randint(-1, 2, (9, 9, 9), generator=torch.Generator().manual_seed(3)).float()
    vertices, faces = extract_isosurface(field, *UNIT)
    assert is_watertight(faces) and is_manifold(faces) and bool(torch.isfinite(vertices).all())


def test_the_level_moves_the_surface():
    vertices, _ = extract_isosurface(_sphere(40), *UNIT, level=-0.2)
    assert float(vertices.norm(dim=-1).mean()) == pytest.approx(0.5, abs=5e-3)


def test_without_padding_the_surface_is_open_at_the_border():
    topology = dual_topology(_grid(6, 6, 6)[..., 0] < 0.1)
    assert len(topology.quads) == 16  # 4 x 4 inner edges of the plane that 6 x 6 edges cross
    assert len(topology.vertex_cell) == 25


def test_bad_grids_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="NaN or infinite"):
        extract_isosurface(torch.full((4, 4, 4), torch.nan), *UNIT)
    with pytest.raises(ValueError, match="at least 2 samples"):
        extract_isosurface(torch.zeros(1, 4, 4), *UNIT)
    with pytest.raises(ValueError, match="must lie above"):
        extract_isosurface(torch.zeros(4, 4, 4), UNIT[1], UNIT[0])
