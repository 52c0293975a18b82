"""Contains the unwrapping of meshes: texture coordinates without overlaps for any triangle mesh."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..mesh import Mesh
from .chart_segmentation import mean_directions, peel_faces, segment_surface
from .normals import face_normals, vertex_normals
from .transforms import normalize
from .uv_coverage import overlapping_faces

LOGGER = logging.getLogger(__name__)

XATLAS_MAX_FACES = 8_000
"""``auto`` gives larger meshes to ``parts``: the time of xatlas grows faster than the mesh."""
OVERLAP_TILE_PX = 96
PEELING_ROUNDS = 3


@dataclass(frozen=True)
class UnwrapParams:
    """How a mesh is cut, unfolded and packed.

    Attributes:
        method: ``xatlas`` lets xatlas cut the whole mesh, ``parts`` cuts it into parts that look
            one way and projects each onto its plane (parts that would fold go to xatlas), ``auto``
            takes xatlas for small meshes and parts for others.
        resolution_px: side of the texture for which ``padding_px`` is meant.
        padding_px: empty texels between charts.
        max_angle_deg: ``parts`` only: how far faces may turn away from their chart's plane; the
            stretch is at most 1 / cos of it.
        max_cost: xatlas: larger gives fewer, more stretched charts.
        max_iterations: xatlas: rounds of chart growing; more give better charts, slower.
        max_chart_area: xatlas: largest area of a chart in world units squared; 0 sets no limit.
        max_boundary_length: xatlas: longest border of a chart in world units; 0 sets no limit.
        normal_deviation_weight: xatlas: cost of bending away from the chart's mean normal.
        roundness_weight: xatlas: cost of ragged charts.
        straightness_weight: xatlas: cost of crooked borders.
        normal_seam_weight: xatlas: cost of not cutting along creases.
        rotate_charts: let the packer turn charts.
        brute_force: try every place when packing: tighter, very slow.
    """

    method: Literal["auto", "xatlas", "parts"] = "auto"
    resolution_px: int = 1024
    padding_px: int = 4
    max_angle_deg: float = 50.0
    max_cost: float = 2.0
    max_iterations: int = 1
    max_chart_area: float = 0.0
    max_boundary_length: float = 0.0
    normal_deviation_weight: float = 2.0
    roundness_weight: float = 0.01
    straightness_weight: float = 6.0
    normal_seam_weight: float = 4.0
    rotate_charts: bool = True
    brute_force: bool = False

    def __post_init__(self) -> None:
        if self.method not in ("auto", "xatlas", "parts"):
            raise ValueError(f"method must be auto, xatlas or parts, got '{self.method}'.")
        if self.resolution_px < 16:
            raise ValueError(f"resolution_px must be at least 16, got {self.resolution_px}.")
        if not 0 <= self.padding_px < self.resolution_px // 4:
            raise ValueError(
                f"padding_px must lie within 0..{self.resolution_px // 4 - 1}, a quarter of the "
                f"resolution, got {self.padding_px}."
            )
        if not 0 < self.max_angle_deg < 80:
            raise ValueError(f"max_angle_deg must lie between 0 and 80, got {self.max_angle_deg}.")


@dataclass(frozen=True)
class _Charts:
    """Unfolded but not yet packed: coordinates in world units, one island per chart.

    Attributes:
        source: vertex of the mesh behind each chart vertex.
        uvs: plane coordinates.
        faces: chart vertices of each face, in the order of ``face_index``.
        face_index: the faces of the mesh.
    """

    source: np.ndarray
    uvs: np.ndarray
    faces: np.ndarray
    face_index: np.ndarray


def unwrap_mesh(mesh: Mesh, params: UnwrapParams | None = None) -> Mesh:
    """Give a mesh texture coordinates in 0..1 without overlaps; faces keep number and order.

    Vertices on seams are repeated, with their colours and normals: smooth normals of the whole
    surface are stored, so that seams do not show as creases. A former texture is dropped because
    its coordinates are.

    Raises:
        ValueError: the mesh has no faces, or no area.
    """
    params = params or UnwrapParams()
    return apply_unwrap(mesh, *unwrap_map(mesh, params))


def apply_unwrap(
    mesh: Mesh,
    source: Int64[Tensor, " new_vertex"],
    faces: Int64[Tensor, "face 3"],
    uvs: Float[Tensor, "new_vertex 2"],
) -> Mesh:
    """The mesh with vertices repeated as ``source`` says and coordinates ``uvs``."""
    normals = mesh.vertex_normals
    if normals is None:
        normals = vertex_normals(mesh.vertices, mesh.faces)
    return replace(
        mesh,
        vertices=mesh.vertices[source],
        faces=faces,
        uvs=uvs,
        vertex_colors=None if mesh.vertex_colors is None else mesh.vertex_colors[source],
        vertex_normals=normals[source],
        texture=None,
        metallic_roughness=None,
    )


def unwrap_map(
    mesh: Mesh, params: UnwrapParams
) -> tuple[Int64[Tensor, " new_vertex"], Int64[Tensor, "face 3"], Float[Tensor, "new_vertex 2"]]:
    """What `unwrap_mesh` does to the vertices: source of each new vertex, faces, coordinates."""
    _require_surface(mesh)
    method = params.method
    if method == "auto":
        method = "xatlas" if mesh.num_faces <= XATLAS_MAX_FACES else "parts"
    vertices = mesh.vertices.detach().cpu().double()
    low, high = vertices.amin(dim=0), vertices.amax(dim=0)
    vertices = (vertices - (low + high) / 2) / float((high - low).max())  # kind to float32
    faces = mesh.faces.cpu()
    if method == "xatlas":
        packed = _unfold_with_xatlas(vertices, faces, [torch.arange(len(faces))], params)[0]
        uvs = packed.uvs / packed.uvs.max(axis=0, initial=1e-12)
    else:
        packed = _pack(_unfold_parts(vertices, faces, params), params)
        uvs = packed.uvs
    device = mesh.vertices.device
    return (
        torch.as_tensor(packed.source, dtype=torch.int64, device=device),
        torch.as_tensor(packed.faces, dtype=torch.int64, device=device),
        torch.as_tensor(uvs, device=device).to(mesh.vertices.dtype).clamp(0, 1),
    )


def _require_surface(mesh: Mesh) -> None:
    if mesh.is_empty:
        raise ValueError(
            f"The mesh has {mesh.num_vertices} vertices but no faces; there is nothing to unwrap."
        )
    corners = mesh.vertices.detach()[mesh.faces]
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if not float(cross.abs().max()) > 0:
        raise ValueError("All faces of the mesh have zero area; it cannot be unwrapped.")


def _unfold_parts(vertices: Tensor, faces: Tensor, params: UnwrapParams) -> list[_Charts]:
    labels = segment_surface(vertices, faces, max_angle_deg=params.max_angle_deg)
    planar = _project_parts(vertices, faces, labels)
    for _ in range(PEELING_ROUNDS):
        overlapping = _overlapping_faces(planar, labels)
        if not bool(overlapping.any()):
            return [planar]
        labels = peel_faces(vertices, faces, labels, overlapping)
        planar = _project_parts(vertices, faces, labels)
    overlapping = _overlapping_faces(planar, labels)
    if not bool(overlapping.any()):
        return [planar]
    folded = torch.unique(labels[overlapping])
    LOGGER.info("%d of %d parts overlap and go to xatlas.", len(folded), int(labels.max()) + 1)
    stays = ~torch.isin(labels, folded)
    rest = [(labels == part).nonzero()[:, 0] for part in folded]
    return [_subset(planar, stays), *_unfold_with_xatlas(vertices, faces, rest, params)]


def _project_parts(vertices: Tensor, faces: Tensor, labels: Tensor) -> _Charts:
    """Each part on the plane across its mean normal, at the scale of its true area."""
    corners = vertices[faces]
    normals = face_normals(vertices, faces)
    areas = 0.5 * torch.linalg.cross(
        corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    ).norm(dim=1)
    axes = mean_directions(labels, normals, areas)
    seen_area = torch.zeros(len(axes), dtype=areas.dtype).index_add(
        0, labels, areas * (normals * axes[labels]).sum(dim=1)
    )
    area = torch.zeros_like(seen_area).index_add(0, labels, areas)
    scale = (area / seen_area.clamp(min=1e-30)).sqrt().clamp(max=2.0)
    key = labels[:, None] * len(vertices) + faces
    unique, chart_faces = torch.unique(key, return_inverse=True)
    part, source = unique // len(vertices), unique % len(vertices)
    right, down = _plane_axes(axes)
    position = vertices[source] * scale[part, None]
    uvs = torch.stack(
        [(position * right[part]).sum(dim=1), (position * down[part]).sum(dim=1)], dim=1
    )
    return _Charts(source.numpy(), uvs.numpy(), chart_faces.numpy(), np.arange(len(faces)))


def _plane_axes(normals: Tensor) -> tuple[Tensor, Tensor]:
    """Right and down of pictures taken against the normals, so that charts are not mirrored."""
    helper = torch.zeros_like(normals)
    helper[:, 1] = 1.0
    steep = normals[:, 1].abs() > 0.9
    helper[steep] = torch.tensor([0.0, 0.0, -1.0], dtype=normals.dtype)
    right = normalize(torch.linalg.cross(helper, normals))
    return right, -torch.linalg.cross(normals, right)


def _overlapping_faces(planar: _Charts, labels: Tensor) -> Tensor:
    """True for faces that their part's projection lays over each other, in one raster for all."""
    uvs, faces = torch.from_numpy(planar.uvs), torch.from_numpy(planar.faces)
    num_parts = int(labels.max()) + 1
    tile = OVERLAP_TILE_PX if num_parts <= 400 else OVERLAP_TILE_PX // 2
    columns = math.ceil(math.sqrt(num_parts))
    owner = torch.zeros(len(uvs), dtype=torch.int64)
    owner[faces] = labels[:, None].expand(-1, 3)
    index = owner[:, None].expand(-1, 2)
    low = torch.full((num_parts, 2), torch.inf).double().scatter_reduce(0, index, uvs, "amin")
    high = torch.full((num_parts, 2), -torch.inf).double().scatter_reduce(0, index, uvs, "amax")
    extent = (high - low).amax(dim=1).clamp(min=1e-30)
    local = (uvs - low[owner]) / extent[owner, None] * (1 - 2 / tile) + 1 / tile
    place = torch.stack([owner % columns, owner // columns], dim=1)
    side = columns * tile
    return overlapping_faces((local + place) / columns, faces, width=side, height=side)


def _subset(charts: _Charts, faces: Tensor) -> _Charts:
    kept = faces.numpy()
    used, compact = np.unique(charts.faces[kept], return_inverse=True)
    return _Charts(
        charts.source[used], charts.uvs[used], compact.reshape(-1, 3), charts.face_index[kept]
    )


def _unfold_with_xatlas(
    vertices: Tensor, faces: Tensor, groups: list[Tensor], params: UnwrapParams
) -> list[_Charts]:
    """Unfold groups of faces; coordinates in world units, all groups in one packed atlas."""
    import xatlas

    atlas = xatlas.Atlas()
    used_vertices = []
    for group in groups:
        used, compact = torch.unique(faces[group], return_inverse=True)
        atlas.add_mesh(
            vertices[used].float().numpy(),
            compact.reshape(-1, 3).to(torch.int32).numpy().view(np.uint32),
        )
        used_vertices.append(used.numpy())
    atlas.generate(_chart_options(params), _pack_options(params), False)
    scale = np.array([atlas.width, atlas.height]) / max(atlas.texels_per_unit, 1e-12)
    charts = []
    for number, group in enumerate(groups):
        mapping, chart_faces, uvs = atlas.get_mesh(number)
        charts.append(
            _Charts(
                used_vertices[number][mapping.astype(np.int64)],
                uvs.astype(np.float64) * scale,
                chart_faces.astype(np.int64),
                group.numpy(),
            )
        )
    return charts


def _pack(charts: list[_Charts], params: UnwrapParams) -> _Charts:
    """Lay all islands into the unit square without overlap; faces return in mesh order."""
    import xatlas

    offsets = np.cumsum([0] + [len(part.uvs) for part in charts[:-1]])
    uvs = np.concatenate([part.uvs for part in charts])
    faces = np.concatenate([part.faces + off for part, off in zip(charts, offsets, strict=True)])
    order = np.argsort(np.concatenate([part.face_index for part in charts]))
    atlas = xatlas.Atlas()
    uvs = _spread_islands(uvs, faces)
    atlas.add_uv_mesh(uvs.astype(np.float32), faces[order].astype(np.uint32))
    atlas.generate(_chart_options(params), _pack_options(params), False)
    mapping, packed_faces, packed = atlas.get_mesh(0)
    source = np.concatenate([part.source for part in charts])[mapping.astype(np.int64)]
    return _Charts(
        source,
        packed.astype(np.float64),
        packed_faces.astype(np.int64),
        np.arange(len(packed_faces)),
    )


def _spread_islands(uvs: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Move islands apart: xatlas takes islands that touch at a coordinate for one chart."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(uvs),) * 2)
    count, island = connected_components(graph, directed=False)
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, island, uvs)
    np.maximum.at(high, island, uvs)
    pitch = 1.1 * float((high - low).max()) + 1e-6
    side = math.ceil(math.sqrt(count))
    place = np.stack([np.arange(count) % side, np.arange(count) // side], axis=1) * pitch
    return uvs - low[island] + place[island]


def _chart_options(params: UnwrapParams) -> Any:
    import xatlas

    options = xatlas.ChartOptions()
    for name in (
        "max_cost",
        "max_iterations",
        "max_chart_area",
        "max_boundary_length",
        "normal_deviation_weight",
        "roundness_weight",
        "straightness_weight",
        "normal_seam_weight",
    ):
        setattr(options, name, getattr(params, name))
    return options


def _pack_options(params: UnwrapParams) -> Any:
    import xatlas

    options = xatlas.PackOptions()
    options.resolution = params.resolution_px
    # The atlas that xatlas makes is somewhat larger than asked and is scaled down afterwards.
    options.padding = math.ceil(params.padding_px * 1.25)
    options.rotate_charts = params.rotate_charts
    options.bruteForce = params.brute_force
    return options
