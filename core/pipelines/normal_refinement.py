"""Contains ISOMER: the refinement of a mesh until its drawn normals agree with given normal maps.

Symbols: c = (n + 1) / 2 the colour of a world normal n, a the coverage of a pixel, index r drawn,
t target. Normal colours are world-space, so all views agree without rotation.

Reference: Kiss3DGen (Lin et al. 2025), Sec. 3.3, ISOMER; Wu et al. 2024 (Unique3D), Sec. 3.3 and
the ExplicitTarget of Sec. 3.4; continuous remeshing by Palfinger 2022.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .._checks import require_shape
from ..camera import ViewRig
from ..geometry.normals import encode_world_normals, vertex_normals
from ..geometry.remesh import MeshOptimizer
from ..geometry.transforms import normalize
from ..mesh import Mesh
from ..progress import Progress, ProgressCallback, ignore_progress
from ..rendering.mesh import antialias, interpolate, rasterize, world_to_clip
from ..rendering.projection import VertexProjectionParams, project_views_to_vertices
from .isomer_params import IsomerParams, StageParams, load_isomer_params

LOGGER = logging.getLogger(__name__)

COVERED = 0.5
PREVIEW_PX = 256


@dataclass(frozen=True)
class NormalTargets:
    """What the mesh should look like.

    Attributes:
        normals_world: unit normals inside the masks.
        masks: coverage 0..1.
        rig: one camera per view.
    """

    normals_world: Float[Tensor, "view height width 3"]
    masks: Float[Tensor, "view height width"]
    rig: ViewRig

    def __post_init__(self) -> None:
        require_shape("masks", self.masks, len(self.rig), None, None)
        require_shape("normals_world", self.normals_world, *self.masks.shape, 3)

    def shrunk(self, longest_px: int) -> NormalTargets:
        """Copy whose pictures are at most ``longest_px`` wide and high."""
        height, width = self.masks.shape[1:]
        scale = longest_px / max(height, width)
        if scale >= 1:
            return self
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        layers = torch.cat([self.normals_world, torch.ones_like(self.masks)[..., None]], dim=-1)
        layers = (layers * self.masks[..., None]).permute(0, 3, 1, 2)
        small = torch.nn.functional.interpolate(layers, size=size, mode="area")
        small = small.permute(0, 2, 3, 1)
        return NormalTargets(normalize(small[..., :3]), small[..., 3], self.rig)

    def picture(self) -> Float[Tensor, "view height width 4"]:
        """Normal colours over black and coverage, as the drawn pictures have them."""
        colors = encode_world_normals(self.normals_world)
        return torch.cat([colors, torch.ones_like(colors[..., :1])], dim=-1) * self.masks[..., None]


def refine_by_normals(
    mesh: Mesh,
    targets: NormalTargets,
    params: IsomerParams | None = None,
    *,
    on_progress: ProgressCallback = ignore_progress,
) -> Mesh:
    """Move and remesh a manifold mesh until it shows the target normals and silhouettes.

    Args:
        mesh: start; colours and texture are dropped because vertices come and go.
        targets: normal maps, masks and cameras.
        params: both stages; None takes the preset ``from_hull``.
        on_progress: called after every step, now and then with a picture of the first view; what
            it raises stops the run and passes on.

    Returns:
        A mesh of the same topology, watertight if the start was.
    """
    params = load_isomer_params() if params is None else params
    if mesh.is_empty:
        raise ValueError("The mesh to refine has no faces; give another initial mesh.")
    targets = targets.shrunk(params.image_px)
    total = params.coarse.steps + params.fine.steps
    current = Mesh(mesh.vertices, mesh.faces, name=mesh.name)
    done = 0
    for name, stage in (("coarse", params.coarse), ("fine", params.fine)):
        start = done

        def report(step: int, loss: float, preview: Tensor | None) -> None:
            message = f"{name} stage, step {step} of {stage.steps}, loss {loss:.4f}"  # noqa: B023
            on_progress(Progress(start + step, total, message, preview))  # noqa: B023

        current = _run_stage(current, targets, stage, params, report)
        done += stage.steps
    return current


def _run_stage(
    mesh: Mesh,
    targets: NormalTargets,
    stage: StageParams,
    params: IsomerParams,
    report: Callable[[int, float, Tensor | None], None],
) -> Mesh:
    if not stage.steps:
        return mesh
    goal = targets.picture()
    background = (goal[..., 3] < COVERED).to(goal)
    drawn_goal = goal
    optimizer = MeshOptimizer(mesh.vertices, mesh.faces, params.mesh_optimizer(stage))
    for step in range(stage.steps):
        vertices, faces = optimizer.vertices, optimizer.faces
        optimizer.zero_grad()
        if stage.explicit_target and params.is_target_step(step):
            drawn_goal = explicit_target_picture(Mesh(vertices.detach(), faces), targets, params)
        picture = draw_normals(vertices, faces, targets)
        loss = _image_loss(picture, drawn_goal, goal, background, stage)
        if stage.expansion_weight:
            loss = loss + stage.expansion_weight * expansion_energy(vertices, faces)
        loss.backward()
        optimizer.step()
        optimizer.remesh()
        optimizer.learning_rate *= stage.learning_rate_decay
        wants_preview = params.preview_interval and step % params.preview_interval == 0
        report(
            step + 1, float(loss.detach()), picture_on_white(picture[0]) if wants_preview else None
        )
    return replace(mesh, vertices=optimizer.vertices.detach(), faces=optimizer.faces)


def draw_normals(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    targets: NormalTargets,
    colors: Float[Tensor, "vertex 3"] | None = None,
) -> Float[Tensor, "view height width 4"]:
    """Colours of the vertex normals (or others) and coverage over black, anti-aliased."""
    height, width = targets.masks.shape[1:]
    clip = world_to_clip(vertices, targets.rig, width=width, height=height)
    rast = rasterize(clip, faces, width=width, height=height)
    if colors is None:
        colors = encode_world_normals(vertex_normals(vertices, faces))
    values = torch.cat([colors, torch.ones_like(colors[:, :1])], dim=1)
    return antialias(interpolate(values, rast, faces), rast, clip, faces)


def _image_loss(
    picture: Tensor, drawn_goal: Tensor, goal: Tensor, background: Tensor, stage: StageParams
) -> Tensor:
    """Normal term on covered pixels, coverage on the target's background and foreground."""
    covered = (picture[..., 3].detach() > COVERED).to(picture)
    channels = 3 if stage.explicit_target else 4
    off = (picture[..., :channels] - drawn_goal[..., :channels]).square().mean(dim=-1)
    coverage_off = (picture[..., 3] - goal[..., 3]).square()
    return (
        stage.normal_weight * _mean_over(off, covered)
        + stage.background_weight * _mean_over(coverage_off, background)
        + stage.uncovered_weight * _mean_over(coverage_off, 1 - background)
    )


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def expansion_energy(
    vertices: Float[Tensor, "vertex 3"], faces: Int64[Tensor, "face 3"]
) -> Float[Tensor, ""]:
    """Half the mean square distance to the vertices moved by their normals: pushes outwards."""
    goal = (vertices + vertex_normals(vertices, faces)).detach()
    return 0.5 * (goal - vertices).square().mean()


