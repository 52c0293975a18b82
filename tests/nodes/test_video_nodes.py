"""Orbits through the nodes, with tiny random models on disk, and the native conditioning."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lift3d.nodes import video
from multiview_scenes import make_picture
from node_calls import outputs
from orbit_scenes import write_tiny_orbit, write_tiny_sv3d

pytestmark = pytest.mark.usefixtures("as_in_comfyui")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    (root / "models" / "lift3d").mkdir(parents=True)
    (root / "models" / "checkpoints").mkdir(parents=True)
    write_tiny_orbit(root / "models" / "lift3d" / "own")
    write_tiny_sv3d(root / "models" / "checkpoints" / "sv3d_p.safetensors")
    return root


@pytest.fixture
def in_models(models, monkeypatch):
    monkeypatch.chdir(models)
    return models


@pytest.mark.parametrize(("name", "frames"), [("sv3d_p.safetensors", 3), ("own", 4)])
def test_a_picture_becomes_an_orbit(in_models, name: str, frames: int) -> None:
    orbit, report = outputs(video.LoadOrbitModel, model=name)
    assert "parameters" in report
    count = 3 if name.startswith("sv3d") else 0
    image = make_picture(32)[None]
    images, latent, rig = outputs(
        video.GenerateOrbit, orbit=orbit, image=image, steps=2, frames=count, elevation=20.0
    )
    assert images.shape == (frames, 32, 32, 3) and len(rig) == frames
    assert latent["samples"].shape == (frames, 4, 4, 4)
    torch.testing.assert_close(images[0], image[0])
    assert float(rig[0].position[0]) == 0.0 and float(rig[0].position[1]) > 0


def test_latents_are_handed_out_as_comfyui_stores_them(in_models) -> None:
    (orbit, _) = outputs(video.LoadOrbitModel, model="sv3d_p.safetensors")
    images, latent, _ = outputs(
        video.GenerateOrbit, orbit=orbit, image=make_picture(32)[None], steps=2, frames=3
    )
    decoded = orbit.vae.decode(latent["samples"]).sample / 2 + 0.5
    torch.testing.assert_close(
        decoded.clamp(0, 1).permute(0, 2, 3, 1)[1:], images[1:], atol=1e-5, rtol=0
    )


def test_missing_models_are_named_with_the_licence() -> None:
    told = video.LoadOrbitModel.validate_inputs(model="sv3d_u.safetensors", lora="none")
    assert "huggingface.co/stabilityai/sv3d" in told and "non-commercial" in told
    told = video.LoadOrbitModel.validate_inputs(model="../x.safetensors", lora="none")
    assert "leads out of the model folders" in told


class FakeVision:
    """CLIP_VISION as far as the node uses it."""

    def encode_image(self, image):
        return SimpleNamespace(image_embeds=image.mean(dim=(1, 2)).repeat(1, 4))


class FakeVae:
    """VAE that averages blocks of 8 pixels; the fourth channel is the mean of the others."""

    def encode(self, image):
        small = torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), 8)
        return torch.cat([small, small.mean(dim=1, keepdim=True)], dim=1)


def encode(**inputs):
    return outputs(
        video.EncodeOrbit, clip_vision=FakeVision(), vae=FakeVae(), image=make_picture(64)[None],
        size_px=64, **inputs,
    )  # fmt: skip


def test_native_conditioning_holds_exact_poses_per_frame() -> None:
    positive, negative, latent, rig = encode(frames=16, elevation=15.0)
    ((token, told),) = positive
    assert token.shape == (1, 1, 12) and told["concat_latent_image"].shape == (1, 4, 8, 8)
    assert told["azimuth"] == [22.5 * i for i in range(1, 16)] + [0.0]
    assert told["elevation"] == [15.0] * 16
    ((nothing, also),) = negative
    assert not nothing.any() and not also["concat_latent_image"].any()
    assert also["azimuth"] == told["azimuth"]
    assert latent["samples"].shape == (16, 4, 8, 8) and not latent["samples"].any()
    assert len(rig) == 16 and float(rig[15].position[2]) > 3


def test_lists_of_poses_win_over_the_even_orbit() -> None:
    _, _, latent, rig = encode(azimuths="0, 90, 180", elevations="0, 10, -10")
    assert len(rig) == 3 and len(latent["samples"]) == 3
    assert float(rig[1].position[1]) > 0 > float(rig[2].position[1])
    positive, *_ = encode(frames=3, order="input at both ends")
    assert positive[0][1]["azimuth"] == [0.0, 180.0, 0.0]


def test_the_other_sense_mirrors_the_cameras() -> None:
    rigs = [encode(frames=4, order="input first", sense=sense)[3] for sense in video.SENSES]
    torch.testing.assert_close(rigs[0][1].position[0], -rigs[1][1].position[0])


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        ({"frames": 4, "elevations": "1, 2"}, "2 elevations for 4 frames"),
        ({"frames": 4, "elevations": "1, x"}, "must be numbers"),
        ({"azimuths": "10"}, "at least 2 frames, got 1"),
        ({"azimuths": "0, 180", "elevations": "0, 95"}, "within -90..90"),
    ],
)
def test_bad_orbits_are_refused(inputs: dict, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        encode(**inputs)


def test_a_picture_without_an_object_is_refused() -> None:
    with pytest.raises(ValueError, match="no object"):
        outputs(
            video.EncodeOrbit, clip_vision=FakeVision(), vae=FakeVae(),
            image=torch.ones(1, 64, 64, 3),
        )  # fmt: skip


def test_other_link_values_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="must come from Load Orbit Model, got a str"):
        outputs(video.GenerateOrbit, orbit="x", image=make_picture(32)[None])
