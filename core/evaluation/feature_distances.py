"""Contains distances between two sets of pictures, by the features that some network makes of them.

FID and KID are these distances with the 2048 features of the Inception-v3 of Szegedy et al.; other
networks give other numbers, which compare with each other only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def frechet_distance(
    features: Float[Tensor, "picture feature"], reference: Float[Tensor, "reference feature"]
) -> float:
    """Squared Fréchet distance of two normal distributions with the moments of both sets.

    Reference: Heusel et al. 2017, "GANs trained by a two time-scale update rule", Eq. 6.
    """
    _require_sets(features, reference)
    first, second = features.double(), reference.double()
    shift = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    a, b = torch.cov(first.T).reshape(-1, first.shape[1]), torch.cov(second.T)
    b = b.reshape(-1, second.shape[1])
    # tr (A B)^(1/2) by the eigenvalues of A^(1/2) B A^(1/2), which are real and not negative.
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return float(shift + a.trace() + b.trace() - 2 * shared)


def kernel_distance(
    features: Float[Tensor, "picture feature"], reference: Float[Tensor, "reference feature"]
) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x y / d + 1)^3; can be negative.

    Reference: Binkowski et al. 2018, "Demystifying MMD GANs", Sec. 4; tables often print it times
    100 or 1000.
    """
    _require_sets(features, reference)
    first, second = features.double(), reference.double()
    width = first.shape[1]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / width + 1) ** 3

    def without_self(x: Tensor) -> Tensor:
        values = kernel(x, x)
        return (values.sum() - values.trace()) / (len(x) * (len(x) - 1))

    return float(without_self(first) + without_self(second) - 2 * kernel(first, second).mean())


def cosine_similarity(
    features: Float[Tensor, "picture feature"], reference: Float[Tensor, "other feature"]
) -> float:
    """Mean cosine of pairs, such as CLIP's embeddings of pictures and of their texts."""
    if features.shape != reference.shape:
        raise ValueError(
            f"Pairs must have one shape, got {list(features.shape)} and {list(reference.shape)}."
        )
    return float(torch.nn.functional.cosine_similarity(features, reference, dim=-1).mean())


def _require_sets(features: Tensor, reference: Tensor) -> None:
    fits = features.ndim == reference.ndim == 2 and features.shape[1] == reference.shape[1]
    if not fits or min(len(features), len(reference)) < 2:
        raise ValueError(
            "Two sets of at least two features of one width are needed, got "
            f"{list(features.shape)} and {list(reference.shape)}."
        )
