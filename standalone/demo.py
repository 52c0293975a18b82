"""The first look: words become a picture, the picture becomes an object, an edit of it another.

Files: both meshes (GLB), their Gaussians (PLY), both bundle images and a contact sheet (PNG).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..core.bundle_image import BundleImage, join_bundle
from ..core.diffusion.diffusers_model import load_diffusers_model
from ..core.evaluation.contact_sheet import make_contact_sheet
from ..core.formats import write_mesh, write_splats
from ..core.formats.png import write_png
from ..core.mesh import Mesh
from ..core.pipelines.bundle_pixels import resize_bundle
from ..core.pipelines.bundle_prompt import BundlePrompt
from ..core.pipelines.bundle_to_mesh import ReconstructionParams, reconstruct_from_bundle
from ..core.pipelines.isomer_params import load_isomer_params
from ..core.pipelines.mesh_to_splat import MeshToSplatParams, mesh_to_splat
from ..core.pipelines.render_views import (
    ViewsParams,
    make_named_rig,
    render_mesh_views,
    render_splat_views,
)
from ..core.pipelines.text_to_bundle import BundleSampleParams, sample_bundle
from ..core.progress import ProgressCallback
from .runner import ProgressLines

EMBEDDED_MODEL = "bundle"
DEFAULT_PROMPT = "a red mushroom with purple stem"
Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoSize:
    """How much work the demo does."""

    steps: int = 20
    gaussians: int = 10_000
    splat_steps: int = 150
    sheet_px: int = 256


QUICK_STEPS = 4
QUICK = DemoSize(steps=3, gaussians=1000, splat_steps=5, sheet_px=96)


def run_demo(
    out: Path,
    *,
    prompt: str = DEFAULT_PROMPT,
    seed: int = 1,
    quick: bool = False,
    say: Say = lambda line: print(line, flush=True),
) -> Path:
    """Run the demo and return the path of its contact sheet.

    Args:
        out: folder of all files; made when missing.
        prompt: what to make; the embedded model knows a few kinds of things and nine hues.
        seed: another number makes another object of the prompt.
        quick: few steps and few Gaussians, to see that everything works.
        say: takes the lines of the report.
    """
    started = time.perf_counter()
    size = QUICK if quick else DemoSize()
    progress: ProgressCallback = ProgressLines(say)
    say(f"1/5 The words '{prompt}' become a 3D bundle image (embedded model, no GPU needed)")
    model = load_diffusers_model(EMBEDDED_MODEL, device="cpu")
    wanted = BundleSampleParams(seed=seed, steps=size.steps)
    bundle = sample_bundle(model, BundlePrompt(prompt), wanted, on_progress=progress).bundles[0]
    edited = rotate_hues(bundle)
    out.mkdir(parents=True, exist_ok=True)
    for name, image in (("bundle", bundle), ("edited_bundle", edited)):
        say(f"    wrote {_save(out / f'{name}.png', join_bundle(image))}")
    meshes = []
    for step, (name, image) in enumerate((("object", bundle), ("edited", edited)), start=2):
        what = "The picture" if name == "object" else "The same picture with other colours"
        say(f"{step}/5 {what} becomes a mesh")
        mesh = replace(_reconstruct(image, quick, ProgressLines(say)), name=name)
        _written(write_mesh(out / f"{name}.glb", mesh), say)
        meshes.append(mesh)
    say("4/5 The mesh becomes Gaussians")
    params = MeshToSplatParams(num_gaussians=size.gaussians)
    params = replace(params, fit=replace(params.fit, num_steps=size.splat_steps))
    cloud = mesh_to_splat(meshes[0], params, on_progress=ProgressLines(say))
    write_splats(out / "object_splat.ply", cloud)
    _written([out / "object_splat.ply"], say)
    say("5/5 Everything on one sheet")
    views = make_named_rig("orbit", num_views=4, first_azimuth_deg=30.0, elevation_deg=15.0)
    shown = ViewsParams(size.sheet_px)
    drawn = [render_mesh_views(mesh, views, params=shown).rgb for mesh in meshes]
    drawn.append(render_splat_views(cloud, views, params=shown).rgb)
    sheet = _save(out / "contact_sheet.png", _sheet(bundle, edited, drawn, size.sheet_px, prompt))
    say(f"    {time.perf_counter() - started:.0f} seconds in all")
    return sheet


def rotate_hues(bundle: BundleImage) -> BundleImage:
    """The bundle with red, green and blue of its views exchanged in a ring; white stays white."""
    return BundleImage(bundle.rgb_views.roll(1, dims=-1), bundle.normal_views)


def _reconstruct(bundle: BundleImage, quick: bool, on_progress: ProgressCallback) -> Mesh:
    params = ReconstructionParams()
    if quick:
        isomer = load_isomer_params("from_hull")
        stages = {
            name: replace(getattr(isomer, name), steps=QUICK_STEPS) for name in ("coarse", "fine")
        }
        params = replace(params, isomer=replace(isomer, **stages))
    with torch.enable_grad():
        return reconstruct_from_bundle(bundle, params=params, on_progress=on_progress).mesh


def _sheet(
    bundle: BundleImage, edited: BundleImage, drawn: list[Tensor], size_px: int, title: str
) -> Tensor:
    original, changed = (resize_bundle(item, size_px) for item in (bundle, edited))
    rows = [list(tiles) for tiles in (original.rgb_views, original.normal_views, changed.rgb_views)]
    labels = ["bundle: colours", "bundle: normals", "edited colours"]
    rows += [list(views) for views in drawn]
    labels += ["mesh", "mesh of the edit", "Gaussians"]
    return make_contact_sheet(
        rows, row_labels=labels, title=f"Lift3D demo: {title}", text_px=max(9, size_px // 16)
    )


def _save(path: Path, image: Tensor) -> Path:
    write_png(path, image)
    return path


def _written(paths: list[Path], say: Say) -> None:
    for path in paths:
        say(f"    wrote {path}")
