"""Contains a mesh as a target of distillation: its vertices, and vertex colours or a texture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..camera import ViewRig
from ..geometry.edges import build_edges, edge_lengths, neighbour_mean
from ..mesh import Mesh
from ..rendering.mesh import render_mesh
from .adam_parameters import AdamParameters
from .distill_target import Drawn, State


@dataclass(frozen=True)
class MeshTargetParams:
    """What of a mesh is optimised, and how.

    Attributes:
        vertex_rate: first and last step of the vertices, in mean edge lengths; (0, 0) keeps the
            shape.
        color_rate: first and last step of colours or texels, which lie within 0..1.
        smoothness: weight of the squared distance of vertices from the mean of their neighbours,
            in mean edge lengths.
    """

    vertex_rate: tuple[float, float] = (0.05, 0.005)
    color_rate: tuple[float, float] = (0.02, 0.004)
    smoothness: float = 1.0

    def __post_init__(self) -> None:
        if min(*self.vertex_rate, self.smoothness) < 0 or min(self.color_rate) <= 0:
            raise ValueError(
                "vertex_rate and smoothness must not be negative and color_rate positive, got "
                f"{self.vertex_rate}, {self.smoothness} and {self.color_rate}."
            )

    @property
    def moves_vertices(self) -> bool:
        """Whether the shape changes."""
        return min(self.vertex_rate) > 0


class MeshTarget:
    """A mesh under distillation; see `DistillationTarget`.

    A textured mesh keeps its texture coordinates and changes texels; another one changes its
    vertex colours, grey at first where it has none.
    """

    def __init__(self, mesh: Mesh, params: MeshTargetParams, *, iterations: int) -> None:
        """Start from a copy of a mesh.

        Raises:
            ValueError: it has no faces.
        """
        if mesh.is_empty:
            raise ValueError("The mesh has no faces, so there is nothing to optimise.")
        self.params = params
        self._mesh = mesh
        self._edges = build_edges(mesh.faces).edges
        self._edge_length = float(edge_lengths(mesh.vertices.detach(), self._edges).mean())
        values = {"colors": _first_colors(mesh)}
        rates = {"colors": params.color_rate}
        if params.moves_vertices:
            values["vertices"] = mesh.vertices
            first, last = params.vertex_rate
            rates["vertices"] = (first * self._edge_length, last * self._edge_length)
        self._adam = AdamParameters(values, rates, iterations)

    @property
    def device(self) -> torch.device:
        """Where the mesh lives."""
        return self._mesh.vertices.device

    @property
    def collapses(self) -> int:
        """A mesh keeps its faces: always 0."""
        return 0

    @property
    def is_presentable(self) -> bool:
        """Always: nothing disturbs a mesh on purpose."""
        return True

    def draw(
        self,
        rig: ViewRig,
        size_px: int,
        backgrounds: Float[Tensor, "view 3"],
        generator: torch.Generator,
    ) -> Drawn:
        """Pictures with gradients to vertices and colours."""
        mesh = self._current()
        drawn = render_mesh(
            mesh, rig, width=size_px, height=size_px, background=backgrounds[:, None, None]
        )
        return Drawn(drawn.rgb, drawn.alpha, drawn.depth, self._roughness(mesh.vertices))

    def _roughness(self, vertices: Tensor) -> Tensor:
        if not self.params.moves_vertices or not self.params.smoothness:
            return vertices.new_zeros(())
        offset = (neighbour_mean(vertices, self._edges) - vertices) / self._edge_length
        return self.params.smoothness * offset.square().sum(dim=1).mean()

    def _current(self) -> Mesh:
        vertices = self._mesh.vertices
        if self.params.moves_vertices:
            vertices = self._adam["vertices"]
        moved = self._mesh.with_vertices(vertices)
        if self._mesh.texture is not None:
            return replace(moved, texture=self._adam["colors"])
        return replace(moved, vertex_colors=self._adam["colors"])

    def update(self) -> bool:
        """Step and keep colours within 0..1; False if a gradient is not finite."""
        if not self._adam.step():
            return False
        with torch.no_grad():
            self._adam["colors"].clamp_(0, 1)
        return True

    def discard(self) -> None:
        """Forget the gradients."""
        self._adam.discard()

    @torch.no_grad()
    def look(self, rig: ViewRig, size_px: int) -> Float[Tensor, "view height width 3"]:
        """Pictures on white."""
        return render_mesh(self._current(), rig, width=size_px, height=size_px).rgb.clamp(0, 1)

    def describe(self) -> str:
        """Number of faces."""
        return f"{self._mesh.num_faces} faces"

    @torch.no_grad()
    def mesh(self) -> Mesh:
        """Copy of the present mesh."""
        return self._current().clone()

    def state(self) -> State:
        """Copy of vertices, colours and moments."""
        return self._adam.state()

    def restore(self, state: State, *, keep_clock: bool = False) -> None:
        """Go on from a saved state."""
        self._adam.restore(state, keep_clock=keep_clock)


def _first_colors(mesh: Mesh) -> Tensor:
    if mesh.texture is not None:
        return mesh.texture
    if mesh.vertex_colors is not None:
        return mesh.vertex_colors
    return torch.full_like(mesh.vertices, 0.5)
