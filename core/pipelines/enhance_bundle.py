"""Contains the enhancement and editing of a bundle: image to image, steered by ControlNets.

Enhancement and editing differ in the prompt only.

Reference: Kiss3DGen (Lin et al. 2025), Sec. 3.4, and its released pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..bundle_image import BundleImage
from ..camera import ViewRig
from ..diffusion.controls import UNION_MODES
from ..diffusion.model import Control, DiffusionModel
from ..mesh import Mesh
from ..progress import ProgressCallback, ignore_progress
from .bundle_masks import fit_bundle_mask
from .bundle_pixels import resize_bundle
from .bundle_presets import ControlPreset
from .bundle_prompt import BundlePrompt
from .control_images import ControlImageParams, ControlKind, make_control_image
from .text_to_bundle import BundleSampleParams, BundleSamples, sample_bundle

ENHANCEMENT = BundleSampleParams(strength=0.95)
"""Sampling as in the released pipelines for images and meshes."""


@dataclass(frozen=True)
class ControlRequest:
    """A ControlNet to be used on a bundle.

    Attributes:
        network: handle of a loaded ControlNet.
        kind: of the condition picture, and the mode of a union network.
        scale: strength.
        start: share of the evaluations before which it is off.
        end: share of the evaluations after which it is off.
        image: condition picture; None makes it from the reference bundle.
        params: how it is made.
    """

    network: Any
    kind: ControlKind = "tile"
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    image: Float[Tensor, "1 height width 3"] | None = None
    params: ControlImageParams = field(default_factory=ControlImageParams)

    @staticmethod
    def from_preset(
        network: Any,
        preset: ControlPreset,
        image: Float[Tensor, "1 height width 3"] | None = None,
    ) -> ControlRequest:
        """Request with the numbers of a preset."""
        return ControlRequest(network, preset.mode, preset.scale, preset.start, preset.end, image)


def enhance_bundle(
    model: DiffusionModel,
    reference: BundleImage,
    prompt: BundlePrompt,
    params: BundleSampleParams = ENHANCEMENT,
    *,
    controls: Sequence[ControlRequest] = (),
    mask: Float[Tensor, "mask height width"] | None = None,
    mesh: Mesh | None = None,
    rig: ViewRig | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> BundleSamples:
    """Sample bundles that start from a reference and keep to it as far as the controls ask.

    Args:
        model: of either family.
        reference: bundle to start from.
        prompt: what the result should show.
        params: settings; ``strength`` is the denoise strength.
        controls: ControlNets, any number.
        mask: 1 where the bundle may change, in any form that `fit_bundle_mask` takes; the rest is
            kept exactly. None changes everything.
        mesh: what the reference shows, placed as in it; used by depth and normal controls.
        rig: cameras of the reference.
        on_progress: see `sample_bundle`.

    Raises:
        ValueError: a control's network lacks the mode, a mask selects nothing, or what
            `sample_bundle` refuses.
    """
    params = params.resolved(model)
    reference = resize_bundle(reference, params.tile_px)
    editable = None
    if mask is not None:
        editable = fit_bundle_mask(mask, reference.num_views, params.tile_px)
    ready = [make_control(request, reference, mesh=mesh, rig=rig) for request in controls]
    return sample_bundle(
        model,
        prompt,
        params,
        start=reference,
        editable=editable,
        controls=[replace(c, image=c.image.to(model.device)) for c in ready],
        on_progress=on_progress,
    )


def make_control(
    request: ControlRequest,
    reference: BundleImage,
    *,
    mesh: Mesh | None = None,
    rig: ViewRig | None = None,
) -> Control:
    """Control of a request, its condition picture made from the reference unless it has one.

    Raises:
        ValueError: the network is a union without this mode.
    """
    mode = union_mode(request.network, request.kind)
    image = request.image
    if image is None:
        picture = make_control_image(reference, request.kind, request.params, mesh=mesh, rig=rig)
        image = picture[None]
    return Control(request.network, image, request.scale, request.start, request.end, mode)


def union_mode(network: Any, kind: ControlKind) -> int | None:
    """Index of a kind in a union network by its own table (Flux: tile is 1); None for others.

    Args:
        network: handle with ``num_modes`` (None for a network of one purpose) and perhaps its own
            table ``modes``; without one the published table of Flux holds.
        kind: of the condition picture.

    Raises:
        ValueError: a union network has no such mode.
    """
    num_modes = getattr(network, "num_modes", None)
    if num_modes is None:
        return None
    table: Mapping[str, int] = getattr(network, "modes", UNION_MODES)
    known = {name: index for name, index in table.items() if index < num_modes}
    if kind not in known:
        raise ValueError(
            f"The union ControlNet '{getattr(network, 'name', 'given')}' has no mode for '{kind}' "
            f"pictures; it knows {', '.join(known)}. Choose one of them, or load a ControlNet made "
            f"for '{kind}'."
        )
    return known[kind]
