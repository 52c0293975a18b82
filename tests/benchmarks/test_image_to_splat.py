"""The benchmark of images to splats states its protocol and prints a row per method and the means."""

from __future__ import annotations

from pathlib import Path

import pytest
from lift3d.benchmarks import image_to_splat

SMALL = [
    "--only", "ellipsoid", "--frames", "4", "--gaussians", "150", "--steps", "2", "--fit-px", "32",
    "--size", "32", "--views", "3", "--points", "300", "--mesh-resolution", "24",
]  # fmt: skip


@pytest.mark.slow
def test_it_states_the_protocol_and_prints_rows_means_and_a_sheet(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(image_to_splat, "embedded_path", lambda name: None)
    options = ["--align", "box", "--taus", "0.1", "--out", str(tmp_path)]
    assert image_to_splat.main([*SMALL, *options]) == 0
    printed = capsys.readouterr().out
    for part in ("3 views of 32 px", "aligned by boxes", "F at 0.1", "No orbit model"):
        assert part in printed
    rows = [row for row in printed.splitlines() if row.startswith("| ") and "---" not in row]
    names = [row.split("|")[1].strip() for row in rows]
    assert names == ["object", "ellipsoid, fit 4", "**mean, fit 4**"]
    assert rows[1].split("|")[2:-2] == rows[2].split("|")[2:-2]
    assert (tmp_path / "image_to_splat.png").stat().st_size > 500


def test_nothing_to_run_is_said(capsys) -> None:
    assert image_to_splat.main(["--only", "nothing"]) == 2
    assert "fits no object" in capsys.readouterr().out


@pytest.mark.slow
def test_an_orbit_model_and_a_decoder_give_their_own_rows(tmp_path: Path, monkeypatch) -> None:
    from decoder_scenes import write_tiny_decoder
    from orbit_scenes import write_tiny_orbit

    orbit = write_tiny_orbit(tmp_path / "orbit")
    decoder = write_tiny_decoder(tmp_path / "decoder")
    monkeypatch.setattr(image_to_splat, "embedded_path", lambda name: None)
    given = ["--orbit", orbit, "--decoder", decoder, "--vae", orbit / "vae"]
    options = image_to_splat.make_parser().parse_args([*SMALL, *map(str, given)])
    protocol = image_to_splat.rules_of(options).protocol
    methods = image_to_splat.make_methods(options, protocol)
    assert list(methods) == ["fit 4", "decoder 4", "image, fit", "image, decoder"]
    truth = next(iter(image_to_splat.chosen_objects(options).values()))
    assert methods["decoder 4"](truth, 0).cloud.num_gaussians > 0
    made = methods["image, decoder"](truth, 0)
    assert made.cloud.num_gaussians > 0 and len(made.frames) == len(made.rig) == 4


def test_several_decoders_are_told_apart_and_take_the_frames_they_were_trained_with(
    tmp_path: Path, monkeypatch
) -> None:
    from decoder_scenes import write_tiny_decoder
    from orbit_scenes import write_tiny_orbit

    monkeypatch.setattr(image_to_splat, "embedded_path", lambda name: None)
    folders = [write_tiny_decoder(tmp_path / name) for name in ("one", "two")]
    vae = write_tiny_orbit(tmp_path / "orbit") / "vae"
    words = ["--decoder", *map(str, folders), "--vae", str(vae), "--no-fit"]
    options = image_to_splat.make_parser().parse_args(words)
    methods = image_to_splat.make_methods(options, image_to_splat.rules_of(options).protocol)
    assert list(methods) == ["decoder one 4", "decoder two 4"]


def test_held_out_objects_are_of_the_kinds_that_the_embedded_models_know() -> None:
    kinds = {name.partition("-")[0] for name in image_to_splat.held_out_objects(12)}
    assert kinds <= set(image_to_splat.EMBEDDED_CATEGORIES) and len(kinds) > 4
