"""Contains the refinement of a character in layers: body, then clothes, then hair.

Each layer is refined on the views of its own level while the layers inside it stay fixed, and takes
its colours from these views. Layers that were finished are kept whatever happens later.

Reference: He et al. 2025, "StdGEN", Sec. 3.4; released program.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import require_finite, require_shape
from ..camera import ViewRig
from ..geometry.closest import closest_surface_points
from ..geometry.collision import points_inside
from ..geometry.normals import decode_world_normals
from ..geometry.vertex_fill import fill_unseen_vertices
from ..mesh import Material, Mesh, merge_meshes
from ..progress import Progress, ProgressCallback, StopEarly, ignore_progress, share_progress
from ..rendering.projection import VertexProjectionParams, project_views_to_vertices
from .align_levels import find_shifts, is_mirrored, mirrored, shift_views, silhouettes
from .character_framing import pad_to_square
from .character_levels import level_alpha
from .layer_params import LayerParams
from .layer_refinement import refine_layer
from .merge_parts import bake_vertex_colors
from .normal_refinement import NormalTargets
from .texture_parts import bake_own_texture
from .texture_projection import TextureParams, project_texture

LOGGER = logging.getLogger(__name__)

LEVEL_OF_PART = {"body": "body", "clothes": "without_hair", "hair": "whole"}
"""Whose views a part is refined on; other parts take those of the whole."""
INSIDE_OUT = ("body", "clothes", "hair")
OPAQUE = 250 / 255
MIN_VISIBLE_PX = 16


@dataclass(frozen=True)
class LevelViews:
    """Views of one level in the order of a rig.

    Attributes:
        rgb: sRGB on white.
        normals_world: unit normals inside the masks.
        masks: coverage 0..1.
        rig: one camera per view.
    """

    rgb: Float[Tensor, "view height width 3"]
    normals_world: Float[Tensor, "view height width 3"]
    masks: Float[Tensor, "view height width"]
    rig: ViewRig

    def __post_init__(self) -> None:
        require_shape("rgb", self.rgb, len(self.rig), None, None, 3)
        require_shape("normals_world", self.normals_world, *self.rgb.shape)
        require_shape("masks", self.masks, *self.rgb.shape[:3])

    def targets(self) -> NormalTargets:
        """What a refinement compares with."""
        return NormalTargets(self.normals_world, self.masks, self.rig)

    def shifted(self, shifts: Tensor) -> LevelViews:
        """Copy moved to the right by pixels per view."""
        return LevelViews(
            rgb=shift_views(self.rgb, shifts),
            normals_world=shift_views(self.normals_world, shifts),
            masks=shift_views(self.masks, shifts),
            rig=self.rig,
        )


def read_level(
    rgb: Float[Tensor, "view height width 3"],
    normals: Float[Tensor, "view height width 3"],
    rig: ViewRig,
    *,
    masks: Float[Tensor, "view height width"] | None = None,
) -> LevelViews:
    """Views of a level from its pictures; a view that shows nothing is left out with a warning.

    Portraits, such as the 576 x 1024 of StdGEN's model, are padded to squares.

    Args:
        rgb: sRGB on any plain background.
        normals: colours (n + 1) / 2 of world normals (StdGEN's encoding) on a plain background.
        rig: one camera per view.
        masks: coverage; None finds it in the normal maps.

    Raises:
        ValueError: sizes do not fit, or no view shows anything before a background.
    """
    require_shape("normals", normals, len(rig), None, None, 3)
    require_shape("rgb", rgb, *normals.shape)
    for name, value in (("rgb", rgb), ("normals", normals)):
        require_finite(name, value)
    found = level_alpha(normals) if masks is None else masks
    require_shape("masks", found, *normals.shape[:3])
    rgb, normals = pad_to_square(rgb), pad_to_square(normals)
    found = pad_to_square(found[..., None], fill=0.0)[..., 0]
    if float(found.mean()) > OPAQUE:
        raise ValueError(
            "The views have no background: every pixel belongs to the character. Give pictures on "
            "white, or masks."
        )
    counts = (found > 0.5).sum(dim=(1, 2))
    kept = [index for index, count in enumerate(counts.tolist()) if count >= MIN_VISIBLE_PX]
    if not kept:
        raise ValueError("No view shows the character: all masks are empty.")
    for index in sorted(set(range(len(rig))) - set(kept)):
        LOGGER.warning("The view '%s' is empty and was left out.", rig.names[index])
    return LevelViews(rgb[kept], decode_world_normals(normals[kept]), found[kept], rig.select(kept))


@dataclass(frozen=True)
class CharacterLayer:
    """A part to refine.

    Attributes:
        mesh: start, named after the part, in the frame of the views.
        views: of the level that shows it and what lies inside it; None keeps it as it is.
        params: of the refinement.
        hair_mask: where the first view shows this part; for hair.
    """

    mesh: Mesh
    views: LevelViews | None
    params: LayerParams
    hair_mask: Float[Tensor, "height width"] | None = None


@dataclass(frozen=True)
class RefinedCharacter:
    """What a refinement gives.

    Attributes:
        parts: in the order of the layers; those not reached are as they were.
        refined: names of the parts that were refined.
        lines: what happened, for people.
    """

    parts: tuple[Mesh, ...]
    refined: tuple[str, ...]
    lines: tuple[str, ...]


def refine_character(
    layers: Sequence[CharacterLayer],
    *,
    fixed: Sequence[Mesh] = (),
    register: bool = True,
    check_mirror: bool = True,
    texture_px: int = 0,
    on_progress: ProgressCallback = ignore_progress,
) -> RefinedCharacter:
    """Refine layers from the inside out.

    Args:
        layers: inner ones first; those before a layer are fixed while it is refined.
        fixed: further meshes that stay as they are, inside all layers.
        register: shift every view sideways to where it fits the mesh best.
        check_mirror: swap left and right of all parts if that fits the silhouettes better.
        texture_px: side of a texture that every part gets, also those that are kept; 0 leaves
            them with vertex colours.
        on_progress: called after every step. `StopEarly` ends the run and keeps the layers that
            were finished; anything else passes on.

    Raises:
        ValueError: there is no layer with faces and views. What goes wrong with one layer later
            leaves that layer as it was and is told in ``lines``.
    """
    if not any(layer.views is not None and not layer.mesh.is_empty for layer in layers):
        raise ValueError(
            "There is nothing to refine: give at least one part with triangles and the views of "
            "its level."
        )
    lines: list[str] = []
    if check_mirror and _looks_mirrored(layers):
        layers = [replace(layer, mesh=mirrored(layer.mesh)) for layer in layers]
        lines.append("The parts were mirrored: left and right were swapped to fit the views.")
    parts = [layer.mesh for layer in layers]
    refined: list[str] = []
    for index, layer in enumerate(layers):
        report = share_progress(
            on_progress, 100 * index // len(layers), 100 * (index + 1) // len(layers)
        )
        inner = [mesh for mesh in [*fixed, *parts[:index]] if not mesh.is_empty]
        try:
            line = _why_kept(layer)
            if line is None:
                parts[index] = _refine_and_color(layer, inner, register, texture_px, report)
                refined.append(layer.mesh.name)
                line = _describe(parts[index], inner)
            lines.append(line)
        except StopEarly:
            lines.append(f"Stopped during {layer.mesh.name}; finished layers are kept.")
            break
        except ValueError as error:
            LOGGER.exception("The layer %s failed.", layer.mesh.name)
            lines.append(f"{layer.mesh.name}: not refined. {error}")
    if texture_px:
        parts = [_with_texture(part, texture_px) for part in parts]
    _tell_end(on_progress, lines)
    return RefinedCharacter(tuple(parts), tuple(refined), tuple(lines))


def _tell_end(on_progress: ProgressCallback, lines: Sequence[str]) -> None:
    """Tell that the run is over; a late interruption changes nothing any more."""
    try:
        on_progress(Progress(100, 100, lines[-1] if lines else "done"))
    except StopEarly:
        LOGGER.info("Interrupted when everything was finished.")


def _why_kept(layer: CharacterLayer) -> str | None:
    if layer.mesh.is_empty:
        return f"{layer.mesh.name}: has no triangles and was left out."
    if layer.views is None:
        return f"{layer.mesh.name}: kept as it is, there are no views of its level."
    return None


def _looks_mirrored(layers: Sequence[CharacterLayer]) -> bool:
    """Judged by the outermost layer with views: it shows the most."""
    for index in reversed(range(len(layers))):
        views = layers[index].views
        if views is not None:
            shown = [layer.mesh for layer in layers[: index + 1] if not layer.mesh.is_empty]
            return bool(shown) and is_mirrored(merge_meshes(shown), views.masks, views.rig)
    return False


def _refine_and_color(
    layer: CharacterLayer,
    inner: Sequence[Mesh],
    register: bool,
    texture_px: int,
    on_progress: ProgressCallback,
) -> Mesh:
    views = layer.views
    assert views is not None  # `_why_kept` saw to it
    if register:
        shown = merge_meshes([layer.mesh, *inner])
        wanted = silhouettes(shown, views.rig, size_px=views.masks.shape[1])
        shifts = find_shifts(views.masks, wanted)
        if bool((shifts != 0).any()):
            LOGGER.info("%s: views shifted by %s pixels.", layer.mesh.name, shifts.tolist())
        views = views.shifted(shifts)
    params = layer.params
    weights = params.isomer.target_view_weights
    if len(weights) != len(views.rig):
        even = (1.0,) * len(views.rig)
        params = replace(params, isomer=replace(params.isomer, target_view_weights=even))
    mesh = refine_layer(
        layer.mesh,
        views.targets(),
        inner,
        params,
        hair_mask=layer.hair_mask,
        on_progress=on_progress,
    )
    colored = color_layer(mesh, inner, views, layer)
    if not texture_px:
        return colored
    return texture_layer(colored, inner, views, layer, texture_px)


@torch.no_grad()
def color_layer(
    mesh: Mesh, inner: Sequence[Mesh], views: LevelViews, layer: CharacterLayer
) -> Mesh:
    """Vertex colours from the views; fixed layers hide what is behind them.

    What no view sees takes the colours of the start, or spreads from what is seen.
    """
    scene = merge_meshes([Mesh(item.vertices, item.faces) for item in (mesh, *inner)])
    params = VertexProjectionParams(view_weights=_color_weights(views, layer))
    found, support = project_views_to_vertices(
        scene, views.rgb, views.rig, masks=_color_masks(views, layer), params=params
    )
    colors, support = found[: mesh.num_vertices], support[: mesh.num_vertices]
    trust = (support / params.confidence).clamp(0, 1)[:, None]
    seen = support >= params.confidence
    seen = seen if bool(seen.any()) else support > 0
    colors = trust * colors + (1 - trust) * _unseen_colors(mesh, layer.mesh, colors, seen)
    return replace(mesh, vertex_colors=colors.clamp(0, 1), material=Material())


def texture_layer(
    mesh: Mesh, inner: Sequence[Mesh], views: LevelViews, layer: CharacterLayer, size_px: int
) -> Mesh:
    """A texture from the views, as `color_layer` does it for vertices.

    What no view sees keeps the vertex colours of ``mesh``.
    """
    projection = replace(TextureParams().projection, view_weights=_color_weights(views, layer))
    baked = project_texture(
        mesh,
        views.rgb,
        views.rig,
        masks=_color_masks(views, layer),
        params=TextureParams(
            size_px=size_px, uvs="unwrap", projection=projection, keep_original=True
        ),
        occluders=inner,
        require_seen=False,
    )
    return baked.mesh


def _with_texture(mesh: Mesh, size_px: int) -> Mesh:
    if mesh.is_empty or mesh.texture is not None:
        return mesh
    return bake_own_texture(mesh, TextureParams(size_px=size_px))


def _color_weights(views: LevelViews, layer: CharacterLayer) -> tuple[float, ...] | None:
    weights = layer.params.color_view_weights
    return weights if len(weights) == len(views.rig) else None


def _color_masks(views: LevelViews, layer: CharacterLayer) -> Tensor:
    """Masks of the views; the front one ends where the hair mask does, if there is one."""
    if layer.hair_mask is None or not bool(layer.hair_mask.any()):
        return views.masks
    return _front_limited_to(views.masks, layer.hair_mask)


def _unseen_colors(mesh: Mesh, start: Mesh, colors: Tensor, seen: Tensor) -> Tensor:
    if start.vertex_colors is not None or start.texture is not None:
        own = bake_vertex_colors(start).vertex_colors
        assert own is not None  # that is what baking gives
        places = closest_surface_points(mesh.vertices, start.vertices, start.faces)
        return places.interpolate(own, start.faces)
    if not bool(seen.any()):
        return torch.ones_like(mesh.vertices)
    return fill_unseen_vertices(mesh, colors, seen)


def _front_limited_to(masks: Tensor, hair_mask: Tensor) -> Tensor:
    """Masks whose first view shows nothing outside the hair mask."""
    fitted = torch.nn.functional.interpolate(
        hair_mask[None, None].to(masks), masks.shape[1:], mode="area"
    )
    return torch.cat([masks[:1] * (fitted[0] > 0.5), masks[1:]])


def _describe(mesh: Mesh, inner: Sequence[Mesh]) -> str:
    line = f"{mesh.name}: {mesh.num_faces} triangles"
    if not inner:
        return f"{line}."
    closest = inner[0]
    inside = points_inside(mesh.vertices, closest.vertices, closest.faces)
    return f"{line}, {100 * float(inside.float().mean()):.2f} % of its vertices in {closest.name}."


def order_layers(parts: Sequence[Mesh]) -> list[Mesh]:
    """Parts from the inside out: body, clothes, hair, then others in their own order."""
    places = {name: place for place, name in enumerate(INSIDE_OUT)}
    return sorted(parts, key=lambda mesh: places.get(mesh.name, len(places)))
