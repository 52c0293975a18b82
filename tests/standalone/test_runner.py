"""Workflows run from file to files without ComfyUI; failures name the node."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from lift3d.standalone import folders, runner, stock_nodes
from lift3d.standalone.comfy_api import ComfyNode, NodeOutput, Schema, io
from lift3d.standalone.runner import NodeError, run_workflow
from lift3d.standalone.workflow_file import WorkflowError


def image_chain(builder, prefix: str = "pictures/red", color: int = 0xFF0000) -> None:
    empty = builder.node("EmptyImage", [8, 4, 2, color], outputs=("IMAGE",))
    save = builder.node("SaveImage", [prefix])
    builder.link(empty, 0, save, "images", "IMAGE")


def test_files_are_written_below_out_and_reported(builder, tmp_path, say, lines) -> None:
    image_chain(builder)
    files = run_workflow(builder.write(tmp_path), tmp_path / "out", say=say)
    assert [file.relative_to(tmp_path / "out").as_posix() for file in files] == [
        "pictures/red_00001_.png",
        "pictures/red_00002_.png",
    ]
    assert lines[0] == "[1/2] Empty Image" or lines[0] == "[1/2] EmptyImage"
    assert any(str(files[0]) in line for line in lines)


def test_a_second_run_overwrites_nothing(builder, tmp_path, say) -> None:
    image_chain(builder)
    path = builder.write(tmp_path)
    first = run_workflow(path, tmp_path / "out", say=say)
    second = run_workflow(path, tmp_path / "out", say=say)
    assert not set(first) & set(second) and all(file.is_file() for file in (*first, *second))


def test_settings_reach_the_node(builder, tmp_path, say) -> None:
    image_chain(builder)
    settings = ["EmptyImage.batch_size=1", "SaveImage.filename_prefix=one"]
    files = run_workflow(builder.write(tmp_path), tmp_path / "out", settings=settings, say=say)
    assert [file.name for file in files] == ["one_00001_.png"]


def test_a_prefix_that_leaves_the_output_folder_fails_on_the_node(builder, tmp_path, say) -> None:
    image_chain(builder, prefix="../outside")
    with pytest.raises(NodeError, match="'SaveImage'.*leads out of the output folder"):
        run_workflow(builder.write(tmp_path), tmp_path / "out", say=say)
    assert not list(tmp_path.glob("outside*"))


def test_an_invalid_workflow_runs_nothing(builder, tmp_path, say, lines) -> None:
    image_chain(builder)
    builder.node("NoSuchNode")
    with pytest.raises(WorkflowError, match="NoSuchNode"):
        run_workflow(builder.write(tmp_path), tmp_path / "out", say=say)
    assert not lines and not (tmp_path / "out").exists()


def test_a_missing_file_is_found_before_anything_runs(builder, tmp_path, say) -> None:
    load = builder.node("LoadImage", ["nothing.png", "image"], outputs=("IMAGE", "MASK"))
    show = builder.node("PreviewImage")
    builder.link(load, 0, show, "images", "IMAGE")
    with pytest.raises(WorkflowError, match="'nothing.png' does not exist"):
        run_workflow(builder.write(tmp_path), tmp_path / "out", say=say)


def test_pictures_survive_saving_and_loading(builder, tmp_path, say) -> None:
    image_chain(builder, color=0x336699)
    (saved, _) = run_workflow(builder.write(tmp_path), tmp_path / "out", say=say)
    pixels, mask = stock_nodes.LoadImage.execute(str(saved)).args
    assert torch.allclose(pixels[0, 0, 0] * 255, torch.tensor([0x33, 0x66, 0x99]).float())
    assert pixels.shape == (1, 4, 8, 3) and float(mask.max()) == 0


class _Numbers(ComfyNode):
    """Hands out a list."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema("Numbers", outputs=[io.Int.Output("n", is_output_list=True)])

    @classmethod
    def execute(cls) -> NodeOutput:
        return NodeOutput([1, 2, 3])


class _Double(ComfyNode):
    """Works on one number."""

    @classmethod
    def define_schema(cls) -> Schema:
        number = io.Int.Input("n", force_input=True)
        return Schema("Double", inputs=[number], outputs=[io.Int.Output("n")])

    @classmethod
    def execute(cls, n: int) -> NodeOutput:
        assert torch.is_inference_mode_enabled()
        return NodeOutput(2 * n)


class _Sum(ComfyNode):
    """Takes the whole list."""

    @classmethod
    def define_schema(cls) -> Schema:
        number = io.Int.Input("n", force_input=True)
        return Schema("Sum", inputs=[number], is_input_list=True, is_output_node=True)

    @classmethod
    def execute(cls, n: list[int]) -> NodeOutput:
        return NodeOutput(ui={"text": [f"sum {sum(n)}"]})


