"""Contains the health report: what is ready on this machine, what is missing, and the remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from .backends.probe import BackendStatus, backend_status
from .diffusion.embedded import EMBEDDED_FOLDER, EmbeddedKind, list_embedded

INSTALL = "run `python -m pip install {}` with the Python that runs Lift3D"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: capability or library.
        ready: whether it works here.
        detail: version, speed or what it is for.
        remedy: what makes it work; empty when ready.
        required: whether Lift3D is incomplete without it.
    """

    name: str
    ready: bool
    detail: str = ""
    remedy: str = ""
    required: bool = True

    def text(self) -> str:
        """The finding as one line."""
        mark = "ready  " if self.ready else ("MISSING" if self.required else "absent ")
        line = f"{mark}  {self.name}"
        if self.detail:
            line += f": {self.detail}"
        return line if self.ready else f"{line}\n         remedy: {self.remedy}"


@dataclass(frozen=True)
class Library:
    """A package, what it is for, and whether Lift3D needs it."""

    module: str
    package: str
    purpose: str
    required: bool = True


LIBRARIES = (
    Library("jaxtyping", "jaxtyping", "shapes of all public functions"),
    Library("numba", "numba", "fast drawing and remeshing on the CPU"),
    Library("scipy", "scipy", "nearest points, components"),
    Library("PIL", "pillow", "reading and writing pictures"),
    Library("xatlas", "xatlas", "unwrapping meshes for textures"),
    Library("fast_simplification", "fast-simplification", "reducing big meshes"),
    Library("omegaconf", "omegaconf", "presets of the papers"),
    Library("diffusers", "diffusers", "diffusion models"),
    Library("transformers", "transformers", "their text encoders"),
    Library("safetensors", "safetensors", "reading weights"),
    Library("peft", "peft", "LoRAs"),
    Library("accelerate", "accelerate", "checkpoints in a single file, sequential offload"),
    Library("trimesh", "trimesh", "the TRIMESH link type", required=False),
    Library("plyfile", "plyfile", "the GS_PLY link type", required=False),
)

CAPABILITIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Load and save meshes (GLB, OBJ, STL, PLY)", ("jaxtyping", "PIL")),
    ("Load and save Gaussians (PLY, SPLAT, SPZ)", ("jaxtyping",)),
    ("Draw meshes and bundle images", ("jaxtyping",)),
    ("Reconstruct a mesh from a bundle or views", ("jaxtyping", "scipy", "omegaconf")),
    ("Project views onto a texture", ("jaxtyping", "scipy", "xatlas")),
    ("Fit Gaussians", ("jaxtyping",)),
    ("Run diffusion models", ("jaxtyping", "diffusers", "transformers", "safetensors")),
    ("Apply LoRAs", ("diffusers", "peft")),
    (
        "Train LoRAs and ControlNets",
        ("diffusers", "transformers", "peft", "safetensors", "omegaconf"),
    ),
    ("Load checkpoints in a single file", ("diffusers", "accelerate", "omegaconf")),
)


def check_health(model_folders: Sequence[Path] = ()) -> list[Finding]:
    """Findings on the machine, the libraries, the drawing backends and the capabilities."""
    libraries = {library.module: _check_library(library) for library in LIBRARIES}
    findings = [_check_device(), *libraries.values()]
    states = [*backend_status("mesh"), *backend_status("splats")]
    findings += [_check_backend(state) for state in states]
    for name, needed in CAPABILITIES:
        missing = [libraries[module] for module in needed if not libraries[module].ready]
        findings.append(
            Finding(name, not missing, remedy="; ".join(item.remedy for item in missing))
        )
    findings.append(_check_embedded())
    findings += [
        Finding(
            "Folder of weights",
            folder.is_dir(),
            str(folder),
            f"not needed yet; make it when a node asks for weights: {folder}",
            required=False,
        )
        for folder in model_folders
    ]
    return findings


def health_text(findings: Sequence[Finding]) -> str:
    """The report for people, with a verdict in the last line."""
    broken = [finding for finding in findings if finding.required and not finding.ready]
    verdict = (
        f"{len(broken)} things need attention: follow the remedies above."
        if broken
        else "Everything that Lift3D needs is here."
    )
    return "\n".join([*(finding.text() for finding in findings), "", verdict])


def is_healthy(findings: Sequence[Finding]) -> bool:
    """Whether nothing that is required is missing."""
    return all(finding.ready or not finding.required for finding in findings)


def _check_device() -> Finding:
    device = "CPU only"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    python = platform.python_version()
    return Finding(f"Python {python}, torch {torch.__version__}", True, device)


def _check_embedded() -> Finding:
    names = [name for kind in get_args(EmbeddedKind) for name in list_embedded(kind)]
    return Finding(
        "Embedded models",
        bool(names),
        ", ".join(names),
        f"they belong to Lift3D, in {EMBEDDED_FOLDER}; install it again",
        required=False,
    )


def _check_library(library: Library) -> Finding:
    if importlib.util.find_spec(library.module) is None:
        return Finding(
            library.package,
            False,
            library.purpose,
            INSTALL.format(library.package),
            library.required,
        )
    version = _version(library.package)
    return Finding(f"{library.package} {version}".strip(), True, library.purpose)


def _check_backend(state: BackendStatus) -> Finding:
    names = {"mesh": "meshes", "splats": "Gaussians"}
    speeds = {
        "cuda": "fastest, needs an NVIDIA card",
        "numba": "fast, any CPU",
        "torch": "slow reference, any device",
    }
    return Finding(
        f"Drawing {names[state.kind]} with {state.name}",
        state.ready,
        speeds[state.name],
        state.remedy,
        required=state.name == "torch",
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
