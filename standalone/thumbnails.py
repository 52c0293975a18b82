"""Makes the thumbnails of the workflow templates by running the workflows.

Those that run in ComfyUI only are illustrated by a sample of what they make: a procedural object
goes through another workflow instead.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .runner import node_classes, node_specs, run_workflow
from .workflow_file import read_workflow
from .workflow_steps import unknown_nodes

SIZE_PX = 512
QUALITY = 88
ILLUSTRATIONS = {
    "text_to_3d_flux": ("mesh_to_bundle_to_mesh", "sample: mug"),
    "image_to_3d_flux": ("mesh_to_bundle_to_mesh", "sample: robot"),
    "text_to_splat_sd21": ("mesh_to_splat", "sample: teapot"),
    "image_to_splat_sv3d": ("orbit_to_splat", "sample: car"),
    "text_image_splat": ("orbit_to_splat", "sample: robot"),
}
"""What is shown instead of workflows that do not run here: another workflow, and its object."""


def make_thumbnails(
    folder: Path, names: Sequence[str] = (), *, settings: Sequence[str] = ()
) -> list[Path]:
    """Run workflows of ``folder`` and write ``NAME.jpg`` beside each; all without names.

    Args:
        folder: where the workflows lie.
        names: which ones; all when empty.
        settings: values to replace, as for `run_workflow`.

    Raises:
        ValueError: there is no workflow of a name.
    """
    paths = [folder / f"{name}.json" for name in names] or sorted(folder.glob("*.json"))
    missing = [path.stem for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"There is no workflow called {', '.join(missing)} in {folder}.")
    return [make_thumbnail(path, settings=settings) for path in paths]


def make_thumbnail(workflow: Path, *, settings: Sequence[str] = ()) -> Path:
    """Run one workflow and picture what it showed and made."""
    source = workflow
    if unknown_nodes(read_workflow(workflow), node_specs(node_classes())):
        other, sample = ILLUSTRATIONS[workflow.stem]
        source = workflow.with_name(f"{other}.json")
        settings = [*settings, f"Load Mesh.path={sample}"]
    with tempfile.TemporaryDirectory() as out:
        files = run_workflow(source, Path(out), settings=settings)
        pictures = [path for path in files if path.suffix == ".png"]
        shown = [path for path in pictures if path.parent.name == "preview"]
        saved = [path for path in pictures if path.stem.startswith(source.stem)]
        picture = _compose(shown, saved)
    target = workflow.with_suffix(".jpg")
    temporary = target.with_suffix(".jpg.part")
    picture.save(temporary, format="JPEG", quality=QUALITY)
    os.replace(temporary, target)
    return target


def _compose(shown: Sequence[Path], saved: Sequence[Path]) -> Any:
    """Above what was edited on the way, below two views of the result."""
    from PIL import Image

    sheet = Image.new("RGB", (SIZE_PX, SIZE_PX), "white")
    half = SIZE_PX // 2
    views = _spread(saved, 4)
    upper = _spread(shown, 2) or views[2:]
    if shown and _is_wide(shown[0]):
        sheet.paste(_opened(shown[0], SIZE_PX, half), (0, 0))
    else:
        for column, path in enumerate(upper[:2]):
            sheet.paste(_opened(path, half, half), (column * half, 0))
    for column, path in enumerate(views[:2]):
        sheet.paste(_opened(path, half, half), (column * half, half))
    return sheet


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """About ``count`` of the paths, evenly spaced."""
    step = max(1, len(paths) // count)
    return list(paths[::step][:count])


def _is_wide(path: Path) -> bool:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.width >= 1.9 * picture.height


def _opened(path: Path, width: int, height: int) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        return ImageOps.pad(
            picture.convert("RGB"), (width, height), Image.Resampling.LANCZOS, color="white"
        )
