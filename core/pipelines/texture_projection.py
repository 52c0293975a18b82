"""Contains the baking of pictures onto a mesh: vertex colours, or a texture with its coverage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..camera import ViewRig
from ..geometry.dilation import dilate_texture, fill_along_surface
from ..geometry.uv import UnwrapParams, apply_unwrap, unwrap_map
from ..geometry.uv_coverage import inspect_uvs, move_islands_to_first_tile
from ..geometry.vertex_fill import fill_unseen_vertices
from ..mesh import Mesh, merge_meshes
from ..progress import Progress, ProgressCallback, ignore_progress
from ..rendering.projection import (
    VertexProjectionParams,
    check_views,
    project_views_to_vertices,
    resolve_two_sided,
    resolve_view_weights,
    trace_views,
)
from ..rendering.texel_projection import TexelColors, project_views_to_texels
from ..rendering.texels import Texels, rasterize_texels
from ..rendering.texture import sample_texture

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextureParams:
    """How pictures become a texture.

    Attributes:
        size_px: side of the square texture.
        mode: ``blend`` mixes all views by weight; ``best_view`` takes fine detail from the view
            that sees a place best and blends only the coarse colours, which hides seams and
            keeps views that do not quite agree from blurring each other.
        uvs: ``auto`` keeps the mesh's coordinates when a picture can be baked onto them and
            unwraps the mesh otherwise; ``keep`` and ``unwrap`` insist.
        unwrap: used when the mesh is unwrapped; its resolution is set to ``size_px``.
        projection: weights, thresholds and tolerances, see `VertexProjectionParams`.
        keep_original: unseen texels show the mesh's own texture or colours instead of what
            spreads from their neighbours.
        seam_padding_px: how far colours reach beyond the charts; None fills the whole texture.
    """

    size_px: int = 1024
    mode: Literal["blend", "best_view"] = "blend"
    uvs: Literal["auto", "keep", "unwrap"] = "auto"
    unwrap: UnwrapParams = field(default_factory=UnwrapParams)
    projection: VertexProjectionParams = field(
        default_factory=lambda: VertexProjectionParams(cos_power=4.0)
    )
    keep_original: bool = False
    seam_padding_px: int | None = None

    def __post_init__(self) -> None:
        if not 16 <= self.size_px <= 8192:
            raise ValueError(f"size_px must lie within 16..8192, got {self.size_px}.")
        if self.mode not in ("blend", "best_view"):
            raise ValueError(f"mode must be blend or best_view, got '{self.mode}'.")
        if self.uvs not in ("auto", "keep", "unwrap"):
            raise ValueError(f"uvs must be auto, keep or unwrap, got '{self.uvs}'.")
        if self.seam_padding_px is not None and self.seam_padding_px < 0:
            raise ValueError(f"seam_padding_px must be at least 0, got {self.seam_padding_px}.")


@dataclass(frozen=True)
class TextureProjection:
    """A textured mesh and how it came about.

    Attributes:
        mesh: the mesh with uvs and texture.
        coverage: how well each texel was seen, 0..1; 0 outside the charts.
        best_view: index of the view that counts most at each texel; -1 where none sees it.
        seen_fraction: share of the surface that some view sees.
    """

    mesh: Mesh
    coverage: Float[Tensor, "texture_height texture_width"]
    best_view: Int64[Tensor, "texture_height texture_width"]
    seen_fraction: float

    def best_view_picture(self) -> Float[Tensor, "texture_height texture_width 3"]:
        """One colour per view, black where no view sees the surface."""
        hues = torch.arange(int(self.best_view.max()) + 1, device=self.coverage.device) * 0.618034
        thirds = torch.tensor([0.0, 1 / 3, 2 / 3], device=self.coverage.device)
        palette = 0.5 + 0.45 * torch.cos(2 * torch.pi * (hues[:, None] + thirds))
        palette = torch.cat([palette, torch.zeros_like(thirds)[None]])  # index -1
        return palette[self.best_view]


@torch.no_grad()
def project_vertex_colors(
    mesh: Mesh,
    views: Float[Tensor, "view height width channel"],
    rig: ViewRig,
    *,
    masks: Float[Tensor, "view height width"] | None = None,
    params: VertexProjectionParams | None = None,
    keep_original: bool = False,
) -> tuple[Mesh, Float[Tensor, " vertex"]]:
    """Colour the vertices of a mesh with pictures of it; a former texture is dropped.

    Vertices that no view sees well take their colour from their neighbours along the edges.

    Args:
        mesh: what the pictures show.
        views: RGB, or RGBA whose alpha is the mask, sRGB 0..1.
        rig: one camera per picture.
        masks: where the pictures show the object; the mesh's own silhouette when None.
        params: weights and thresholds; `VertexProjectionParams.kiss3dgen_colors` is the reference.
        keep_original: unseen vertices keep the mesh's own colours.

    Returns:
        The mesh, and how well each vertex was seen, 0..1.

    Raises:
        ValueError: pictures, cameras and mesh do not fit together, or no vertex is seen.
    """
    params = params or VertexProjectionParams()
    views, masks = _split_alpha(views, masks)
    colors, weight = project_views_to_vertices(mesh, views, rig, masks=masks, params=params)
    trust = _smoothstep(weight / params.confidence)[:, None]
    if keep_original:
        backdrop = _own_vertex_colors(mesh)
    else:
        seen = weight >= params.confidence
        backdrop = fill_unseen_vertices(mesh, colors, seen if bool(seen.any()) else weight > 0)
    colors = (trust * colors + (1 - trust) * backdrop).clamp(0, 1)
    return with_vertex_colors(mesh, colors), weight.clamp(0, 1)


def with_vertex_colors(mesh: Mesh, colors: Float[Tensor, "vertex 3"]) -> Mesh:
    """The mesh with these colours alone: no texture, a white factor; the rest of it stays."""
    return replace(
        mesh,
        vertex_colors=colors.to(mesh.vertices.dtype),
        texture=None,
        metallic_roughness=None,
        material=replace(mesh.material, base_color=(1.0, 1.0, 1.0)),
    )


@torch.no_grad()
def project_texture(
    mesh: Mesh,
    views: Float[Tensor, "view height width channel"],
    rig: ViewRig,
    *,
    masks: Float[Tensor, "view height width"] | None = None,
    params: TextureParams | None = None,
    occluders: Sequence[Mesh] = (),
    require_seen: bool = True,
    on_progress: ProgressCallback = ignore_progress,
) -> TextureProjection:
    """Bake pictures of a mesh into a texture.

    Each texel asks every view that shows it; nothing is taken from behind other parts, from the
    border of the object mask or from where the picture jumps in depth. Texels that no view sees
    take their colour from their neighbours on the surface.

    Args:
        mesh: what the pictures show; its uvs are used when they suit (``params.uvs``).
        views: RGB, or RGBA whose alpha is the mask, sRGB 0..1.
        rig: one camera per picture.
        masks: where the pictures show the object; the mesh's own silhouette when None.
        params: size, mode and weights.
        occluders: further meshes that the pictures show; they hide what is behind them.
        require_seen: False gives a mesh that no view sees its own colours, with a warning.
        on_progress: called after unwrapping, each view, and filling.

    Raises:
        ValueError: pictures, cameras and mesh do not fit together, no texel is seen though
            ``require_seen``, or ``uvs="keep"`` and the mesh's coordinates cannot hold a baked
            texture.
    """
    params = params or TextureParams()
    views, masks = _split_alpha(views, masks)
    kept = check_views(mesh, views, rig, masks)
    weights = resolve_view_weights(params.projection.view_weights, len(rig))
    total = len(kept) + 3
    on_progress(Progress(0, total, "Preparing texture coordinates"))
    target, source = mesh_with_uvs(mesh, params)
    on_progress(Progress(1, total, "Finding what each view sees"))
    texels = rasterize_texels(target, params.size_px)
    scene = merge_meshes([mesh, *occluders]) if occluders else mesh
    geometry = trace_views(scene, views, rig, masks, params.projection, kept)
    colors = project_views_to_texels(
        target,
        texels,
        views[kept],
        geometry,
        params.projection,
        view_weights=[weights[view] for view in kept],
        two_sided=resolve_two_sided(params.projection.two_sided, geometry),
        separate_detail=params.mode == "best_view",
        on_view=lambda done: on_progress(
            Progress(1 + done, total, f"Projected view {rig.names[kept[done - 1]]}")
        ),
    )
    hidden = not bool((colors.support > 0).any())
    if hidden:
        _tell_hidden(mesh, require_seen)
    own = None
    if params.keep_original or hidden:
        own = own_texel_values(mesh, target, source, texels)
    baked = _finish(colors, texels, own, params)
    on_progress(Progress(total - 1, total, "Filling seams"))
    result = _assemble(mesh, target, source, texels, baked, colors, kept, params)
    on_progress(Progress(total, total, "Texture ready", preview=result.mesh.texture))
    return result


def _split_alpha(views: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if views.ndim != 4 or views.shape[-1] not in (3, 4):
        raise ValueError(
            "views must be RGB or RGBA pictures [view, height, width, 3 or 4], got shape "
            f"{list(views.shape)}."
        )
    if masks is None and views.shape[-1] == 4:
        masks = views[..., 3]
    return views[..., :3], masks


def mesh_with_uvs(mesh: Mesh, params: TextureParams) -> tuple[Mesh, Tensor]:
    """The mesh with usable coordinates, and the vertex of the given mesh behind each of its own."""
    identity = torch.arange(mesh.num_vertices, device=mesh.vertices.device)
    if mesh.uvs is not None and params.uvs != "unwrap":
        problems = inspect_uvs(mesh, resolution=min(params.size_px, 1024)).problems()
        if not problems:
            return replace(mesh, uvs=move_islands_to_first_tile(mesh.uvs, mesh.faces)), identity
        reason = "; ".join(problems)
        if params.uvs == "keep":
            raise ValueError(f"The mesh's uvs cannot hold a baked texture: {reason}. Use uvs=auto.")
        LOGGER.warning("The mesh is unwrapped anew: %s.", reason)
    elif mesh.uvs is None and params.uvs == "keep":
        raise ValueError("The mesh has no uvs to keep; use uvs=auto.")
    source, faces, uvs = unwrap_map(mesh, replace(params.unwrap, resolution_px=params.size_px))
    return apply_unwrap(mesh, source, faces, uvs), source


def _smoothstep(values: Tensor) -> Tensor:
    t = values.clamp(0, 1)
    return t * t * (3 - 2 * t)


def _base_color(mesh: Mesh) -> Tensor:
    return mesh.vertices.new_tensor(mesh.material.base_color)


def _own_vertex_colors(mesh: Mesh) -> Tensor:
    if mesh.texture is not None and mesh.uvs is not None:
        colors = sample_texture(mesh.texture, mesh.uvs)
    elif mesh.vertex_colors is not None:
        colors = mesh.vertex_colors
    else:
        colors = torch.ones_like(mesh.vertices)
    return colors * _base_color(mesh)


def own_texel_values(mesh: Mesh, target: Mesh, source: Tensor, texels: Texels) -> Tensor:
    """The mesh's own colours at texels of the same mesh with other coordinates.

    Args:
        mesh: carries texture, vertex colours or only a colour factor.
        target: the mesh with its new coordinates.
        source: vertex of ``mesh`` behind each vertex of ``target``.
        texels: of ``target``.
    """
    if mesh.texture is not None and mesh.uvs is not None:
        uvs = texels.interpolate(mesh.uvs[source], target.faces)
        return sample_texture(mesh.texture, uvs) * _base_color(mesh)
    if mesh.vertex_colors is not None:
        colors = texels.interpolate(mesh.vertex_colors[source], target.faces)
        return colors * _base_color(mesh)
    return _base_color(mesh).expand(len(texels.index), 3)


def own_shine(
    mesh: Mesh, target: Mesh, source: Tensor, texels: Texels, size_px: int
) -> Tensor | None:
    """The mesh's metallic-roughness picture on the coordinates of ``target``; None without one."""
    shine = mesh.metallic_roughness
    if shine is None or mesh.uvs is None or target.num_vertices == mesh.num_vertices:
        return shine
    values = sample_texture(shine, texels.interpolate(mesh.uvs[source], target.faces))
    covered = texels.scatter(torch.ones_like(texels.index, dtype=torch.bool), size_px)
    return dilate_texture(texels.scatter(values, size_px), covered)


