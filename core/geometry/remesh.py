"""Contains continuous remeshing: optimise a mesh by gradients while its triangles follow the shape.

`remesh` is one pass of collapse, split and flip over a mesh; `MeshOptimizer` alternates it with the
steps of `mesh_adam`. Meshes stay manifold, and watertight when they were; their topology is kept.

Reference: Palfinger 2022, "Continuous remeshing for inverse rendering".
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .._checks import require_finite, require_floating, require_shape
from .edges import EdgeTable, build_edges, edge_lengths
from .mesh_adam import MeshAdamState, MeshOptimizerParams, adam_step, initial_state
from .normals import vertex_normals
from .remesh_collapse import (
    bad_faces,
    collapse_priorities,
    draw_sides,
    merge_vertices,
    select_collapses,
)
from .remesh_flip import flip_edges
from .remesh_split import split_edges
from .repair import is_manifold

__all__ = ["MeshAdamState", "MeshOptimizer", "MeshOptimizerParams", "remesh"]


def remesh(
    columns: Float[Tensor, "vertex channel"],
    faces: Int64[Tensor, "face 3"],
    *,
    min_length: Float[Tensor, " vertex"],
    max_length: Float[Tensor, " vertex"],
    normals: Float[Tensor, "vertex 3"] | None = None,
    shortest_probability: float = 1.0,
    generator: torch.Generator | None = None,
    max_vertices: int = 1_000_000,
    table: EdgeTable | None = None,
) -> tuple[Float[Tensor, "new_vertex channel"], Int64[Tensor, "new_face 3"]]:
    """One pass: collapse short edges and bad faces, split long edges, flip to even degrees.

    Args:
        columns: all that vertices carry, positions first; merged and split vertices get the mean.
        faces: of a manifold mesh; may have boundaries.
        min_length: edges below the mean of this at their ends collapse.
        max_length: edges above the mean of this at their ends are split. A merged vertex keeps the
            limit of the vertex with the lower number.
        normals: unit normals that faces should agree with (before the last move); None: now.
        shortest_probability: chance that a bad face gives up its shortest side.
        generator: of these choices, on the CPU.
        max_vertices: the longest edges are split first, up to this count.
        table: edges of the mesh, if known already.
    """
    table = build_edges(faces) if table is None else table
    vertices = columns[:, :3]
    normals = vertex_normals(vertices, faces) if normals is None else normals
    is_bad = bad_faces(vertices, faces, normals, min_length)
    sides = draw_sides(int(is_bad.sum()), shortest_probability, generator).to(faces.device)
    priorities = collapse_priorities(
        vertices, faces, table, is_bad=is_bad, sides=sides, min_length=min_length
    )
    pairs = select_collapses(faces, table, priorities, len(columns))
    if len(pairs):
        columns, faces, left = merge_vertices(columns, faces, pairs)
        max_length, table = max_length[left], build_edges(faces)

    is_split = _too_long(columns[:, :3], table, max_length, max_vertices)
    if bool(is_split.any()):
        columns, faces = split_edges(columns, faces, table, is_split)
        table = build_edges(faces)
    return columns, flip_edges(columns[:, :3], faces, table)


def _too_long(
    vertices: Float[Tensor, "vertex 3"],
    table: EdgeTable,
    max_length: Float[Tensor, " vertex"],
    max_vertices: int,
) -> Tensor:
    lengths = edge_lengths(vertices, table.edges)
    start, end = table.edges.unbind(1)
    excess = lengths - (max_length[start] + max_length[end]) / 2
    is_split = excess > 0
    room = max(0, max_vertices - len(vertices))
    if int(is_split.sum()) > room:
        order = torch.argsort(excess, descending=True, stable=True)
        is_split[order[room:]] = False
    return is_split


class MeshOptimizer:
    """Optimises the vertices of a mesh and remeshes it as it goes.

    In each iteration: `zero_grad`, a loss of `vertices` and `faces`, ``loss.backward()``, `step`,
    `remesh`. The tensors are new objects after `step` and `remesh`: fetch them again.

    Attributes:
        params: settings.
        learning_rate: may be changed between steps, for schedules.
    """

    def __init__(
        self,
        vertices: Float[Tensor, "vertex 3"],
        faces: Int64[Tensor, "face 3"],
        params: MeshOptimizerParams | None = None,
        *,
        attributes: Float[Tensor, "vertex channel"] | None = None,
        state: MeshAdamState | None = None,
    ) -> None:
        """Start from a manifold mesh.

        Args:
            vertices: positions in world units; copied.
            faces: counter-clockwise; closed, or with boundaries.
            params: settings; None for the defaults.
            attributes: values per vertex that are carried along and interpolated.
            state: of an earlier run, to go on with it.

        Raises:
            ValueError: the mesh is empty, not manifold or has NaN; `repair.repair_mesh` helps.
        """
        self.params = MeshOptimizerParams() if params is None else params
        _require_sound(vertices, faces)
        self._faces = faces.clone()
        self._table = build_edges(faces)
        self._set_vertices(vertices.detach().clone())
        if attributes is not None:
            require_shape("attributes", attributes, len(vertices), None)
        self._attributes = (
            vertices.new_zeros((len(vertices), 0)) if attributes is None else attributes.detach()
        )
        self._state = self._first_state() if state is None else state
        self._normals: Tensor | None = None
        self._generator = torch.Generator().manual_seed(self.params.seed)
        self.learning_rate = self.params.learning_rate

    @property
    def vertices(self) -> Float[Tensor, "vertex 3"]:
        """Present positions, a leaf that requires a gradient."""
        return self._vertices

    @property
    def faces(self) -> Int64[Tensor, "face 3"]:
        """Present faces."""
        return self._faces

    @property
    def attributes(self) -> Float[Tensor, "vertex channel"]:
        """Attributes at the present vertices."""
        return self._attributes

    @property
    def state(self) -> MeshAdamState:
        """What the optimiser remembers."""
        return self._state

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self._vertices.grad = None

    def step(self) -> None:
        """Move the vertices against their gradient.

        Raises:
            ValueError: there is no gradient, or it is not finite.
        """
        gradient = self._vertices.grad
        if gradient is None:
            raise ValueError("The vertices have no gradient; call backward() on a loss of them.")
        require_finite("The gradient of the vertices", gradient)
        with torch.no_grad():
            vertices = self._vertices.detach()
            self._normals = vertex_normals(vertices, self._faces)
            moved, self._state = adam_step(
                vertices,
                gradient,
                self._table.edges,
                self._state,
                self.params,
                learning_rate=self.learning_rate,
            )
        self._set_vertices(moved)

    def remesh(self) -> tuple[Float[Tensor, "vertex 3"], Int64[Tensor, "face 3"]]:
        """Collapse, split and flip edges by the present reference lengths.

        Returns:
            The new vertices (a leaf) and faces.
        """
        tolerance = self.params.edge_length_tolerance
        reference = self._state.reference_length
        with torch.no_grad():
            state_columns = self._state.columns()
            columns, faces = remesh(
                torch.cat([self._vertices.detach(), state_columns, self._attributes], dim=1),
                self._faces,
                min_length=reference * (1 - tolerance),
                max_length=reference * (1 + tolerance),
                normals=self._normals,
                shortest_probability=self.params.shortest_probability,
                generator=self._generator,
                max_vertices=self.params.max_vertices,
                table=self._table,
            )
        last = 3 + state_columns.shape[1]
        self._faces, self._table, self._normals = faces, build_edges(faces), None
        self._state = self._state.with_columns(columns[:, 3:last])
        self._attributes = columns[:, last:]
        self._set_vertices(columns[:, :3].clone())
        return self._vertices, self._faces

    def _set_vertices(self, vertices: Tensor) -> None:
        self._vertices = vertices.requires_grad_()

    def _first_state(self) -> MeshAdamState:
        vertices = self._vertices.detach()
        length = self.params.initial_edge_length
        if length is None:
            length = float(edge_lengths(vertices, self._table.edges).mean())
        low, high = self.params.edge_length_limits
        return initial_state(vertices, min(max(length, low), high))


def _require_sound(vertices: Tensor, faces: Tensor) -> None:
    require_shape("vertices", vertices, None, 3)
    require_floating("vertices", vertices)
    require_finite("vertices", vertices)
    require_shape("faces", faces, None, 3)
    if not len(faces):
        raise ValueError("A mesh without faces cannot be optimised; give a mesh with a surface.")
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= len(vertices):
        raise ValueError(
            f"faces point at vertices {low}..{high}, but there are {len(vertices)} vertices."
        )
    if not is_manifold(faces):
        raise ValueError(
            "The mesh is not manifold (an edge with more than two faces, a vertex where two sheets "
            "touch, or a face that is degenerate or stands twice); run repair_mesh on it first."
        )
