"""Contains the protocol of novel views: which views of an object are drawn, and their scores.

Reference: Tao et al. 2025, "GSV3D", Sec. 4: 100 objects of Google Scanned Objects, 21 renders at
even azimuths and one random elevation between -5 and 30 degrees; the first is the input, the
other 20 are judged by PSNR and SSIM on white.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import KISS3DGEN_FOV_Y_DEG, KISS3DGEN_RADIUS, ViewRig, make_orbit_rig
from .image_metrics import psnr, ssim

Averaging = Literal["views", "pixels"]


@dataclass(frozen=True)
class ViewProtocol:
    """Which views are drawn and how they are judged.

    Attributes:
        num_views: at even azimuths; the first one is the input.
        elevation_deg: lowest and highest; one for all views of an object.
        size_px: side of a view.
        radius: distance of the cameras; objects have a longest side of 1.8.
        fov_y_deg: vertical field of view.
        average: PSNR is the mean over the views, or that of the mean error of all pixels.
        seed: of the elevations.
    """

    num_views: int = 21
    elevation_deg: tuple[float, float] = (-5.0, 30.0)
    size_px: int = 256
    radius: float = KISS3DGEN_RADIUS
    fov_y_deg: float = KISS3DGEN_FOV_Y_DEG
    average: Averaging = "views"
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.elevation_deg
        if self.num_views < 2 or not -90 <= low <= high <= 90:
            raise ValueError(
                "num_views must be at least 2 and elevations rise within -90..90, got "
                f"{self.num_views} and {low}, {high}."
            )
        if self.average not in get_args(Averaging):
            raise ValueError(f"average must be 'views' or 'pixels', got {self.average!r}.")

    def elevation_of(self, index: int) -> float:
        """Elevation of object number ``index``; the same on every machine."""
        return random.Random(f"{self.seed} {index}").uniform(*self.elevation_deg)

    def rig(self, index: int) -> ViewRig:
        """Cameras of object number ``index``, the input first."""
        azimuths = [360.0 * view / self.num_views for view in range(self.num_views)]
        return make_orbit_rig(
            azimuths, self.elevation_of(index), radius=self.radius, fov_y_deg=self.fov_y_deg
        )

    def text(self) -> str:
        """The protocol in words, for the head of a table."""
        low, high = self.elevation_deg
        mean = "mean over the views" if self.average == "views" else "of the mean error"
        return (
            f"{self.num_views} views of {self.size_px} px at even azimuths, one elevation in "
            f"{low:g}..{high:g}; all but the first are judged, on white; PSNR: {mean}; SSIM: "
            "window 11, sigma 1.5"
        )


@dataclass(frozen=True)
class ViewScores:
    """How near views are to the true ones.

    Attributes:
        psnr: in dB.
        ssim: up to 1.
    """

    psnr: float
    ssim: float

    def columns(self) -> dict[str, float]:
        """Numbers by name, for a table."""
        return {"PSNR": self.psnr, "SSIM": self.ssim}


def score_views(
    views: Float[Tensor, "view height width 3"],
    truth: Float[Tensor, "view height width 3"],
    average: Averaging = "views",
) -> ViewScores:
    """Judge all views that are given.

    Raises:
        ValueError: other numbers or sizes of views.
    """
    views = views.clamp(0, 1)
    if average == "pixels":
        return ViewScores(psnr(views, truth), ssim(views, truth))
    ratios = [psnr(one[None], true[None]) for one, true in zip(views, truth, strict=True)]
    return ViewScores(float(torch.tensor(ratios).mean()), ssim(views, truth))
