"""Contains the placing of one point set onto another: by boxes, and by the closest points.

A placement is a similarity x -> scale * rotation x + shift, kept as a 4x4 matrix.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ICP_ROUNDS = 40
CONVERGED = 1e-7
Placement = Float[Tensor, "4 4"]


def box_placement(
    points: Float[Tensor, "point 3"], reference: Float[Tensor, "reference_point 3"]
) -> Placement:
    """Scale and shift that give ``points`` the middle and the longest side of the reference."""
    boxes = [(x.amin(dim=0), x.amax(dim=0)) for x in (points, reference)]
    (low, high), (low_true, high_true) = boxes
    side = (high - low).max()
    if not float(side) > 0:
        raise ValueError("The points have no extent; they cannot be scaled onto others.")
    scale = (high_true - low_true).max() / side
    return _placement(
        scale, torch.eye(3).to(points), (low_true + high_true - scale * (low + high)) / 2
    )


def fit_similarity(
    points: Float[Tensor, "point 3"], targets: Float[Tensor, "point 3"], *, with_scale: bool = True
) -> Placement:
    """Similarity that takes points to their targets with the least squared error.

    Reference: Umeyama 1991, "Least-squares estimation of transformation parameters between two
    point patterns", Eq. 39-42.
    """
    if points.shape != targets.shape or len(points) < 3:
        raise ValueError(
            "Points and targets must be at least three pairs, got "
            f"{list(points.shape)} and {list(targets.shape)}."
        )
    source, goal = points.double(), targets.double()
    middle, middle_goal = source.mean(dim=0), goal.mean(dim=0)
    covariance = (goal - middle_goal).T @ (source - middle) / len(source)
    u, singular, v = torch.linalg.svd(covariance)
    signs = torch.ones(3).to(source)
    if float(torch.det(u) * torch.det(v)) < 0:
        signs[2] = -1.0
    rotation = u @ torch.diag(signs) @ v
    variance = (source - middle).square().sum(dim=1).mean()
    scale = (
        (singular * signs).sum() / variance.clamp(min=1e-30)
        if with_scale
        else torch.ones(()).to(source)
    )
    return _placement(scale, rotation, middle_goal - scale * rotation @ middle).to(points)


def icp_placement(
    points: Float[Tensor, "point 3"],
    reference: Float[Tensor, "reference_point 3"],
    *,
    with_scale: bool = True,
    rounds: int = ICP_ROUNDS,
) -> Placement:
    """Similarity found by pairing each point with the closest of the reference, again and again.

    It begins where the points are: they must roughly lie on the reference already.

    Reference: Besl and McKay 1992, "A method for registration of 3-D shapes".
    """
    from scipy.spatial import cKDTree

    goal = reference.detach().cpu()
    tree = cKDTree(goal.double().numpy())
    total = torch.eye(4).to(points)
    moved, before = points.detach().cpu(), float("inf")
    for _ in range(rounds):
        distances, index = tree.query(moved.double().numpy())
        error = float((distances**2).mean())
        if before - error < CONVERGED * max(before, 1e-12) and before < float("inf"):
            break
        before = error
        step = fit_similarity(moved, goal[torch.from_numpy(index)], with_scale=with_scale)
        moved, total = place(moved, step), step.to(total) @ total
    return total


def place(points: Float[Tensor, "point 3"], placement: Placement) -> Float[Tensor, "point 3"]:
    """Points moved by a placement."""
    return points @ placement[:3, :3].T.to(points) + placement[:3, 3].to(points)


def _placement(scale: Tensor, rotation: Tensor, shift: Tensor) -> Placement:
    matrix = torch.eye(4).to(rotation)
    matrix[:3, :3] = scale.to(rotation) * rotation
    matrix[:3, 3] = shift
    return matrix
