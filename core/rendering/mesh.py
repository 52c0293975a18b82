"""Contains differentiable mesh rendering: raster, interpolation, and whole pictures of a mesh.

Arrays have row 0 on top. Symbols: V vertices, F faces, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .._checks import require_finite, require_floating, require_shape
from ..backends.probe import Backend, choose_backend
from ..camera import ViewRig
from ..geometry.normals import face_normals, vertex_normals
from ..geometry.transforms import homogenize, normalize
from ..mesh import Mesh
from .silhouette import EdgeTopology, antialias, build_topology
from .texture import sample_texture

__all__ = [
    "EdgeTopology",
    "MeshRender",
    "antialias",
    "build_topology",
    "interpolate",
    "rasterize",
    "render_mesh",
    "world_to_clip",
]

Shading = Literal["flat_color", "headlight"]
NormalKind = Literal["smooth", "face"]
TextureFilter = Literal["mipmap", "bilinear"]

MAX_SIZE_PX = 8192
MAX_FACES = 1 << 24  # the raster stores face numbers as float32
AMBIENT_LIGHT = 0.3
CLEARLY_AWAY = 0.2


@dataclass(frozen=True)
class MeshRender:
    """Pictures of a mesh.

    Attributes:
        rgb: display-referred sRGB over the background.
        alpha: coverage 0..1.
        depth: camera depth along the viewing direction; 0 on the background.
        normals_world: unit normals, turned round where the back of a face is clearly seen; 0 on
            the background.
        face_index: visible face at the pixel centre, -1 on the background.
    """

    rgb: Float[Tensor, "view height width 3"]
    alpha: Float[Tensor, "view height width"]
    depth: Float[Tensor, "view height width"]
    normals_world: Float[Tensor, "view height width 3"]
    face_index: Int64[Tensor, "view height width"]


def render_mesh(
    mesh: Mesh,
    rig: ViewRig,
    *,
    width: int,
    height: int,
    background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),
    antialias: bool = True,
    shading: Shading = "flat_color",
    normals: NormalKind = "smooth",
    texture_filter: TextureFilter = "mipmap",
    backend: Backend = "auto",
) -> MeshRender:
    """Draw a mesh from all cameras of a rig; faces are seen from both sides.

    Colour is that of the texture, else of the vertices, else white, times the material's base
    colour. Differentiable with respect to vertices, vertex colours, texture and the cameras'
    ``camera_to_world``.

    Args:
        mesh: what to draw; an empty mesh gives the background.
        rig: one camera per picture.
        width: columns of each picture, 1..8192.
        height: rows of each picture, 1..8192.
        background: sRGB colour, or anything that broadcasts to [view, height, width, 3].
        antialias: smooth silhouettes of ``rgb`` and ``alpha``; without it they carry no gradient
            of coverage.
        shading: the colour as it is, or lit by a lamp at the camera.
        normals: interpolated vertex normals, or those of the faces.
        texture_filter: ``mipmap`` avoids flicker where the texture is finer than the picture.
        backend: kernels to use; `auto` takes the best that is ready.
    """
    _check_choice("shading", shading, ("flat_color", "headlight"))
    _check_choice("normals", normals, ("smooth", "face"))
    _check_choice("texture_filter", texture_filter, ("mipmap", "bilinear"))
    clip = world_to_clip(mesh.vertices, rig, width=width, height=height)
    rast = rasterize(clip, mesh.faces, width=width, height=height, backend=backend)
    face_index = rast[..., 3].detach().long() - 1
    covered = face_index >= 0
    depth = interpolate(_camera_depth(mesh, rig), rast, mesh.faces, backend=backend)[..., 0]
    normal_map = _normal_map(mesh, rig, clip, rast, face_index, normals, backend)
    rgb = _color_map(mesh, clip, rast, face_index, texture_filter, backend)
    if shading == "headlight":
        rgb = rgb * _headlight(normal_map, rig)
    backdrop = torch.as_tensor(background, dtype=rgb.dtype, device=rgb.device)
    rgb = torch.where(covered[..., None], rgb, backdrop)
    image = torch.cat([rgb, covered[..., None].to(rgb.dtype)], dim=-1)
    if antialias:
        topology = build_topology(mesh.faces, mesh.vertices if mesh.uvs is not None else None)
        image = _antialias(image, rast, clip, mesh.faces, topology=topology, backend=backend)
    return MeshRender(image[..., :3], image[..., 3], depth, normal_map, face_index)


_antialias = antialias  # `render_mesh` has an argument of the same name


def world_to_clip(
    vertices: Float[Tensor, "vertex 3"], rig: ViewRig, *, width: int, height: int
) -> Float[Tensor, "view vertex 4"]:
    """World points to the clip space of every camera; differentiable, cameras included."""
    _check_size(width, height)
    matrices = torch.stack([camera.world_to_clip(width, height) for camera in rig])
    return homogenize(vertices) @ matrices.to(vertices).transpose(1, 2)


def rasterize(
    vertices_clip: Float[Tensor, "view vertex 4"],
    faces: Int64[Tensor, "face 3"],
    *,
    width: int,
    height: int,
    backend: Backend = "auto",
) -> Float[Tensor, "view height width 4"]:
    """Find the visible face at each pixel centre, of all views at once.

    Returns (u, v, z/w, face + 1) per pixel: u and v are the perspective-correct weights of the
    face's corners 0 and 1, and 0 in the last channel means background. u, v and z/w are
    differentiable with respect to ``vertices_clip``; the gradient of coverage comes from
    `antialias`.

    Faces that cross the near plane are clipped; both sides of a face are drawn.

    Args:
        vertices_clip: OpenGL clip coordinates, as from `world_to_clip`.
        faces: vertex indices.
        width: columns, 1..8192.
        height: rows, 1..8192; row 0 is the top.
        backend: kernels to use.
    """
    _check_size(width, height)
    _check_geometry(vertices_clip, faces)
    if not len(faces):
        return vertices_clip.new_zeros(len(vertices_clip), height, width, 4)
    name = choose_backend("mesh", vertices_clip.device, backend)
    if name == "cuda":
        from ..backends.cuda import nvdiffrast_mesh

        return nvdiffrast_mesh.rasterize(vertices_clip, faces, width, height)
    if name == "numba":
        from ..backends.numba_cpu import mesh as numba_mesh

        return numba_mesh.rasterize(vertices_clip, faces, width, height)
    from ..backends.torch_reference import mesh as torch_mesh

    return torch_mesh.rasterize(vertices_clip, faces, width, height)


def interpolate(
    attributes: Float[Tensor, "vertex channel"] | Float[Tensor, "view vertex channel"],
    rast: Float[Tensor, "view height width 4"],
    faces: Int64[Tensor, "face 3"],
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "view height width channel"]:
    """Values of the vertices at each pixel, zero on the background.

    Differentiable with respect to the attributes and, through ``rast``, to the positions.

    Args:
        attributes: one set for all views, or one per view.
        rast: raster of `rasterize`.
        faces: the faces it was drawn from.
        backend: kernels to use.
    """
    require_floating("attributes", attributes)
    if attributes.ndim not in (2, 3) or (attributes.ndim == 3 and len(attributes) != len(rast)):
        raise ValueError(
            "attributes must have shape [vertex, channel] or [view, vertex, channel] with "
            f"{len(rast)} views, got {list(attributes.shape)}."
        )
    if not len(faces):
        return attributes.new_zeros(*rast.shape[:3], attributes.shape[-1])
    if int(faces.max()) >= attributes.shape[-2]:
        raise ValueError(
            f"faces point at vertex {int(faces.max())}, but attributes were given for "
            f"{attributes.shape[-2]} vertices."
        )
    name = choose_backend("mesh", rast.device, backend)
    if name == "cuda":
        from ..backends.cuda import nvdiffrast_mesh

        return nvdiffrast_mesh.interpolate(attributes, rast, faces)
    if name == "numba":
        from ..backends.numba_cpu import mesh as numba_mesh

        return numba_mesh.interpolate(attributes, rast, faces)
    from ..backends.torch_reference import mesh as torch_mesh

    per_view = attributes if attributes.ndim == 3 else attributes.expand(len(rast), -1, -1)
    return torch_mesh.interpolate(per_view, rast, faces)


def _camera_depth(mesh: Mesh, rig: ViewRig) -> Float[Tensor, "view vertex 1"]:
    rows = torch.stack([camera.world_to_camera[2] for camera in rig]).to(mesh.vertices)
    # Written out: a matrix product rounds differently for one view and for several.
    x, y, z = (mesh.vertices[:, axis] * rows[:, axis : axis + 1] for axis in range(3))
    return -(x + y + z + rows[:, 3:])[..., None]


def _normal_map(
    mesh: Mesh,
    rig: ViewRig,
    clip: Tensor,
    rast: Tensor,
    face_index: Tensor,
    kind: NormalKind,
    backend: Backend,
) -> Tensor:
    """Unit world normals, turned to the side that the camera sees; zero on the background."""
    if mesh.is_empty:
        return rast.new_zeros(*rast.shape[:3], 3)
    seen = face_index.clamp(min=0)
    if kind == "face":
        per_face = face_normals(mesh.vertices, mesh.faces)
        normal_map = torch.where((face_index >= 0)[..., None], per_face[seen], 0.0)
    else:
        smooth = mesh.vertex_normals
        if smooth is None:
            smooth = vertex_normals(mesh.vertices, mesh.faces)
        normal_map = normalize(interpolate(smooth, rast, mesh.faces, backend=backend))
    behind = _signed_areas(clip.detach(), mesh.faces) < 0  # [view, F]
    behind = behind.gather(1, seen.reshape(len(seen), -1)).reshape(seen.shape) & (face_index >= 0)
    # Edge-on faces at silhouettes show either side by chance: turn only what clearly looks away.
    view, row, column = torch.nonzero(behind, as_tuple=True)
    towards = _towards_camera(rig, normal_map)[view]
    away = (normal_map.detach()[view, row, column] * towards).sum(dim=-1) < -CLEARLY_AWAY
    if not bool(away.any()):
        return normal_map
    behind[view, row, column] = away
    return torch.where(behind[..., None], -normal_map, normal_map)


def _towards_camera(rig: ViewRig, like: Tensor) -> Float[Tensor, "view 3"]:
    return torch.stack([camera.camera_to_world[:3, 2] for camera in rig]).detach().to(like)


def _signed_areas(clip: Tensor, faces: Tensor) -> Float[Tensor, "view face"]:
    """Positive where a face runs counter-clockwise in the image; holds behind the camera too."""
    a, b, c = (clip[:, faces[:, corner]][..., [0, 1, 3]] for corner in range(3))
    return (a * torch.linalg.cross(b, c)).sum(dim=-1)


def _color_map(
    mesh: Mesh,
    clip: Tensor,
    rast: Tensor,
    face_index: Tensor,
    texture_filter: TextureFilter,
    backend: Backend,
) -> Tensor:
    """Unlit sRGB colour of the covered pixels; anything on the background."""
    factor = rast.new_tensor(mesh.material.base_color)
    if mesh.is_empty:
        return factor.expand(*rast.shape[:3], 3)
    if mesh.texture is not None and mesh.uvs is not None:
        uvs = interpolate(mesh.uvs, rast, mesh.faces, backend=backend)
        pixel = torch.nonzero(face_index.reshape(-1) >= 0).squeeze(1)
        level = None
        if texture_filter == "mipmap":
            w = interpolate(clip.detach()[..., 3:], rast.detach(), mesh.faces, backend=backend)
            level = _mip_level(mesh, clip.detach(), w.reshape(-1)[pixel], face_index, pixel)
        colors = sample_texture(mesh.texture, uvs.reshape(-1, 2)[pixel], level=level) * factor
        out = colors.new_zeros(face_index.numel(), 3).index_copy(0, pixel, colors)
        return out.reshape(*face_index.shape, 3)
    if mesh.vertex_colors is not None:
        return interpolate(mesh.vertex_colors, rast, mesh.faces, backend=backend) * factor
    return factor.expand(*rast.shape[:3], 3)


def _mip_level(mesh: Mesh, clip: Tensor, w: Tensor, face_index: Tensor, pixel: Tensor) -> Tensor:
    """Half the binary logarithm of texels per pixel, as areas, at flat pixel indices.

    The weights of a triangle are a projective map of the image, whose Jacobian at a pixel is
    w^3 / det, with det the determinant of the corners' (x, y, w).
    """
    assert mesh.uvs is not None and mesh.texture is not None
    height, width = face_index.shape[1:]
    texture_height, texture_width = mesh.texture.shape[:2]
    uv = mesh.uvs.detach()[mesh.faces]
    first, second = (uv[:, 1] - uv[:, 0]), (uv[:, 2] - uv[:, 0])
    uv_area = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs()
    texels = uv_area * (texture_width * texture_height) / (width * height / 4)
    per_face = texels / _signed_areas(clip, mesh.faces).abs().clamp(min=1e-20)  # [view, F]
    row = pixel // (height * width) * mesh.num_faces + face_index.reshape(-1)[pixel]
    return 0.5 * torch.log2((per_face.reshape(-1)[row] * w**3).clamp(min=1e-12))


def _headlight(normal_map: Tensor, rig: ViewRig) -> Tensor:
    """Lambert shading by a lamp at the camera, as a factor per pixel."""
    towards = _towards_camera(rig, normal_map)[:, None, None]
    cosine = (normal_map * towards).sum(dim=-1, keepdim=True).abs()
    return AMBIENT_LIGHT + (1 - AMBIENT_LIGHT) * cosine


def _check_size(width: int, height: int) -> None:
    for name, value in (("width", width), ("height", height)):
        if not 1 <= value <= MAX_SIZE_PX:
            raise ValueError(f"{name} must lie within 1..{MAX_SIZE_PX} pixels, got {value}.")


def _check_geometry(vertices_clip: Tensor, faces: Tensor) -> None:
    require_shape("vertices_clip", vertices_clip, None, None, 4)
    if vertices_clip.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"vertices_clip must be float32 or float64, got {vertices_clip.dtype}; "
            "convert with .float()."
        )
    require_finite("vertices_clip", vertices_clip)
    require_shape("faces", faces, None, 3)
    if faces.dtype != torch.int64:
        raise ValueError(f"faces must be int64, got {faces.dtype}; convert with .long().")
    if len(faces) >= MAX_FACES:
        raise ValueError(
            f"At most {MAX_FACES - 1} faces can be drawn, got {len(faces)}; decimate the mesh."
        )
    if len(faces):
        low, high = int(faces.min()), int(faces.max())
        if low < 0 or high >= vertices_clip.shape[1]:
            raise ValueError(
                f"faces point at vertices {low}..{high}, but there are {vertices_clip.shape[1]} "
                "vertices (0 is the first)."
            )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"Unknown {name} '{value}'; choose {' or '.join(choices)}.")
