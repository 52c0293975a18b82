import dataclasses
import json
import logging

import pytest
import torch
from decoder_scenes import FACTS, TINY, write_tiny_decoder
from lift3d.core.camera import make_orbit_rig
from lift3d.core.diffusion.gaussian_decoder_files import (
    DecoderFacts,
    load_gaussian_decoder,
    save_gaussian_decoder,
)
from lift3d.core.geometry.pluecker import rig_pluecker
from lift3d.core.networks.gaussian_heads import gaussians_of_pixels
from lift3d.core.pipelines.decode_gaussians import DecodeParams, decode_gaussians
from multiview_scenes import make_picture

ALL = DecodeParams(min_opacity=0.0, bound=1e9)
RIG = make_orbit_rig([0.0, 90.0, 180.0, 270.0], 10.0, radius=4.5, fov_y_deg=30.0)
LATENTS = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return load_gaussian_decoder(write_tiny_decoder(tmp_path_factory.mktemp("models") / "tiny"))


def test_a_decoder_is_loaded_as_it_was_saved(decoder, tmp_path):
    assert decoder.params == TINY and decoder.facts == FACTS
    assert "all keys fit" in decoder.report
    save_gaussian_decoder(tmp_path / "again", decoder.network, decoder.vision, decoder.facts)
    again = load_gaussian_decoder(tmp_path / "again")
    for key, value in decoder.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[key], value)
    picture = make_picture(16)[None]
    torch.testing.assert_close(again.features(picture), decoder.features(picture))


@torch.no_grad()
def test_every_pixel_of_every_view_becomes_a_gaussian_on_its_ray(decoder):
    image = make_picture(16)
    cloud = decode_gaussians(decoder, LATENTS, RIG, image, ALL)
    assert cloud.num_gaussians == 4 * TINY.output_side(4) ** 2 == 64
    rays = rig_pluecker(RIG, width=4, height=4)[None]
    raw = decoder.network(LATENTS[None], rays, decoder.features(image[None]))
    expected = gaussians_of_pixels(raw[0], RIG, TINY.heads)
    torch.testing.assert_close(cloud.means, expected.means)
    kept = decode_gaussians(decoder, LATENTS, RIG, image, DecodeParams(0.119))
    assert 0 < kept.num_gaussians < 64 and float(kept.opacities.min()) > 0.119


def test_any_number_of_views(decoder):
    rig = make_orbit_rig([0.0, 100.0], 10.0, radius=4.5)
    assert decode_gaussians(decoder, LATENTS[:2], rig, make_picture(16), ALL).num_gaussians == 32


def test_other_cameras_than_in_training_are_warned_of(decoder, caplog):
    with caplog.at_level(logging.WARNING):
        decode_gaussians(decoder, LATENTS, RIG, make_picture(16), ALL)
        assert not caplog.records
        decode_gaussians(decoder, LATENTS, RIG.with_radius(4.0), make_picture(16), ALL)
    assert "trained with 4.5" in caplog.text


def test_what_does_not_match_is_refused(decoder):
    image = make_picture(16)
    with pytest.raises(ValueError, match="3 views for 4 cameras"):
        decode_gaussians(decoder, LATENTS[:3], RIG, image)
    with pytest.raises(ValueError, match="at least 2 views, got 1"):
        decode_gaussians(decoder, LATENTS[:1], RIG.select([0]), image)
    with pytest.raises(ValueError, match="4 channels, got 16"):
        decode_gaussians(decoder, torch.randn(4, 16, 4, 4), RIG, image)
    with pytest.raises(ValueError, match="another scale"):
        decode_gaussians(decoder, 40 * LATENTS, RIG, image)
    with pytest.raises(ValueError, match="NaN"):
        decode_gaussians(decoder, LATENTS * float("nan"), RIG, image)
    with pytest.raises(ValueError, match="connect it as 'image'"):
        decode_gaussians(decoder, LATENTS, RIG)
    with pytest.raises(ValueError, match="multiples of 2"):
        decode_gaussians(decoder, LATENTS[..., :3], RIG, image)
    with pytest.raises(ValueError, match="None of the 64 Gaussians"):
        decode_gaussians(decoder, LATENTS, RIG, image, DecodeParams(0.9))


def test_progress_may_interrupt(decoder):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_gaussians(decoder, LATENTS, RIG, make_picture(16), ALL, on_progress=stop)


def test_a_decoder_without_picture_needs_none(tmp_path):
    params = dataclasses.replace(TINY, context_dim=0)
    decoder = load_gaussian_decoder(write_tiny_decoder(tmp_path / "blind", params))
    assert decode_gaussians(decoder, LATENTS, RIG, params=ALL).num_gaussians == 64


def test_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="None is published"):
        load_gaussian_decoder(tmp_path / "absent")
    folder = write_tiny_decoder(tmp_path / "tiny")
    facts = json.loads((folder / "decoder.json").read_text())
    facts["decoder"]["num_layers"] = 2
    (folder / "decoder.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"decoder\.safetensors does not fit this network"):
        load_gaussian_decoder(folder)
    facts["decoder"]["num_layers"] = 1
    (folder / "decoder.json").write_text(json.dumps(facts))
    (folder / "image_encoder" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="facebook/dinov2-base"):
        load_gaussian_decoder(folder)
    (folder / "decoder.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks decoder\.safetensors"):
        load_gaussian_decoder(folder)
    assert DecoderFacts().latent_scale == 0.18215
