"""Contains procedural characters in layers: a body with face and shoes, hollow clothes, and hair.

Each is a set of signed distances, so shape, class and colour are known at any point of space; that
is what reconstruction models are trained on, and what refinement is measured against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..geometry.components import drop_small_components
from ..geometry.isosurface import extract_isosurface
from ..mesh import Mesh
from ..progress import Progress, ProgressCallback, ignore_progress
from .character_style import CharacterJoints, CharacterStyle, Place, draw_style, place_joints
from .materials import Color, tint
from .solid_fields import (
    above,
    below,
    cut,
    ellipsoid,
    flattened,
    hollow_cone,
    left_half,
    round_cone,
    union,
)

CharacterPart = Literal["body", "clothes", "hair"]
CHARACTER_PARTS: tuple[CharacterPart, ...] = ("body", "clothes", "hair")
LOWER = (-0.7, -1.05, -0.5)
UPPER = (0.7, 1.05, 0.5)
GAP = 0.008  # between the layers
CHUNK = 1 << 17
BLOCK = 5  # fine cells per coarse one
CRUMB = 0.004
CHEST_DEPTH = 0.72
HEAD_CENTRE_Y = 0.66


class CharacterLabel(IntEnum):
    """Classes in the order of S-LRM."""

    HAIR = 0
    FACE = 1
    SKIN = 2
    CLOTHES = 3


LABEL_NAMES = tuple(label.name.lower() for label in CharacterLabel)


@dataclass(frozen=True)
class ProceduralCharacter:
    """A character; see `make_character`.

    Attributes:
        seed: what it was made from.
        style: sizes, outfit and colours.
        joints: of the skeleton.
    """

    seed: int
    style: CharacterStyle
    joints: CharacterJoints

    def distances(self, points: Float[Tensor, "point 3"]) -> dict[str, Float[Tensor, " point"]]:
        """Signed distance of each layer; layers do not overlap, and clothes are hollow."""
        body = self._body(points)
        coat = self._garments(points)
        hair = self._hair(points)
        return {
            "body": body,
            "clothes": cut(coat, body - GAP),
            "hair": cut(hair, body - GAP, coat - GAP),
        }

    def solid(
        self, points: Float[Tensor, "point 3"]
    ) -> tuple[Float[Tensor, " point"], Int64[Tensor, " point"]]:
        """Signed distance of the whole without gaps between layers, and the class of each point.

        Outside, the class is that of the nearest layer.
        """
        body, coat, hair = self._body(points), self._garments(points), self._hair(points)
        # The inner layer owns what several share.
        label = torch.where(hair < coat, CharacterLabel.HAIR.value, CharacterLabel.CLOTHES.value)
        label = torch.where((coat < 0) & (hair < 0), CharacterLabel.CLOTHES.value, label)
        outer = torch.minimum(coat, hair)
        label = torch.where((body < 0) | (body < outer), self.body_labels(points), label)
        return torch.minimum(body, outer), label

    def body_labels(self, points: Float[Tensor, "point 3"]) -> Int64[Tensor, " point"]:
        """Class of points of the body: face or skin."""
        return torch.where(
            self._is_face(points), CharacterLabel.FACE.value, CharacterLabel.SKIN.value
        )

    def colors(
        self, points: Float[Tensor, "point 3"], labels: Int64[Tensor, " point"]
    ) -> Float[Tensor, "point 3"]:
        """Colour of points of the given classes, sRGB."""
        body = self._body_colors(points)
        table = {CharacterLabel.HAIR: self._hair_colors, CharacterLabel.CLOTHES: self._cloth_colors}
        for label, paint in table.items():
            body = torch.where((labels == label)[:, None], paint(points), body)
        return body

    # -- shapes ------------------------------------------------------------------------------

    def _body(self, points: Tensor) -> Tensor:
        j, w, folded = self.joints, self.style.width, left_half(points)
        trunk = CHEST_DEPTH * union(
            [
                round_cone(flattened(points, CHEST_DEPTH), j.hips, j.spine, 0.135 * w, 0.115 * w),
                round_cone(flattened(points, CHEST_DEPTH), j.spine, j.chest, 0.115 * w, 0.145 * w),
                round_cone(flattened(folded, CHEST_DEPTH), j.chest, j.shoulder, 0.1 * w, 0.065 * w),
            ],
            0.05,
        )
        limbs = [
            round_cone(folded, j.shoulder, j.elbow, 0.055 * w, 0.045 * w),
            round_cone(folded, j.elbow, j.wrist, 0.045 * w, 0.034 * w),
            round_cone(folded, j.wrist, j.hand_tip, 0.04 * w, 0.03 * w),
            round_cone(folded, j.hip, j.knee, 0.088 * w, 0.06 * w),
            round_cone(folded, j.knee, j.ankle, 0.06 * w, 0.042 * w),
            round_cone(folded, (j.ankle[0], SHOE_Y, -0.03), j.toe, 0.058, 0.05),
            round_cone(points, j.neck, j.head, 0.05 * w, 0.05 * w),
        ]  # fmt: skip
        head = ellipsoid(points, self._head_centre, self._head_axes)
        nose = round_cone(
            points, self._on_face(0.0, -0.05), self._on_face(0.0, -0.09), 0.012, 0.018
        )
        body = union([trunk, *limbs, head, nose], 0.03)
        return torch.maximum(body, above(points, -0.998))

    def _garments(self, points: Tensor) -> Tensor:
        pieces = [self._top(points), self._lower(points)]
        if self.style.scarf:
            ring = (points[:, [0, 2]].norm(dim=1) - 0.08).square() + (points[:, 1] - 0.46).square()
            pieces.append(ring.clamp(min=1e-12).sqrt() - 0.035)
        return union(pieces, 0.01)

    def _top(self, points: Tensor) -> Tensor:
        j, w, t = self.joints, self.style.width, self.style.thickness
        flat, folded = flattened(points, CHEST_DEPTH), left_half(points)
        trunk = CHEST_DEPTH * union(
            [
                round_cone(flat, j.hips, j.spine, 0.14 * w, 0.118 * w),
                round_cone(flat, j.spine, j.chest, 0.118 * w, 0.15 * w),
                round_cone(flattened(folded, CHEST_DEPTH), j.chest, j.shoulder, 0.1 * w, 0.068 * w),
            ],
            0.05,
        )
        arm = torch.tensor(j.wrist) - torch.tensor(j.shoulder)
        end = (torch.tensor(j.shoulder) + self.style.sleeve * arm).tolist()
        radius = (0.058 - 0.02 * self.style.sleeve) * w + 0.006
        sleeve = round_cone(folded, j.shoulder, end, 0.058 * w, radius)
        direction = (arm / arm.norm()).to(points)
        past_cuff = (folded - folded.new_tensor(end)) @ direction
        sleeve = torch.maximum(sleeve - t, past_cuff)
        coat = union([trunk - t, sleeve], 0.02)
        # Cut round the neck and at the hem.
        return torch.maximum(torch.maximum(coat, below(points, 0.455)), above(points, -0.1))

    def _lower(self, points: Tensor) -> Tensor:
        j, w, t = self.joints, self.style.width, self.style.thickness
        if self.style.lower in ("skirt", "long_skirt"):
            hem = -0.36 if self.style.lower == "skirt" else -0.75
            return hollow_cone(points, 0.06, hem, 0.13 * w + t, self.style.flare, t)
        folded = left_half(points)
        hem = -0.38 if self.style.lower == "shorts" else -0.86
        legs = union(
            [
                CHEST_DEPTH
                * round_cone(flattened(points, CHEST_DEPTH), j.hips, j.spine, 0.137 * w, 0.116 * w),
                round_cone(folded, j.hip, j.knee, 0.09 * w, 0.064 * w),
                round_cone(folded, j.knee, j.ankle, 0.064 * w, 0.055 * w),
            ],
            0.03,
        )
        return torch.maximum(torch.maximum(legs - 0.8 * t, below(points, 0.03)), above(points, hem))

    def _hair(self, points: Tensor) -> Tensor:
        cx, cy, cz = self._head_centre
        ax, ay, az = self._head_axes
        cap = ellipsoid(points, (cx, cy + 0.02, cz - 0.02), (ax + 0.045, ay + 0.045, az + 0.05))
        face = ellipsoid(points, (0.0, cy - 0.1, az), (0.82 * ax, 0.78 * ay, 0.75 * az))
        fringe_end = self._on_face(0.07, 0.035)
        fringe = union(
            [
                round_cone(left_half(points), (0.03, cy + ay, 0.08), fringe_end, 0.05, 0.022),
                round_cone(points, (0.0, cy + ay, 0.08), self._on_face(0.0, 0.05), 0.05, 0.02),
            ],
            0.02,
        )
        under = cut(cap, face, below(points, cy - 0.12))
        return union([under, fringe, *self._tresses(points)], 0.03)

    def _tresses(self, points: Tensor) -> list[Tensor]:
        ax, ay, az = self._head_axes
        cy, end = HEAD_CENTRE_Y, 0.45 - self.style.hair_length
        back, folded = (0.0, cy + 0.02, -az), left_half(points)
        if self.style.hair == "short":
            return []
        if self.style.hair == "ponytail":
            bend = (0.0, cy - 0.1, -az - 0.16)
            return [
                round_cone(points, (0.0, cy + 0.1, -az), bend, 0.06, 0.085),
                round_cone(points, bend, (0.0, end, -az - 0.12), 0.085, 0.03),
            ]
        if self.style.hair == "twin_tails":
            knot, bend = (ax + 0.03, cy + 0.08, -0.05), (ax + 0.14, cy - 0.12, -0.08)
            return [
                round_cone(folded, knot, bend, 0.05, 0.075),
                round_cone(folded, bend, (ax + 0.12, end, -0.1), 0.075, 0.025),
            ]
        low = end if self.style.hair == "long" else 0.45
        sheet = union(
            [
                round_cone(flattened(points, 0.5, -az), back, (0.0, low, -az), 0.17, 0.15),
                round_cone(flattened(folded, 0.5, -az), back, (0.1, low + 0.03, -az), 0.16, 0.11),
            ],
            0.05,
        )
        sides = round_cone(folded, (ax, cy, -0.02), (ax + 0.005, 0.47, 0.0), 0.045, 0.025)
        return [0.5 * sheet, sides]

    @property
    def _head_centre(self) -> Place:
        return (0.0, HEAD_CENTRE_Y, 0.01)

    @property
    def _head_axes(self) -> Place:
        s = self.style.head
        return (0.175 * s, 0.215 * s, 0.185 * s)

    def _on_face(self, x: float, y: float) -> Place:
        """Place on the front of the head, by its offset from the head's centre."""
        ax, ay, az = self._head_axes
        cx, cy, cz = self._head_centre
        depth = math.sqrt(max(1 - (x / ax) ** 2 - (y / ay) ** 2, 0.0))
        return (x, cy + y, cz + az * depth)

    def _is_face(self, points: Tensor) -> Tensor:
        cy, (ax, ay, _) = HEAD_CENTRE_Y, self._head_axes
        return (
            (points[:, 1] > cy - 1.1 * ay) & (points[:, 0].abs() < 1.5 * ax) & (points[:, 1] > 0.46)
        )

    # -- colours -----------------------------------------------------------------------------

    def _body_colors(self, points: Tensor) -> Tensor:
        style, folded = self.style, left_half(points)
        colors = _plain(points, style.skin)
        on_front = points[:, 2] > 0.4 * self._head_axes[2]
        spots = [
            ((0.075, -0.02), (0.036, 0.042), (0.98, 0.98, 0.98)),
            ((0.072, -0.022), (0.026, 0.036), style.eyes),
            ((0.072, -0.02), (0.012, 0.018), (0.05, 0.05, 0.08)),
            ((0.075, 0.045), (0.034, 0.006), tint(style.hair_color, -0.3)),
            ((0.0, -0.125), (0.03, 0.007), (0.75, 0.3, 0.3)),
            ((0.1, -0.075), (0.025, 0.014), _mixed(style.skin, (0.95, 0.5, 0.5), 0.35)),
        ]
        for (x, y), (width, height), color in spots:
            reach = ((folded[:, 0] - x) / width) ** 2 + (
                (folded[:, 1] - HEAD_CENTRE_Y - y) / height
            ) ** 2
            colors = _painted(colors, on_front & (reach < 1), color)
        shoe = points[:, 1] < SHOE_TOP
        sole = points[:, 1] < -0.975
        colors = _painted(colors, shoe, style.shoes)
        return _painted(colors, sole, tint(style.shoes, 0.35))

    def _cloth_colors(self, points: Tensor) -> Tensor:
        style, y = self.style, points[:, 1]
        is_lower = (y < -0.08) | ((y < 0.03) & (self._lower(points) <= self._top(points)))
        colors = torch.where(
            is_lower[:, None], _plain(points, style.bottom), _plain(points, style.top)
        )
        belt = (y > -0.1) & (y < -0.06) & (points[:, 0].abs() < 0.3)
        colors = _painted(colors, belt, style.trim)
        buttons = (points[:, 0].abs() < 0.012) & (points[:, 2] > 0) & (y > 0.05)
        colors = _painted(colors, buttons, tint(style.top, -0.35))
        if style.scarf:
            colors = _painted(colors, (y > 0.42) & (points[:, 0].abs() < 0.14), style.trim)
        return colors

    def _hair_colors(self, points: Tensor) -> Tensor:
        wave = torch.sin(60 * points[:, 0] + 12 * torch.sin(9 * points[:, 1])) > 0.75
        colors = _plain(points, self.style.hair_color)
        return _painted(colors, wave, tint(self.style.hair_color, 0.18))


