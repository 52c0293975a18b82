"""Contains the reduction of a mesh to fewer faces, colours included."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..mesh import Mesh
from .closest import closest_surface_points
from .repair import RepairParams, is_manifold, is_watertight, merge_duplicate_vertices, repair_mesh

LOGGER = logging.getLogger(__name__)
MIN_FACES = 4
MAX_HOLE_EDGES = 64  # torn open by the simplification of a closed mesh


def decimate_mesh(mesh: Mesh, target_faces: int, *, aggressiveness: float = 7.0) -> Mesh:
    """Mesh of about ``target_faces`` faces with the shape of the old one (quadric errors).

    Colours are sampled anew from the nearest points of the old surface. A texture becomes vertex
    colours, because texture coordinates do not survive: unwrap and bake again for a texture. The
    result is manifold; a closed mesh normally stays closed.

    Reference: Garland and Heckbert 1997, "Surface simplification using quadric error metrics".

    Args:
        mesh: any mesh; with fewer faces than the target it comes back unchanged.
        target_faces: at least 4; thin or tiny parts may keep the result above it.
        aggressiveness: 0..10, higher is faster and coarser.

    Raises:
        ImportError: fast-simplification is not installed.
    """
    if target_faces < MIN_FACES:
        raise ValueError(f"target_faces must be at least {MIN_FACES}, got {target_faces}.")
    if mesh.num_faces <= target_faces:
        return mesh
    shape = Mesh(mesh.vertices.detach(), mesh.faces)
    was_closed = is_watertight(shape.faces)
    if not was_closed:  # texture seams would tear open
        shape = merge_duplicate_vertices(shape)
        was_closed = is_watertight(shape.faces)
    vertices, faces = _simplify(shape, target_faces, aggressiveness)
    reduced = Mesh(vertices, faces, material=mesh.material, name=mesh.name)
    if not is_manifold(faces) or (was_closed and not is_watertight(faces)):
        holes = MAX_HOLE_EDGES if was_closed else 0
        reduced = repair_mesh(reduced, RepairParams(weld=False, max_hole_edges=holes))
    if reduced.num_faces < MIN_FACES:
        LOGGER.warning("Nothing would be left of a mesh of %d faces; it is kept.", mesh.num_faces)
        return mesh
    return replace(reduced, vertex_colors=_colors_at(mesh, reduced.vertices))


def _simplify(shape: Mesh, target_faces: int, aggressiveness: float) -> tuple[Tensor, Tensor]:
    try:
        import fast_simplification
    except ImportError as error:
        raise ImportError(
            "Decimation needs fast-simplification: pip install fast-simplification"
        ) from error
    device = shape.vertices.device
    vertices, faces = fast_simplification.simplify(
        shape.vertices.cpu().numpy(),
        shape.faces.cpu().numpy(),
        target_count=target_faces,
        agg=aggressiveness,
    )
    return (
        torch.as_tensor(vertices, dtype=shape.vertices.dtype, device=device),
        torch.as_tensor(faces, dtype=torch.int64, device=device),
    )


def _colors_at(mesh: Mesh, points: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"] | None:
    """Colours of the old surface nearest to the points; None where it has none."""
    colors, texture, uvs = mesh.vertex_colors, mesh.texture, mesh.uvs
    if colors is None and texture is None:
        return None
    nearest = closest_surface_points(points, mesh.vertices, mesh.faces)
    if texture is not None and uvs is not None:
        return _texture_at(texture, nearest.interpolate(uvs, mesh.faces)).to(points).clamp(0, 1)
    return None if colors is None else nearest.interpolate(colors, mesh.faces).clamp(0, 1)


def _texture_at(
    texture: Float[Tensor, "texture_height texture_width 3"], uvs: Float[Tensor, "point 2"]
) -> Float[Tensor, "point 3"]:
    image = texture.detach().permute(2, 0, 1)[None]
    # grid_sample counts from -1 to 1 between the outer borders of the image; textures repeat.
    where = ((uvs - uvs.floor()) * 2 - 1).to(image)
    sampled = torch.nn.functional.grid_sample(
        image, where[None, None], padding_mode="border", align_corners=False
    )
    return sampled[0, :, 0].T
