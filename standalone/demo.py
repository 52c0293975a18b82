"""The first look: an object becomes a picture, the picture is edited, and becomes an object again.

Files: the original and the new mesh (GLB), its Gaussians (PLY), both bundle images and a contact
sheet (PNG).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..core.bundle_image import BundleImage, join_bundle
from ..core.datasets.procedural_objects import CATEGORIES, make_object
from ..core.evaluation.contact_sheet import make_contact_sheet
from ..core.formats import write_mesh, write_splats
from ..core.formats.png import write_png
from ..core.mesh import Mesh
from ..core.pipelines.bundle_to_mesh import ReconstructionParams, reconstruct_from_bundle
from ..core.pipelines.inspect_mesh import compare_meshes
from ..core.pipelines.isomer_params import load_isomer_params
from ..core.pipelines.mesh_to_bundle import render_bundle
from ..core.pipelines.mesh_to_splat import MeshToSplatParams, mesh_to_splat
from ..core.pipelines.render_views import (
    ViewsParams,
    make_named_rig,
    render_mesh_views,
    render_splat_views,
)
from ..core.progress import ProgressCallback
from .runner import ProgressLines

DEFAULT_SAMPLE = "rabbit"
Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoSize:
    """How much work the demo does."""

    tile_px: int = 512
    gaussians: int = 10_000
    splat_steps: int = 200
    sheet_px: int = 256


QUICK_STEPS = 4
QUICK = DemoSize(tile_px=96, gaussians=1000, splat_steps=5, sheet_px=96)


def run_demo(
    out: Path,
    *,
    sample: str | None = None,
    seed: int = 1,
    quick: bool = False,
    say: Say = lambda line: print(line, flush=True),
) -> Path:
    """Run the demo and return the path of its contact sheet.

    Args:
        out: folder of all files; made when missing.
        sample: kind of object, one of `CATEGORIES`.
        seed: which one of its kind.
        quick: small pictures and few steps.
        say: takes the lines of the report.
    """
    size = QUICK if quick else DemoSize()
    category = sample or DEFAULT_SAMPLE
    made = make_object(category, seed)
    say(f"1/5 The object: {made.caption} ({', '.join(CATEGORIES[:4])} ... by --sample)")
    out.mkdir(parents=True, exist_ok=True)
    original = replace(made.mesh, name=category)
    _written(write_mesh(out / "original.glb", original), say)
    say("2/5 Its 3D bundle image, and the same picture with other colours")
    progress = ProgressLines(say)
    bundle, masks, rig = render_bundle(original, tile_px=size.tile_px, on_progress=progress)
    edited = rotate_hues(bundle)
    for name, image in (("bundle", bundle), ("edited_bundle", edited)):
        _written([_save(out / f"{name}.png", join_bundle(image))], say)
    say("3/5 The edited picture becomes a mesh")
    mesh = _reconstruct(edited, masks, quick, ProgressLines(say))
    _written(write_mesh(out / "edited.glb", mesh), say)
    say(compare_meshes(mesh, original.normalized()).text())
    say("4/5 The mesh becomes Gaussians")
    params = MeshToSplatParams(num_gaussians=size.gaussians)
    params = replace(params, fit=replace(params.fit, num_steps=size.splat_steps))
    cloud = mesh_to_splat(mesh, params, on_progress=ProgressLines(say))
    write_splats(out / "edited_splat.ply", cloud)
    _written([out / "edited_splat.ply"], say)
    say("5/5 Everything on one sheet")
    views = make_named_rig("orbit", num_views=4, first_azimuth_deg=30.0, elevation_deg=15.0)
    shown = ViewsParams(size.sheet_px)
    drawn = [render_mesh_views(item, views, params=shown).rgb for item in (original, mesh)]
    drawn.append(render_splat_views(cloud, views, params=shown).rgb)
    return _save(out / "contact_sheet.png", _sheet(bundle, edited, drawn, size.sheet_px, category))


def rotate_hues(bundle: BundleImage) -> BundleImage:
    """The bundle with red, green and blue of its views exchanged in a ring; white stays white."""
    return BundleImage(bundle.rgb_views.roll(1, dims=-1), bundle.normal_views)


def _reconstruct(
    bundle: BundleImage, masks: Tensor, quick: bool, on_progress: ProgressCallback
) -> Mesh:
    params = ReconstructionParams()
    if quick:
        isomer = load_isomer_params("from_hull")
        stages = {
            name: replace(getattr(isomer, name), steps=QUICK_STEPS) for name in ("coarse", "fine")
        }
        params = replace(params, isomer=replace(isomer, **stages))
    with torch.enable_grad():
        return reconstruct_from_bundle(
            bundle, masks=masks, params=params, on_progress=on_progress
        ).mesh


def _sheet(
    bundle: BundleImage, edited: BundleImage, drawn: list[Tensor], size_px: int, name: str
) -> Tensor:
    rows = [
        [_shrunk(tile, size_px) for tile in tiles]
        for tiles in (bundle.rgb_views, bundle.normal_views, edited.rgb_views)
    ]
    labels = ["bundle: colours", "bundle: normals", "edited colours"]
    rows += [list(views) for views in drawn]
    labels += ["original mesh", "mesh from the edit", "its Gaussians"]
    return make_contact_sheet(
        rows, row_labels=labels, title=f"Lift3D demo: {name}", text_px=max(9, size_px // 16)
    )


def _shrunk(tile: Tensor, size_px: int) -> Tensor:
    channels_first = tile.permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(
        channels_first, size=(size_px, size_px), mode="bilinear", antialias=True
    )
    return small[0].permute(1, 2, 0).clamp(0, 1)


def _save(path: Path, image: Tensor) -> Path:
    write_png(path, image)
    return path


def _written(paths: list[Path], say: Say) -> None:
    for path in paths:
        say(f"    wrote {path}")
