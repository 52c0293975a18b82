"""Faded Gaussians reappear where the object is, and the object stays what it was."""

from __future__ import annotations

import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.gaussian_cloud import GaussianCloud, color_to_harmonic
from lift3d.core.pipelines.respawn_splats import respawn_faint
from lift3d.core.rendering.splats import render_splats

TURN = torch.tensor([[0.9239, 0.0, 0.0, 0.3827]])  # 45 degrees about z


def cloud_of(opacities: list[float], scale: tuple[float, float, float] = (0.3, 0.1, 0.01)):
    count = len(opacities)
    colors = torch.linspace(0.1, 0.9, count)[:, None].expand(count, 3)
    means = torch.stack(
        [torch.linspace(-0.5, 0.5, count), torch.zeros(count), torch.zeros(count)], 1
    )
    quats = torch.nn.functional.normalize(TURN, dim=1).repeat(count, 1)
    return GaussianCloud(
        means, torch.tensor([scale]).repeat(count, 1), quats, torch.tensor(opacities),
        color_to_harmonic(colors),
    )  # fmt: skip


def area(cloud: GaussianCloud) -> torch.Tensor:
    return cloud.opacities * cloud.scales[:, 0] * cloud.scales[:, 1]


def test_faint_ones_take_color_and_share_the_area_of_an_opaque_one() -> None:
    before = cloud_of([0.9, 0.01, 0.02, 0.03])
    after = respawn_faint(before, seed=3)
    assert torch.equal(after.harmonics, before.harmonics[:1].expand(4, -1, -1))
    torch.testing.assert_close(after.opacities, torch.full((4,), 0.9))
    torch.testing.assert_close(after.scales, before.scales[:1].expand(4, -1) / 2)
    torch.testing.assert_close(area(after).sum(), area(before)[0])


def test_they_lie_within_the_one_they_join() -> None:
    before = cloud_of([0.9] + [0.0] * 400)
    after = respawn_faint(before)
    offsets = after.means - before.means[0]
    axes = torch.tensor([[1.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 2**0.5]]) / 2**0.5
    spread = (offsets @ axes.T).std(dim=0)
    torch.testing.assert_close(spread, before.scales[0], rtol=0.12, atol=0)


def test_opaque_ones_that_nobody_joins_stay_as_they_are() -> None:
    before = cloud_of([0.9, 0.01, 0.9, 0.9, 0.9, 0.9])
    after = respawn_faint(before, seed=1)
    same = (after.means == before.means).all(dim=1) & (after.scales == before.scales).all(dim=1)
    assert int(same.sum()) == 4 and after.num_gaussians == 6


def test_pictures_are_covered_as_before_or_half_as_much_again() -> None:
    before = cloud_of([0.6] * 5 + [0.0] * 200, (0.3, 0.3, 0.3))
    rig = make_orbit_rig([0.0, 90.0], 10.0, radius=4.0)
    drawn = [
        render_splats(cloud, rig, width=32, height=32).alpha
        for cloud in (before, respawn_faint(before))
    ]
    middle = drawn[0] > 0.5
    assert 0.9 < float(drawn[1].mean() / drawn[0].mean()) < 1.5
    assert float(drawn[1][middle].mean()) > 0.8 * float(drawn[0][middle].mean())


def test_without_faint_or_without_opaque_ones_nothing_happens() -> None:
    for opacities in ([0.9, 0.5], [0.01, 0.0]):
        before = cloud_of(opacities)
        assert respawn_faint(before) is before


def test_the_seed_decides_and_the_input_is_not_changed() -> None:
    before = cloud_of([0.9, 0.8, 0.0, 0.0])
    copy = before.clone()
    first, again, other = (respawn_faint(before, seed=seed) for seed in (0, 0, 7))
    assert torch.equal(first.means, again.means) and not torch.equal(first.means, other.means)
    assert torch.equal(before.means, copy.means) and torch.equal(before.scales, copy.scales)
