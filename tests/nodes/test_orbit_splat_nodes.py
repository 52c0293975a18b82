"""Orbits become splats through the nodes: with a tiny random decoder, and by optimisation."""

from __future__ import annotations

import pytest
import torch
from decoder_scenes import write_tiny_decoder
from lift3d.core.camera import make_orbit_rig
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.rendering.splats import render_splats
from lift3d.nodes import orbit_splats, video
from lift3d.nodes.sockets_splat import cloud_from_link
from multiview_scenes import make_picture
from node_calls import outputs
from orbit_scenes import write_tiny_orbit

pytestmark = pytest.mark.usefixtures("as_in_comfyui")

RIG = make_orbit_rig([0.0, 90.0, 180.0, 270.0], 10.0, radius=4.5)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    (root / "models" / "lift3d").mkdir(parents=True)
    write_tiny_orbit(root / "models" / "lift3d" / "orbit")
    write_tiny_decoder(root / "models" / "lift3d" / "decoder")
    return root


@pytest.fixture
def decoder(models, monkeypatch):
    monkeypatch.chdir(models)
    loaded, report = outputs(orbit_splats.LoadGaussianDecoder, decoder="decoder")
    assert "all keys fit" in report
    return loaded


def test_a_picture_becomes_a_splat_without_optimisation(decoder) -> None:
    image = make_picture(32)[None]
    orbit, _ = outputs(video.LoadOrbitModel, model="orbit")
    _, latent, rig = outputs(video.GenerateOrbit, orbit=orbit, image=image, steps=2)
    before = latent["samples"].clone()
    (splat,) = outputs(
        orbit_splats.DecodeGaussians, decoder=decoder, rig=rig, latent=latent, image=image,
        min_opacity=0.0, bound=10.0,
    )  # fmt: skip
    assert splat.positions.shape == (1, 64, 3) and torch.equal(before, latent["samples"])
    # in the link's frame Y points down and Z forward
    torch.testing.assert_close(cloud_from_link(splat).means[:, 1], -splat.positions[0, :, 1])


class FakeVae:
    """VAE whose latents are blocks of 8 pixels, spread as latents are."""

    def encode(self, image):
        small = torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), 8)
        return 4 * torch.cat([small, small.mean(dim=1, keepdim=True)], dim=1) - 2


def test_frames_with_their_vae_give_the_same_as_their_latents(decoder) -> None:
    frames = torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0)).round()
    shared = {"decoder": decoder, "rig": RIG, "image": make_picture(32)[None], "min_opacity": 0.0}
    by_frames = outputs(orbit_splats.DecodeGaussians, frames=frames, vae=FakeVae(), **shared)[0]
    latent = {"samples": FakeVae().encode(frames)}
    by_latent = outputs(orbit_splats.DecodeGaussians, latent=latent, **shared)[0]
    torch.testing.assert_close(by_frames.positions, by_latent.positions)


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        ({}, "connect 'latent', or the 'frames'"),
        ({"frames": torch.rand(4, 32, 32, 3)}, "connect 'latent', or the 'frames'"),
        ({"latent": {"samples": torch.randn(4, 4, 2, 4, 4)}}, "must be a LATENT"),
        ({"latent": {"samples": torch.randn(3, 4, 4, 4)}}, "3 views for 4 cameras"),
        ({"latent": {"samples": torch.randn(4, 16, 4, 4)}}, "got 16"),
        ({"latent": {"samples": torch.full((4, 4, 4, 4), torch.nan)}}, "NaN"),
        ({"latent": {"samples": torch.randn(4, 4, 4, 4)}}, "connect it as 'image'"),
    ],
)
def test_what_cannot_be_decoded_is_refused(decoder, inputs: dict, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        outputs(orbit_splats.DecodeGaussians, decoder=decoder, rig=RIG, **inputs)


def test_missing_decoders_say_that_none_is_published() -> None:
    told = orbit_splats.LoadGaussianDecoder.validate_inputs(decoder="mine")
    assert "none is published" in told and "gs-decoder" in told
    with pytest.raises(ValueError, match="must come from Load Gaussian Decoder"):
        outputs(orbit_splats.DecodeGaussians, decoder=3, rig=RIG)


def test_frames_become_a_splat_by_optimisation() -> None:
    cloud = GaussianCloud(
        torch.zeros(1, 3), torch.full((1, 3), 0.3), torch.tensor([[1.0, 0, 0, 0]]),
        torch.ones(1), torch.tensor([[[1.0, -1.0, -1.0]]]),
    )  # fmt: skip
    rig = make_orbit_rig([60.0 * index for index in range(6)], 10.0, radius=4.5)
    frames = render_splats(cloud, rig, width=32, height=32).rgb.clamp(0, 1)
    (splat,) = outputs(orbit_splats.OrbitToSplat, images=frames, rig=rig, gaussians=200, steps=3)
    made = cloud_from_link(splat)
    assert made.num_gaussians == 200 and float(made.means.abs().max()) < 1.5
    assert float(made.base_colors[:, 0].mean()) > float(made.base_colors[:, 1].mean())
    with pytest.raises(ValueError, match="6 frames for 4 cameras"):
        outputs(orbit_splats.OrbitToSplat, images=frames, rig=RIG)
    with pytest.raises(ValueError, match="Frame 1 is white"):
        outputs(orbit_splats.OrbitToSplat, images=torch.ones(4, 16, 16, 3), rig=RIG)
