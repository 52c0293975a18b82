"""Contains the refinement of one layer of a character while the layers inside it stay fixed.

Two stages as in ISOMER: against the normal maps themselves, then against the explicit target that
they make on the surface. Fixed layers hide what is behind them and must not be entered.

Symbols: M and N are mask and normal colours of the views, M_pred and N_pred those drawn, n the
number of the target's pixels, L_col Eq. 13. The loss of the paper's form is
(sum |M - M_pred|^2 + sum M_pred |N - N_pred|^2) / n + 100 L_col.

Reference: He et al. 2025, "StdGEN", Sec. 3.4, Eq. 12; released program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..geometry.collision import InnerSurface, collision_loss, make_inner_surface
from ..geometry.components import drop_small_components
from ..geometry.layer_dilation import dilate_layer, push_out
from ..geometry.normals import encode_world_normals, vertex_normals
from ..geometry.remesh import MeshOptimizer
from ..geometry.smoothing import taubin_smooth
from ..mesh import Mesh, merge_meshes
from ..progress import Progress, ProgressCallback, ignore_progress
from .initial_mesh import make_manifold
from .isomer_params import StageParams
from .layer_params import LayerParams
from .normal_refinement import (
    COVERED,
    NormalTargets,
    draw_normals,
    expansion_energy,
    explicit_target_normals,
    picture_on_white,
)

Report = Callable[[int, float, Tensor | None], None]


@dataclass(frozen=True)
class Backdrop:
    """The fixed layers.

    Attributes:
        mesh: all of them in one; None when there is none.
        colors: normal colours of its vertices.
        inner: what the layer must stay out of.
    """

    mesh: Mesh | None
    colors: Float[Tensor, "vertex 3"] | None
    inner: InnerSurface | None

    def joined(
        self, vertices: Float[Tensor, "vertex 3"], faces: Int64[Tensor, "face 3"]
    ) -> tuple[Tensor, Tensor]:
        """Vertices and faces of a layer with the fixed ones behind them in the lists."""
        if self.mesh is None:
            return vertices, faces
        return (
            torch.cat([vertices, self.mesh.vertices]),
            torch.cat([faces, self.mesh.faces + len(vertices)]),
        )

    def joined_colors(self, colors: Float[Tensor, "vertex 3"]) -> Tensor:
        """Colours in the order of `joined`."""
        return colors if self.colors is None else torch.cat([colors, self.colors])


def make_backdrop(fixed: Sequence[Mesh]) -> Backdrop:
    """Prepare the fixed layers; empty ones do not count."""
    solid = [Mesh(mesh.vertices, mesh.faces) for mesh in fixed if not mesh.is_empty]
    if not solid:
        return Backdrop(None, None, None)
    mesh = merge_meshes(solid, name="fixed")
    colors = encode_world_normals(vertex_normals(mesh.vertices, mesh.faces))
    return Backdrop(mesh, colors, make_inner_surface(mesh.vertices, mesh.faces))


def refine_layer(
    mesh: Mesh,
    targets: NormalTargets,
    fixed: Sequence[Mesh],
    params: LayerParams,
    *,
    hair_mask: Float[Tensor, "height width"] | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Mesh:
    """Move and remesh one layer until the scene shows the target's normals and silhouettes.

    Args:
        mesh: the layer's start; broken meshes are repaired first. Colours are dropped.
        targets: what fixed layers and this one show together.
        fixed: inner layers, which stay as they are.
        params: both stages, the loss, dilation and clean-up.
        hair_mask: where the first view shows this layer and no other; None or an empty one leaves
            the term out.
        on_progress: called after every step; what it raises stops the run and passes on.

    Returns:
        The layer, manifold, named as the start.
    """
    if mesh.is_empty:
        raise ValueError(f"The part '{mesh.name}' has no faces; there is nothing to refine.")
    isomer = params.isomer
    targets = targets.shrunk(isomer.image_px)
    backdrop = make_backdrop(fixed)
    current = _dilated(make_manifold(mesh), backdrop, params)
    mask = _fitted_mask(hair_mask, targets)
    total = isomer.coarse.steps + isomer.fine.steps + 1
    done = 0
    for name, stage in (("shape", isomer.coarse), ("detail", isomer.fine)):
        start = done

        def report(step: int, loss: float, preview: Tensor | None) -> None:
            message = f"{mesh.name}: {name}, step {step} of {stage.steps}, loss {loss:.4f}"  # noqa: B023
            on_progress(Progress(start + step, total, message, preview))  # noqa: B023

        current = _run_stage(current, targets, backdrop, stage, params, mask, report)
        done += stage.steps
    finished = _tidy(current, params)
    finished = _pushed_out(_dilated(finished, backdrop, params), backdrop, params)
    on_progress(Progress(total, total, f"{mesh.name}: {finished.num_faces} triangles"))
    return finished


def _run_stage(
    mesh: Mesh,
    targets: NormalTargets,
    backdrop: Backdrop,
    stage: StageParams,
    params: LayerParams,
    hair_mask: Tensor | None,
    report: Report,
) -> Mesh:
    if not stage.steps:
        return mesh
    interval = 1 if stage.explicit_target else params.remesh_interval
    settings = replace(params.isomer.mesh_optimizer(stage), control_interval=interval)
    optimizer = MeshOptimizer(mesh.vertices, mesh.faces, settings)
    goal = targets.picture()
    asked = goal
    for step in range(stage.steps):
        vertices, faces = optimizer.vertices, optimizer.faces
        optimizer.zero_grad()
        if stage.explicit_target and params.isomer.is_target_step(step):
            asked = _explicit_target(vertices.detach(), faces, targets, backdrop, params)
        picture = _draw(vertices, faces, targets, backdrop)
        loss = image_loss(picture, asked, goal, stage, params.loss)
        if not stage.explicit_target:
            loss = loss + _shape_terms(vertices, faces, targets, goal, backdrop, params, hair_mask)
        loss.backward()
        optimizer.step()
        if step % interval == 0:
            optimizer.remesh()
        optimizer.learning_rate *= stage.learning_rate_decay
        every = params.isomer.preview_interval
        shown = picture_on_white(picture[0]) if every and step % every == 0 else None
        report(step + 1, float(loss.detach()), shown)
    return replace(mesh, vertices=optimizer.vertices.detach(), faces=optimizer.faces)


def _draw(vertices: Tensor, faces: Tensor, targets: NormalTargets, backdrop: Backdrop) -> Tensor:
    colors = encode_world_normals(vertex_normals(vertices, faces))
    return draw_normals(*backdrop.joined(vertices, faces), targets, backdrop.joined_colors(colors))


@torch.no_grad()
def _explicit_target(
    vertices: Tensor,
    faces: Tensor,
    targets: NormalTargets,
    backdrop: Backdrop,
    params: LayerParams,
) -> Tensor:
    """What the views' normals, carried onto the layer, look like from the views."""
    scene = Mesh(*backdrop.joined(vertices, faces))
    normals = explicit_target_normals(scene, targets, params.isomer)[: len(vertices)]
    colors = backdrop.joined_colors(encode_world_normals(normals))
    return draw_normals(scene.vertices, scene.faces, targets, colors)


