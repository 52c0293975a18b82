"""Contains the division of a surface into flat-looking parts that can be unfolded one by one.

Faces are clustered by normal and position (k-means), clusters are cut into connected parts, and
neighbouring parts are merged for as long as all their faces look roughly one way.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .normals import face_normals
from .transforms import normalize

LLOYD_SAMPLES = 10_000
LLOYD_ROUNDS = 8
SMOOTHING_ROUNDS = 3
SPLITTING_ROUNDS = 4
FACES_PER_SEED = 1_000
STEEPEST_COSINE = math.cos(math.radians(75.0))
MAX_STEEP_SHARE = 0.01
"""A part may have this share of its area outside the cone, which saves many tiny charts."""
POSITION_WEIGHT = 1.0
"""Weight of positions (in units of the bounding box diagonal) against unit normals."""


@dataclass(frozen=True)
class FaceLinks:
    """Pairs of faces that continue each other across an edge, and that edge's length."""

    pairs: Int64[Tensor, "link 2"]
    lengths: Float[Tensor, " link"]


def weld_positions(vertices: Float[Tensor, "vertex 3"]) -> Int64[Tensor, " vertex"]:
    """Index of the position of each vertex: vertices at one place share it."""
    if not len(vertices):
        return torch.zeros(0, dtype=torch.int64, device=vertices.device)
    return torch.unique(vertices.detach(), dim=0, return_inverse=True)[1]


