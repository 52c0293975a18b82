"""The nvdiffrast wrapper, tried on a stand-in that follows nvdiffrast's documented conventions."""

import sys
import types

import pytest
import torch
from lift3d.core.backends.cuda import nvdiffrast_mesh
from lift3d.core.backends.torch_reference import mesh as reference
from lift3d.core.camera import make_orbit_rig
from lift3d.core.rendering.mesh import world_to_clip
from mesh_scenes import make_sphere


@pytest.fixture
def stand_in(monkeypatch):
    """nvdiffrast.torch as documented: float32, int32 triangles, row 0 at y = -1."""
    module = types.ModuleType("nvdiffrast.torch")

    def rasterize(context, pos, tri, resolution, grad_db=True):
        assert pos.dtype == torch.float32 and tri.dtype == torch.int32 and pos.is_contiguous()
        height, width = resolution
        rast = reference.rasterize(pos, tri.long(), width, height).flip(1)
        # The documented depth channel carries no gradient.
        rast = torch.cat([rast[..., :2], rast[..., 2:].detach()], dim=-1)
        return rast, rast.new_zeros(0)

    def interpolate(attr, rast, tri):
        assert attr.dtype == rast.dtype == torch.float32 and attr.ndim == 3
        per_view = attr.expand(len(rast), -1, -1)
        return reference.interpolate(per_view, rast, tri.long()), None

    module.rasterize, module.interpolate = rasterize, interpolate
    module.RasterizeCudaContext = lambda device: None
    package = types.ModuleType("nvdiffrast")
    package.torch = module
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", module)
    nvdiffrast_mesh._context.cache_clear()
    yield
    nvdiffrast_mesh._context.cache_clear()


def test_row_order_depth_and_gradients_equal_the_reference(stand_in):
    vertices, faces = make_sphere(200, bumps=0.1)
    rig = make_orbit_rig([0, 100], 25, radius=4.5)
    results = []
    for backend in (nvdiffrast_mesh, reference):
        clip = world_to_clip(vertices, rig, width=40, height=32).requires_grad_()
        attributes = torch.linspace(0, 1, len(vertices) * 2).reshape(1, -1, 2)
        rast = backend.rasterize(clip, faces, 40, 32)
        image = backend.interpolate(attributes.expand(2, -1, -1), rast, faces)
        weights = torch.linspace(-1, 1, image.numel()).reshape(image.shape)
        ((image * weights).sum() + (rast[..., 2] * weights[..., 0]).sum()).backward()
        results.append((rast.detach(), image.detach(), clip.grad))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