SHOE_Y = -0.945
SHOE_TOP = -0.885


def make_character(seed: int) -> ProceduralCharacter:
    """Character of a seed, in A-pose, about 2 high, inside the box `LOWER` .. `UPPER`."""
    style = draw_style(seed)
    return ProceduralCharacter(seed, style, place_joints(style))


@torch.no_grad()
def character_meshes(
    character: ProceduralCharacter,
    *,
    cell: float = 0.014,
    on_progress: ProgressCallback = ignore_progress,
) -> dict[CharacterPart, Mesh]:
    """Closed, manifold, coloured mesh of each layer, from the inside out.

    Args:
        character: see `make_character`.
        cell: spacing of the samples; the clothes' fabric is about three of the default cells.
        on_progress: called after the sampling and after each layer; may raise to interrupt.
    """
    if not 0.005 <= cell <= 0.03:
        raise ValueError(f"cell must lie within 0.005..0.03 world units, got {cell}.")
    layers = _sample_layers(character, cell)
    stages = 1 + len(CHARACTER_PARTS)
    on_progress(Progress(1, stages, "shapes sampled"))
    meshes = {}
    for done, part in enumerate(CHARACTER_PARTS, start=2):
        vertices, faces = extract_isosurface(layers[part], LOWER, UPPER)
        mesh = drop_small_components(Mesh(vertices, faces, name=part), min_area_fraction=CRUMB)
        meshes[part] = replace(mesh, vertex_colors=_part_colors(character, part, mesh.vertices))
        on_progress(Progress(done, stages, f"made the {part}"))
    return meshes


