"""Contains semantic-equivalent volume rendering: pictures of some classes of a field alone.

Symbols, per sample i along a ray: a_i = 1 - exp(-sigma_i delta_i) its opacity, c_i its colour, p_is
the probability of class s, P the classes that are kept, q_i the sum of p_is over P. Samples count
as far as they belong to P, so that what is left out lets light through.

Reference: He et al. 2025, "StdGEN", Eq. 1, 2 and 4 to 8. In Eq. 6 to 8 the indices of q are taken
to be those of the sample that it belongs to, as the sums need it; the print mixes i and j.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import Camera, ViewRig
from .volume import VolumeParams, chunked_rays, sample_rays

SemanticDensityField = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Points [point, 3] to density [point], colour [point, 3], class probabilities [point, label]."""

DropForm = Literal["paper", "reference"]
"""What the kept samples' semantics are: p_i q_i (Eq. 7), or p_i without the dropped classes, scaled
to sum 1 as the released program does it. Colours are the same in both."""

RENORM_EPS = 1e-6


@dataclass(frozen=True)
class ClassComposite:
    """What is seen along rays.

    Attributes:
        rgb: sum of T a q c, without a background (Eq. 6).
        semantics: class probabilities of what is seen (Eq. 7; with all classes Eq. 4).
        weights: T a q of each sample; their sum is the alpha.
    """

    rgb: Float[Tensor, "*ray 3"]
    semantics: Float[Tensor, "*ray label"]
    weights: Float[Tensor, "*ray sample"]

    @property
    def alpha(self) -> Float[Tensor, "*ray"]:
        """Opacity of the ray."""
        return self.weights.sum(dim=-1)


def composite_classes(
    opacities: Float[Tensor, "*ray sample"],
    colors: Float[Tensor, "*ray sample 3"],
    probabilities: Float[Tensor, "*ray sample label"],
    kept: Collection[int] | None = None,
    *,
    form: DropForm = "paper",
) -> ClassComposite:
    """Blend samples from front to back; differentiable.

    Args:
        opacities: a_i, 0..1.
        colors: c_i.
        probabilities: p_is, of sum 1.
        kept: the set P; None keeps all classes, which is Eq. 1 and 4.
        form: see `DropForm`.
    """
    num_labels = probabilities.shape[-1]
    chosen = sorted(range(num_labels) if kept is None else {int(label) for label in kept})
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_labels:
        raise ValueError(f"kept must name classes 0..{num_labels - 1}, got {chosen}.")
    if form not in ("paper", "reference"):
        raise ValueError(f"form must be 'paper' or 'reference', got {form!r}.")
    if len(chosen) == num_labels:
        share = torch.ones_like(opacities)
    else:
        share = probabilities[..., chosen].sum(dim=-1)
    effective = opacities * share
    weights = transmittance(effective) * effective
    classes = probabilities  # Eq. 7 sums T a q p, and T a q is the weight
    if form == "reference" and len(chosen) < num_labels:
        classes = _without(probabilities, chosen)
    return ClassComposite(
        rgb=(weights[..., None] * colors).sum(dim=-2),
        semantics=(weights[..., None] * classes).sum(dim=-2),
        weights=weights,
    )


def transmittance(opacities: Float[Tensor, "*ray sample"]) -> Float[Tensor, "*ray sample"]:
    """Light that reaches each sample: the product of 1 - a over those before it."""
    passed = torch.cumprod(1 - opacities, dim=-1)
    return torch.cat([torch.ones_like(passed[..., :1]), passed[..., :-1]], dim=-1)


def _without(probabilities: Tensor, chosen: list[int]) -> Tensor:
    """Probabilities of the kept classes, scaled to sum 1; the others are zero."""
    kept = probabilities[..., chosen]
    scaled = (kept + RENORM_EPS) / (kept.sum(dim=-1, keepdim=True) + RENORM_EPS)
    index = torch.tensor(chosen, device=probabilities.device)
    return torch.zeros_like(probabilities).index_copy(-1, index, scaled)


@dataclass(frozen=True)
class SemanticVolumeRender:
    """Pictures of classes of a field.

    Attributes:
        rgb: over the background.
        alpha: 0..1.
        semantics: class probabilities of what is seen, of sum at most alpha.
    """

    rgb: Float[Tensor, "view height width 3"]
    alpha: Float[Tensor, "view height width"]
    semantics: Float[Tensor, "view height width label"]


def render_classes(
    field: SemanticDensityField,
    rig: ViewRig,
    kept: Collection[int] | None = None,
    *,
    width: int,
    height: int,
    form: DropForm = "paper",
    params: VolumeParams | None = None,
) -> SemanticVolumeRender:
    """Draw the classes in ``kept`` of a field as if the others were not there; differentiable."""
    params = params or VolumeParams()
    generator = torch.Generator().manual_seed(params.seed)
    views = [_render_view(field, camera, kept, width, height, form, params, generator)
             for camera in rig]  # fmt: skip
    rgb, alpha, semantics = (torch.stack(images) for images in zip(*views, strict=True))
    return SemanticVolumeRender(rgb, alpha, semantics)


def _render_view(
    field: SemanticDensityField,
    camera: Camera,
    kept: Collection[int] | None,
    width: int,
    height: int,
    form: DropForm,
    params: VolumeParams,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    parts = [
        _render_rays(field, origins, directions, camera, kept, form, params, generator)
        for origins, directions in chunked_rays(camera, width, height, params)
    ]
    rgb = torch.cat([part.rgb for part in parts])
    alpha = torch.cat([part.alpha for part in parts])
    semantics = torch.cat([part.semantics for part in parts])
    rgb = rgb + (1 - alpha)[:, None] * rgb.new_tensor(params.background)
    size = (height, width)
    return rgb.reshape(*size, 3), alpha.reshape(size), semantics.reshape(*size, -1)


def _render_rays(
    field: SemanticDensityField,
    origins: Tensor,
    directions: Tensor,
    camera: Camera,
    kept: Collection[int] | None,
    form: DropForm,
    params: VolumeParams,
    generator: torch.Generator,
) -> ClassComposite:
    samples = sample_rays(origins, directions, camera, params, generator)
    shape = samples.distances.shape
    density, colors, probabilities = field(samples.points.reshape(-1, 3))
    opacities = -torch.expm1(-density.reshape(shape) * samples.bin_length[:, None])
    return composite_classes(
        opacities,
        colors.reshape(*shape, 3),
        probabilities.reshape(*shape, -1),
        kept,
        form=form,
    )
