"""The pack inside a real ComfyUI: it loads fast and light, and every workflow runs.

Set COMFYUI_PATH to a checkout, and COMFYUI_PYTHON to an interpreter that has its requirements and
ours (default: the one that runs the tests).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
SMALL = json.loads(
    (ROOT / "tests" / "standalone" / "small_settings.json").read_text(encoding="utf-8")
)
MAX_IMPORT_SECONDS = 0.5


def prompt_of(*nodes: tuple[str, dict]) -> dict:
    """API prompt; a value ("#2", 0) is a link to output 0 of the second node."""
    return {
        str(number): {
            "class_type": kind,
            "inputs": {
                name: [value[0][1:], value[1]] if isinstance(value, tuple) else value
                for name, value in inputs.items()
            },
        }
        for number, (kind, inputs) in enumerate(nodes, start=1)
    }


LOAD = ("Lift3D_LoadMesh", {"path": "sample: mug", "normalize": True, "parts": "merge"})
PROMPTS = {
    "native nodes": prompt_of(
        LOAD,
        ("SaveGLB", {"mesh": ("#1", 0), "filename_prefix": "3d/core"}),
        ("Lift3D_SaveMesh", {"mesh": ("#1", 0), "filename_prefix": "3d/own", "format": "glb"}),
        ("Preview3D", {"model_file": ("#3", 1)}),
        ("Preview3D", {"model_file": ("#3", 0)}),
        (
            "Lift3D_MakeRig",
            {
                "preset": "orbit", "views": 2, "first_azimuth_deg": 0.0, "elevation_deg": 5.0,
                "radius": 4.5, "fov_y_deg": 30.0,
            },
        ),
        ("Lift3D_ConvertRigToCameras", {"rig": ("#6", 0)}),
        ("Lift3D_ConvertCamerasToRig", {"camera_info": ("#7", 0)}),
        (
            "Lift3D_RenderMesh",
            {
                "mesh": ("#1", 0), "size_px": 48, "shading": "flat_color", "background": "white",
                "normal_encoding": "bundle", "rig": ("#8", 0),
            },
        ),
        ("PreviewImage", {"images": ("#9", 0)}),
        ("Lift3D_InspectMesh", {"mesh": ("#1", 0)}),
        ("Lift3D_CheckHealth", {}),
    ),
    "native splats": prompt_of(
        LOAD,
        (
            "Lift3D_ConvertMeshToSplat",
            {
                "mesh": ("#1", 0), "gaussians": 400, "steps": 2, "sh_degree": 0, "seed": 1,
                "views": 4, "size_px": 48,
            },
        ),
        ("GetSplatCount", {"splat": ("#2", 0)}),
        ("PreviewAny", {"source": ("#3", 1)}),
        ("SplatToFile3D", {"splat": ("#2", 0), "format": "ply"}),
        ("Lift3D_LoadSplat", {"path": "none.ply", "frame": "3dgs", "model_3d": ("#5", 0)}),
        ("Lift3D_SaveSplat", {"splat": ("#6", 0), "filename_prefix": "3d/own", "format": "ply", "frame": "3dgs"}),
    ),
    "picture to bundle": prompt_of(
        ("LoadImage", {"image": "object.png"}),
        (
            "Lift3D_PrepareImage",
            {
                "image": ("#1", 0), "mask": ("#1", 1), "mask_shows": "background", "size_px": 64,
                "share": 0.85, "background": "white",
            },
        ),
        (
            "Lift3D_LoadMultiviewModel",
            {"folder": "zero123plus-v1.2", "unet": "flexgen.ckpt", "precision": "auto"},
        ),
        (
            "Lift3D_GenerateViews",
            {
                "multiview": ("#3", 0), "image": ("#2", 0), "steps": 2, "guidance": 4.0, "seed": 0,
                "layout": "flexgen", "tile_px": 32,
            },
        ),
        (
            "Lift3D_LoadLrm",
            {"checkpoint": "final_ckpt.ckpt", "size": "auto", "precision": "float32"},
        ),
        (
            "Lift3D_ReconstructWithLrm",
            {
                "lrm": ("#5", 0), "images": ("#4", 0), "cameras": "flexgen", "radius": 3.5,
                "chunk_points": 65536, "chunk_cells": 8192,
            },
        ),
        (
            "Lift3D_MakeReferenceBundle",
            {
                "mesh": ("#6", 0), "images": ("#4", 0), "tile_px": 64, "use_images": True,
                "radius": 4.15, "fit_radius": False,
            },
        ),
        ("SaveImage", {"images": ("#7", 0), "filename_prefix": "reference"}),
        ("PreviewAny", {"source": ("#5", 1)}),
    ),
    "kept pose": prompt_of(
        ("LoadImage", {"image": "object.png"}),
        ("Lift3D_LoadPoseModel", {"folder": "empty-folder", "precision": "auto"}),
        (
            "Lift3D_CanonicalizePose",
            {
                "image": ("#1", 0), "pose_model": ("#2", 0), "steps": 2, "guidance": 5.0, "seed": 0,
                "keep_pose": True, "height_px": 128, "low_memory": False,
            },
        ),
        ("SaveImage", {"images": ("#3", 0), "filename_prefix": "kept_pose"}),
    ),
    "missing weights": prompt_of(
        ("Lift3D_LoadLrm", {"checkpoint": "absent.ckpt", "size": "auto", "precision": "float32"}),
        ("PreviewAny", {"source": ("#1", 1)}),
    ),
    "path out of the folders": prompt_of(
        ("Lift3D_LoadMesh", {"path": "../../etc/passwd.glb", "normalize": True, "parts": "merge"}),
        ("Lift3D_InspectMesh", {"mesh": ("#1", 0)}),
    ),
    "absolute path": prompt_of(
        ("Lift3D_LoadMesh", {"path": "/etc/passwd.glb", "normalize": True, "parts": "merge"}),
        ("Lift3D_InspectMesh", {"mesh": ("#1", 0)}),
    ),
    "prefix out of the folders": prompt_of(
        LOAD,
        ("Lift3D_SaveMesh", {"mesh": ("#1", 0), "filename_prefix": "../../evil", "format": "glb"}),
    ),
}  # fmt: skip


def write_models(folder: Path, comfyui: Path) -> None:
    """Tiny weights in the model folders, and a picture with alpha."""
    import shutil

    import torch
    from lift3d.core.formats.png import write_png
    from lrm_scenes import write_tiny_prm, write_tiny_slrm
    from multiview_scenes import make_picture, make_tiny_zero123plus
    from stdgen_scenes import make_tiny_pose_model, make_tiny_views_model
    from tiny_models import make_tiny_unet
    from tiny_published import write_published

    own = folder / "models" / "lift3d"
    make_tiny_zero123plus(own / "zero123plus-v1.2")
    write_tiny_prm(own / "final_ckpt.ckpt")
    write_tiny_slrm(own / "StdGEN-mesh-slrm.pth")
    make_tiny_pose_model(own / "StdGEN-canonicalize-1024")
    make_tiny_views_model(own / "StdGEN-multiview-1024")
    (own / "empty-folder").mkdir()
    torch.save(make_tiny_unet().state_dict(), own / "flexgen.ckpt")
    (folder / "input").mkdir()
    picture = make_picture(48)
    alpha = (picture.amin(dim=-1, keepdim=True) < 0.99).float()
    write_png(folder / "input" / "object.png", torch.cat([picture, alpha], dim=-1))
    shutil.copyfile(folder / "input" / "object.png", folder / "input" / "example.png")
    write_published(folder / "models", comfyui)


@pytest.fixture(scope="session")
def report(drive, comfyui_root: Path) -> dict:
    def prepare(folder: Path) -> dict:
        write_models(folder, comfyui_root)
        runs: dict = {name: {"prompt": prompt} for name, prompt in PROMPTS.items()}
        for path in WORKFLOWS:
            runs[path.stem] = {"workflow": str(path), "settings": SMALL[path.stem]}
        return {"comfyui": str(comfyui_root), "pack": str(ROOT), "runs": runs}

    return drive("drive_comfyui.py", prepare)


def files(report: dict) -> set[str]:
    output = report["folder"] / "output"
    return {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}


def test_the_pack_loads_with_all_its_nodes(report) -> None:
    from lift3d.standalone.runner import own_node_classes

    assert report["loaded"]
    assert set(own_node_classes()) == set(report["nodes"])


def test_importing_it_is_quick_and_loads_nothing_heavy(report) -> None:
    assert report["heavy_modules"] == []
    # Seconds of this process, not of the clock: other work on the machine must not fail the test.
    assert report["import_cpu_seconds"] < MAX_IMPORT_SECONDS


@pytest.mark.parametrize("name", [path.stem for path in WORKFLOWS])
def test_workflows_run_through_the_executor(report, name: str) -> None:
    run = report["runs"][name]
    assert run["valid"], run
    assert run["success"], run["errors"]
    saved = {file for file in files(report) if name in file}
    assert any(file.startswith("3d/") for file in saved) and any(".png" in file for file in saved)
    assert run["progress_steps"] > 3 and run["previews"] > 0


@pytest.mark.parametrize("name", ["native nodes", "native splats"])
def test_values_travel_to_native_nodes_and_back(report, name: str) -> None:
    run = report["runs"][name]
    assert run["valid"], run
    assert run["success"], run["errors"]


def test_saved_files_are_announced_to_the_front_end(report) -> None:
    saved = report["runs"]["native nodes"]["outputs"]["3"]["3d"][0]
    assert saved == {"filename": "own_00001_.glb", "subfolder": "3d", "type": "output"}
    assert "3d/own_00001_.glb" in files(report)


def test_native_nodes_count_our_gaussians(report) -> None:
    outputs = report["runs"]["native splats"]["outputs"]
    assert outputs["4"]["text"] == ["400"]


def test_paths_out_of_the_folders_are_refused_before_running(report) -> None:
    for name in ("path out of the folders", "absolute path"):
        assert not report["runs"][name]["valid"]


def test_saving_out_of_the_output_folder_fails(report) -> None:
    run = report["runs"]["prefix out of the folders"]
    assert run["valid"] and not run["success"]
    assert not any("evil" in file for file in files(report))


def test_a_picture_becomes_a_reference_bundle(report) -> None:
    run = report["runs"]["picture to bundle"]
    assert run["valid"] and run["success"], run
    assert run["progress_steps"] > 5 and "reference_00001_.png" in files(report)
    shown = json.dumps(run["outputs"])
    assert "all keys fit" in shown and "lpips" in shown


def test_the_model_of_a_kept_pose_is_not_loaded(report) -> None:
    run = report["runs"]["kept pose"]
    assert run["valid"] and run["success"], run  # loading the empty folder would fail
    assert "kept_pose_00001_.png" in files(report)


def test_missing_weights_are_named_before_anything_runs(report) -> None:
    run = report["runs"]["missing weights"]
    told = json.dumps(run.get("node_errors"))
    assert not run["valid"]
    assert "absent.ckpt" in told and "huggingface.co/LTT/PRM" in told and "lift3d" in told
