import torch
from lift3d.core.camera import make_orbit_rig
from lift3d.core.geometry.pluecker import pluecker_coordinates, rig_pluecker, rig_rays


def random_rays():
    generator = torch.Generator().manual_seed(0)
    origins, directions = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    return origins, directions / directions.norm(dim=-1, keepdim=True)


def test_moment_and_direction_are_orthogonal():
    moment, direction = pluecker_coordinates(*random_rays()).split(3, dim=-1)
    torch.testing.assert_close(
        (moment * direction).sum(dim=-1), torch.zeros(50, dtype=torch.float64)
    )


def test_any_point_of_a_ray_gives_the_same_coordinates():
    origins, directions = random_rays()
    moved = origins + torch.linspace(-3, 3, 50, dtype=torch.float64)[:, None] * directions
    torch.testing.assert_close(
        pluecker_coordinates(moved, directions), pluecker_coordinates(origins, directions)
    )


def test_the_length_of_the_moment_is_the_distance_from_the_origin():
    origins, directions = random_rays()
    moment = pluecker_coordinates(origins, directions)[:, :3]
    along = (origins * directions).sum(dim=-1, keepdim=True) * directions
    torch.testing.assert_close(moment.norm(dim=-1), (origins - along).norm(dim=-1))


def test_the_middle_ray_of_a_view_passes_through_the_origin():
    rig = make_orbit_rig([0.0, 130.0], 25.0, radius=3.0)
    rays = rig_pluecker(rig, width=5, height=3)
    assert rays.shape == (2, 6, 3, 5)
    torch.testing.assert_close(rays[:, :3, 1, 2], torch.zeros(2, 3), atol=1e-6, rtol=0)
    _, directions = rig_rays(rig, width=5, height=3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, 3, 5))
