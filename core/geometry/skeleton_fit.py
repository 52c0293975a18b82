"""Contains the fitting of a humanoid skeleton to a body in A-pose, and skin weights.

The body is cut into voxels. Going up from the soles, the legs are apart until the crotch; arms are
apart from the trunk up to the armpits; the neck is the narrowest place above these. Axis order of
voxels is x (to the subject's left), y (up), z (front).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..mesh import Mesh
from .chart_segmentation import weld_positions
from .closest import closest_surface_points
from .edges import build_edges, neighbour_mean
from .skeleton import SIDES, Skeleton, SkinWeights, make_humanoid, strongest_four
from .voxelize import voxelize_solid

RESOLUTION = 128
FALLOFF = 6.0
SMOOTHING_ROUNDS = 12
LEAST_ARM_ROWS = 6
ELBOW, WRIST = 0.44, 0.82  # of the way from the shoulder to the tip of the hand
ANKLE_HEIGHT, HIP_LIFT = 0.04, 0.045  # of the body's height; of the hip above the crotch
SPINE, CHEST = 0.33, 0.66  # of the way from hips to neck


@dataclass(frozen=True)
class _Solid:
    """Voxels of a body, and where they are."""

    inside: Bool[Tensor, "x y z"]
    low: Float[Tensor, 3]
    cell: Float[Tensor, 3]

    def place(self, index: Float[Tensor, 3]) -> Float[Tensor, 3]:
        """World position of a (fractional) voxel index."""
        return self.low + (index + 0.5) * self.cell

    def row(self, height: float) -> int:
        """Voxel layer at a height."""
        index = int((height - float(self.low[1])) / float(self.cell[1]))
        return min(max(index, 0), self.inside.shape[1] - 1)

    def height(self, row: int) -> float:
        """Height of the middle of a layer."""
        return float(self.low[1] + (row + 0.5) * self.cell[1])


def fit_skeleton(body: Mesh) -> Skeleton:
    """Humanoid skeleton of a closed body that stands on its feet in A-pose, facing +Z.

    Raises:
        ValueError: legs, arms or neck cannot be told apart; the message says which.
    """
    if body.is_empty:
        raise ValueError("The body has no triangles; a skeleton needs a body to fit to.")
    solid = _voxels(body)
    rows = solid.inside.any(dim=2)  # [x, y]
    crotch, middle = _find_crotch(rows), rows.shape[0] // 2
    armpit = _find_armpit(rows, crotch)
    neck = _find_neck(rows, armpit, middle)
    low, high = body.bounds()
    places, tips = _trunk(solid, crotch, neck, float(high[1]))
    for side in SIDES:
        _add_leg(solid, side, crotch, places, tips)
        _add_arm(solid, side, armpit, neck, places, tips)
    return make_humanoid(places, tips)


def _voxels(body: Mesh) -> _Solid:
    low, high = body.bounds()
    middle = (low[0] + high[0]) / 2
    half = (high[0] - low[0]) / 2 * 1.02
    low, high = low.clone(), high.clone()
    low[0], high[0] = middle - half, middle + half
    inside = voxelize_solid(body, low, high, RESOLUTION)
    return _Solid(inside.cpu(), low.cpu(), ((high - low) / RESOLUTION).cpu())


def _runs(row: Bool[Tensor, " x"]) -> list[tuple[int, int]]:
    """First and last index of each run of filled voxels."""
    padded = torch.nn.functional.pad(row.int(), (1, 1)).diff()
    starts, ends = (padded == 1).nonzero()[:, 0], (padded == -1).nonzero()[:, 0] - 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _find_crotch(rows: Bool[Tensor, "x y"]) -> int:
    """Lowest layer above the feet whose middle is filled."""
    middle = rows.shape[0] // 2
    filled = rows[middle - 1 : middle + 1].any(dim=0)
    first = int(filled.int().argmax())
    if not bool(filled.any()) or first < 0.1 * rows.shape[1]:
        raise ValueError(
            "The legs are not apart: the body must stand with a gap between its legs, without a "
            "skirt. Give the body alone, not the clothes."
        )
    return first


def _find_armpit(rows: Bool[Tensor, "x y"], crotch: int) -> int:
    """Going up from the crotch, the last layer in which both arms are apart from the trunk.

    Higher up shoulders may stand beside the neck, which are no arms.
    """
    middle, armpit, count = rows.shape[0] // 2, -1, 0
    for y in range(crotch, rows.shape[1]):
        runs = _runs(rows[:, y])
        trunk = [run for run in runs if run[0] <= middle <= run[1]]
        apart = trunk and runs[0][1] < trunk[0][0] and runs[-1][0] > trunk[0][1]
        if apart:
            armpit, count = y, count + 1
        elif count >= LEAST_ARM_ROWS:
            return armpit
        else:
            count = 0
    raise ValueError(
        "No arms were found beside the trunk: an A-pose with arms 45 degrees down is needed."
    )


def _find_neck(rows: Bool[Tensor, "x y"], armpit: int, middle: int) -> int:
    """Layer above the armpits where the trunk is narrowest, below the widest of the head."""
    top = int(rows.any(dim=0).nonzero().max())
    widths = torch.tensor([float(_trunk_width(rows[:, y], middle)) for y in range(armpit, top + 1)])
    upper = widths[len(widths) // 3 :]  # the head is widest somewhere up here
    head = len(widths) // 3 + int(upper.argmax())
    if head < 3:
        raise ValueError("No neck was found between arms and head.")
    below = widths[:head]
    return armpit + int((below <= below.min() + 1).nonzero().float().mean().round())


def _trunk_width(row: Bool[Tensor, " x"], middle: int) -> int:
    return next((last - first + 1 for first, last in _runs(row) if first <= middle <= last), 0)


def _centre(solid: _Solid, row: int, first: int, last: int) -> Float[Tensor, 3]:
    """Middle of a layer's voxels between two columns."""
    x, z = solid.inside[first : last + 1, row].nonzero().float().mean(dim=0)
    return solid.place(torch.stack([x + first, torch.tensor(float(row)), z]))


