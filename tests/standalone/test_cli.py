"""Commands of run.py: what they print and their exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from lift3d.standalone.cli import DONE, FAILED, INVALID, main


def chain(builder, prefix: str = "red"):
    empty = builder.node("EmptyImage", [4, 4, 1, 0], outputs=("IMAGE",))
    save = builder.node("SaveImage", [prefix])
    builder.link(empty, 0, save, "images", "IMAGE")


def test_a_workflow_that_runs_exits_with_0(builder, tmp_path: Path, capsys) -> None:
    chain(builder)
    out = tmp_path / "out"
    assert main(["workflow", str(builder.write(tmp_path)), "--out", str(out)]) == DONE
    assert (out / "red_00001_.png").is_file()
    assert f"wrote {out / 'red_00001_.png'}" in capsys.readouterr().out


def test_a_workflow_that_fails_while_running_exits_with_1(builder, tmp_path: Path, capsys) -> None:
    chain(builder, prefix="/outside")
    code = main(["workflow", str(builder.write(tmp_path)), "--out", str(tmp_path / "out")])
    assert code == FAILED
    assert "node 'SaveImage'" in capsys.readouterr().err


def test_an_invalid_workflow_exits_with_2_and_names_every_problem(
    builder, tmp_path, capsys
) -> None:
    chain(builder)
    builder.node("Unknown1")
    builder.node("Unknown2")
    assert main(["workflow", str(builder.write(tmp_path)), "--out", str(tmp_path / "o")]) == INVALID
    error = capsys.readouterr().err
    assert "Unknown1" in error and "Unknown2" in error
    assert not (tmp_path / "o").exists()


def test_bad_settings_exit_with_2(builder, tmp_path: Path) -> None:
    chain(builder)
    path = str(builder.write(tmp_path))
    assert main(["workflow", path, "--set", "Nobody.x=1", "--out", str(tmp_path / "o")]) == INVALID


def test_check_runs_nothing(builder, tmp_path: Path, capsys) -> None:
    chain(builder)
    assert main(["workflow", str(builder.write(tmp_path)), "--check"]) == DONE
    assert "is valid" in capsys.readouterr().out


def test_bad_arguments_exit_with_2(capsys) -> None:
    assert main(["workflow"]) == INVALID
    assert main(["paint"]) == INVALID
    assert main([]) == INVALID
    assert main(["workflow", "--help"]) == DONE


def test_health_prints_a_verdict(capsys) -> None:
    code = main(["health"])
    report = capsys.readouterr().out
    assert "Drawing meshes with torch" in report
    assert (code == DONE) == ("Everything that Lift3D needs is here." in report)


def test_a_script_runs_with_its_arguments_and_the_package(tmp_path: Path, capsys) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys\nfrom lift3d.core.camera import make_kiss3dgen_rig\n"
        "print(len(make_kiss3dgen_rig()), sys.argv[1:])\nsys.exit(3 if len(sys.argv) > 2 else 0)\n"
    )
    assert main(["script", str(script), "--flag"]) == DONE
    assert "4 ['--flag']" in capsys.readouterr().out
    assert main(["script", str(script), "a", "b"]) == 3


def test_a_missing_script_exits_with_2(capsys) -> None:
    assert main(["script", "nothing.py"]) == INVALID
    assert main(["script"]) == INVALID


@pytest.mark.slow
def test_the_demo_makes_meshes_gaussians_and_a_contact_sheet(tmp_path: Path, capsys) -> None:
    from lift3d.core.formats import read_mesh, read_splats
    from lift3d.core.formats.png import read_png

    out = tmp_path / "demo"
    assert main(["demo", "--quick", "--prompt", "a red mug", "--out", str(out)]) == DONE
    assert f"Contact sheet: {out / 'contact_sheet.png'}" in capsys.readouterr().out
    assert read_png(out / "contact_sheet.png").shape[0] > 300
    assert read_splats(out / "object_splat.ply").num_gaussians == 1000
    original, edited = (read_mesh(out / f"{name}.glb")[0] for name in ("object", "edited"))
    assert edited.num_faces > 100 and edited.vertex_colors is not None
    # red, green and blue were exchanged in a ring: the mean colour went with them
    means = [mesh.vertex_colors.mean(dim=0) for mesh in (original, edited)]
    assert means[0].argmax().item() != means[1].argmax().item()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {
        ".glb",
        ".png",
        ".ply",
    }


def test_an_empty_prompt_fails_before_anything_is_written(tmp_path: Path, capsys) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--quick", "--prompt", " ", "--out", str(out)]) == FAILED
    assert "prompt" in capsys.readouterr().err and not out.exists()