def _sample_layers(
    character: ProceduralCharacter, cell: float
) -> dict[str, Float[Tensor, "x y z"]]:
    """Distances on a grid; exact near the surfaces, interpolated from a coarse grid elsewhere."""
    blocks = [round((high - low) / (BLOCK * cell)) for low, high in zip(LOWER, UPPER, strict=True)]
    coarse_points = _grid_points([count + 1 for count in blocks])
    coarse = _in_chunks(character, coarse_points.reshape(-1, 3))
    shape = tuple(BLOCK * count + 1 for count in blocks)
    fine_points = _grid_points(shape)
    reach = 1.2 * BLOCK * cell * math.sqrt(3)
    is_near = torch.zeros(shape, dtype=torch.bool)
    layers = {}
    for part, values in coarse.items():
        volume = values.reshape(1, 1, *coarse_points.shape[:3])
        layers[part] = torch.nn.functional.interpolate(
            volume, shape, mode="trilinear", align_corners=True
        )[0, 0]
        is_near |= layers[part].abs() < reach
    exact = _in_chunks(character, fine_points[is_near])
    for part, values in exact.items():
        layers[part][is_near] = values
    return layers


def _grid_points(counts: Sequence[int]) -> Float[Tensor, "x y z 3"]:
    axes = [
        torch.linspace(low, high, count)
        for low, high, count in zip(LOWER, UPPER, counts, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _in_chunks(character: ProceduralCharacter, points: Tensor) -> dict[str, Tensor]:
    parts = [character.distances(chunk) for chunk in points.split(CHUNK)]
    return {part: torch.cat([layer[part] for layer in parts]) for part in CHARACTER_PARTS}


def _part_colors(character: ProceduralCharacter, part: str, points: Tensor) -> Tensor:
    label = {"body": CharacterLabel.SKIN, "clothes": CharacterLabel.CLOTHES}.get(
        part, CharacterLabel.HAIR
    )
    labels = torch.full((len(points),), int(label))
    return character.colors(points, labels)


def _plain(points: Tensor, color: Color) -> Tensor:
    return points.new_tensor(color).expand(len(points), 3)


def _painted(colors: Tensor, where: Tensor, color: Color) -> Tensor:
    return torch.where(where[:, None], colors.new_tensor(color), colors)


def _mixed(first: Color, second: Color, share: float) -> Color:
    mixed = [a + share * (b - a) for a, b in zip(first, second, strict=True)]
    return (mixed[0], mixed[1], mixed[2])