def _trunk(
    solid: _Solid, crotch: int, neck: int, top: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    middle = solid.inside.shape[0] // 2
    lift = round(0.07 * solid.inside.shape[1])

    def at(row: int) -> Tensor:
        for first, last in _runs(solid.inside[:, row].any(dim=1)):
            if first <= middle <= last:
                return _centre(solid, row, first, last)
        return solid.place(torch.tensor([middle - 0.5, float(row), solid.inside.shape[2] / 2]))

    hips = crotch + lift
    places = {
        "hips": at(hips),
        "spine": at(round(hips + SPINE * (neck - hips))),
        "chest": at(round(hips + CHEST * (neck - hips))),
        "neck": at(neck),
        "head": at(neck + lift // 2),
    }
    for place in places.values():
        place[0] = solid.place(torch.tensor([middle - 0.5, 0.0, 0.0]))[0]
    tip = places["head"].clone()
    tip[1] = top
    return places, {"head": tip}


def _side_columns(solid: _Solid, side: str) -> tuple[int, int]:
    """Columns of a half: the subject's left is +X."""
    middle, count = solid.inside.shape[0] // 2, solid.inside.shape[0]
    return (middle, count - 1) if side == "left" else (0, middle - 1)


def _add_leg(
    solid: _Solid,
    side: str,
    crotch: int,
    places: dict[str, Tensor],
    tips: dict[str, Tensor],
) -> None:
    columns = _side_columns(solid, side)
    ankle_row = max(1, round(ANKLE_HEIGHT * solid.inside.shape[1]))
    below = max(crotch - 3, 1)
    hip = _centre(solid, below, *_leg_columns(solid, below, columns))
    hip_row = crotch + round(HIP_LIFT * solid.inside.shape[1])
    hip[1] = solid.height(hip_row)
    knee_row = min((hip_row + ankle_row) // 2, below)
    ankle = _centre(solid, 2 * ankle_row, *_leg_columns(solid, 2 * ankle_row, columns))
    ankle[1] = solid.height(ankle_row)
    places[side + "UpperLeg"] = hip
    places[side + "LowerLeg"] = _centre(solid, knee_row, *_leg_columns(solid, knee_row, columns))
    places[side + "Foot"] = ankle
    foot = solid.inside[columns[0] : columns[1] + 1, : ankle_row + 1].any(dim=0).any(dim=0)
    front = float(solid.place(torch.tensor([0.0, 0.0, float(foot.nonzero().max())]))[2])
    toes, tip = ankle.clone(), ankle.clone()
    toes[1] = tip[1] = solid.height(ankle_row // 2)
    toes[2] = ankle[2] + 0.6 * (front - float(ankle[2]))
    tip[2] = front
    places[side + "Toes"], tips[side + "Toes"] = toes, tip


def _leg_columns(solid: _Solid, row: int, columns: tuple[int, int]) -> tuple[int, int]:
    """The run of a half's layer that lies nearest to the middle: the leg, not a hand."""
    middle = solid.inside.shape[0] / 2
    filled = torch.zeros(solid.inside.shape[0], dtype=torch.bool)
    filled[columns[0] : columns[1] + 1] = solid.inside[columns[0] : columns[1] + 1, row].any(dim=1)
    runs = _runs(filled)
    if not runs:
        raise ValueError("A leg ends above the soles; give a body that stands on both feet.")
    return min(runs, key=lambda run: min(abs(run[0] - middle), abs(run[1] - middle)))


def _add_arm(
    solid: _Solid,
    side: str,
    armpit: int,
    neck: int,
    places: dict[str, Tensor],
    tips: dict[str, Tensor],
) -> None:
    outer = _arm_voxels(solid, side, armpit)
    tip = solid.place(outer[outer[:, 0].argmax() if side == "left" else outer[:, 0].argmin()])
    middle = solid.place(outer.mean(dim=0))
    # The centre line runs from the tip through the arm's middle up to the side of the trunk.
    run = next(
        run
        for run in _runs(solid.inside[:, armpit].any(dim=1))
        if run[0] <= solid.inside.shape[0] // 2 <= run[1]
    )
    edge = float(solid.place(torch.tensor([run[1] if side == "left" else run[0], 0.0, 0.0]))[0])
    centre_x = float(places["chest"][0])
    shoulder_x = centre_x + 0.95 * (edge - centre_x)
    slope = (middle - tip) / (middle[0] - tip[0])
    shoulder = tip + slope * (shoulder_x - tip[0])
    shoulder[1] = shoulder[1].clamp(max=float(places["neck"][1]))
    places[side + "UpperArm"] = shoulder
    places[side + "LowerArm"] = shoulder + ELBOW * (tip - shoulder)
    places[side + "Hand"] = shoulder + WRIST * (tip - shoulder)
    tips[side + "Hand"] = tip


def _arm_voxels(solid: _Solid, side: str, armpit: int) -> Float[Tensor, "voxel 3"]:
    """Voxels of an arm below the armpit: the outer run of each layer that has one."""
    middle, found = solid.inside.shape[0] // 2, []
    for y in range(armpit + 1):
        runs = _runs(solid.inside[:, y].any(dim=1))
        if not runs:
            continue
        run = runs[-1] if side == "left" else runs[0]
        is_apart = run[0] > middle if side == "left" else run[1] < middle
        inner = [other for other in runs if other != run and (
            other[1] < run[0] if side == "left" else other[0] > run[1])]  # fmt: skip
        is_arm = is_apart and any(
            first <= middle <= last or (first + last) / 2 * _sign(side) > middle * _sign(side)
            for first, last in inner
        )
        if is_arm:
            voxels = solid.inside[run[0] : run[1] + 1, y].nonzero()
            x = voxels[:, 0] + run[0]
            found.append(torch.stack([x, torch.full_like(x, y), voxels[:, 1]], dim=1))
    if not found:
        raise ValueError(f"The {side} arm was not found; an A-pose is needed.")
    return torch.cat(found).float()


def _sign(side: str) -> int:
    return 1 if side == "left" else -1


def bind_body(body: Mesh, skeleton: Skeleton) -> SkinWeights:
    """Smooth weights of a body: by distance from the bones, then spread over its edges.

    Limbs do not reach over the middle, however near the other leg stands.
    """
    table = _bone_distances(body.vertices, skeleton).clamp(min=1e-3) ** -FALLOFF
    table = table * _own_side(body.vertices, skeleton)
    table = table / table.sum(dim=1, keepdim=True)
    return strongest_four(_smoothed(table, body))


def bind_to_surface(
    part: Mesh,
    body: Mesh,
    skin: SkinWeights,
    num_joints: int,
    *,
    without: Sequence[int] = (),
) -> SkinWeights:
    """Weights of an outer part: those of the nearest place on the body, smoothed over its edges.

    Args:
        part: what is bound.
        body: what it lies on.
        skin: weights of the body's vertices.
        num_joints: of the skeleton.
        without: joints that shall not move the part, nor the places on the body that they move
            most; ignored where no other place is left.
    """
    if part.is_empty:
        return strongest_four(part.vertices.new_zeros(part.num_vertices, num_joints))
    weights = skin.dense(num_joints)
    faces = body.faces
    barred = weights[:, list(without)].sum(dim=1)
    kept = (barred[faces] < 0.5).all(dim=1)
    if bool(kept.any()):
        faces = faces[kept]
        weights = weights.index_fill(1, torch.tensor(without, dtype=torch.int64), 0.0)
    nearest = closest_surface_points(part.vertices, body.vertices, faces)
    table = nearest.interpolate(weights, faces)
    table = table / table.sum(dim=1, keepdim=True).clamp(min=1e-6)
    return strongest_four(_smoothed(table, part))


def _smoothed(table: Float[Tensor, "vertex joint"], mesh: Mesh) -> Float[Tensor, "vertex joint"]:
    """Weights spread over the edges; those of one place stay equal, or texture seams would open."""
    place = weld_positions(mesh.vertices)
    faces = place[mesh.faces]
    distinct = (faces != faces.roll(1, dims=1)).all(dim=1)
    edges = build_edges(faces[distinct]).edges
    count = int(place.max()) + 1
    shared = table.new_zeros(count, table.shape[1]).index_add(0, place, table)
    shared = shared / torch.bincount(place, minlength=count)[:, None]
    for _ in range(SMOOTHING_ROUNDS):
        shared = 0.5 * (shared + neighbour_mean(shared, edges))
    return shared[place]


def _own_side(points: Float[Tensor, "point 3"], skeleton: Skeleton) -> Bool[Tensor, "point joint"]:
    """False for joints of the other half."""
    signs = points.new_tensor(
        [(1 if name.startswith("left") else -1 if name.startswith("right") else 0)
         for name in skeleton.names]
    )  # fmt: skip
    across = points[:, :1] - skeleton.positions[0, 0].to(points)
    return across * signs >= 0


def _bone_distances(
    points: Float[Tensor, "point 3"], skeleton: Skeleton
) -> Float[Tensor, "point joint"]:
    start, axis = skeleton.positions.to(points), (skeleton.tips - skeleton.positions).to(points)
    offset = points[:, None] - start
    along = (offset * axis).sum(dim=-1) / axis.square().sum(dim=-1).clamp(min=1e-12)
    return (offset - along.clamp(0, 1)[..., None] * axis).norm(dim=-1)