def explicit_target_normals(
    mesh: Mesh, targets: NormalTargets, params: IsomerParams | None = None
) -> Float[Tensor, "vertex 3"]:
    """World normal that the views together ask of each vertex; its own where none sees it well."""
    params = load_isomer_params() if params is None else params
    weights = params.target_view_weights
    projection = replace(
        VertexProjectionParams.explicit_target(),
        view_weights=weights if len(weights) == len(targets.rig) else None,
        confidence=params.target_confidence,
        raster_px=params.target_raster_px,
    )
    colors = encode_world_normals(targets.normals_world)
    seen, weight = project_views_to_vertices(
        mesh, colors, targets.rig, masks=targets.masks, params=projection
    )
    own = vertex_normals(mesh.vertices, mesh.faces)
    asked = normalize(2 * seen - 1)
    return torch.where((weight >= params.target_confidence)[:, None], asked, own)


@torch.no_grad()
def explicit_target_picture(
    mesh: Mesh, targets: NormalTargets, params: IsomerParams
) -> Float[Tensor, "view height width 4"]:
    """The explicit target drawn from the mesh as it is now.

    Reference: Wu et al. 2024 (Unique3D), Sec. 3.4.
    """
    normals = explicit_target_normals(mesh, targets, params)
    return draw_normals(mesh.vertices, mesh.faces, targets, encode_world_normals(normals))


def picture_on_white(
    picture: Float[Tensor, "height width 4"],
) -> Float[Tensor, "small_height small_width 3"]:
    """A drawn view for people: on white, small."""
    picture = picture.detach()
    flat = picture[..., :3] + (1 - picture[..., 3:])
    scale = max(1, max(flat.shape[:2]) // PREVIEW_PX)
    small = torch.nn.functional.avg_pool2d(flat.permute(2, 0, 1)[None], scale)
    return small[0].permute(1, 2, 0).clamp(0, 1).cpu()
