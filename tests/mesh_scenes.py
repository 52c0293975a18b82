"""Meshes and pixel weights that several rendering tests share."""

import numpy as np
import torch
from lift3d.core.backends.probe import backend_status

CPU_BACKENDS = [s.name for s in backend_status("mesh") if s.ready and s.name in ("numba", "torch")]


def make_sphere(num_faces, bumps=0.0):
    """Closed sphere of about `num_faces` faces, radius 0.95, optionally bumpy."""
    rings = max(3, round((num_faces / 2) ** 0.5))
    theta = np.linspace(0, np.pi, rings + 1)[1:-1]
    phi = np.linspace(0, 2 * np.pi, rings, endpoint=False)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    body = np.stack([np.sin(t) * np.sin(p), np.cos(t), np.sin(t) * np.cos(p)], -1).reshape(-1, 3)
    points = np.concatenate([[[0, 1, 0]], body, [[0, -1, 0]]])
    radius = 1 + bumps * np.sin(5 * points[:, 0]) * np.sin(7 * points[:, 1] + 1) * np.cos(
        6 * points[:, 2]
    )

    def index(i, j):
        return 1 + i * rings + j % rings

    i, j = (a.ravel() for a in np.meshgrid(np.arange(rings - 2), np.arange(rings), indexing="ij"))
    pole = np.arange(rings)
    faces = [
        np.stack([index(i, j), index(i + 1, j), index(i, j + 1)], 1),
        np.stack([index(i, j + 1), index(i + 1, j), index(i + 1, j + 1)], 1),
        np.stack([0 * pole, index(0, pole), index(0, pole + 1)], 1),
        np.stack(
            [0 * pole + len(points) - 1, index(rings - 2, pole + 1), index(rings - 2, pole)], 1
        ),
    ]
    vertices = torch.tensor(0.95 * points * radius[:, None], dtype=torch.float32)
    return vertices, torch.tensor(np.concatenate(faces))


def make_smooth_weights(views, height, width, seed=0):
    """Random pixel weights that vary over a quarter of the picture."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(views, 1, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(
        coarse, (height, width), mode="bicubic", align_corners=False
    )[:, 0]


def clip_from_pixels(points, width, height, depth=0.0):
    """Clip positions of pixel coordinates (corner origin, y down)."""
    points = torch.as_tensor(points, dtype=torch.float64)
    x = points[:, 0] / width * 2 - 1
    y = 1 - points[:, 1] / height * 2
    return torch.stack([x, y, torch.full_like(x, depth), torch.ones_like(x)], dim=-1)


def make_square(side=1.0, z=0.0):
    vertices = torch.tensor([[-1, -1, z], [1, -1, z], [1, 1, z], [-1, 1, z]]) * side
    return vertices.float(), torch.tensor([[0, 1, 2], [0, 2, 3]])
