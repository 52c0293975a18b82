"""Contains the triangle mesh with its colours, texture and physically based scalars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ._checks import require_finite, require_floating, require_same_device, require_shape


@dataclass(frozen=True)
class Material:
    """Physically based scalars of a mesh (glTF metallic-roughness).

    Attributes:
        base_color: sRGB factor 0..1 that multiplies texture and vertex colours.
        alpha: opacity 0..1.
        metallic: 0 (dielectric) .. 1 (metal).
        roughness: 0 (mirror) .. 1 (matte).
        double_sided: draw back faces too.
        unlit: show the colour as it is, without lights.
    """

    base_color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    alpha: float = 1.0
    metallic: float = 0.0
    roughness: float = 1.0
    double_sided: bool = True
    unlit: bool = False

    def __post_init__(self) -> None:
        scalars = {
            "alpha": self.alpha,
            "metallic": self.metallic,
            "roughness": self.roughness,
            **{f"base_color[{i}]": value for i, value in enumerate(self.base_color)},
        }
        for name, value in scalars.items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"Material {name} must lie within 0..1, got {value}.")


class NoSurfaceError(ValueError):
    """A reconstruction shows no object: there is no surface that a mesh could be made of."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in the world frame: right-handed, +Y up, +Z front.

    Attributes:
        vertices: positions, at most 1e6 in magnitude.
        faces: vertex indices, counter-clockwise seen from outside.
        vertex_colors: display-referred sRGB, 0..1.
        uvs: texture coordinates per vertex; (0, 0) is the top-left corner of ``texture``.
            A vertex on a seam stands once for each of its coordinates.
        texture: base colour image, display-referred sRGB, row 0 on top.
        metallic_roughness: glTF packing (green roughness, blue metallic), linear.
        vertex_normals: unit normals; None means "smooth normals from the faces".
        material: scalars that apply to the whole mesh.
        name: label of the part, used as node name in files.
    """

    vertices: Float[Tensor, "vertex 3"]
    faces: Int64[Tensor, "face 3"]
    vertex_colors: Float[Tensor, "vertex 3"] | None = None
    uvs: Float[Tensor, "vertex 2"] | None = None
    texture: Float[Tensor, "texture_height texture_width 3"] | None = None
    metallic_roughness: Float[Tensor, "mr_height mr_width 3"] | None = None
    vertex_normals: Float[Tensor, "vertex 3"] | None = None
    material: Material = field(default_factory=Material)
    name: str = "mesh"

    MAX_COORDINATE: ClassVar[float] = 1e6

    def __post_init__(self) -> None:
        require_shape("vertices", self.vertices, None, 3)
        require_floating("vertices", self.vertices)
        require_finite("vertices", self.vertices)
        require_shape("faces", self.faces, None, 3)
        if self.faces.dtype != torch.int64:
            raise ValueError(f"faces must be int64, got {self.faces.dtype}; convert with .long().")
        num_vertices = self.vertices.shape[0]
        if self.vertices.numel():
            largest = float(self.vertices.detach().abs().max())
            if largest > self.MAX_COORDINATE:
                raise ValueError(
                    f"vertices reach {largest:.3g}, expected at most {self.MAX_COORDINATE:.0g}; "
                    "scale the mesh down."
                )
        if self.faces.numel():
            low, high = int(self.faces.min()), int(self.faces.max())
            if low < 0 or high >= num_vertices:
                raise ValueError(
                    f"faces point at vertices {low}..{high}, but the mesh has {num_vertices} "
                    "vertices (0 is the first); the file or the node that made it is broken."
                )
        for name, columns in (("vertex_colors", 3), ("uvs", 2), ("vertex_normals", 3)):
            value = getattr(self, name)
            if value is not None:
                require_shape(name, value, num_vertices, columns)
                require_finite(name, value)
        for name in ("texture", "metallic_roughness"):
            value = getattr(self, name)
            if value is not None:
                require_shape(name, value, None, None, 3)
                if min(value.shape[:2]) < 1:
                    raise ValueError(
                        f"{name} must have at least one pixel, got {list(value.shape)}."
                    )
                require_finite(name, value)
        if self.texture is not None and self.uvs is None:
            raise ValueError("A textured mesh needs uvs; unwrap it first or drop the texture.")
        require_same_device(
            vertices=self.vertices,
            faces=self.faces,
            vertex_colors=self.vertex_colors,
            uvs=self.uvs,
            texture=self.texture,
        )

    @property
    def num_vertices(self) -> int:
        """Number of vertices."""
        return int(self.vertices.shape[0])

    @property
    def num_faces(self) -> int:
        """Number of triangles."""
        return int(self.faces.shape[0])

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to draw."""
        return self.num_faces == 0

    def bounds(self) -> tuple[Float[Tensor, 3], Float[Tensor, 3]]:
        """Lowest and highest corner of the axis-aligned bounding box.

        Raises:
            ValueError: the mesh has no vertices.
        """
        if not self.num_vertices:
            raise ValueError("An empty mesh has no bounding box; give a mesh with vertices.")
        return self.vertices.amin(dim=0), self.vertices.amax(dim=0)

    def normalized(self, longest_side: float = 1.8) -> Mesh:
        """Copy centred on its bounding box, whose longest side becomes ``longest_side``."""
        low, high = self.bounds()
        extent = float((high - low).max())
        if extent <= 0:
            raise ValueError("All vertices of the mesh lie on one point; it cannot be scaled.")
        return self.with_vertices((self.vertices - (low + high) / 2) * (longest_side / extent))

    def with_vertices(self, vertices: Float[Tensor, "vertex 3"]) -> Mesh:
        """Copy with moved vertices; stored normals are dropped because they no longer hold."""
        return replace(self, vertices=vertices, vertex_normals=None)

    def to(self, device: torch.device | str) -> Mesh:
        """Copy with every tensor on ``device``."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def clone(self) -> Mesh:
        """Deep copy: no tensor is shared with the original."""
        copies: dict[str, Any] = {
            name: value.clone() for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **copies)


def merge_meshes(meshes: Sequence[Mesh], name: str = "merged") -> Mesh:
    """One mesh from several; per-vertex colours are kept, textures are not.

    A part with a texture and no vertex colours contributes white: bake it first
    (`pipelines.texture_projection`), or write the parts as separate nodes of one GLB.
    """
    if not meshes:
        raise ValueError("merge_meshes needs at least one mesh, got none.")
    offsets = [0]
    for mesh in meshes[:-1]:
        offsets.append(offsets[-1] + mesh.num_vertices)
    faces = [mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=True)]
    colors = None
    if any(mesh.vertex_colors is not None for mesh in meshes):
        colors = torch.cat(
            [
                torch.ones_like(mesh.vertices) if mesh.vertex_colors is None else mesh.vertex_colors
                for mesh in meshes
            ]
        )
    return Mesh(
        vertices=torch.cat([mesh.vertices for mesh in meshes]),
        faces=torch.cat(faces),
        vertex_colors=colors,
        material=meshes[0].material,
        name=name,
    )
