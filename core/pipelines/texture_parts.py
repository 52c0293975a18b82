"""Contains the texturing of several parts: one texture per part, from pictures or own colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..geometry.dilation import dilate_texture
from ..mesh import Material, Mesh
from ..progress import ProgressCallback, ignore_progress, share_progress
from ..rendering.projection import VertexProjectionParams
from ..rendering.texels import rasterize_texels
from .merge_parts import merge_parts
from .texture_projection import (
    TextureParams,
    TextureProjection,
    mesh_with_uvs,
    own_shine,
    own_texel_values,
    project_texture,
    project_vertex_colors,
    with_vertex_colors,
)


def color_parts(
    parts: Sequence[Mesh],
    views: Float[Tensor, "view height width channel"],
    rig: ViewRig,
    *,
    masks: Float[Tensor, "view height width"] | None = None,
    params: VertexProjectionParams | None = None,
    keep_original: bool = False,
) -> tuple[list[Mesh], Float[Tensor, " vertex"]]:
    """Colour the vertices of each part of a scene; see `project_vertex_colors`.

    A part hides what is behind it on the others. Each keeps its name and material.

    Returns:
        The parts in their order, and how well each vertex was seen, part by part.

    Raises:
        ValueError: no view sees any of them, or the inputs do not fit together.
    """
    whole, seen = project_vertex_colors(
        merge_parts(parts), views, rig, masks=masks, params=params, keep_original=keep_original
    )
    assert whole.vertex_colors is not None
    colors = whole.vertex_colors.split([part.num_vertices for part in parts])
    colored = [with_vertex_colors(part, own) for part, own in zip(parts, colors, strict=True)]
    return colored, seen


def texture_parts(
    parts: Sequence[Mesh],
    views: Float[Tensor, "view height width channel"],
    rig: ViewRig,
    *,
    masks: Float[Tensor, "view height width"] | None = None,
    params: TextureParams | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> list[TextureProjection | None]:
    """Bake pictures of a whole scene into a texture of each of its parts; see `project_texture`.

    A part hides what is behind it on the others. One that no view shows keeps its own colours.

    Args:
        parts: named meshes of one scene.
        views: RGB or RGBA, sRGB 0..1.
        rig: one camera per picture.
        masks: where the pictures show the scene.
        params: size, mode and weights; the size is that of every part.
        on_progress: shared by all parts.

    Returns:
        One result per part in their order; None for a part without faces.

    Raises:
        ValueError: no part has faces, no view sees any of them, or the inputs do not fit together.
    """
    solid = [index for index, part in enumerate(parts) if not part.is_empty]
    if not solid:
        raise ValueError("None of the parts has faces; there is nothing to texture.")
    made: list[TextureProjection | None] = [None] * len(parts)
    for turn, index in enumerate(solid):
        made[index] = project_texture(
            parts[index],
            views,
            rig,
            masks=masks,
            params=params,
            occluders=[parts[other] for other in solid if other != index],
            require_seen=len(solid) == 1,
            on_progress=share_progress(
                on_progress, 100 * turn // len(solid), 100 * (turn + 1) // len(solid)
            ),
        )
    if not any(one is not None and one.seen_fraction > 0 for one in made):
        raise ValueError(
            "No view sees any part of the scene. Check that the cameras belong to the pictures "
            "and that the parts lie in front of them."
        )
    return made


@torch.no_grad()
def bake_own_texture(mesh: Mesh, params: TextureParams | None = None) -> Mesh:
    """The mesh with its own colours as a texture: vertex colours, a texture, or a colour factor.

    Vertices on seams are repeated. Between vertices colours run straight, as viewers draw them.

    Args:
        mesh: any mesh with faces; usable coordinates are kept unless ``params.uvs`` says otherwise.
        params: ``size_px``, ``uvs``, ``unwrap`` and ``seam_padding_px`` count.

    Raises:
        ValueError: the mesh has no faces or no area, or ``uvs="keep"`` and it has no usable uvs.
    """
    params = params or TextureParams()
    target, source = mesh_with_uvs(mesh, params)
    texels = rasterize_texels(target, params.size_px)
    colors = own_texel_values(mesh, target, source, texels).clamp(0, 1)
    covered = texels.scatter(torch.ones_like(texels.index, dtype=torch.bool), params.size_px)
    texture = dilate_texture(
        texels.scatter(colors, params.size_px), covered, padding_px=params.seam_padding_px
    )
    return replace(
        target,
        texture=texture.to(mesh.vertices.dtype),
        metallic_roughness=own_shine(mesh, target, source, texels, params.size_px),
        vertex_colors=None,
        material=replace(mesh.material, base_color=Material().base_color),
    )
