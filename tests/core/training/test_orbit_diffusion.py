"""The small orbit model: its loss, what it is told, and a folder that the nodes load."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from decoder_training_scenes import data_params, make_data
from lift3d.core.diffusion.orbit_conditioning import embed_poses
from lift3d.core.diffusion.orbit_files import load_orbit_model
from lift3d.core.diffusion.orbit_model import OrbitFacts
from lift3d.core.diffusion.unet_network import clean_from_prediction
from lift3d.core.pipelines.image_to_orbit import OrbitParams, image_to_orbit
from lift3d.core.training.encoded_orbits import DrawnOrbit, read_vae
from lift3d.core.training.loop import LoopParams
from lift3d.core.training.orbit_diffusion import (
    EmbeddedOrbitParams,
    OrbitTraining,
    condition_of,
    draw_levels,
    in_order,
    train_embedded_orbit,
    velocity_error,
    with_empty,
)
from lift3d.core.training.orbit_networks import (
    OrbitUNetParams,
    make_orbit_network,
    take_over_spatial,
)
from lift3d.core.training.view_diffusion import ViewDiffusionParams, make_unet
from tiny_models import seeded

NETWORK = OrbitUNetParams((32, 64), 1, 16, 32, 1, 16)
FACTS = OrbitFacts(
    num_frames=4, size_px=32, order="input first", sigma_range=(0.02, 80.0), steps=2, guidance=2.0,
    radius=4.5, fov_y_deg=30.0,
)  # fmt: skip


def make_params(folder, **more) -> EmbeddedOrbitParams:
    settings = {
        "network": NETWORK, "num_frames": 4, "frame_choices": (4,), "batch": 2, "held_out": 1,
        "facts": FACTS, "loop": LoopParams(steps=2, learning_rate=1e-3, sample_every=2),
    }  # fmt: skip
    return EmbeddedOrbitParams(
        folder / "work", folder / "result", data_params(folder), folder / "vae",
        **{**settings, **more},
    )  # fmt: skip


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> OrbitTraining:
    folder = tmp_path_factory.mktemp("orbit")
    data = make_data(folder)
    directions = torch.eye(3, 4)
    with seeded(0):
        return OrbitTraining(make_params(folder), data, read_vae(folder / "vae"), directions)


def test_the_error_of_the_velocity_is_that_of_the_prediction() -> None:
    generator = torch.Generator().manual_seed(0)
    noisy, first, second = torch.randn(3, 2, 4, 4, 3, 3, generator=generator)
    sigma = torch.tensor([0.05, 30.0])
    clean = [clean_from_prediction(noisy, v, sigma, "v_prediction") for v in (first, second)]
    torch.testing.assert_close(
        velocity_error(clean[1] - clean[0], sigma), first - second, atol=1e-3, rtol=1e-3
    )


def test_noise_levels_are_log_normal() -> None:
    levels = draw_levels(4000, 0.4, 1.4, torch.Generator().manual_seed(0)).log()
    assert float(levels.mean()) == pytest.approx(0.4, abs=0.1)
    assert float(levels.std()) == pytest.approx(1.4, abs=0.1)


def test_the_picture_stands_where_the_model_has_it() -> None:
    views = [3, 5, 7, 1]
    assert in_order(views, "input first") == [3, 5, 7, 1]
    assert in_order(views, "input last") == [5, 7, 1, 3]
    assert in_order(views, "input at both ends") == [3, 5, 7, 3]


def test_it_is_told_the_picture_and_the_poses_that_belong_to_its_latents(training) -> None:
    model, data = training.model(), training.data
    item = DrawnOrbit(1, 3)
    with torch.no_grad():
        latents, told = condition_of(model, data, [item], 4)
    given = item.inputs(data.orbits, 4)
    torch.testing.assert_close(latents[0], data.take(1, given))
    torch.testing.assert_close(told.picture[0], data.latent_format.from_network(latents[0, 0]))
    poses = data.orbits.poses(1, given, 3)
    assert poses.azimuths_deg[0] == 0 and poses.azimuths_deg[1] == pytest.approx(90, abs=0.01)
    torch.testing.assert_close(told.vectors[0], embed_poses(poses, "p").to(told.vectors))
    some = with_empty(told.joined(told), torch.tensor([True, False]))
    assert not bool(some.tokens[0].any()) and not bool(some.picture[0].any())
    assert torch.equal(some.tokens[1], told.tokens[0])
    assert torch.equal(some.vectors[0], told.vectors[0])


def test_the_loss_reaches_unet_and_vision_encoder_and_no_autoencoder(training) -> None:
    losses = training.loss(0, torch.Generator().manual_seed(1))
    losses["total"].backward()
    silent = [name for name, value in training.named_parameters() if value.grad is None]
    # One token: which it is looked for by does not matter, so these have no gradient.
    assert all(".attn2.to_q" in name or ".attn2.to_k" in name for name in silent), silent
    assert not any(name.startswith("vae") for name, _ in training.named_parameters())
    plain, color = float(losses["plain"].detach()), float(losses["color"].detach())
    assert float(losses["total"].detach()) == pytest.approx(plain + 3 * color, rel=1e-5)
    training.zero_grad()


def test_the_trainer_writes_a_folder_that_the_nodes_load(tmp_path) -> None:
    data = make_data(tmp_path)
    params = make_params(tmp_path)
    files = train_embedded_orbit(params, lambda progress: None)
    assert {"orbit.json", "config.json"} <= {path.name for path in files}
    assert (tmp_path / "work" / "sheet_000002.png").is_file()
    model = load_orbit_model(tmp_path / "result")
    assert model.facts == FACTS
    picture = data.orbits.views(0, [0]).rgb[0]
    made = image_to_orbit(model, picture, OrbitParams(elevations_deg=(10.0,)))
    assert made.images.shape == (4, 32, 32, 3) and bool(torch.isfinite(made.latents).all())

    again: list[int] = []
    train_embedded_orbit(params, lambda progress: again.append(progress.step))
    assert not again  # all drawn, encoded and trained already
    with pytest.raises(ValueError, match="3 objects and 3 are held out"):
        train_embedded_orbit(replace(params, held_out=3), lambda progress: None)


def test_spatial_layers_of_a_view_model_are_taken_over(tmp_path) -> None:
    sizes = ViewDiffusionParams(widths=(32, 64), layers=1, text_width=24)
    with seeded(5):
        views = make_unet(sizes, 4, 4)
    views.save_pretrained(tmp_path)
    unet = make_orbit_network(NETWORK, 4, 4)
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    take_over_spatial(unet, tmp_path)
    state, source = unet.state_dict(), views.state_dict()
    name = "down_blocks.1.resnets.0"
    assert torch.equal(
        state[f"{name}.spatial_res_block.conv1.weight"], source[f"{name}.conv1.weight"]
    )
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert torch.equal(state[name], source[name])
    assert torch.equal(state["conv_in.weight"][:, :4], source["conv_in.weight"])
    assert not bool(state["conv_in.weight"][:, 4:].any())
    for key, value in before.items():  # what the other does not have stays
        if "temporal" in key or "attn2.to_k" in key:
            assert torch.equal(state[key], value)
    with pytest.raises(ValueError, match="another size"):
        take_over_spatial(make_orbit_network(replace(NETWORK, widths=(64, 64)), 4, 4), tmp_path)


def test_settings_out_of_range_are_refused(tmp_path) -> None:
    for wrong in ({"num_frames": 1}, {"frame_choices": (1,)}, {"batch": 0}):
        with pytest.raises(ValueError, match="at least"):
            make_params(tmp_path, **wrong)
