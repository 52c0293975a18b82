"""The benchmark of images to splats states its protocol and prints a row per method and the means."""

from __future__ import annotations

from pathlib import Path

import pytest
from lift3d.benchmarks import image_to_splat
from lift3d.core.mesh import NoSurfaceError

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

    def rows_of(*named: str) -> list[str]:
        words = ["--decoder", *named, "--vae", str(vae), "--no-fit", "--no-images"]
        options = image_to_splat.make_parser().parse_args(words)
        protocol = image_to_splat.rules_of(options).protocol
        return list(image_to_splat.make_methods(options, protocol))

    one, two = map(str, folders)
    assert rows_of(one, two) == ["decoder one 4", "decoder two 4"]
    assert rows_of(f"full={one}", f"no-picture={two}") == ["decoder full 4", "decoder no-picture 4"]
    with pytest.raises(ValueError, match="different names"):
        rows_of(f"same={one}", f"same={two}")


def test_held_out_objects_are_of_the_kinds_that_the_embedded_models_know() -> None:
    kinds = {name.partition("-")[0] for name in image_to_splat.held_out_objects(12)}
    assert kinds <= set(image_to_splat.EMBEDDED_CATEGORIES) and len(kinds) > 4


def test_an_object_without_a_surface_is_a_miss_and_the_run_goes_on(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    def nothing(*_: object) -> image_to_splat.Made:
        raise NoSurfaceError("Frame 1 is white all over.")

    faint = image_to_splat.Made(image_to_splat.NOTHING)
    methods = {"raises": nothing, "faint": lambda truth, index: faint}
    monkeypatch.setattr(image_to_splat, "make_methods", lambda *_: methods)
    assert image_to_splat.main([*SMALL, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    header = next(row for row in printed if row.startswith("| object"))
    columns = [name.strip() for name in header.split("|")]
    for row in ("**mean, raises**", "**mean, faint**"):
        cells = [cell.strip() for cell in next(t for t in printed if row in t).split("|")]
        assert cells[columns.index("missed")] == "1.000" and cells[columns.index("CD")] == ""
        assert cells[columns.index("IoU")] == cells[columns.index("F 0.05")] == "0.000"


def test_distillation_is_judged_by_pairs_of_views_alone(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    from decoder_scenes import write_tiny_decoder
    from orbit_scenes import write_tiny_orbit

    orbit, lora = write_tiny_orbit(tmp_path / "orbit"), tmp_path / "lora.safetensors"
    decoder = write_tiny_decoder(tmp_path / "decoder")
    monkeypatch.setattr(image_to_splat, "embedded_path", lambda name: None)
    monkeypatch.setattr(image_to_splat, "with_orbit_lora", lambda model, path: model)
    words = ["--distillation", "--sampling-steps", "2", "--orbit", orbit, "--decoder", decoder]
    words += ["--lora", lora, "--vae", orbit / "vae", "--out", tmp_path]
    assert image_to_splat.main([*SMALL, *map(str, words)]) == 0
    printed = capsys.readouterr().out
    assert "| object | PSNR | SSIM | agreement | cpu s |" in printed
    assert "image + LoRA, decoder" in printed and "fit" not in printed
    assert "agreement with the LoRA minus without: +0.000 dB" in printed  # here it changes nothing


def test_differences_are_told_with_their_standard_error() -> None:
    before = [{"agreement": value} for value in (20.0, 21.0, float("nan"))]
    after = [{"agreement": value} for value in (20.5, 21.1, 30.0)]
    text = image_to_splat.difference_text("agreement", before, after)
    assert "+0.300 dB, standard error 0.200, better on 2 of 2" in text
