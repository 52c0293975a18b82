"""Every mesh backend that runs here against the torch reference, forward and backward."""

import pytest
import torch
from lift3d.core.backends.probe import backend_status
from lift3d.core.camera import Camera, ViewRig, make_look_at_pose, make_orbit_rig
from lift3d.core.rendering.mesh import (
    antialias,
    build_topology,
    interpolate,
    rasterize,
    world_to_clip,
)
from lift3d.core.rendering.silhouette import find_crossings
from mesh_scenes import make_sphere

READY = [state.name for state in backend_status("mesh") if state.ready and state.name != "torch"]
SIZE = {"width": 90, "height": 70}
# Largest error relative to the largest value. The CPU kernels compute weights in float64 and so
# differ by rounding of the result only; nvdiffrast computes in float32 throughout.
TOLERANCE = {
    ("numba", torch.float64): 1e-9,
    ("numba", torch.float32): 2e-6,
    ("cuda", torch.float32): 1e-4,
}
CASES = [
    (backend, dtype)
    for backend in READY
    for dtype in (torch.float32, torch.float64)
    if (backend, dtype) in TOLERANCE
]


def _perspective():
    vertices, faces = make_sphere(600, bumps=0.1)
    return vertices, faces, make_orbit_rig([0, 75, 200], [10, 30, -20], radius=4.5)


def _orthographic():
    vertices, faces = make_sphere(600, bumps=0.1)
    return vertices, faces, make_orbit_rig([15, 120], 5, radius=4.5, ortho_height=2.4)


def _camera_inside():
    vertices, faces = make_sphere(400, bumps=0.1)
    faces = faces[(vertices[faces].mean(dim=1)[:, 0] * 4).sin() < 0.6]  # windows to look out of
    pose = make_look_at_pose((0.2, 0.1, 0.7), (0.3, 0.2, -1.0))
    return vertices, faces, ViewRig((Camera(pose, fov_y_deg=100.0, near=0.3),), ("inside",))


def _open_and_non_manifold():
    vertices, faces = make_sphere(400)
    faces = faces[vertices[faces].mean(dim=1)[:, 1] < 0.3]
    fin = torch.tensor([[0.0, 1.4, 0.0], [0.0, 0.2, 1.6]])
    edge = faces[0, :2]
    extra = torch.tensor([[edge[0], edge[1], len(vertices)], [edge[1], edge[0], len(vertices) + 1]])
    rig = make_orbit_rig([0, 140], [50, -10], radius=4.5)
    return torch.cat([vertices, fin]), torch.cat([faces, extra]), rig


SCENES = {
    "perspective": _perspective,
    "orthographic": _orthographic,
    "camera inside": _camera_inside,
    "open and non-manifold": _open_and_non_manifold,
}


def _run(backend, dtype, scene, per_view):
    device = "cuda" if backend == "cuda" else "cpu"
    vertices, faces, rig = SCENES[scene]()
    generator = torch.Generator().manual_seed(0)
    views = len(rig)
    shape = (views, len(vertices), 5) if per_view else (len(vertices), 5)
    attributes = torch.rand(shape, generator=generator, dtype=torch.float64)
    pixel_weights = torch.rand(views, SIZE["height"], SIZE["width"], 5, generator=generator)
    depth_weights = torch.rand(views, SIZE["height"], SIZE["width"], generator=generator)
    attributes = attributes.to(device, dtype).requires_grad_()
    faces = faces.to(device)
    # Rounded to float32 first: both precisions then see the same positions.
    clip = world_to_clip(vertices, rig, **SIZE).to(device, dtype).requires_grad_()
    rast = rasterize(clip, faces, **SIZE, backend=backend)
    image = interpolate(attributes, rast, faces, backend=backend)
    smooth = antialias(image, rast, clip, faces, backend=backend)
    loss = (smooth * pixel_weights.to(device)).sum() + (
        rast[..., 2] * depth_weights.to(device)
    ).sum()
    loss.backward()
    return {
        "rast": rast,
        "image": image,
        "smooth": smooth,
        "clip gradient": clip.grad,
        "attribute gradient": attributes.grad,
    }


@pytest.mark.parametrize("per_view", [False, True], ids=["shared", "per view"])
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize(("backend", "dtype"), CASES)
def test_backend_equals_float64_reference(backend, dtype, scene, per_view):
    expected = _run("torch", torch.float64, scene, per_view)
    actual = _run(backend, dtype, scene, per_view)
    for name, value in expected.items():
        error = (actual[name].detach().cpu().double() - value.detach()).abs().max()
        assert error <= TOLERANCE[backend, dtype] * value.detach().abs().max(), name


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.skipif("numba" not in READY, reason="numba is not installed")
def test_numba_and_torch_find_the_same_crossings(scene):
    vertices, faces, rig = SCENES[scene]()
    clip = world_to_clip(vertices, rig, **SIZE)
    rast = rasterize(clip, faces, **SIZE, backend="torch")
    topology = build_topology(faces)
    first, second = (
        find_crossings(rast, clip, faces, topology, backend=backend)
        for backend in ("torch", "numba")
    )
    assert len(first.view) > 10
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(second, name)), name


@pytest.mark.skipif("numba" not in READY, reason="numba is not installed")
def test_numba_is_bit_identical_over_runs_and_numbers_of_threads():
    import numba

    first = _run("numba", torch.float32, "perspective", False)
    threads = numba.get_num_threads()
    try:
        for count in {1, threads}:
            numba.set_num_threads(count)
            again = _run("numba", torch.float32, "perspective", False)
            for name, value in first.items():
                assert torch.equal(value, again[name]), name
    finally:
        numba.set_num_threads(threads)
