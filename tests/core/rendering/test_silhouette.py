import pytest
import torch
from lift3d.core.backends.probe import backend_status
from lift3d.core.camera import make_orbit_rig
from lift3d.core.mesh import Mesh
from lift3d.core.rendering.mesh import rasterize, render_mesh, world_to_clip
from lift3d.core.rendering.silhouette import antialias, build_topology, find_crossings
from mesh_scenes import make_smooth_weights, make_sphere

BACKENDS = [s.name for s in backend_status("mesh") if s.ready and s.name in ("numba", "torch")]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def _clip_from_pixels(points, width, height, depth=0.0):
    points = torch.as_tensor(points, dtype=torch.float64)
    x, y = points[:, 0] / width * 2 - 1, 1 - points[:, 1] / height * 2
    return torch.stack([x, y, torch.full_like(x, depth), torch.ones_like(x)], dim=-1)


def _coverage(clip, faces, width, height, backend="auto", topology=None):
    rast = rasterize(clip, faces, width=width, height=height, backend=backend)
    hard = (rast[..., 3:] > 0).to(clip.dtype)
    return antialias(hard, rast, clip, faces, topology=topology, backend=backend)[..., 0]


QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])


# Known answers


@pytest.mark.parametrize("right", [9.1, 9.4, 9.6, 10.0, 10.3])
def test_upright_edge_gives_exact_coverage(backend, right):
    clip = _clip_from_pixels([[4, 2], [right, 2], [right, 14], [4, 14]], 16, 16)[None]
    alpha = _coverage(clip, QUAD, 16, 16, backend)[0]
    columns = (right - torch.arange(16.0, dtype=torch.float64)).clamp(0, 1) * (
        torch.arange(16) >= 4
    )
    torch.testing.assert_close(alpha[8], columns)


def test_area_gradient_of_a_rectangle_is_the_length_of_its_sides(backend):
    corners = torch.tensor(
        [[3.3, 2.8], [11.6, 2.8], [11.6, 12.3], [3.3, 12.3]], dtype=torch.float64
    )
    corners.requires_grad_()
    clip = _clip_from_pixels(corners, 16, 16)[None]
    _coverage(clip, QUAD, 16, 16, backend).sum().backward()
    # Moving a corner by dx widens the rectangle by half of that over its height. Rows and columns
    # are whole, so the sides count 10 and 8 instead of 9.5 and 8.3 pixels.
    height, width = 9.5, 8.3
    expected = (
        torch.tensor([[-height, -width], [height, -width], [height, width], [-height, width]]) / 2
    )
    torch.testing.assert_close(corners.grad, expected.double(), rtol=0.1, atol=0)


def test_nearer_edge_blends_with_what_lies_behind(backend):
    back = _clip_from_pixels([[0, 0], [16, 0], [16, 16], [0, 16]], 16, 16, depth=0.5)
    front = _clip_from_pixels([[4.7, 4], [12, 4], [12, 12], [4.7, 12]], 16, 16)
    clip = torch.cat([back, front])[None]
    faces = torch.cat([QUAD, QUAD + 4])
    rast = rasterize(clip, faces, width=16, height=16, backend=backend)
    color = torch.where(rast[..., 3:] > 2, rast.new_tensor(1.0), 0.2)
    out = antialias(color, rast, clip, faces, backend=backend)
    assert float(out[0, 8, 4, 0]) == pytest.approx(0.2 + 0.3 * 0.8)  # 30 % of pixel 4 is in front
    assert float(out[0, 8, 3, 0]) == 0.2 and float(out[0, 8, 5, 0]) == 1.0


def test_hidden_edges_leave_the_picture_alone(backend):
    front = _clip_from_pixels([[0, 0], [16, 0], [16, 16], [0, 16]], 16, 16)
    back = _clip_from_pixels([[4.7, 4], [12, 4], [12, 12], [4.7, 12]], 16, 16, depth=0.5)
    clip, faces = torch.cat([front, back])[None], torch.cat([QUAD, QUAD + 4])
    rast = rasterize(clip, faces, width=16, height=16, backend=backend)
    noise = torch.rand(1, 16, 16, 2, dtype=torch.float64)
    assert torch.equal(antialias(noise, rast, clip, faces, backend=backend), noise)


