"""Contains the rendering of a 3D bundle image from any mesh.

Each view is drawn larger than its tile and averaged, so silhouettes are smooth over pure white in
both rows and the masks hold true coverage.

Reference: Kiss3DGen (Lin et al. 2025), Sec. 3.1 and the released data renderer (longest side 1.8,
radius 4.5, FOV 30, elevation 5).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..bundle_image import MAX_TILE_PX, MIN_TILE_PX, BundleImage
from ..camera import ViewRig, make_kiss3dgen_rig
from ..geometry.normals import encode_bundle_normals
from ..mesh import Mesh
from ..progress import Progress, ProgressCallback, ignore_progress
from ..rendering.facing_normals import facing_normals, with_sheet_normals
from ..rendering.mesh import Shading, render_mesh

SUPERSAMPLING = 2
BUNDLE_LONGEST_SIDE = 1.8
UNCOLORED_GREY = 204 / 255


def render_bundle(
    mesh: Mesh,
    *,
    tile_px: int = 512,
    rig: ViewRig | None = None,
    normalize: bool = True,
    shading: Shading = "flat_color",
    supersampling: int = SUPERSAMPLING,
    on_progress: ProgressCallback = ignore_progress,
) -> tuple[BundleImage, Float[Tensor, "view height width"], ViewRig]:
    """Draw RGB and normal tiles of a mesh from all cameras of a rig.

    Args:
        mesh: may be open, of mixed winding or hold each face twice; normals are turned towards the
            viewer. A mesh without any colour is drawn grey.
        tile_px: side of a tile, 64..1024.
        rig: cameras; None takes the four of Kiss3DGen.
        normalize: centre the mesh and scale its longest side to 1.8 first.
        shading: colours as they are, or lit from the camera.
        supersampling: samples per pixel and axis.
        on_progress: called after each view.

    Returns:
        The bundle, its masks (coverage 0..1) and the rig used.
    """
    if not MIN_TILE_PX <= tile_px <= MAX_TILE_PX:
        raise ValueError(
            f"tile_px must lie within {MIN_TILE_PX}..{MAX_TILE_PX} pixels, got {tile_px}."
        )
    if supersampling < 1:
        raise ValueError(f"supersampling must be at least 1, got {supersampling}.")
    if mesh.is_empty:
        raise ValueError("The mesh has no faces, so there is nothing to draw; load another one.")
    rig = make_kiss3dgen_rig() if rig is None else rig
    rig = rig.to(mesh.vertices.device)
    mesh = mesh.normalized(BUNDLE_LONGEST_SIDE) if normalize else mesh
    mesh = with_sheet_normals(_visible_on_white(mesh))
    tiles = []
    for index in range(len(rig)):
        tiles.append(_draw_tile(mesh, rig.select([index]), tile_px, shading, supersampling))
        on_progress(Progress(index + 1, len(rig), f"drew view {rig.names[index]}"))
    rgb, normals, masks = (torch.cat(parts) for parts in zip(*tiles, strict=True))
    return BundleImage(rgb_views=rgb, normal_views=normals), masks, rig


def _visible_on_white(mesh: Mesh) -> Mesh:
    """A mesh without any colour takes the flat grey of the published template bundles."""
    has_color = mesh.texture is not None or mesh.vertex_colors is not None
    if has_color or mesh.material.base_color != (1.0, 1.0, 1.0):
        return mesh
    return replace(mesh, material=replace(mesh.material, base_color=(UNCOLORED_GREY,) * 3))


def _draw_tile(
    mesh: Mesh, rig: ViewRig, tile_px: int, shading: Shading, supersampling: int
) -> tuple[Tensor, Tensor, Tensor]:
    size = tile_px * supersampling
    drawn = render_mesh(mesh, rig, width=size, height=size, antialias=False, shading=shading)
    covered = (drawn.face_index >= 0).to(drawn.rgb)[..., None]
    encoded = encode_bundle_normals(facing_normals(drawn, mesh, rig), rig)
    encoded = encoded * covered + (1 - covered)
    layers = torch.cat([drawn.rgb, encoded, covered], dim=-1).permute(0, 3, 1, 2)
    small = torch.nn.functional.avg_pool2d(layers, supersampling).permute(0, 2, 3, 1)
    return small[..., :3].clamp(0, 1), small[..., 3:6].clamp(0, 1), small[..., 6]
