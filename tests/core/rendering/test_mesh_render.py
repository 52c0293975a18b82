import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lift3d.core.camera import Camera, ViewRig, make_look_at_pose, make_orbit_rig
from lift3d.core.geometry.transforms import pixel_rays
from lift3d.core.mesh import Material, Mesh
from lift3d.core.rendering.mesh import interpolate, rasterize, render_mesh, world_to_clip
from mesh_scenes import CPU_BACKENDS, clip_from_pixels, make_sphere, make_square


@pytest.fixture(params=CPU_BACKENDS)
def backend(request):
    return request.param


# Known answers


def test_weights_and_depth_of_one_triangle(backend):
    clip = clip_from_pixels([[0, 0], [8.5, 0], [0, 8.5]], 8, 8)[None].clone()
    clip[0, :, 2] = torch.tensor([0.0, 0.5, -0.5])
    rast = rasterize(clip, torch.tensor([[0, 1, 2]]), width=8, height=8, backend=backend)
    y, x = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    inside = (x + y) < 8.5
    assert torch.equal(rast[0, ..., 3] > 0, inside)
    first, second, third = 1 - (x + y) / 8.5, x / 8.5, y / 8.5
    for channel, expected in ((0, first), (1, second), (2, 0.5 * second - 0.5 * third)):
        torch.testing.assert_close(rast[0, ..., channel][inside], expected[inside].double())


def test_row_zero_is_the_top_and_column_zero_is_the_left(backend):
    clip = clip_from_pixels([[0, 0], [4, 0], [0, 3]], 12, 10)[None]
    rast = rasterize(clip, torch.tensor([[0, 1, 2]]), width=12, height=10, backend=backend)
    assert rast[0, 0, 0, 3] == 1
    assert rast[0, 3:, :, 3].sum() == 0 and rast[0, :, 4:, 3].sum() == 0


def test_square_fills_the_pixels_that_its_size_and_the_fov_say(backend):
    vertices, faces = make_square(0.5)
    rig = make_orbit_rig([0], 0, radius=2.0, fov_y_deg=2 * math.degrees(math.atan(0.5)))
    rast = rasterize(
        world_to_clip(vertices, rig, width=64, height=64),
        faces,
        width=64,
        height=64,
        backend=backend,
    )
    expected = torch.zeros(64, 64, dtype=torch.bool)
    expected[16:48, 16:48] = True  # half of a view that is 2 wide at distance 2
    assert torch.equal(rast[0, ..., 3] > 0, expected)


def test_equal_depth_shows_the_face_with_the_lower_index(backend):
    clip = clip_from_pixels([[0, 0], [8, 0], [0, 8], [8, 8]], 8, 8)[None]
    faces = torch.tensor([[1, 3, 2], [0, 1, 2], [1, 2, 3], [2, 0, 1]])
    rast = rasterize(clip, faces, width=8, height=8, backend=backend)
    assert set(rast[0, ..., 3].unique().tolist()) == {1.0, 2.0}