def image_loss(
    picture: Float[Tensor, "view height width 4"],
    asked: Float[Tensor, "view height width 4"],
    goal: Float[Tensor, "view height width 4"],
    stage: StageParams,
    form: str,
) -> Float[Tensor, ""]:
    """Image terms of Eq. 12, or of the released program.

    Args:
        picture: drawn normal colours and coverage over black.
        asked: what the normals shall be: the views, or the explicit target.
        goal: the views; their coverage is what silhouettes are compared with.
        stage: weights.
        form: see `LayerLoss`.
    """
    coverage_off = (picture[..., 3] - goal[..., 3]).square()
    covered = (picture[..., 3].detach() > COVERED).to(picture)
    inside = (goal[..., 3] >= COVERED).to(picture)
    if form == "paper":
        normals_off = (picture[..., :3] - asked[..., :3]).square().sum(dim=-1)
        terms = (
            stage.background_weight * coverage_off.sum()
            + stage.normal_weight * (picture[..., 3].detach() * normals_off).sum()
        )
        return terms / inside.sum().clamp(min=1)
    channels = 3 if stage.explicit_target else 4
    off = (picture[..., :channels] - asked[..., :channels]).square().mean(dim=-1)
    return (
        stage.normal_weight * _mean_over(off, covered)
        + stage.background_weight * _mean_over(coverage_off, 1 - inside)
        + stage.uncovered_weight * _mean_over(coverage_off, inside)
    )


