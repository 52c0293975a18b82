"""Contains everything the nodes ask of their host: the one place that knows ComfyUI.

Inside ComfyUI (any core from 0.3.64 on) the host is ComfyUI; elsewhere it is the folder
``standalone``. Differences between core versions are found by looking for the feature, never by
comparing version numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.backends.probe import Kind, backend_status
from ..core.diffusion.placement import OneAtATimePlacement, plain_tensors
from ..core.progress import Progress, ProgressCallback, StopEarly
from ..standalone import folders as standalone_folders

IN_COMFYUI = importlib.util.find_spec("comfy_api") is not None

if IN_COMFYUI:
    import folder_paths
    from comfy_api.latest import ComfyExtension, Types, io, ui
else:
    folder_paths = None
    from ..standalone.comfy_api import ComfyExtension, Types, io, ui

__all__ = ["ComfyExtension", "IN_COMFYUI", "Types", "io", "ui"]

LOGGER = logging.getLogger(__name__)
PREVIEW_PX = 512
TEXT_EVERY_S = 0.5
MODEL_FOLDER = "lift3d"

ADVANCED: dict[str, bool] = (
    {"advanced": True}
    if not IN_COMFYUI or "advanced" in inspect.signature(io.Int.Input.__init__).parameters
    else {}
)
"""Keyword that folds an input away in hosts that can; nothing in older ones."""


def make_schema(**fields: Any) -> Any:
    """Schema of a node without the fields that this host does not know yet."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{name: value for name, value in fields.items() if name in known})


def link_type(name: str, io_type: str) -> Any:
    """The host's class ``io.<name>``, or an own one with the same link type."""
    return getattr(io, name, None) or io.Custom(io_type)


def accepts_fields(cls: type | None, *names: str) -> bool:
    """Whether the constructor of ``cls`` takes all ``names`` as keywords."""
    if cls is None:
        return False
    return set(names) <= set(inspect.signature(cls).parameters)


# -- devices, gradients, progress ------------------------------------------------------------


def compute_device(kind: Kind) -> torch.device:
    """Device on which drawing ``kind`` is fastest: CUDA with its library, else the CPU kernels."""
    cuda = next(state for state in backend_status(kind) if state.name == "cuda")
    if not cuda.ready:
        return torch.device("cpu")
    if IN_COMFYUI:
        import comfy.model_management

        device = comfy.model_management.get_torch_device()
        return device if device.type == "cuda" else torch.device("cpu")
    return torch.device("cuda")


def output_device() -> torch.device:
    """Device on which link values are kept between nodes."""
    if IN_COMFYUI:
        import comfy.model_management

        return comfy.model_management.intermediate_device()
    return torch.device("cpu")


def network_device() -> torch.device:
    """Device on which networks run: what ComfyUI chose, else CUDA where there is a card."""
    if IN_COMFYUI:
        import comfy.model_management

        return comfy.model_management.get_torch_device()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class HostPlacement(OneAtATimePlacement):
    """Networks of our own take turns on the device; ComfyUI's models make room for them."""

    def prepare(self, network: Any) -> None:
        """Swap the network in unless it is the one there."""
        if IN_COMFYUI and network is not self.resident:
            import comfy.model_management as management

            size = sum(value.numel() * value.element_size() for value in network.parameters())
            management.free_memory(size + management.minimum_inference_memory(), self.device)
        super().prepare(network)

    def release(self) -> None:
        """Let the device go; the networks wait in main memory."""
        if self.resident is not None:
            with plain_tensors():
                self.resident.to("cpu")
            self.resident = None


@contextlib.contextmanager
def network_placement() -> Iterator[HostPlacement]:
    """Placement for networks of our own while one node runs."""
    placement = HostPlacement(network_device())
    try:
        yield placement
    finally:
        placement.release()