def link_faces(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    *,
    min_cosine: float = 0.0,
) -> FaceLinks:
    """Faces that share an edge in opposite directions and bend by less than ``min_cosine``.

    Edges are matched by position, so seams do not cut; sheets lying on each other stay apart.
    """
    normals = face_normals(vertices, faces)
    welded = weld_positions(vertices)[faces]
    start, end = welded.reshape(-1), welded.roll(-1, dims=1).reshape(-1)
    stride = len(vertices) + 1
    key, order = torch.sort(torch.minimum(start, end) * stride + torch.maximum(start, end))
    found = []
    for ahead in (1, 2, 3):  # more than four faces at an edge are not all linked
        first, second = order[:-ahead], order[ahead:]
        match = (key[:-ahead] == key[ahead:]) & (start[first] == end[second])
        match &= start[first] != end[first]
        match &= (normals[first // 3] * normals[second // 3]).sum(dim=1) > min_cosine
        found.append(torch.stack([first[match], second[match]], dim=1))
    sides = torch.cat(found)
    corners = vertices[faces]
    lengths = (corners.roll(-1, dims=1) - corners).norm(dim=2).reshape(-1)[sides[:, 0]]
    return FaceLinks(sides // 3, lengths)


def segment_surface(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    *,
    max_angle_deg: float = 50.0,
) -> Int64[Tensor, " face"]:
    """Label of the part each face belongs to, 0..parts-1; every part is connected.

    Args:
        vertices: positions.
        faces: triangles.
        max_angle_deg: parts are not merged where a face would turn further than this from the
            mean direction of its part.

    Deterministic: no random numbers are drawn.
    """
    vertices = vertices.detach().float()
    normals = face_normals(vertices, faces)
    corners = vertices[faces]
    areas = 0.5 * torch.linalg.cross(
        corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    ).norm(dim=1)
    links = link_faces(vertices, faces)
    diagonal = float((vertices.amax(dim=0) - vertices.amin(dim=0)).norm())
    features = torch.cat(
        [normals, POSITION_WEIGHT * corners.mean(dim=1) / max(diagonal, 1e-12)], dim=1
    )
    num_seeds = min(16 + len(faces) // FACES_PER_SEED, 256, len(faces))
    labels = cluster_features(features, areas, num_seeds)
    directed = _directed_pairs(links.pairs)
    for _ in range(SMOOTHING_ROUNDS):
        face, label = _outvoted(labels, directed)
        labels = labels.index_put((face,), label)
    min_cosine = math.cos(math.radians(max_angle_deg))
    labels = _split_to_cones(labels, links.pairs, normals, areas, min_cosine)
    labels = _merge_parts(labels, links, normals, areas, min_cosine)
    axes = mean_directions(labels, normals, areas)
    for _ in range(SMOOTHING_ROUNDS):
        face, label = _outvoted(labels, directed)
        fits = (normals[face] * axes[label]).sum(dim=1) > STEEPEST_COSINE
        labels = labels.index_put((face[fits],), label[fits])
    return connected_labels(labels, links.pairs)


def peel_faces(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int64[Tensor, "face 3"],
    labels: Int64[Tensor, " face"],
    selected: Bool[Tensor, " face"],
) -> Int64[Tensor, " face"]:
    """Cut patches of selected faces out of their parts; the largest patch of each part stays."""
    pairs = link_faces(vertices, faces).pairs
    patches = connected_labels(2 * labels + selected, pairs)
    sizes = torch.bincount(patches)
    part_of_patch = torch.zeros_like(sizes).scatter(0, patches, labels)
    is_selected = torch.zeros_like(sizes, dtype=torch.bool)
    is_selected[patches[selected]] = True
    rank = torch.argsort(torch.where(is_selected, sizes, 0), stable=True)
    largest = torch.zeros_like(sizes).scatter(0, part_of_patch[rank], rank)
    stays = ~is_selected
    stays[largest] = True
    new_label = torch.where(
        stays, part_of_patch, int(labels.max()) + 1 + torch.arange(len(sizes), device=labels.device)
    )
    return connected_labels(new_label[patches], pairs)


def mean_directions(
    labels: Int64[Tensor, " face"],
    normals: Float[Tensor, "face 3"],
    areas: Float[Tensor, " face"],
) -> Float[Tensor, "part 3"]:
    """Area-weighted mean unit normal of each part; zero for parts without area."""
    total = normals.new_zeros(int(labels.max()) + 1, 3)
    return normalize(total.index_add(0, labels, normals * areas[:, None]))


def cluster_features(
    features: Float[Tensor, "item feature"], weights: Float[Tensor, " item"], num_clusters: int
) -> Int64[Tensor, " item"]:
    """Weighted k-means with farthest-point seeds."""
    step = max(1, len(features) // LLOYD_SAMPLES)
    sample, sample_weights = features[::step], weights[::step, None]
    centers = _farthest_points(sample, num_clusters)
    for _ in range(LLOYD_ROUNDS):
        nearest = torch.cdist(sample, centers).argmin(dim=1)
        total = torch.zeros_like(centers).index_add_(0, nearest, sample * sample_weights)
        mass = torch.zeros_like(centers[:, :1]).index_add_(0, nearest, sample_weights)
        centers = torch.where(mass > 0, total / mass.clamp(min=1e-30), centers)
    portions = [torch.cdist(part, centers).argmin(dim=1) for part in features.split(65536)]
    return torch.cat(portions)


def connected_labels(
    labels: Int64[Tensor, " face"], pairs: Int64[Tensor, "link 2"]
) -> Int64[Tensor, " face"]:
    """Labels of the connected pieces within which ``labels`` are equal."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    same = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]].cpu().numpy()
    ones = np.ones(len(same), dtype=np.int8)
    graph = coo_array((ones, (same[:, 0], same[:, 1])), shape=(len(labels), len(labels)))
    _, pieces = connected_components(graph, directed=False)
    return torch.as_tensor(pieces, dtype=torch.int64, device=labels.device)


def _split_to_cones(
    labels: Tensor, pairs: Tensor, normals: Tensor, areas: Tensor, min_cosine: float
) -> Tensor:
    """Connected parts in which no face leaves the cone round the part's mean normal."""
    has_area = normals.abs().sum(dim=1) > 0
    labels = connected_labels(labels, pairs)
    for _ in range(SPLITTING_ROUNDS):
        axes = mean_directions(labels, normals, areas)
        outside = ((normals * axes[labels]).sum(dim=1) < min_cosine) & has_area
        if not bool(outside.any()):
            return labels
        labels = connected_labels(2 * labels + outside, pairs)
    axes = mean_directions(labels, normals, areas)
    outside = ((normals * axes[labels]).sum(dim=1) < min_cosine) & has_area
    alone = int(labels.max()) + 1 + torch.arange(len(labels), device=labels.device)
    return connected_labels(torch.where(outside, alone, labels), pairs)


def _farthest_points(features: Tensor, count: int) -> Tensor:
    chosen = [int((features - features.mean(dim=0)).norm(dim=1).argmax())]
    distance = (features - features[chosen[0]]).norm(dim=1)
    for _ in range(count - 1):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (features - features[chosen[-1]]).norm(dim=1))
    return features[chosen].clone()


def _directed_pairs(pairs: Tensor) -> Tensor:
    """Every pair in both directions, sorted by the first face."""
    both = torch.cat([pairs, pairs.flip(1)])
    return both[torch.argsort(both[:, 0])]


def _outvoted(labels: Tensor, directed: Tensor) -> tuple[Tensor, Tensor]:
    """Faces and the label that at least two of their neighbours share: straighter borders."""
    face, neighbour = directed[:, 0], labels[directed[:, 1]]
    voters = []
    for ahead in (1, 2):
        agree = (face[ahead:] == face[:-ahead]) & (neighbour[ahead:] == neighbour[:-ahead])
        voters.append(agree.nonzero()[:, 0])
    index = torch.cat(voters)
    return face[index], neighbour[index]


def _merge_parts(
    labels: Tensor, links: FaceLinks, normals: Tensor, areas: Tensor, min_cosine: float
) -> Tensor:
    """Join neighbouring parts, the most parallel first, while every face stays within the cone."""
    normal = normals.cpu().numpy().astype(np.float64)
    area = areas.cpu().numpy().astype(np.float64)
    weighted = normal * area[:, None]
    label = labels.cpu().numpy()
    order = np.argsort(label, kind="stable")
    members = dict(enumerate(np.split(order, np.cumsum(np.bincount(label))[:-1])))
    sums = {part: weighted[index].sum(axis=0) for part, index in members.items()}
    axes = {part: _unit(total) for part, total in sums.items()}
    neighbours: dict[int, set[int]] = {part: set() for part in members}
    for first, second in np.unique(label[links.pairs.cpu().numpy()], axis=0):
        if first != second:
            neighbours[int(first)].add(int(second))
            neighbours[int(second)].add(int(first))
    queue = [
        (_bend(axes[first], axes[second]), first, second)
        for first in neighbours
        for second in neighbours[first]
        if first < second
    ]
    heapq.heapify(queue)
    next_part = len(members)
    while queue:
        _, first, second = heapq.heappop(queue)
        if first not in members or second not in members:
            continue
        index = np.concatenate([members[first], members[second]])
        total = sums[first] + sums[second]
        axis = _unit(total)
        if not _fits_cone(normal[index] @ axis, area[index], min_cosine):
            continue
        around = (neighbours.pop(first) | neighbours.pop(second)) - {first, second}
        for part in (first, second):
            del members[part], sums[part], axes[part]
        members[next_part], sums[next_part], axes[next_part] = index, total, axis
        neighbours[next_part] = around
        for other in around:
            neighbours[other] -= {first, second}
            neighbours[other].add(next_part)
            heapq.heappush(queue, (_bend(axis, axes[other]), other, next_part))
        next_part += 1
    result = np.empty(len(label), dtype=np.int64)
    for number, index in enumerate(members.values()):
        result[index] = number
    return torch.as_tensor(result, device=labels.device)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(math.sqrt(float(vector @ vector)), 1e-30)


def _bend(first: np.ndarray, second: np.ndarray) -> float:
    return 1.0 - float(first @ second)


def _fits_cone(cosines: np.ndarray, areas: np.ndarray, min_cosine: float) -> bool:
    """No face steep, nearly all within the cone; faces without area have no normal and fit."""
    if ((cosines < STEEPEST_COSINE) & (areas > 0)).any():
        return False
    return bool(areas[cosines < min_cosine].sum() <= MAX_STEEP_SHARE * areas.sum())