def test_topology_of_a_cube_corner_and_a_non_manifold_edge():
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1]])
    topology = build_topology(faces)
    assert topology.edges.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert topology.edge_faces.tolist() == [[0, 2], [0, 1], [1, 2], [0, 0], [2, 2], [1, 1]]
    assert topology.edge_signs.tolist() == [[1, -1], [-1, 1], [-1, 1], [1, 1], [-1, -1], [1, 1]]
    fan = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4], [0, 1, 5]])
    topology = build_topology(fan)
    assert topology.edges[0].tolist() == [0, 1] and topology.edge_faces[0].tolist() == [0, 1]
    assert topology.extra.tolist() == [[0, 2, 1], [0, 3, 1]]


# Invariants


def test_picture_stays_within_its_range(backend):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(300, 3, generator=generator) * 1.6 - 0.8
    triangles = (points[:100, None] + torch.rand(100, 3, 3, generator=generator) * 0.3).reshape(
        -1, 3
    )
    faces = torch.arange(300).reshape(-1, 3)
    clip = world_to_clip(triangles, make_orbit_rig([0, 90], 0, radius=4.0), width=48, height=48)
    alpha = _coverage(clip, faces, 48, 48, backend)
    assert float(alpha.min()) >= -1e-6 and float(alpha.max()) <= 1 + 1e-6


def test_open_border_is_smoothed_and_moves_with_its_vertices(backend):
    vertices, faces = make_sphere(2000)
    faces = faces[vertices[faces].mean(dim=1)[:, 1] < 0.2]
    rig = make_orbit_rig([0], 60, radius=4.0)
    clip = world_to_clip(vertices, rig, width=64, height=64)
    rast = rasterize(clip, faces, width=64, height=64, backend=backend)
    crossings = find_crossings(rast, clip, faces, build_topology(faces), backend=backend)
    rim = vertices[crossings.ends].mean(dim=1)[:, 1] > 0.1
    assert int(rim.sum()) > 20


def test_welded_seam_of_a_texture_is_no_border(backend):
    points = [[2, 2], [8.3, 2], [8.3, 14], [2, 14], [8.3, 2], [14, 2], [14, 14], [8.3, 14]]
    clip = _clip_from_pixels(points, 16, 16)
    clip[:, 2] = torch.as_tensor(points)[:, 0] * 0.02  # tilted, so that one side is farther
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    rast = rasterize(clip[None], faces, width=16, height=16, backend=backend)
    counts = []
    for positions in (None, clip[:, :3]):
        topology = build_topology(faces, positions)
        found = find_crossings(rast, clip[None], faces, topology, backend=backend)
        on_seam = torch.isin(found.inner % 16, torch.tensor([7, 8])) & found.along_x
        counts.append(int(on_seam.sum()))
    assert counts[0] > 0 and counts[1] == 0


def test_gradient_has_the_same_bits_in_every_run(backend):
    vertices, faces = make_sphere(3000, bumps=0.1)
    rig = make_orbit_rig([0, 90], 10, radius=4.0)
    gradients = []
    for _ in range(3):
        clip = world_to_clip(vertices, rig, width=80, height=80).requires_grad_()
        (_coverage(clip, faces, 80, 80, backend) * make_smooth_weights(2, 80, 80)).sum().backward()
        gradients.append(clip.grad)
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])


# Against the supersampled truth


def _deform(vertices, params):
    """Scale, shift and shear: seven ways in which a silhouette moves."""
    x, y, z = vertices.unbind(-1)
    shear = torch.stack([params[4] * y + params[5] * z, params[6] * x, 0 * x], dim=-1)
    return vertices * (1 + params[0]) + params[1:4] + shear


