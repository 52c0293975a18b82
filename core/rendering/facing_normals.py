"""Contains normal maps of meshes whose faces need not agree about which side is outside.

Many files hold each face twice, once per side, or faces of mixed winding. The sum of such faces'
normals at a vertex cancels to noise, so smooth normals are taken from the bare sheet instead: each
face once, neighbours turned alike. Their sign means nothing; the viewer decides it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..camera import ViewRig
from ..geometry.normals import face_normals, vertex_normals
from ..geometry.orientation import disagreeing_faces
from ..geometry.repair import degenerate_faces, duplicate_faces
from ..geometry.transforms import normalize, pixel_rays
from ..mesh import Mesh
from .mesh import MeshRender, render_mesh

# Interpolated normals that leave the face's own by more come from faces of opposite winding.
AGREEING_COSINE = 0.3


def sheet_normals(
    vertices: Float[Tensor, "vertex 3"], faces: Int64[Tensor, "face 3"]
) -> Float[Tensor, "vertex 3"]:
    """Smooth vertex normals of the sheet that the faces form, whichever way they wind.

    Repeated faces count once, and faces are turned until neighbours agree, which decides the
    normals up to one sign per piece. Where the faces agree already these are the usual ones.
    """
    single = faces[~(degenerate_faces(faces) | duplicate_faces(faces))]
    turned = disagreeing_faces(single)
    single = torch.where(turned[:, None], single.flip(1), single)
    return vertex_normals(vertices, single)


def with_sheet_normals(mesh: Mesh) -> Mesh:
    """The mesh with `sheet_normals` as its own normals, unless it brought normals along."""
    if mesh.vertex_normals is not None or mesh.is_empty:
        return mesh
    return replace(mesh, vertex_normals=sheet_normals(mesh.vertices, mesh.faces))


def facing_normals(
    drawn: MeshRender, mesh: Mesh, rig: ViewRig
) -> Float[Tensor, "view height width 3"]:
    """Normal maps in which every pixel looks to the viewer, whatever the winding of the faces.

    Smooth normals are kept where they agree with the face; elsewhere the face's own normal stands
    in. Zero on the background.

    Args:
        drawn: pictures of the mesh, best with `with_sheet_normals`.
        mesh: what was drawn.
        rig: the cameras it was drawn from.
    """
    if mesh.is_empty:
        return drawn.normals_world
    covered = (drawn.face_index >= 0)[..., None]
    flat = face_normals(mesh.vertices, mesh.faces)[drawn.face_index.clamp(min=0)]
    towards = torch.stack([_towards_camera(drawn, rig, index) for index in range(len(rig))])
    flat = torch.where((flat * towards).sum(dim=-1, keepdim=True) < 0, -flat, flat)
    agreement = (flat * drawn.normals_world).sum(dim=-1, keepdim=True)
    smooth = drawn.normals_world * torch.where(agreement < 0, -1.0, 1.0)
    chosen = torch.where(agreement.abs() < AGREEING_COSINE, flat, smooth)
    return normalize(torch.where(covered, chosen, torch.zeros_like(chosen)))


def render_facing(
    mesh: Mesh, rig: ViewRig, *, width: int, height: int, **options: Any
) -> MeshRender:
    """Pictures of a mesh as `render_mesh` draws them, whose normals all look to the viewer.

    Args:
        mesh: any; its smooth normals are those of the sheet.
        rig: one camera per picture.
        width: columns of each picture.
        height: rows of each picture.
        **options: of `render_mesh`.
    """
    mesh = with_sheet_normals(mesh)
    drawn = render_mesh(mesh, rig, width=width, height=height, **options)
    return replace(drawn, normals_world=facing_normals(drawn, mesh, rig))


def _towards_camera(drawn: MeshRender, rig: ViewRig, index: int) -> Tensor:
    """Unit vectors from the surface to the eye for one view."""
    height, width = drawn.alpha.shape[1:]
    _, directions = pixel_rays(rig[index], width=int(width), height=int(height))
    return -directions.to(drawn.rgb)
