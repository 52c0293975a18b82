"""Drawing meshes: degenerate and bad input."""

import pytest
import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.mesh import Mesh
from lift3d.core.rendering.mesh import interpolate, rasterize, render_mesh
from mesh_scenes import CPU_BACKENDS, clip_from_pixels, make_sphere, make_square


@pytest.fixture(params=CPU_BACKENDS)
def backend(request):
    return request.param


# Degenerate input


def test_empty_mesh_gives_the_background(backend):
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    out = render_mesh(
        empty, make_orbit_rig([0, 90], 0, radius=3.0), width=6, height=4, backend=backend
    )
    assert out.rgb.shape == (2, 4, 6, 3) and bool((out.rgb == 1).all())
    assert out.alpha.abs().max() == 0 and bool((out.face_index == -1).all())


def test_faces_without_area_draw_nothing_and_have_finite_gradients(backend):
    vertices = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 1.0, 0.0]])
    faces = torch.tensor([[0, 1, 2], [1, 1, 1], [0, 1, 3]])
    vertices = vertices.requires_grad_()
    rig = make_orbit_rig([0, 45], 10, radius=3.0)
    out = render_mesh(Mesh(vertices, faces), rig, width=32, height=32, backend=backend)
    assert set(out.face_index.unique().tolist()) == {-1, 2}
    (out.rgb.sum() + out.depth.sum() + out.alpha.sum() + out.normals_world.sum()).backward()
    assert bool(vertices.grad.isfinite().all())


def test_inference_tensors_are_drawn(backend):
    with torch.inference_mode():
        vertices, faces = make_sphere(100)
        mesh = Mesh(vertices * 1.0, faces, vertex_colors=torch.rand(len(vertices), 3))
        rig = make_orbit_rig([0], 0, radius=4.0)
        inside = render_mesh(mesh, rig, width=16, height=16, backend=backend)
    after = render_mesh(mesh, rig, width=16, height=16, backend=backend)
    assert torch.equal(inside.rgb, after.rgb)


def test_inputs_are_left_alone(backend):
    vertices, faces = make_sphere(100)
    mesh = Mesh(vertices, faces)
    copy = mesh.clone()
    render_mesh(mesh, make_orbit_rig([0], 0, radius=4.0), width=16, height=16, backend=backend)
    assert torch.equal(mesh.vertices, copy.vertices) and torch.equal(mesh.faces, copy.faces)


# Error messages


def test_vertices_that_are_not_numbers_raise(backend):
    clip = torch.full((1, 3, 4), torch.nan)
    with pytest.raises(ValueError, match="12 NaN or infinite"):
        rasterize(clip, torch.tensor([[0, 1, 2]]), width=4, height=4, backend=backend)


@pytest.mark.parametrize("bad", [3, -1])
def test_faces_out_of_range_raise(backend, bad):
    with pytest.raises(ValueError, match="faces point at vertices"):
        rasterize(
            torch.ones(1, 3, 4), torch.tensor([[0, 1, bad]]), width=4, height=4, backend=backend
        )


@pytest.mark.parametrize("size", [{"width": 0, "height": 4}, {"width": 4, "height": 8193}])
def test_sizes_out_of_bounds_raise(size):
    with pytest.raises(ValueError, match="must lie within 1..8192 pixels"):
        rasterize(torch.ones(1, 3, 4), torch.tensor([[0, 1, 2]]), **size)


def test_integer_faces_of_another_type_raise(unchecked_shapes):
    with pytest.raises(ValueError, match="faces must be int64"):
        rasterize(
            torch.ones(1, 3, 4), torch.tensor([[0, 1, 2]], dtype=torch.int32), width=4, height=4
        )


def test_half_precision_positions_raise(unchecked_shapes):
    with pytest.raises(ValueError, match="float32 or float64"):
        rasterize(torch.ones(1, 3, 4).half(), torch.tensor([[0, 1, 2]]), width=4, height=4)


def test_too_few_attributes_raise():
    clip = clip_from_pixels([[0, 0], [4, 0], [0, 4]], 4, 4)[None]
    faces = torch.tensor([[0, 1, 2]])
    rast = rasterize(clip, faces, width=4, height=4)
    with pytest.raises(ValueError, match="attributes were given for 2 vertices"):
        interpolate(torch.ones(2, 3), rast, faces)


def test_unknown_choices_raise(unchecked_shapes):
    vertices, faces = make_square()
    for name in ("shading", "normals", "texture_filter"):
        with pytest.raises(ValueError, match=f"Unknown {name} 'wrong'; choose"):
            render_mesh(Mesh(vertices, faces), make_orbit_rig([0], 0, radius=4.0), width=4, height=4,
                        **{name: "wrong"})  # fmt: skip