@contextlib.contextmanager
def gradient_scope() -> Iterator[None]:
    """Block in which gradients work although the host runs nodes in inference mode.

    Tensors of link values must be cloned inside the block (the converters of `sockets` do).
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield


def make_progress() -> ProgressCallback:
    """Callback that moves the node's progress bar, shows previews and lets a user interrupt."""
    return _comfyui_progress() if IN_COMFYUI else standalone_progress


def make_stoppable_progress() -> ProgressCallback:
    """Like `make_progress`, but an interruption ends the run with what there is: `StopEarly`."""
    if not IN_COMFYUI:
        return standalone_progress
    import comfy.model_management

    report = _comfyui_progress()

    def report_or_stop(progress: Progress) -> None:
        try:
            report(progress)
        except comfy.model_management.InterruptProcessingException as interruption:
            raise StopEarly from interruption

    return report_or_stop


standalone_progress_hook: list[ProgressCallback] = []
"""The standalone runner's listeners; see `standalone.runner`."""


def standalone_progress(progress: Progress) -> None:
    """Tell the runner, if one listens."""
    for listener in standalone_progress_hook:
        listener(progress)


def _comfyui_progress() -> ProgressCallback:
    import comfy.model_management
    import comfy.utils

    bar: list[Any] = []
    last_text = [0.0]

    def report(progress: Progress) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not bar:
            bar.append(comfy.utils.ProgressBar(progress.total))
        preview = None if progress.preview is None else _jpeg_preview(progress.preview)
        bar[0].update_absolute(progress.step, progress.total, preview)
        due = time.monotonic() - last_text[0] > TEXT_EVERY_S or progress.step >= progress.total
        if progress.message and due:  # the last text stays on the node
            last_text[0] = time.monotonic()
            _show_text(progress.message)

    return report


def _jpeg_preview(image: Tensor) -> tuple[str, Any, int]:
    from PIL import Image

    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return "JPEG", Image.fromarray(pixels), PREVIEW_PX


def report_face(text: str) -> Any:
    """What the face of a node shows of a report; without ComfyUI the runner prints it."""
    if IN_COMFYUI:
        _show_text(text)  # its front end shows PreviewText on nodes of its own only
    return ui.PreviewText(text)


def _show_text(text: str) -> None:
    """One line on the face of the running node, where the core offers it."""
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    context = get_executing_context()
    server = getattr(PromptServer, "instance", None)
    if context is not None and hasattr(server, "send_progress_text"):
        server.send_progress_text(text, context.node_id)


# -- files -----------------------------------------------------------------------------------


def list_input_files(suffixes: Sequence[str]) -> list[str]:
    """Files below the input folder's ``3d`` with one of ``suffixes``, as ``3d/name.glb``."""
    root = input_folder()
    if not (root / "3d").is_dir():
        return []
    found = [path for path in (root / "3d").rglob("*") if path.suffix.lower() in suffixes]
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())


def input_folder() -> Path:
    """Folder of the user's input files."""
    if IN_COMFYUI:
        return Path(folder_paths.get_input_directory())
    return standalone_folders.current().input


def output_folder() -> Path:
    """Folder below which results are saved."""
    if IN_COMFYUI:
        return Path(folder_paths.get_output_directory())
    return standalone_folders.current().output


def checkpoint_file(name: str) -> Path:
    """File for the state of a long run, below the output folder."""
    return output_folder() / "lift3d_checkpoints" / f"{name}.safetensors"


def resolve_input_file(name: str, suffixes: Sequence[str]) -> Path:
    """Path of an input file named on a node.

    ComfyUI serves many people, so there only its own folders may be read: ``3d/cup.glb``,
    ``cup.glb [output]``. Standalone, the path is the user's own.

    Raises:
        ValueError: the file is missing, lies outside, or has a suffix that is not in ``suffixes``.
    """
    if not name.strip():
        raise ValueError("No file is named; choose one or connect a file.")
    path = _comfyui_file(name) if IN_COMFYUI else _standalone_file(name)
    if path.suffix.lower() not in suffixes:
        raise ValueError(
            f"'{path.name}' cannot be read here: its suffix is '{path.suffix}', expected one of "
            f"{', '.join(suffixes)}."
        )
    if not path.is_file():
        raise ValueError(f"The file '{name}' does not exist (looked at {path}).")
    return path