def _supersampled(vertices, faces, rig, size, factor=4):
    clip = world_to_clip(vertices, rig, width=size * factor, height=size * factor)
    rast = rasterize(clip, faces, width=size * factor, height=size * factor)
    inside = (rast[..., 3] > 0).double()
    return inside.reshape(len(rig), size, factor, size, factor).mean(dim=(2, 4))


@pytest.mark.parametrize(
    ("num_faces", "size"),
    [(1000, 256), (20000, 256), pytest.param(100000, 512, marks=pytest.mark.slow)],
)
def test_silhouette_gradient_is_that_of_the_supersampled_picture(num_faces, size):
    vertices, faces = make_sphere(num_faces, bumps=0.1)
    rig = make_orbit_rig([10, 75, 200], [10, 30, -20], radius=4.5)
    weights = make_smooth_weights(3, size, size)
    params = torch.zeros(7, requires_grad=True)
    clip = world_to_clip(_deform(vertices, params), rig, width=size, height=size)
    alpha = _coverage(clip, faces, size, size, topology=build_topology(faces))
    gradient = torch.stack(
        [
            torch.autograd.grad(value, params, retain_graph=True)[0].double()
            for value in (alpha * weights).sum(dim=(1, 2))
        ],
        dim=1,
    )  # [7, view]
    step = 1.2 / size  # about half a pixel
    rows = []
    for offset in step * torch.eye(7):
        up, down = (
            _supersampled(_deform(vertices, sign * offset), faces, rig, size) for sign in (1, -1)
        )
        rows.append(((up - down) * weights).sum(dim=(1, 2)) / (2 * step))
    truth = torch.stack(rows)
    cosine = (gradient * truth).sum() / (gradient.norm() * truth.norm())
    assert cosine >= 0.999
    assert 0.95 <= gradient.norm() / truth.norm() <= 1.05


def test_smoothed_picture_is_far_nearer_to_the_supersampled_one():
    vertices, faces = make_sphere(5000, bumps=0.1)
    rig = make_orbit_rig([10, 75], [10, 30], radius=4.5)
    truth = _supersampled(vertices, faces, rig, 128)
    mesh = Mesh(vertices, faces)
    errors = [
        (render_mesh(mesh, rig, width=128, height=128, antialias=choice).alpha - truth).abs().sum()
        for choice in (True, False)
    ]
    assert errors[0] < 0.2 * errors[1]


# Degenerate input and errors


def test_edges_across_the_near_plane_have_finite_gradients(backend):
    vertices = torch.tensor(
        [[-1.0, -0.4, -3.0], [0.5, -0.4, -3.0], [0.4, -0.4, 3.0], [-1.0, -0.4, 3.0]]
    )
    vertices.requires_grad_()
    rig = make_orbit_rig([0], 0, radius=1.0, fov_y_deg=90.0)
    clip = world_to_clip(vertices, rig, width=40, height=40)
    alpha = _coverage(clip, QUAD, 40, 40, backend)
    (alpha * make_smooth_weights(1, 40, 40)).sum().backward()
    assert 0 < float((alpha.frac() > 0).sum())
    assert bool(vertices.grad.isfinite().all()) and float(vertices.grad.abs().sum()) > 0


def test_mesh_without_faces_leaves_the_picture_alone():
    image = torch.rand(1, 4, 4, 3)
    faces = torch.zeros(0, 3, dtype=torch.int64)
    out = antialias(image, torch.zeros(1, 4, 4, 4), torch.zeros(1, 0, 4), faces)
    assert torch.equal(out, image) and out is not image
    assert len(build_topology(faces).edges) == 0


def test_topology_of_another_mesh_raises():
    vertices, faces = make_sphere(50)
    clip = world_to_clip(vertices, make_orbit_rig([0], 0, radius=4.0), width=8, height=8)
    rast = rasterize(clip, faces, width=8, height=8)
    with pytest.raises(ValueError, match="call build_topology again"):
        antialias(rast[..., 3:], rast, clip, faces, topology=build_topology(faces[1:]))
