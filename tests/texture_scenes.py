"""Small meshes of the tests that unwrap and bake."""

from __future__ import annotations

import math

import torch
from lift3d.core.mesh import Mesh

CUBE_FACES = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
              [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]  # fmt: skip


def make_cube() -> Mesh:
    corners = [[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
    return Mesh(torch.tensor(corners), torch.tensor(CUBE_FACES))


def make_torus(rows: int = 40, columns: int = 24) -> Mesh:
    i = torch.arange(rows)[:, None] * 2 * math.pi / rows
    j = torch.arange(columns)[None] * 2 * math.pi / columns
    ring = 0.7 + 0.25 * j.cos()
    vertices = torch.stack([ring * i.cos(), 0.25 * j.sin() + 0 * i, ring * i.sin()], -1)
    index = torch.arange(rows * columns).reshape(rows, columns)
    a, b = index, index.roll(-1, 0)
    c, d = b.roll(-1, 1), a.roll(-1, 1)
    faces = torch.cat([torch.stack([a, c, b], -1), torch.stack([a, d, c], -1)]).reshape(-1, 3)
    return Mesh(vertices.reshape(-1, 3), faces)


def make_helicoid(turns: float = 3.0) -> Mesh:
    """A spiral ramp: seen from above it covers the same place `turns` times."""
    count = 200
    angle = torch.linspace(0, 2 * math.pi * turns, count)
    inner, outer = 0.3, 1.0
    edges = [
        torch.stack([r * angle.cos(), 0.08 * angle, -r * angle.sin()], -1) for r in (inner, outer)
    ]
    a = torch.arange(count - 1)
    b, c, d = a + 1, a + 1 + count, a + count
    faces = torch.cat([torch.stack([a, d, c], -1), torch.stack([a, c, b], -1)])
    return Mesh(torch.cat(edges), faces)


def make_sphere(rings: int = 24, radius: float = 0.8) -> Mesh:
    """A latitude-longitude sphere with a closed seam and one vertex at each pole."""
    segments = 2 * rings
    polar = torch.arange(1, rings) * math.pi / rings
    around = torch.arange(segments) * 2 * math.pi / segments
    theta, phi = torch.meshgrid(polar, around, indexing="ij")
    middle = torch.stack(
        [theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], dim=-1
    ).reshape(-1, 3)
    vertices = torch.cat([middle, torch.tensor([[0.0, 1, 0], [0, -1, 0]])]) * radius
    top, bottom, faces = len(vertices) - 2, len(vertices) - 1, []
    for j in range(segments):
        k = (j + 1) % segments
        faces.append([top, j, k])
        last = (rings - 2) * segments
        faces.append([bottom, last + k, last + j])
        for i in range(rings - 2):
            a, b = i * segments + j, i * segments + k
            faces += [[a, a + segments, b + segments], [a, b + segments, b]]
    return Mesh(vertices, torch.tensor(faces))


def make_plates() -> Mesh:
    """A small square plate in front of a big one, both facing +Z, 16x16 quads each."""
    line = torch.linspace(-1, 1, 17)
    y, x = torch.meshgrid(line, line, indexing="ij")
    index = torch.arange(17 * 17).reshape(17, 17)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    quads = torch.stack([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)]).reshape(-1, 3)
    big = torch.stack([x, y, torch.zeros_like(x) - 0.5], -1).reshape(-1, 3)
    small = torch.stack([0.4 * x, 0.4 * y, torch.zeros_like(x) + 0.5], -1).reshape(-1, 3)
    return Mesh(torch.cat([big, small]), torch.cat([quads, quads + len(big)]))