def _comfyui_file(name: str) -> Path:
    path = Path(folder_paths.get_annotated_filepath(name)).resolve()
    allowed = [
        Path(folder).resolve()
        for folder in (
            folder_paths.get_input_directory(),
            folder_paths.get_output_directory(),
            folder_paths.get_temp_directory(),
        )
    ]
    if not any(path.is_relative_to(folder) for folder in allowed):
        raise ValueError(
            f"'{name}' leads out of ComfyUI's input, output and temp folders; copy the file to "
            f"{allowed[0] / '3d'}."
        )
    return path


def _standalone_file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file() or path.is_absolute():
        return path
    return input_folder() / name


def save_path(prefix: str, suffix: str) -> Path:
    """Next free file ``prefix_00001_.suffix`` below the output folder; its folder exists."""
    if not IN_COMFYUI:
        return standalone_folders.next_path(prefix, suffix)
    folder, stem, counter, _, _ = folder_paths.get_save_image_path(
        prefix, folder_paths.get_output_directory()
    )
    return Path(folder) / f"{stem}_{counter:05}_{suffix}"


def describe_saved(path: Path) -> dict[str, Any]:
    """A saved file as the front end wants it named: filename, subfolder, type."""
    if not IN_COMFYUI:
        standalone_folders.remember(path)
        return standalone_folders.describe(path)
    folder = path.parent.resolve().relative_to(output_folder().resolve()).as_posix()
    return {
        "filename": path.name,
        "subfolder": "" if folder == "." else folder,
        "type": "output",
    }


def workflow_metadata(node: Any) -> dict[str, Any] | None:
    """The prompt and workflow to embed in a saved file, unless the user switched that off."""
    if not IN_COMFYUI:
        return None
    from comfy.cli_args import args

    if args.disable_metadata:
        return None
    extra = getattr(node.hidden, "extra_pnginfo", None) or {}
    found = {"prompt": getattr(node.hidden, "prompt", None), **extra}
    return {name: json.dumps(value) for name, value in found.items() if value is not None}


def file_link(path: Path) -> Any:
    """Value of a FILE_3D link for a file on disk."""
    if hasattr(Types, "File3D"):
        return Types.File3D(str(path), path.suffix.lstrip("."))
    from ..standalone.comfy_api import File3D

    return File3D(str(path))


@contextlib.contextmanager
def file_from_link(value: Any, suffixes: Sequence[str]) -> Iterator[Path]:
    """Path of the file behind a FILE_3D link value; files in memory are written out meanwhile."""
    kind = "." + str(getattr(value, "format", "")).lower().lstrip(".")
    if kind not in suffixes:
        raise ValueError(
            f"A 3D file of format '{kind.lstrip('.') or type(value).__name__}' cannot be read "
            f"here; expected one of {', '.join(suffixes)}."
        )
    if value.is_disk_backed:
        yield Path(value.get_source())
        return
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{kind}"
        path.write_bytes(value.get_bytes())
        yield path


def file_fingerprint(path: Path) -> str:
    """Text that changes when the file does."""
    state = os.stat(path)
    return f"{path}:{state.st_size}:{state.st_mtime_ns}"


def register_model_folder() -> None:
    """Make ``models/lift3d`` (and what extra_model_paths.yaml adds) known to the host."""
    if IN_COMFYUI:
        default = os.path.join(folder_paths.models_dir, MODEL_FOLDER)
        folder_paths.add_model_folder_path(MODEL_FOLDER, default)


def model_folders(*kinds: str) -> list[Path]:
    """Folders that are searched for weights: ours, then those of ComfyUI's model ``kinds``."""
    names = (MODEL_FOLDER, *kinds)
    if IN_COMFYUI:
        found = [path for name in names for path in folder_paths.get_folder_paths(name)]
        return list(dict.fromkeys(map(Path, found)))
    return [Path("models") / name for name in names]