def _shape_terms(
    vertices: Tensor,
    faces: Tensor,
    targets: NormalTargets,
    goal: Tensor,
    backdrop: Backdrop,
    params: LayerParams,
    hair_mask: Tensor | None,
) -> Tensor:
    """Collision, expansion and the hair mask: terms of the first stage only."""
    loss = vertices.new_zeros(())
    if backdrop.inner is not None and params.collision_weight:
        loss = loss + params.collision_weight * collision_loss(
            vertices, backdrop.inner, params.collision_form
        )
    if params.isomer.coarse.expansion_weight:
        push = expansion_energy(vertices, faces)
        loss = loss + params.isomer.coarse.expansion_weight * push
    if hair_mask is not None:
        loss = loss + _hair_term(vertices, faces, targets, goal, backdrop, params, hair_mask)
    return loss


def _hair_term(
    vertices: Tensor,
    faces: Tensor,
    targets: NormalTargets,
    goal: Tensor,
    backdrop: Backdrop,
    params: LayerParams,
    hair_mask: Tensor,
) -> Tensor:
    """In the first view hair shall show inside its mask and nowhere else; fixed layers are black.

    Reference: released program, stage "reconstruct".
    """
    first = NormalTargets(targets.normals_world[:1], targets.masks[:1], targets.rig.select([0]))
    dark = replace(backdrop, colors=None if backdrop.colors is None else 0 * backdrop.colors)
    picture = _draw(vertices, faces, first, dark)[0]
    inside_off = (picture - goal[0]).square().mean(dim=-1)
    outside_off = picture[..., :3].square().mean(dim=-1)
    return params.hair_inside_weight * _mean_over(
        inside_off, hair_mask
    ) + params.hair_outside_weight * _mean_over(outside_off, 1 - hair_mask)


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def _fitted_mask(mask: Tensor | None, targets: NormalTargets) -> Tensor | None:
    """The hair mask at the size of the targets, 0 or 1; None when it shows nothing."""
    if mask is None:
        return None
    size = targets.masks.shape[1:]
    fitted = torch.nn.functional.interpolate(mask[None, None].to(targets.masks), size, mode="area")
    fitted = (fitted[0, 0] > COVERED).to(targets.masks)
    return fitted if bool(fitted.any()) else None


def _dilated(mesh: Mesh, backdrop: Backdrop, params: LayerParams) -> Mesh:
    if backdrop.inner is None or params.dilation is None:
        return mesh
    return mesh.with_vertices(dilate_layer(mesh.vertices, backdrop.inner, params.dilation))


def _pushed_out(mesh: Mesh, backdrop: Backdrop, params: LayerParams) -> Mesh:
    """What dilation left inside a fixed layer comes out."""
    inner = backdrop.mesh
    if inner is None or params.dilation is None:
        return mesh
    margin = params.dilation.margin
    return mesh.with_vertices(push_out(mesh.vertices, inner.vertices, inner.faces, margin))


def _tidy(mesh: Mesh, params: LayerParams) -> Mesh:
    """Smooth a little without shrinking, and drop crumbs."""
    if params.smoothing_rounds:
        mesh = mesh.with_vertices(
            taubin_smooth(mesh.vertices, mesh.faces, iterations=params.smoothing_rounds)
        )
    return drop_small_components(mesh, min_area_fraction=params.min_part_area)
