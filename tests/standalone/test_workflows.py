"""Every shipped workflow is complete, loads in the editor's format and runs from file to files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lift3d.core.formats import read_mesh, read_splats
from lift3d.core.pipelines.ge3d_presets import SMALL_COARSE, SMALL_SHARP, load_ge3d_params
from lift3d.standalone.runner import compile_workflow, node_classes, node_specs, run_workflow
from lift3d.standalone.workflow_file import WorkflowError, read_workflow
from lift3d.standalone.workflow_steps import unknown_nodes
from workflow_names import NATIVE_ONLY

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
NAMES = [path.stem for path in WORKFLOWS]
RUNNING_HERE = [name for name in NAMES if name not in NATIVE_ONLY]
LONG_RUNS = {
    "bundle_hand_edit", "bundle_recolour", "character_from_views", "character_refine_only",
    "character_rig", "mesh_edit_by_text", "mesh_edit_masked", "mesh_enhance",
    "mesh_to_bundle_to_mesh", "text_to_3d",
}  # fmt: skip
"""Over 10 s each, even with small settings."""
SMALL = json.loads((Path(__file__).with_name("small_settings.json")).read_text(encoding="utf-8"))
PROMPT_NODES = {
    "text_to_3d": ("Bundle Prompt", "prompt"),
    "bundle_hand_edit": ("Bundle Prompt", "prompt"),
    "text_to_splat": ("Text Prompt", "prompt"),
}
"""Title and input of the prompt in workflows that start from words."""

LOADERS = {
    "CheckpointLoaderSimple", "UNETLoader", "LoraLoaderModelOnly", "DualCLIPLoader", "VAELoader",
    "ControlNetLoader", "CLIPVisionLoader", "StyleModelLoader", "LoadBackgroundRemovalModel",
    "ImageOnlyCheckpointLoader",
}  # fmt: skip


def document(name: str) -> dict:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_four_workflows_are_there() -> None:
    expected = {
        "mesh_to_bundle_to_mesh", "bundle_recolour", "retexture_mesh_from_views", "mesh_to_splat",
    }  # fmt: skip
    assert expected <= set(NAMES)


def test_those_for_comfyui_only_are_the_ones_with_nodes_of_its_own() -> None:
    specs = node_specs(node_classes())
    foreign = {path.stem for path in WORKFLOWS if unknown_nodes(read_workflow(path), specs)}
    assert foreign == NATIVE_ONLY


@pytest.mark.parametrize("name", sorted(NATIVE_ONLY))
def test_those_for_comfyui_only_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(WorkflowError) as caught:
        run_workflow(ROOT / "workflows" / f"{name}.json", tmp_path / "out")
    assert len(caught.value.problems) == 1, caught.value.problems
    told = caught.value.problems[0]
    assert "only ComfyUI has" in told and "run this workflow in" in told
    assert any(f"'{loader}'" in told for loader in LOADERS)
    assert "Lift3D_" not in told and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(NATIVE_ONLY))
def test_loaders_of_published_weights_say_where_to_get_them(name: str) -> None:
    """The dialog of missing models reads these links; it takes no other hosts and suffixes."""
    loaders = [node for node in document(name)["nodes"] if node["type"] in LOADERS]
    assert loaders
    for node in loaders:
        named = [value for value in node["widgets_values"] if str(value).endswith(".safetensors")]
        models = {model["name"]: model for model in node["properties"]["models"]}
        assert set(models) == set(named)
        for model in models.values():
            assert model["url"].startswith("https://huggingface.co/") and model["directory"]
            assert model["url"].endswith(".safetensors") and "/resolve/" in model["url"]


@pytest.mark.parametrize("name", RUNNING_HERE)
def test_it_validates_with_the_values_it_stores(name: str) -> None:
    path = ROOT / "workflows" / f"{name}.json"
    steps = compile_workflow(read_workflow(path), [], node_classes())
    first = steps[0]
    meshes = [step for step in steps if step.title == "Load Mesh"]
    if meshes:
        assert "path" in meshes[0].values
    elif first.title in ("Make Character", "First character"):
        assert "seed" in first.values
    else:
        title, words = PROMPT_NODES[name]
        prompts = [step for step in steps if step.title == title]
        assert first.title == "Load Diffusion Model"
        assert len(prompts) == 1 and words in prompts[0].values


def test_text_to_splat_stores_what_the_presets_of_small_models_say() -> None:
    path = ROOT / "workflows" / "text_to_splat.json"
    steps = compile_workflow(read_workflow(path), [], node_classes())
    values = {step.title: step.values for step in steps}
    for title, choices in (("Coarse Object", SMALL_COARSE), ("Sharpen", SMALL_SHARP)):
        assert vars(choices).items() <= values[title].items()
        assert values[title]["preset"] == "small"
    small, stored = load_ge3d_params("small").objective, values["Distillation Objective"]
    nodes = small.alignment.nodes
    assert [stored[name] for name in ("guidance", "perp_neg", "max_jumps", "noising")] == [
        small.guidance_scale, small.perp_neg, nodes.num_jumps, small.alignment.noising,
    ]  # fmt: skip
    ranges = {"begin": (nodes.jump_begin, nodes.farthest_begin)}
    ranges["end"] = nodes.jump_end, nodes.farthest_end
    for name, (jump, farthest) in ranges.items():
        assert (stored[f"jump_min_{name}"], stored[f"jump_max_{name}"]) == jump
        assert stored[f"farthest_{name}"] == farthest


@pytest.mark.parametrize("name", NAMES)
def test_it_is_laid_out_for_people(name: str) -> None:
    doc = document(name)
    assert doc["version"] == 0.4 and doc["groups"]
    assert any(node["type"] in ("Note", "MarkdownNote") for node in doc["nodes"])
    boxes = [(*node["pos"], *node["size"]) for node in doc["nodes"]]
    for index, (x, y, width, height) in enumerate(boxes):
        for x2, y2, width2, height2 in boxes[index + 1 :]:
            apart = x + width <= x2 or x2 + width2 <= x or y + height <= y2 or y2 + height2 <= y
            assert apart, f"nodes overlap at {(x, y)} and {(x2, y2)}"


@pytest.mark.parametrize("name", NAMES)
def test_its_nodes_say_where_they_come_from(name: str) -> None:
    for node in document(name)["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        properties = node["properties"]
        assert properties["Node name for S&R"] == node["type"]
        own = node["type"].startswith("Lift3D_")
        assert properties["cnr_id"] == ("lift3d" if own else "comfy-core") and properties["ver"]


@pytest.mark.parametrize("name", NAMES)
def test_its_links_agree_in_all_three_places(name: str) -> None:
    doc = document(name)
    nodes = {node["id"]: node for node in doc["nodes"]}
    for link_id, origin, slot, target, position, kind in doc["links"]:
        assert link_id in nodes[origin]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][position]["link"] == link_id
        assert nodes[origin]["outputs"][slot]["type"] == kind
    assert doc["last_link_id"] == max(link[0] for link in doc["links"])
    assert doc["last_node_id"] == max(nodes)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_thumbnail(name: str) -> None:
    from PIL import Image

    with Image.open(ROOT / "workflows" / f"{name}.jpg") as picture:
        assert picture.format == "JPEG" and min(picture.size) >= 256


def mark_long(names: list[str]) -> list:
    """The names; those that take long only run with ``--slow``."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if name in LONG_RUNS else name for name in names
    ]


@pytest.mark.parametrize("name", mark_long(RUNNING_HERE))
def test_it_runs_small(name: str, tmp_path: Path) -> None:
    lines: list[str] = []
    files = run_workflow(
        ROOT / "workflows" / f"{name}.json", tmp_path, settings=SMALL[name], say=lines.append
    )
    assert files and all(file.is_relative_to(tmp_path) and file.stat().st_size for file in files)
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == set(files)
    for model in (file for file in files if file.parent.name == "3d"):
        if model.suffix == ".glb":
            assert sum(part.num_faces for part in read_mesh(model)) > 50
        else:
            assert read_splats(model).num_gaussians > 50


def test_a_file_of_the_user_can_be_put_in(tmp_path: Path, builder) -> None:
    from lift3d.core.datasets.procedural_objects import make_object
    from lift3d.core.formats import write_mesh

    write_mesh(tmp_path / "mine.obj", make_object("mug", 3).mesh)
    settings = [*SMALL["mesh_to_splat"], f"Load Mesh.path={tmp_path / 'mine.obj'}"]
    path = ROOT / "workflows" / "mesh_to_splat.json"
    files = run_workflow(path, tmp_path / "out", settings=settings, say=lambda line: None)
    assert any(file.suffix == ".ply" for file in files)