class _Broken(ComfyNode):
    """Fails."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema("Broken", outputs=[io.Int.Output("n")])

    @classmethod
    def execute(cls) -> NodeOutput:
        raise ValueError("the handle is loose")


@pytest.fixture
def test_nodes(monkeypatch) -> None:
    extra = (_Numbers, _Double, _Sum, _Broken)
    monkeypatch.setattr(runner, "STOCK_NODES", (*stock_nodes.STOCK_NODES, *extra))


def test_lists_are_mapped_over_and_collected(builder, tmp_path, say, lines, test_nodes) -> None:
    numbers = builder.node("Numbers", outputs=("INT",))
    double = builder.node("Double", outputs=("INT",))
    total = builder.node("Sum")
    builder.link(numbers, 0, double, "n", "INT")
    builder.link(double, 0, total, "n", "INT")
    run_workflow(builder.write(tmp_path), tmp_path / "out", say=say)
    assert "    sum 12" in lines


def test_a_failing_node_is_named_with_its_message(builder, tmp_path, say, test_nodes) -> None:
    broken = builder.node("Broken", title="My broken one", outputs=("INT",))
    total = builder.node("Sum")
    builder.link(broken, 0, total, "n", "INT")
    with pytest.raises(NodeError, match="'My broken one'.*id 1.*the handle is loose"):
        run_workflow(builder.write(tmp_path), tmp_path / "out", say=say)


# -- stand-ins of stock nodes ----------------------------------------------------------------


def run_node(cls, **inputs) -> torch.Tensor:
    return cls.execute(**inputs).args[0]


def test_overlay_keeps_white_white_and_black_black() -> None:
    below = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).reshape(1, 1, 5, 1).expand(1, 1, 5, 3)
    above = torch.full((1, 1, 5, 3), 0.2)
    blended = run_node(
        stock_nodes.ImageBlend, image1=below, image2=above, blend_factor=1.0, blend_mode="overlay"
    )
    assert torch.allclose(blended[0, 0, :, 0], torch.tensor([0, 0.1, 0.2, 0.6, 1.0]))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("normal", 0.2), ("multiply", 0.16), ("screen", 0.84), ("difference", 0.6)],
)
def test_blend_modes_follow_their_formulas(mode: str, expected: float) -> None:
    below, above = torch.full((2, 2, 2, 3), 0.8), torch.full((1, 4, 4, 3), 0.2)
    blended = run_node(
        stock_nodes.ImageBlend, image1=below, image2=above, blend_factor=1.0, blend_mode=mode
    )
    assert blended.shape == below.shape
    assert torch.allclose(blended, torch.full_like(below, expected), atol=1e-6)


def test_composites_change_only_what_the_mask_shows() -> None:
    mask = torch.zeros(1, 2, 2)
    mask[0, 0, 0] = 1
    below = torch.ones(3, 4, 4, 3)
    composed = run_node(
        stock_nodes.ImageCompositeMasked,
        destination=below, source=torch.zeros(1, 2, 2, 3), x=3, y=1, resize_source=False, mask=mask,
    )  # fmt: skip
    assert composed.shape == below.shape and float(below.min()) == 1
    assert float(composed[:, 1, 3].max()) == 0 and float(composed.sum()) == below.numel() - 9


def test_scaling_keeps_the_aspect_when_a_side_is_zero() -> None:
    image = torch.rand(2, 6, 12, 3)
    scaled = run_node(
        stock_nodes.ImageScale,
        image=image, upscale_method="area", width=6, height=0, crop="disabled",
    )  # fmt: skip
    assert scaled.shape == (2, 3, 6, 3)


def test_scaling_can_crop_to_the_aspect() -> None:
    image = torch.zeros(1, 4, 8, 3)
    image[:, :, 2:6] = 1
    scaled = run_node(
        stock_nodes.ImageScale,
        image=image, upscale_method="nearest-exact", width=2, height=2, crop="center",
    )  # fmt: skip
    assert float(scaled.min()) == 1


def test_pictures_are_picked_from_the_end_too() -> None:
    image = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 1, 3)
    picked = run_node(stock_nodes.ImageFromBatch, image=image, batch_index=-1, length=2)
    assert picked.shape[0] == 1 and math.isclose(float(picked.max()), 3)


def test_invert_and_mask_to_image() -> None:
    assert float(
        run_node(stock_nodes.ImageInvert, image=torch.full((1, 1, 1, 3), 0.2)).max()
    ) == pytest.approx(0.8)
    assert run_node(stock_nodes.MaskToImage, mask=torch.ones(3, 4)).shape == (1, 3, 4, 3)


def test_folders_of_nested_runs_do_not_mix(tmp_path: Path) -> None:
    with folders.use_folders(folders.RunFolders(tmp_path / "a")):
        with folders.use_folders(folders.RunFolders(tmp_path / "b")):
            assert folders.current().output.name == "b"
        assert folders.current().output.name == "a"
