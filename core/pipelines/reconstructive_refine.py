"""Contains reconstructive generation: sharp pictures of a coarse object, then a plain fit to them.

Pictures from fixed cameras are noised and denoised again along GE3D's trajectories; what comes out
is taken as the truth, and the Gaussians are fitted to it.

Reference: DreamScene's reconstructive generation with GE3D's multi-step trajectory in place of the
single step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..camera import ViewRig, make_orbit_rig
from ..diffusion.distillation import make_training_noise, trajectory_target
from ..diffusion.model import DiffusionModel
from ..diffusion.objective import Distiller, ObjectiveParams
from ..diffusion.trajectories import NodeParams, sample_timesteps
from ..gaussian_cloud import GaussianCloud
from ..progress import Progress, ProgressCallback, ignore_progress
from ..rendering.splats import render_splats
from .camera_schedule import step_generator
from .mesh_to_splat import SplatFitParams, fit_splats
from .respawn_splats import respawn_faint
from .splat_optimizer import DensifyParams, LearningRates, SplatOptimizerParams
from .white_cut import cut_from_white

PICTURES = 4


@dataclass(frozen=True)
class RefineParams:
    """How pictures are made and fitted.

    Attributes:
        rings: (elevation in degrees, number of cameras) of each ring; azimuths are spread evenly.
        radius: of the cameras.
        fov_y_deg: of the cameras.
        size_px: side of the pictures.
        nodes: jumps and farthest node; the first round takes the beginning of their ranges, the
            last one the end.
        rounds: how often pictures are made from the present Gaussians.
        batch: pictures that the model sees at once.
        cut: cut the pictures out of their white background before the fit, which makes outlines
            crisp; for models that know no other background (`cut_from_white`).
        respawn: before the fits of later rounds, move Gaussians that have faded to where the object
            is (`respawn_faint`); for fits that keep the number of Gaussians.
        fit: of all rounds together; the steps are shared out.
        seed: of noise and nodes.
    """

    rings: tuple[tuple[float, int], ...] = ((-10.0, 4), (5.0, 12), (15.0, 14), (35.0, 6))
    radius: float = 3.15
    fov_y_deg: float = 31.5
    size_px: int = 512
    nodes: NodeParams = field(default_factory=lambda: NodeParams(8, (75, 150), (75, 140), 200, 140))
    rounds: int = 1
    batch: int = 4
    cut: bool = False
    respawn: bool = False
    fit: SplatFitParams = field(
        default_factory=lambda: SplatFitParams(
            num_steps=1440,  # 40 passes over 36 pictures
            square_weight=100.0,
            absolute_weight=0.0,
            optimizer=SplatOptimizerParams(
                rates=LearningRates(
                    means=(8e-4, 8e-6),
                    base=(5e-3, 4e-3),
                    rest=(2.5e-4, 2e-4),
                    log_scales=(5e-3, 2e-3),
                ),
                densify=DensifyParams(gradient_threshold=1e-3, stop_at=0.8, reset_opacity_every=0),
            ),
        )
    )
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.rings or min(count for _, count in self.rings) < 1:
            raise ValueError(f"Each ring needs at least one camera, got {self.rings}.")
        if self.rounds < 1 or self.batch < 1:
            raise ValueError(
                f"rounds and batch must be at least 1, got {self.rounds} and {self.batch}."
            )


def spread_rings(
    num_views: int, rings: tuple[tuple[float, int], ...] = RefineParams.rings
) -> tuple[tuple[float, int], ...]:
    """The published rings with about ``num_views`` cameras in all, at least one on each."""
    total = sum(count for _, count in rings)
    return tuple((angle, max(round(count * num_views / total), 1)) for angle, count in rings)


@dataclass(frozen=True)
class RefinedSplat:
    """Gaussians after the fit, and what they were fitted to.

    Attributes:
        cloud: the Gaussians.
        pictures: of the last round, on white.
        rig: their cameras.
        evaluations: latents that the model was asked about.
    """

    cloud: GaussianCloud
    pictures: Float[Tensor, "view height width 3"]
    rig: ViewRig
    evaluations: int


def refine_reconstructively(
    prompt: str,
    model: DiffusionModel,
    cloud: GaussianCloud,
    objective: ObjectiveParams | None = None,
    params: RefineParams | None = None,
    *,
    on_progress: ProgressCallback = ignore_progress,
) -> RefinedSplat:
    """Let the model redraw fixed views of Gaussians and fit them to the result.

    Args:
        prompt: the object.
        model: of text to image.
        cloud: a coarse object; unchanged.
        objective: guidance scale, texts and Perp-Neg of the redrawing.
        params: settings.
        on_progress: called after each batch of pictures and each step of the fit.

    Raises:
        ValueError: an empty prompt or cloud.
        NonFiniteError: the model gave NaN.
    """
    params = params or RefineParams()
    if not cloud.num_gaussians:
        raise ValueError("There are no Gaussians to refine: the splat is empty.")
    with torch.inference_mode(False):
        tensors = {name: value.detach().clone().float() for name, value in vars(cloud).items()}
        now = GaussianCloud(**tensors)
        rig = ring_cameras(params).to(now.means.device)
        distiller = Distiller(model, prompt, objective or ObjectiveParams())
        steps = params.fit.num_steps // params.rounds
        batches = -(-len(rig) // params.batch)
        total = params.rounds * (batches + steps)
        for turn in range(params.rounds):
            done = turn * (batches + steps)
            told = _shifted(on_progress, done, total)
            pictures = redraw_views(now, rig, model, distiller, params, turn, on_progress=told)
            told = _shifted(on_progress, done + batches, total)
            fit = replace(params.fit, num_steps=steps, seed=params.fit.seed + turn)
            if not steps:
                continue
            if params.respawn and turn:
                now = respawn_faint(now, seed=params.seed + turn)
            cut = cut_from_white(pictures) if params.cut else None
            now = fit_splats(
                pictures if cut is None else cut.rgb, rig, None if cut is None else cut.masks,
                initial_cloud=now, params=fit, on_progress=told,
            )  # fmt: skip
        return RefinedSplat(now, pictures, rig, distiller.denoise.entries)


def ring_cameras(params: RefineParams) -> ViewRig:
    """Cameras of all rings, in their order; each ring begins a little later than the last."""
    azimuths, elevations = [], []
    for index, (elevation, count) in enumerate(params.rings):
        start = 180.0 * (index % 2) / count
        azimuths += [(start + 360.0 * i / count + 180) % 360 - 180 for i in range(count)]
        elevations += [elevation] * count
    return make_orbit_rig(azimuths, elevations, radius=params.radius, fov_y_deg=params.fov_y_deg)


@torch.no_grad()
def redraw_views(
    cloud: GaussianCloud,
    rig: ViewRig,
    model: DiffusionModel,
    distiller: Distiller,
    params: RefineParams,
    turn: int = 0,
    *,
    on_progress: ProgressCallback = ignore_progress,
) -> Float[Tensor, "view height width 3"]:
    """Pictures of the Gaussians as the model would draw them, 0..1.

    Args:
        cloud: the Gaussians.
        rig: cameras on orbits round the origin.
        model: decodes latents.
        distiller: the prompt, bound to the same model.
        params: settings.
        turn: number of the round.
        on_progress: called after each batch.
    """
    share = turn / max(params.rounds - 1, 1)
    redrawn: list[Tensor] = []
    for first in range(0, len(rig), params.batch):
        part = rig.select(range(first, min(first + params.batch, len(rig))))
        generator = step_generator(params.seed, PICTURES, turn * len(rig) + first)
        timesteps = sample_timesteps(params.nodes, share, generator)
        drawn = render_splats(
            cloud, part, width=params.size_px, height=params.size_px, with_normals=False
        )
        latents = model.encode_image(drawn.rgb.clamp(0, 1).to(model.device))
        target = _target(latents, part, distiller, timesteps, generator)
        pictures = model.decode_latents(target).to(drawn.rgb).clamp(0, 1)
        redrawn.append(pictures)
        done = first // params.batch + 1
        message = f"redrew {first + len(part)} of {len(rig)} views"
        on_progress(Progress(done, len(rig), message, pictures[0]))
    return torch.cat(redrawn)


def _target(
    latents: Tensor,
    rig: ViewRig,
    distiller: Distiller,
    timesteps: Int64[Tensor, " node"],
    generator: torch.Generator,
) -> Tensor:
    azimuths, elevations = camera_angles(rig)
    return trajectory_target(
        distiller.denoise,
        latents,
        distiller.prompts.guided(azimuths, elevations),
        distiller.prompts.inversion,
        timesteps,
        make_training_noise(latents, generator),
        family=distiller.family,
    )


def camera_angles(rig: ViewRig) -> tuple[Float[Tensor, " view"], Float[Tensor, " view"]]:
    """Azimuths (-180..180) and elevations in degrees of the cameras, seen from the origin."""
    eyes = torch.stack([camera.position for camera in rig]).detach().cpu()
    azimuths = torch.rad2deg(torch.atan2(eyes[:, 0], eyes[:, 2]))
    elevations = torch.rad2deg(torch.asin((eyes[:, 1] / eyes.norm(dim=1)).clamp(-1, 1)))
    return azimuths, elevations


def _shifted(on_progress: ProgressCallback, offset: int, total: int) -> ProgressCallback:
    """The callback for a part of the run."""

    def tell(progress: Progress) -> None:
        on_progress(Progress(offset + progress.step, total, progress.message, progress.preview))

    return tell
