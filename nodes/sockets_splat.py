"""Contains the converters between SPLAT and GS_PLY link values and core Gaussians.

A SPLAT and a GS_PLY are in the 3DGS frame (Y down, Z forward), core in the world frame (Y up,
Z front): every converter here turns by 180 degrees about X, harmonics included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.gaussian_cloud import GaussianCloud
from ..core.geometry.splat_frames import from_3dgs, world_to_3dgs
from ..core.pipelines.splat_tools import merge_splats
from ..standalone.comfy_api import SplatData
from .host import Types, accepts_fields, output_device

SPLAT_FIELDS = ("positions", "scales", "rotations", "opacities", "sh")


def clouds_from_link(value: Any, name: str = "splat") -> list[GaussianCloud]:
    """All clouds of a SPLAT batch, in the world frame, as own copies.

    Raises:
        ValueError: the object lacks a field of a SPLAT; the message names its type.
    """
    missing = [field for field in SPLAT_FIELDS if not hasattr(value, field)]
    if missing:
        raise ValueError(
            f"{name} is a {type(value).__module__}.{type(value).__qualname__} without "
            f"{', '.join(missing)}; expected ComfyUI's SPLAT. Convert a GS_PLY with the node "
            "'GS_PLY To Splat'."
        )
    return [_item(value, index) for index in range(int(value.positions.shape[0]))]


def cloud_from_link(value: Any, name: str = "splat") -> GaussianCloud:
    """The Gaussians of a SPLAT in the world frame; a batch is joined into one cloud."""
    clouds = clouds_from_link(value, name)
    if len(clouds) == 1:
        return clouds[0]
    if not clouds:
        raise ValueError(f"{name} holds no Gaussians at all; check the node that made it.")
    return merge_splats(clouds)


def cloud_to_link(cloud: GaussianCloud) -> Any:
    """SPLAT value of a cloud given in the world frame."""
    turned = world_to_3dgs(cloud)
    cls = getattr(Types, "SPLAT", None)
    if not accepts_fields(cls, *SPLAT_FIELDS):
        cls = SplatData
    device = output_device()

    def batch_of_one(tensor: Tensor) -> Tensor:
        return tensor.detach().float().to(device, copy=True)[None]

    return cls(  # type: ignore[misc]
        positions=batch_of_one(turned.means),
        scales=batch_of_one(turned.scales),
        rotations=batch_of_one(turned.quats),
        opacities=batch_of_one(turned.opacities)[..., None],
        sh=batch_of_one(turned.harmonics),
    )


def _item(value: Any, index: int) -> GaussianCloud:
    counts = getattr(value, "counts", None)
    end = None if counts is None else int(counts[index])

    def row(name: str) -> Tensor:
        return getattr(value, name)[index, :end].clone().float()

    cloud = GaussianCloud.from_unnormalized(
        means=row("positions"),
        scales=row("scales"),
        quats=row("rotations"),
        opacities=row("opacities").reshape(-1).clamp(0, 1),
        harmonics=row("sh"),
    )
    return from_3dgs(cloud)


# -- GS_PLY of 3D-Pack -----------------------------------------------------------------------


def cloud_from_gs_ply(value: Any) -> GaussianCloud:
    """World-frame cloud of a ``plyfile.PlyData`` in the storage of 3DGS (logs and logits)."""
    try:
        rows = value["vertex"].data
        names = rows.dtype.names
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"gs_ply is a {type(value).__name__}, expected plyfile.PlyData with a 'vertex' "
            "element as ComfyUI-3D-Pack makes it."
        ) from error
    needed = ("x", "y", "z", "opacity", "scale_0", "rot_0", "f_dc_0")
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(f"gs_ply lacks the fields {', '.join(missing)}: it holds no Gaussians.")

    def columns(*fields: str) -> Tensor:
        stacked = np.stack([np.asarray(rows[field], dtype=np.float32) for field in fields], axis=1)
        return torch.from_numpy(stacked)

    rest = sorted(
        (name for name in names if name.startswith("f_rest_")), key=lambda name: int(name[7:])
    )
    base = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None, :]
    higher = columns(*rest).reshape(len(rows), 3, -1).transpose(1, 2) if rest else base[:, :0]
    cloud = GaussianCloud.from_unnormalized(
        means=columns("x", "y", "z"),
        scales=columns("scale_0", "scale_1", "scale_2").exp(),
        quats=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        opacities=columns("opacity")[:, 0].sigmoid(),
        harmonics=torch.cat([base, higher], dim=1),
    )
    return from_3dgs(cloud)


def cloud_to_gs_ply(cloud: GaussianCloud) -> Any:
    """``plyfile.PlyData`` in the storage of 3DGS of a cloud given in the world frame."""
    try:
        from plyfile import PlyData, PlyElement
    except ImportError as error:
        raise ValueError("GS_PLY needs the package plyfile: pip install plyfile") from error
    turned = world_to_3dgs(cloud)
    count, coefficients = turned.num_gaussians, turned.harmonics.shape[1]
    rest = turned.harmonics[:, 1:].transpose(1, 2).reshape(count, -1)
    columns = [
        turned.means,
        torch.zeros_like(turned.means),
        turned.harmonics[:, 0],
        rest,
        turned.opacities[:, None].clamp(1e-6, 1 - 1e-6).logit(),
        turned.scales.clamp(min=1e-12).log(),
        turned.quats,
    ]
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{index}" for index in range(3 * (coefficients - 1))]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    table = torch.cat(columns, dim=1).detach().cpu().numpy().astype("<f4")
    rows = np.empty(count, dtype=[(name, "<f4") for name in names])
    for index, name in enumerate(names):
        rows[name] = table[:, index]
    return PlyData([PlyElement.describe(rows, "vertex")])