def _tell_hidden(mesh: Mesh, require_seen: bool) -> None:
    if require_seen:
        raise ValueError(
            "No view sees any part of the mesh. Check that the cameras belong to the pictures, "
            "that the mesh lies in front of them and that its masks show it."
        )
    LOGGER.warning("No view shows '%s'; it keeps its own colours.", mesh.name)


def _finish(
    colors: TexelColors, texels: Texels, own: Tensor | None, params: TextureParams
) -> Tensor:
    """Colours of all texels [texel, 3]: seen ones, blended into what replaces unseen ones."""
    trust = _smoothstep(colors.support / params.projection.confidence)
    if own is not None:
        return trust[:, None] * colors.values + (1 - trust[:, None]) * own.to(colors.values)
    return fill_along_surface(colors.values, trust, texels.positions, texels.normals, texels.areas)


def _assemble(
    mesh: Mesh,
    target: Mesh,
    source: Tensor,
    texels: Texels,
    baked: Tensor,
    colors: TexelColors,
    kept: list[int],
    params: TextureParams,
) -> TextureProjection:
    size = params.size_px
    covered = texels.scatter(torch.ones_like(texels.index, dtype=torch.bool), size)
    texture = dilate_texture(
        texels.scatter(baked.clamp(0, 1), size), covered, padding_px=params.seam_padding_px
    )
    seen = (colors.support > 0).to(texels.areas)
    view_numbers = torch.tensor([*kept, -1], device=colors.best_view.device)  # index -1: none
    best_view = torch.full((size * size,), -1, device=colors.best_view.device)
    best_view[texels.index] = view_numbers[colors.best_view]
    return TextureProjection(
        mesh=replace(
            target,
            texture=texture.to(mesh.vertices.dtype),
            metallic_roughness=own_shine(mesh, target, source, texels, size),
            vertex_colors=None,
            material=replace(mesh.material, base_color=(1.0, 1.0, 1.0)),
        ),
        coverage=texels.scatter(colors.support.clamp(0, 1), size),
        best_view=best_view.reshape(size, size),
        seen_fraction=float((seen * texels.areas).sum() / texels.areas.sum()),
    )
