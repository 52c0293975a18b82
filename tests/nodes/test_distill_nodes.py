"""Text-to-splat nodes under inference mode: defaults of the paper, files, interruption, tools."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from distill_scenes import CAMERAS, SIZE, WishfulModel, small_params
from lift3d.core.gaussian_cloud import GaussianCloud
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.camera_schedule import CameraScheduleParams
from lift3d.core.pipelines.ge3d_presets import load_ge3d_params
from lift3d.core.progress import StopEarly
from lift3d.nodes import camera_schedule, distill, host, objective, optimize, splat_tools
from lift3d.nodes.sockets_mesh import mesh_from_link, mesh_to_link
from lift3d.nodes.sockets_splat import cloud_from_link, cloud_to_link
from node_calls import outputs

pytestmark = pytest.mark.usefixtures("as_in_comfyui")


@pytest.fixture
def model():
    with torch.inference_mode(False):
        return WishfulModel()


@pytest.fixture
def splat_link(cloud: GaussianCloud):
    return cloud_to_link(cloud)


def small_run(model, **inputs):
    params = small_params()
    settings = {
        "diffusion": model, "preset": "small", "iterations": 4, "views": 2, "size_px": SIZE,
        "objective": params.objective, "schedule": CAMERAS, "preview_every": 0, **inputs,
    }  # fmt: skip
    return settings


# -- what the widgets mean -------------------------------------------------------------------


def test_the_objective_node_stands_at_the_papers_recipe() -> None:
    (made,) = outputs(objective.MakeObjective)
    assert made == load_ge3d_params("paper").objective


def test_the_released_code_can_be_set_on_the_objective_node() -> None:
    (made,) = outputs(
        objective.MakeObjective, inversion_text="negative", unconditional_text="negative",
        balance_width=1000.0, clean_target=True, renormalize=False, offset_noise=0.1,
        view_template="The {view} view of {text}",
    )  # fmt: skip
    assert made == load_ge3d_params("reference").objective


def test_the_way_of_noising_reaches_the_objective() -> None:
    (made,) = outputs(objective.MakeObjective, noising="random")
    assert made.alignment.noising == "random"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jump_min_begin": 90, "jump_max_begin": 80}, "jump"),
        ({"jump_max_begin": 500, "farthest_begin": 400}, "farthest node"),
        ({"max_jumps": 0}, "num_jumps"),
        ({"guidance": 0.0}, "guidance_scale must be positive"),
        ({"sds_t_min": 0.9, "sds_t_max": 0.5}, "low < high"),
    ],
)
def test_senseless_objectives_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        outputs(objective.MakeObjective, **change)


def test_the_schedule_node_stands_at_the_papers_cameras() -> None:
    (made,) = outputs(camera_schedule.MakeCameraSchedule)
    assert made == CameraScheduleParams() == load_ge3d_params("paper").run.cameras
    with pytest.raises(ValueError, match="must be positive and rise"):
        outputs(camera_schedule.MakeCameraSchedule, near_begin=9.0, far_begin=2.0)


def test_prompts_are_said_for_each_view() -> None:
    prompt, *views = outputs(distill.WriteViewPrompt, prompt=" a red mug ")
    assert prompt == "a red mug"
    assert views == [f"a red mug, {view} view" for view in ("front", "side", "back")]
    assert distill.WriteViewPrompt.validate_inputs(" ") == "The prompt is empty"


# -- starts ----------------------------------------------------------------------------------


def test_starts_come_from_shape_mesh_splat_or_points(tetrahedron, splat_link, out: Path) -> None:
    (ball,) = outputs(distill.InitializeSplats, gaussians=100, radius=0.4)
    assert cloud_from_link(ball).num_gaussians == 100
    (on_mesh,) = outputs(
        distill.InitializeSplats, gaussians=200, mesh=mesh_to_link(tetrahedron), keep_colors=True
    )
    assert float(cloud_from_link(on_mesh).base_colors.std()) > 0.1
    (again,) = outputs(distill.InitializeSplats, splat=splat_link)
    torch.testing.assert_close(
        cloud_from_link(again).means, cloud_from_link(splat_link).means, atol=1e-6, rtol=0
    )
    folder = out.parent / "input"
    folder.mkdir()
    np.savez(folder / "points.npz", coords=np.eye(3))
    (scattered,) = outputs(distill.InitializeSplats, gaussians=60, points_file="points.npz")
    assert cloud_from_link(scattered).num_gaussians == 60


def test_missing_point_files_are_named_before_running(out: Path) -> None:
    assert "does not exist" in distill.InitializeSplats.validate_inputs("gone.npz")
    assert "suffix" in distill.InitializeSplats.validate_inputs("gone.txt")
    assert distill.InitializeSplats.validate_inputs("") is True


def test_splats_with_nan_or_odd_quaternions_are_refused_or_repaired(cloud) -> None:
    link = cloud_to_link(cloud)
    with torch.inference_mode(False):
        link.positions = link.positions.clone()
        link.positions[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        outputs(distill.InitializeSplats, splat=link)
    link = cloud_to_link(cloud)
    link.rotations = link.rotations * 7
    outputs(distill.InitializeSplats, splat=link)  # any length is normalised
    link.rotations = link.rotations * 0
    with pytest.raises(ValueError, match="length zero"):
        outputs(distill.InitializeSplats, splat=link)


# -- runs ------------------------------------------------------------------------------------


def test_gaussians_are_optimised_and_reported(model, splat_link, out: Path) -> None:
    splat, report = outputs(optimize.OptimizeSplats, **small_run(model), splat=splat_link)
    assert cloud_from_link(splat).num_gaussians >= 12
    assert "4 iterations, finished" in report and "evaluations" in report
    assert not splat.positions.requires_grad
    assert not [path for path in out.rglob("*") if path.is_file()]  # no checkpoint is left


def test_without_a_start_there_is_a_ball(model, out: Path) -> None:
    splat, _ = outputs(optimize.OptimizeSplats, **small_run(model, iterations=1))
    assert cloud_from_link(splat).num_gaussians == 8000 // 5


def test_an_interrupted_node_goes_on_where_it_was(model, splat_link, out, monkeypatch) -> None:
    settings = {**small_run(model), "splat": splat_link, "checkpoint_every": 1}
    straight, _ = outputs(optimize.OptimizeSplats, **settings)

    class Interrupted(Exception):
        pass

    def interrupt(progress) -> None:
        if progress.step == 2:
            raise Interrupted

    host.standalone_progress_hook.append(interrupt)
    try:
        with pytest.raises(Interrupted):
            outputs(optimize.OptimizeSplats, **settings)
    finally:
        host.standalone_progress_hook.remove(interrupt)
    saved = list((out / "lift3d_checkpoints").iterdir())
    assert len(saved) == 1 and saved[0].suffix == ".safetensors"
    calls = model.calls
    resumed, _ = outputs(optimize.OptimizeSplats, **settings)
    assert torch.equal(resumed.positions, straight.positions)
    assert torch.equal(resumed.sh, straight.sh)
    assert model.calls - calls == calls // 3  # the other half of the second of three runs
    assert not list((out / "lift3d_checkpoints").iterdir())


def test_an_interruption_may_keep_what_there_is(model, splat_link, out) -> None:
    def stop(progress) -> None:
        if progress.step == 2:
            raise StopEarly

    host.standalone_progress_hook.append(stop)
    try:
        splat, report = outputs(
            optimize.OptimizeSplats, **small_run(model), splat=splat_link, when_interrupted="keep"
        )
    finally:
        host.standalone_progress_hook.remove(stop)
    assert "2 iterations, stopped" in report and cloud_from_link(splat).num_gaussians


def test_gaussians_are_refined(model, splat_link) -> None:
    splat, images, rig = outputs(
        optimize.RefineSplats, diffusion=model, splat=splat_link, views=4, size_px=SIZE, steps=2,
        radius=4.5, fov_y_deg=30.0,
    )  # fmt: skip
    assert images.shape == (5, SIZE, SIZE, 3) and len(rig) == 5  # at least one on each ring
    assert cloud_from_link(splat).num_gaussians >= 1


def test_a_mesh_is_painted(model, tetrahedron: Mesh, out: Path) -> None:
    mesh, report = outputs(
        optimize.OptimizeMesh, **small_run(model), mesh=mesh_to_link(tetrahedron), vertex_step=0.0
    )
    made = mesh_from_link(mesh)
    torch.testing.assert_close(made.vertices, tetrahedron.vertices)
    assert not torch.equal(made.vertex_colors, tetrahedron.vertex_colors)
    assert "4 iterations" in report


def test_an_empty_prompt_is_refused(model, splat_link, out) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        outputs(optimize.OptimizeSplats, **small_run(model), splat=splat_link, prompt=" ")


def test_a_loaded_stable_diffusion_gives_gradients(tmp_path: Path, splat_link, out) -> None:
    """Weights read under inference mode, as a loader node does, still serve the encoder."""
    from lift3d.core.diffusion.diffusers_model import load_diffusers_model
    from tiny_models import make_tiny_sd_folder

    with torch.inference_mode(False):
        folder = make_tiny_sd_folder(tmp_path / "sd")
    diffusion = load_diffusers_model(folder, device="cpu")
    splat, report = outputs(
        optimize.OptimizeSplats, **small_run(diffusion, iterations=2, size_px=64),
        splat=splat_link,
    )  # fmt: skip
    assert "2 iterations, finished" in report
    assert bool(torch.isfinite(splat.positions).all())


# -- tools -----------------------------------------------------------------------------------


def test_tools_work_on_links(splat_link, cloud) -> None:
    (cropped,) = outputs(splat_tools.CropSplats, splat=splat_link, size_x=0.5)
    inside = int((cloud.means[:, 0].abs() <= 0.25).sum())
    assert cloud_from_link(cropped).num_gaussians == inside
    pruned, count = outputs(splat_tools.PruneSplats, splat=splat_link, min_opacity=0.5)
    assert count == cloud_from_link(pruned).num_gaussians == int((cloud.opacities >= 0.5).sum())
    (merged,) = outputs(splat_tools.MergeSplats, splat_1=splat_link, splat_2=splat_link)
    assert cloud_from_link(merged).num_gaussians == 24


def test_turning_is_in_the_world_frame(splat_link, cloud) -> None:
    (turned,) = outputs(splat_tools.TransformSplats, splat=splat_link, rotate_y=90.0, move_y=1.0)
    made = cloud_from_link(turned).means
    x, y, z = cloud.means.unbind(1)  # +Z goes to +X, +X to -Z
    torch.testing.assert_close(made, torch.stack([z, y + 1, -x], dim=1), atol=1e-5, rtol=0)


def test_a_splat_is_fitted_to_a_size(splat_link) -> None:
    (made,) = outputs(splat_tools.TransformSplats, splat=splat_link, fit_to=1.8)
    means = cloud_from_link(made).means
    assert float((means.amax(dim=0) - means.amin(dim=0)).max()) == pytest.approx(1.8, abs=1e-4)


def test_a_splat_becomes_a_mesh(tetrahedron) -> None:
    (on_mesh,) = outputs(
        distill.InitializeSplats, gaussians=1500, opacity=0.95, keep_colors=True,
        mesh=mesh_to_link(tetrahedron),
    )  # fmt: skip
    (mesh,) = outputs(splat_tools.SplatToMesh, splat=on_mesh, resolution=24, views=8, size_px=48)
    made = mesh_from_link(mesh)
    assert made.num_faces > 50 and made.vertex_colors is not None
