"""SPLAT and GS_PLY link values: the 3DGS frame outside, the world frame inside."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.nodes import sockets_splat
from lift3d.nodes.sockets_splat import (
    cloud_from_gs_ply,
    cloud_from_link,
    cloud_to_gs_ply,
    cloud_to_link,
    clouds_from_link,
)


def close(first: GaussianCloud, second: GaussianCloud, atol: float = 1e-6) -> bool:
    same_turn = (first.quats * second.quats).sum(dim=1).abs()
    return all(
        torch.allclose(getattr(first, name), getattr(second, name), atol=atol)
        for name in ("means", "scales", "opacities", "harmonics")
    ) and torch.allclose(same_turn, torch.ones_like(same_turn), atol=1e-4)


def test_a_splat_survives_the_round_trip(cloud: GaussianCloud) -> None:
    assert close(cloud_from_link(cloud_to_link(cloud)), cloud)


def test_on_the_link_up_is_minus_y(cloud: GaussianCloud) -> None:
    link = cloud_to_link(cloud)
    assert torch.allclose(link.positions[0], cloud.means * torch.tensor([1.0, -1, -1]))
    assert link.opacities.shape == (1, 12, 1) and link.sh.shape == (1, 12, 16, 3)


def test_padding_of_a_batch_is_cut_off(cloud: GaussianCloud) -> None:
    link = cloud_to_link(cloud)
    batch = SimpleNamespace(
        **{
            name: torch.cat([value, value])
            for name, value in vars(link).items()
            if value is not None
        },
    )
    batch.counts = torch.tensor([12, 5])
    assert [part.num_gaussians for part in clouds_from_link(batch)] == [12, 5]
    assert cloud_from_link(batch).num_gaussians == 17


def test_quaternions_of_other_lengths_are_normalised(cloud: GaussianCloud) -> None:
    link = cloud_to_link(cloud)
    link.rotations = link.rotations * 3
    assert close(cloud_from_link(link), cloud)


def test_the_converter_copies(cloud: GaussianCloud, snapshot) -> None:
    link = cloud_to_link(cloud)
    before = snapshot(link)
    cloud_from_link(link).means.zero_()
    assert all(torch.equal(a, b) for a, b in zip(snapshot(link), before, strict=True))


def test_gs_ply_survives_the_round_trip(cloud: GaussianCloud) -> None:
    assert close(cloud_from_gs_ply(cloud_to_gs_ply(cloud)), cloud, atol=1e-4)


def test_what_is_no_splat_is_named() -> None:
    with pytest.raises(ValueError, match="without scales, rotations, opacities, sh"):
        cloud_from_link(SimpleNamespace(positions=1))
    with pytest.raises(ValueError, match="expected plyfile.PlyData"):
        cloud_from_gs_ply("text")


def test_old_hosts_get_our_own_class(cloud: GaussianCloud, monkeypatch) -> None:
    monkeypatch.setattr(sockets_splat, "Types", SimpleNamespace())
    assert close(cloud_from_link(cloud_to_link(cloud)), cloud)