@pytest.mark.parametrize("ortho_height", [None, 2.4])
def test_visible_faces_and_depths_equal_ray_casting(backend, ortho_height):
    vertices, faces = make_sphere(200, bumps=0.3)
    vertices = torch.cat([vertices, vertices * 0.4 + torch.tensor([0.6, 0.5, 0.9])])
    faces = torch.cat([faces, faces + len(vertices) // 2])
    rig = make_orbit_rig([30], 20, radius=4.0, ortho_height=ortho_height)
    mesh = Mesh(vertices, faces)
    out = render_mesh(mesh, rig, width=48, height=40, backend=backend)
    face, distance, margin = _cast_rays(vertices, faces, rig[0], 48, 40)
    clear = margin > 1e-3  # rays that pass an edge closer than the snapping of corners may differ
    assert clear.float().mean() > 0.95
    assert torch.equal(out.face_index[0][clear], face[clear])
    hit = clear & (face >= 0)
    torch.testing.assert_close(out.depth[0][hit].double(), distance[hit], rtol=1e-5, atol=1e-5)


def _cast_rays(vertices, faces, camera, width, height):
    """Nearest face, camera depth and smallest weight distance from an edge; slow and direct."""
    origins, directions = (
        t.double().reshape(-1, 3) for t in pixel_rays(camera, width=width, height=height)
    )
    a, b, c = vertices.double()[faces].unbind(1)
    e1, e2 = b - a, c - a
    p = torch.linalg.cross(directions[:, None], e2[None])
    det = (p * e1).sum(-1)
    offset = origins[:, None] - a
    q = torch.linalg.cross(offset, e1[None].expand_as(offset))
    u, v = (offset * p).sum(-1) / det, (q * directions[:, None]).sum(-1) / det
    t = (q * e2).sum(-1) / det
    inner = torch.stack([u, v, 1 - u - v], -1).amin(-1)
    t = torch.where((inner >= 0) & (t > 0), t, torch.inf)
    nearest, face = t.min(dim=1)
    face = torch.where(nearest.isinf(), -1, face)
    depth = nearest * (directions @ -camera.camera_to_world[:3, 2].double())
    before = (t <= nearest[:, None]) | (nearest.isinf()[:, None])
    margin = torch.where(before | (inner < 0), inner.abs(), torch.inf).amin(dim=1)
    return (x.reshape(height, width) for x in (face, depth, margin))


# Invariants


def test_every_pixel_of_a_triangulated_square_is_drawn_exactly_once(backend):
    from scipy.spatial import Delaunay

    generator = np.random.default_rng(0)
    # Half-integer corners lie exactly on pixel centres: all ties of the rule occur.
    inner = generator.integers(1, 24, size=(40, 2)) + generator.choice(
        [0.0, 0.5, 0.25], size=(40, 2)
    )
    points = np.unique(np.concatenate([inner, [[0, 0], [24, 0], [0, 24], [24, 24]]]), axis=0)
    faces = torch.tensor(Delaunay(points).simplices).long()
    clip = clip_from_pixels(points, 24, 24)[None]
    times = torch.zeros(24, 24)
    for face in faces:
        one = torch.stack([face, face.flip(0)])[torch.randint(2, (1,))]  # either orientation
        times += rasterize(clip, one, width=24, height=24, backend=backend)[0, ..., 3] > 0
    assert torch.equal(times, torch.ones(24, 24))


def test_closed_mesh_has_no_cracks_at_any_size(backend):
    vertices, faces = make_sphere(20000)
    rig = make_orbit_rig([10], 5, radius=3.0)
    rast = rasterize(
        world_to_clip(vertices, rig, width=96, height=96),
        faces,
        width=96,
        height=96,
        backend=backend,
    )
    covered = (rast[0, ..., 3] > 0).numpy()
    from scipy.ndimage import binary_fill_holes

    assert np.array_equal(covered, binary_fill_holes(covered))


def test_interpolated_positions_project_to_their_pixel_centres(backend):
    vertices, faces = make_sphere(300, bumps=0.2)
    camera = make_orbit_rig([40], 30, radius=2.0, fov_y_deg=60.0)[0]
    rig = ViewRig((camera,), ("view",))
    rast = rasterize(
        world_to_clip(vertices.double(), rig, width=50, height=40), faces, width=50, height=40,
        backend=backend,
    )  # fmt: skip
    points = interpolate(vertices.double(), rast, faces, backend=backend)[0]
    origins, directions = pixel_rays(camera, width=50, height=40)
    # Pixels whose weights were held on the triangle lie up to 1/256 px beside their centre.
    inside = (rast[0, ..., :2].amin(-1) > 1e-9) & (rast[0, ..., :2].sum(-1) < 1 - 1e-9)
    away = torch.linalg.cross(points - origins, directions.double()).norm(dim=-1)
    assert inside.sum() > 500
    assert away[inside].max() < 1e-6


def test_views_of_one_call_equal_single_views(backend):
    vertices, faces = make_sphere(300)
    rig = make_orbit_rig([0, 50, 200], [0, 40, -30], radius=3.5)
    mesh = Mesh(vertices, faces, vertex_colors=vertices.abs())
    together = render_mesh(mesh, rig, width=40, height=30, backend=backend)
    for view in range(3):
        alone = render_mesh(mesh, rig.select([view]), width=40, height=30, backend=backend)
        for name, value in vars(alone).items():
            assert torch.equal(value[0], getattr(together, name)[view]), name


@pytest.mark.parametrize("far_away", [20.0, 1e6])
def test_ground_that_runs_behind_the_camera_is_clipped_at_the_near_plane(backend, far_away):
    half = far_away
    vertices = torch.tensor(
        [[-half, -1, -half], [half, -1, -half], [half, -1, half], [-half, -1, half]]
    )
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    pose = make_look_at_pose((0.0, 0.0, 0.0), (0.0, 0.0, -1.0))
    camera = Camera(pose, fov_y_deg=90.0, near=1.25, far=2e6)
    rig = ViewRig((camera,), ("view",))
    # Float32 weights of a face 2e6 wide would be exact to 0.1 only.
    mesh = Mesh(vertices.double(), faces)
    out = render_mesh(mesh, rig, width=60, height=40, antialias=False, backend=backend)
    rows = torch.arange(40, dtype=torch.float64) + 0.5
    depth = 20 / (rows - 20)  # the ground lies 1 below the eye; the focal length is 20 px
    shown = (depth > 1.25) & (depth < far_away)
    assert torch.equal(out.alpha[0] > 0, shown[:, None].expand(40, 60))
    torch.testing.assert_close(
        out.depth[0][shown], depth[shown][:, None].expand(-1, 60), rtol=1e-5, atol=1e-5
    )


def test_faces_across_the_near_plane_leave_no_cracks(backend):
    vertices, faces = make_sphere(500, bumps=0.1)
    pose = make_look_at_pose((0.1, 0.2, 0.3), (0.5, 0.1, -1.0))
    rig = ViewRig((Camera(pose, fov_y_deg=120.0, near=0.05),), ("inside",))
    clip = world_to_clip(vertices, rig, width=64, height=64)
    assert (
        (clip[..., 2] + clip[..., 3] < 0)[0][faces].any(1)
        & (clip[..., 2] + clip[..., 3] > 0)[0][faces].any(1)
    ).any()
    rast = rasterize(clip, faces, width=64, height=64, backend=backend)
    assert bool((rast[..., 3] > 0).all())


def test_nothing_beyond_the_far_plane_is_drawn(backend):
    vertices, faces = make_square(5.0)
    pose = make_look_at_pose((0.0, 0.0, 10.0), (0.0, 0.0, 0.0))
    for far, expected in ((9.0, 0.0), (11.0, 1.0)):
        rig = ViewRig((Camera(pose, far=far),), ("view",))
        out = render_mesh(Mesh(vertices, faces), rig, width=8, height=8, backend=backend)
        assert torch.equal(out.alpha, torch.full((1, 8, 8), expected))


# Gradients


def test_raster_gradients_equal_finite_differences(backend):
    corners = torch.tensor(
        [
            [-0.9, -0.8, 0.1, 1.0], [1.3, -0.7, 0.3, 1.4], [-0.2, 0.9, -0.2, 1.1],
            [0.1, -0.6, -0.3, 0.9], [1.6, 0.9, 0.4, 1.7], [0.2, 1.2, 0.5, 1.3],
        ],
        dtype=torch.float64,
    )[None]  # fmt: skip
    faces = torch.arange(6).reshape(2, 3)

    def weights_and_depth(clip):
        return rasterize(clip, faces, width=9, height=7, backend=backend)[..., :3]

    assert (rasterize(corners, faces, width=9, height=7, backend=backend)[..., 3] > 0).sum() > 10
    assert torch.autograd.gradcheck(
        weights_and_depth, corners.requires_grad_(), eps=1e-7, atol=1e-5
    )


@pytest.mark.parametrize("per_view", [False, True])
def test_interpolation_gradients_equal_finite_differences(backend, per_view):
    clip = clip_from_pixels([[0, 0], [5, 1], [1, 4], [5, 5]], 5, 5)[None].repeat(2, 1, 1)
    faces = torch.tensor([[0, 1, 2], [1, 2, 3]])
    rast = rasterize(clip, faces, width=5, height=5, backend=backend)
    shape = (2, 4, 3) if per_view else (4, 3)
    attributes = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def image(attributes, uv):
        return interpolate(attributes, torch.cat([uv, rast[..., 2:]], -1), faces, backend=backend)

    inputs = (attributes.requires_grad_(), rast[..., :2].clone().requires_grad_())
    assert torch.autograd.gradcheck(image, inputs)


def test_depth_and_silhouette_gradients_reach_the_camera(backend):
    vertices, faces = make_sphere(1000)
    mesh = Mesh(vertices.double(), faces)
    base = make_orbit_rig([20], 15, radius=4.0)[0].camera_to_world.double()
    weights = torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None] * torch.ones(64, 64)

    def measure(shift):
        pose = torch.cat(
            [base[:, :3], base[:, 3:] + torch.cat([shift, shift.new_zeros(1)])[:, None]], 1
        )
        out = render_mesh(
            mesh, ViewRig((Camera(pose),), ("v",)), width=64, height=64, backend=backend
        )
        centre = out.depth[0, 24:40, 24:40].mean()
        return centre, (out.alpha[0] * weights).sum() / 64

    shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    depth, balance = measure(shift)
    gradients = [torch.autograd.grad(x, shift, retain_graph=True)[0] for x in (depth, balance)]
    for gradient, index, step, tolerance in (
        (gradients[0], 0, 1e-5, 1e-4),
        (gradients[1], 1, 0.05, 0.05),
    ):
        numeric = torch.stack(
            [(measure(step * axis)[index] - measure(-step * axis)[index]).detach() / (2 * step)
             for axis in torch.eye(3, dtype=torch.float64)]
        )  # fmt: skip
        assert (gradient - numeric).norm() < tolerance * numeric.norm()


def test_every_input_of_a_picture_gets_a_finite_gradient(backend):
    vertices, faces = make_sphere(200)
    uvs = torch.rand(len(vertices), 2, generator=torch.Generator().manual_seed(0))
    inputs = {
        "vertices": vertices.requires_grad_(),
        "vertex_colors": torch.rand(len(vertices), 3).requires_grad_(),
        "texture": torch.rand(8, 8, 3).requires_grad_(),
    }
    pose = make_orbit_rig([30], 10, radius=4.0)[0].camera_to_world.requires_grad_()
    rig = ViewRig((Camera(pose),), ("view",))
    plain = Mesh(inputs["vertices"], faces, vertex_colors=inputs["vertex_colors"])
    textured = Mesh(inputs["vertices"], faces, uvs=uvs, texture=inputs["texture"])
    loss = torch.zeros(())
    for mesh in (plain, textured):
        out = render_mesh(mesh, rig, width=32, height=32, shading="headlight", backend=backend)
        loss = loss + sum((x**2).sum() for x in (out.rgb, out.alpha, out.depth, out.normals_world))
    loss.backward()
    for name, value in {**inputs, "pose": pose}.items():
        assert bool(value.grad.isfinite().all()) and float(value.grad.abs().sum()) > 0, name


# Pictures


def test_sphere_normals_point_away_from_its_centre_and_are_unit(backend):
    vertices, faces = make_sphere(5000)
    rig = make_orbit_rig([0, 120], [0, 50], radius=4.5)
    for kind, tolerance in (("smooth", 0.04), ("face", 0.08)):
        out = render_mesh(
            Mesh(vertices, faces), rig, width=64, height=64, normals=kind, backend=backend
        )
        inside = out.face_index >= 0
        centres = vertices[faces].mean(1)[out.face_index[inside]]
        torch.testing.assert_close(
            out.normals_world[inside].norm(dim=-1), torch.ones(int(inside.sum()))
        )
        deviation = (
            out.normals_world[inside] - torch.nn.functional.normalize(centres, dim=-1)
        ).norm(dim=-1)
        assert deviation.median() < tolerance
        assert out.normals_world[~inside].abs().max() == 0


def test_sheet_seen_from_behind_shows_normals_towards_the_camera():
    vertices, faces = make_square()
    out = render_mesh(
        Mesh(vertices, faces), make_orbit_rig([0, 180], 0, radius=4.0), width=16, height=16
    )
    torch.testing.assert_close(out.normals_world[0, 8, 8], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(out.normals_world[1, 8, 8], torch.tensor([0.0, 0.0, -1.0]))


def test_texture_wins_over_vertex_colors_over_material():
    vertices, faces = make_square()
    uvs = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # red on top, blue below
    texture = rows[:, None].expand(2, 2, 3).repeat_interleave(8, 0).repeat_interleave(8, 1)
    green = torch.tensor([0.0, 1.0, 0.0]).expand(4, 3)
    rig = make_orbit_rig([0], 0, radius=4.0)
    grey = Material(base_color=(0.5, 0.5, 0.5))
    mesh = Mesh(vertices, faces, uvs=uvs, texture=texture, vertex_colors=green, material=grey)
    textured = render_mesh(mesh, rig, width=32, height=32).rgb[0]
    torch.testing.assert_close(textured[12, 16], torch.tensor([0.5, 0.0, 0.0]))
    torch.testing.assert_close(textured[20, 16], torch.tensor([0.0, 0.0, 0.5]))
    colored = render_mesh(replace(mesh, texture=None), rig, width=32, height=32).rgb[0, 16, 16]
    torch.testing.assert_close(colored, torch.tensor([0.0, 0.5, 0.0]))
    plain = render_mesh(Mesh(vertices, faces, material=grey), rig, width=32, height=32).rgb[
        0, 16, 16
    ]
    torch.testing.assert_close(plain, torch.tensor([0.5, 0.5, 0.5]))


def test_minified_checkerboard_becomes_its_mean_with_mipmaps():
    vertices, faces = make_square()
    uvs = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    checker = (
        ((torch.arange(256)[:, None] + torch.arange(256)) % 2)
        .float()[..., None]
        .expand(256, 256, 3)
    )
    mesh = Mesh(vertices, faces, uvs=uvs, texture=checker.clone())
    pose = make_look_at_pose((0.0, -3.0, 2.0), (0.0, 0.0, 0.0))
    rig = ViewRig((Camera(pose),), ("slanted",))
    error = {}
    for name in ("mipmap", "bilinear"):
        out = render_mesh(mesh, rig, width=41, height=41, texture_filter=name)
        error[name] = (out.rgb[out.face_index >= 0] - 0.5).abs().mean()
    assert error["mipmap"] < 0.01 < 0.1 < error["bilinear"]


def test_background_may_be_a_colour_or_a_picture():
    vertices, faces = make_square(0.3)
    rig = make_orbit_rig([0], 0, radius=4.0)
    picture = torch.rand(1, 16, 16, 3)
    out = render_mesh(Mesh(vertices, faces), rig, width=16, height=16, background=picture)
    outside = out.alpha == 0
    assert torch.equal(out.rgb[outside], picture[outside])
    out = render_mesh(Mesh(vertices, faces), rig, width=16, height=16, background=(0.0, 1.0, 0.0))
    assert out.rgb[0, 0, 0].tolist() == [0.0, 1.0, 0.0]
