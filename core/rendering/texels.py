"""Contains the surface points behind the texels of a texture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..geometry.normals import face_normals, vertex_normals
from ..geometry.transforms import normalize
from ..mesh import Mesh
from .visibility import dot_rows

MIN_SMOOTH_COSINE = 0.3
"""Smooth normals further than this from their face's normal are replaced by it."""


@dataclass(frozen=True)
class Texels:
    """The covered texels of a texture, as points on the surface.

    Attributes:
        index: place in the flattened texture.
        face_index: the face each texel lies on.
        weights: barycentric coordinates of its centre.
        positions: world positions.
        normals: smooth unit normals.
        areas: world area that each texel stands for.
    """

    index: Int64[Tensor, " texel"]
    face_index: Int64[Tensor, " texel"]
    weights: Float[Tensor, "texel 3"]
    positions: Float[Tensor, "texel 3"]
    normals: Float[Tensor, "texel 3"]
    areas: Float[Tensor, " texel"]

    def interpolate(
        self, values: Float[Tensor, "vertex channel"], faces: Int64[Tensor, "face 3"]
    ) -> Float[Tensor, "texel channel"]:
        """Vertex values at the texels."""
        return _mix(values, faces, self.face_index, self.weights)

    def scatter(self, values: Tensor, size_px: int) -> Tensor:
        """Square image with ``values`` [texel, ...] in place and zeros elsewhere."""
        image = values.new_zeros(size_px * size_px, *values.shape[1:])
        image[self.index] = values
        return image.reshape(size_px, size_px, *values.shape[1:])


@torch.no_grad()
def rasterize_texels(mesh: Mesh, size_px: int) -> Texels:
    """Surface points of all texels whose centres lie in a triangle of the unwrapped mesh.

    A triangle too small for any texel centre takes the texel under its own centre when that is
    still free, so that tiny charts get their own colour.

    Raises:
        ValueError: the mesh has no uvs.
    """
    from .mesh import rasterize  # loads the kernels of the chosen backend

    if mesh.uvs is None:
        raise ValueError("The mesh has no uvs; unwrap it first.")
    flip = mesh.uvs.new_tensor([2.0, -2.0])
    shift = mesh.uvs.new_tensor([-1.0, 1.0])
    plane = mesh.uvs * flip + shift
    clip = torch.cat([plane, torch.zeros_like(plane[:, :1]), torch.ones_like(plane[:, :1])], dim=1)
    rast = rasterize(clip[None], mesh.faces, width=size_px, height=size_px)[0].reshape(-1, 4)
    index = (rast[:, 3] > 0).nonzero()[:, 0]
    face_index = rast[index, 3].round().long() - 1
    u, v = rast[index, 0], rast[index, 1]
    weights = torch.stack([u, v, 1 - u - v], dim=1)
    extra, extra_faces = _tiny_faces(mesh, face_index, index, size_px)
    index, face_index = torch.cat([index, extra]), torch.cat([face_index, extra_faces])
    weights = torch.cat([weights, weights.new_full((len(extra), 3), 1 / 3)])
    flat = face_normals(mesh.vertices, mesh.faces)[face_index]
    smooth = mesh.vertex_normals
    if smooth is None:
        smooth = vertex_normals(mesh.vertices, mesh.faces)
    normals = normalize(_mix(smooth, mesh.faces, face_index, weights))
    astray = dot_rows(normals, flat) < MIN_SMOOTH_COSINE
    return Texels(
        index=index,
        face_index=face_index,
        weights=weights,
        positions=_mix(mesh.vertices, mesh.faces, face_index, weights),
        normals=torch.where(astray[:, None], flat, normals),
        areas=_texel_areas(mesh, face_index),
    )


def _mix(values: Tensor, faces: Tensor, face_index: Tensor, weights: Tensor) -> Tensor:
    corners = faces[face_index]
    mixed = values[corners[:, 0]] * weights[:, :1]
    mixed = mixed + values[corners[:, 1]] * weights[:, 1:2]
    return mixed + values[corners[:, 2]] * weights[:, 2:]


def _tiny_faces(
    mesh: Mesh, face_index: Tensor, index: Tensor, size_px: int
) -> tuple[Tensor, Tensor]:
    assert mesh.uvs is not None
    has_texel = torch.zeros(mesh.num_faces, dtype=torch.bool, device=index.device)
    has_texel[face_index] = True
    taken = torch.zeros(size_px * size_px, dtype=torch.bool, device=index.device)
    taken[index] = True
    missed = (~has_texel).nonzero()[:, 0]
    place = (mesh.uvs[mesh.faces[missed]].mean(dim=1) * size_px).long().clamp(0, size_px - 1)
    texel = place[:, 1] * size_px + place[:, 0]
    free = ~taken[texel]
    texel, inverse = torch.unique(texel[free], return_inverse=True)
    faces = torch.zeros_like(texel)
    faces = faces.scatter_reduce(0, inverse, missed[free], "amax", include_self=False)
    return texel, faces


def _texel_areas(mesh: Mesh, face_index: Tensor) -> Tensor:
    corners = mesh.vertices[mesh.faces]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(
        dim=1
    )
    counts = torch.bincount(face_index, minlength=mesh.num_faces)
    return (areas / 2 / counts.clamp(min=1))[face_index]
