"""Datasets from folders of meshes: what is drawn, captions by precedence, bad files, resuming."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lift3d.core.bundle_image import split_bundle
from lift3d.core.datasets.procedural_objects import make_object
from lift3d.core.formats import write_mesh
from lift3d.core.pipelines.mesh_to_bundle import render_bundle
from lift3d.core.training import asset_dataset
from lift3d.core.training.asset_captions import CaptionSources, read_caption_table
from lift3d.core.training.asset_dataset import AssetDatasetParams, draw_asset, draw_asset_dataset
from lift3d.core.training.dataset import DatasetParams, draw_dataset, open_dataset
from lift3d.core.training.picture_shards import PictureShards, UnusablePictureError


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    """Three meshes in three formats, one in a folder below; none has a caption."""
    folder = tmp_path / "meshes"
    for name, category in (("b.glb", "mug"), ("a.ply", "rocket"), ("deep/c.obj", "chair")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_mesh(folder / name, make_object(category, 1).mesh)
    return folder


def params_for(folder: Path, **changes) -> AssetDatasetParams:
    return AssetDatasetParams(folder, tile_px=64, supersampling=1, **changes)


def caption_all(folder: Path, table: Path, names=("a.ply", "b.glb", "deep/c.obj")) -> Path:
    lines = ["file,caption", *(f"{name},the thing {name}" for name in names)]
    table.write_text("\n".join(lines), encoding="utf-8")
    return table


@pytest.mark.slow
def test_pictures_are_the_bundles_of_the_meshes(meshes: Path, tmp_path: Path) -> None:
    table = caption_all(meshes, tmp_path / "captions.csv")
    draw_asset_dataset(tmp_path / "data", params_for(meshes, captions=table))
    data = PictureShards(tmp_path / "data")
    assert [record.name for record in data.records] == ["a.ply", "b.glb", "deep/c.obj"]
    assert data.records[2].captions == ("the thing deep/c.obj",)
    bundle, _, _ = render_bundle(make_object("mug", 1).mesh, tile_px=64, supersampling=1)
    drawn = split_bundle(torch.from_numpy(data[1]).float() / 255)
    # GLB keeps colours with 8 bits or more, positions as float: only rounding may differ.
    assert (drawn.rgb_views - bundle.rgb_views).abs().mean() < 0.01
    assert (drawn.normal_views - bundle.normal_views).abs().mean() < 0.01


def test_the_up_axis_turns_z_to_y(tmp_path: Path) -> None:
    """A box with its mark on top: Z up in the file must look like Y up drawn directly."""
    upright = make_object("rocket", 3).mesh
    turned = replace(upright, vertices=upright.vertices[:, [0, 2, 1]] * torch.tensor([1.0, -1, 1]))
    for name, mesh in (("y", upright), ("z", turned)):
        (tmp_path / name).mkdir()
        write_mesh(tmp_path / name / "m.ply", mesh)
    sources = CaptionSources({"m.ply": ("a rocket",)})
    one, _ = draw_asset("m.ply", params_for(tmp_path / "y"), sources)
    other, _ = draw_asset("m.ply", params_for(tmp_path / "z", up_axis="z"), sources)
    assert np.abs(one.astype(int) - other.astype(int)).mean() < 0.5


def test_captions_come_from_the_table_then_the_text_file_then_the_captioner(meshes: Path) -> None:
    asked = []

    def captioner(picture: torch.Tensor) -> str:
        asked.append(tuple(picture.shape))
        return "  seen by\na model "

    (meshes / "a.txt").write_text("from the text\n\n another  wording \n", encoding="utf-8")
    (meshes / "b.txt").write_text("never read", encoding="utf-8")
    sources = CaptionSources({"b.glb": ("from the table", "twice")}, captioner)
    captions = {
        name: draw_asset(name, params_for(meshes), sources)[1].captions
        for name in ("a.ply", "b.glb", "deep/c.obj")
    }
    assert captions == {
        "a.ply": ("from the text", "another wording"),
        "b.glb": ("from the table", "twice"),
        "deep/c.obj": ("seen by a model",),
    }
    assert asked == [(64, 64, 3)]  # the front view, and only where nothing is written


def test_damaged_files_are_skipped_with_a_report(meshes: Path, tmp_path: Path, caplog) -> None:
    table = caption_all(
        meshes, tmp_path / "captions.csv", ("a.ply", "cut.glb", "no.stl", "flat.obj", "text.glb")
    )
    whole = (meshes / "b.glb").read_bytes()
    (meshes / "cut.glb").write_bytes(whole[: len(whole) // 2])
    (meshes / "no.stl").write_bytes(b"")
    (meshes / "text.glb").write_text("this is no mesh")
    (meshes / "flat.obj").write_text("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n")
    draw_asset_dataset(tmp_path / "data", params_for(meshes, captions=table))
    assert [record.name for record in PictureShards(tmp_path / "data").records] == ["a.ply"]
    report = (tmp_path / "data" / "skipped.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in report] == [
        "b.glb", "cut.glb", "deep/c.obj", "flat.obj", "no.stl", "text.glb",
    ]  # fmt: skip
    assert "has no caption" in report[0] and "b.txt" in report[0]
    assert "Skipped: cut.glb" in caplog.text


def test_repaired_files_and_edited_captions_are_taken_in(meshes: Path, tmp_path: Path) -> None:
    (meshes / "a.txt").write_text("old words")
    (meshes / "b.txt").write_text("a mug")
    draw_asset_dataset(tmp_path / "data", params_for(meshes))
    drawn = PictureShards(tmp_path / "data")
    assert [record.name for record in drawn.records] == ["a.ply", "b.glb"]
    (meshes / "a.txt").write_text("new words")
    sidecar = meshes / "deep" / "c.txt"
    sidecar.write_text("a chair")
    later = (tmp_path / "data" / "skipped_00000.json").stat().st_mtime + 10
    os.utime(sidecar, (later, later))
    write_mesh(meshes / "0.glb", make_object("vase", 1).mesh)  # sorts first, but is drawn last
    (meshes / "0.txt").write_text("a vase")
    draw_asset_dataset(tmp_path / "data", params_for(meshes))
    records = PictureShards(tmp_path / "data").records
    assert {record.name: record.captions[0] for record in records} == {
        "a.ply": "new words", "b.glb": "a mug", "deep/c.obj": "a chair", "0.glb": "a vase",
    }  # fmt: skip
    assert (tmp_path / "data" / "skipped.txt").read_text() == ""


def test_an_interrupted_run_ends_with_the_same_pictures(
    meshes: Path, tmp_path: Path, monkeypatch
) -> None:
    table = caption_all(meshes, tmp_path / "captions.csv")
    params = params_for(meshes, captions=table)
    draw_asset_dataset(tmp_path / "whole", params)
    monkeypatch.setattr(asset_dataset, "shard_size_for", lambda size: 1)

    def stop(progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_asset_dataset(tmp_path / "parts", params, stop)
    steps = []
    draw_asset_dataset(tmp_path / "parts", params, lambda p: steps.append(p.step))
    assert steps == [2, 3]
    whole, parts = PictureShards(tmp_path / "whole"), PictureShards(tmp_path / "parts")
    assert whole.records == parts.records
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_other_settings_in_the_same_folder_are_refused(meshes: Path, tmp_path: Path) -> None:
    table = caption_all(meshes, tmp_path / "captions.csv")
    draw_asset_dataset(tmp_path / "data", params_for(meshes, captions=table))
    with pytest.raises(ValueError, match="name another folder"):
        draw_asset_dataset(
            tmp_path / "data", replace(params_for(meshes, captions=table), tile_px=128)
        )


def test_folders_without_usable_meshes_are_refused(meshes: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder"):
        draw_asset_dataset(tmp_path / "data", params_for(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no mesh"):
        draw_asset_dataset(tmp_path / "data", params_for(tmp_path / "empty"))
    with pytest.raises(ValueError, match="None of the 3 meshes .* a.ply: it has no caption"):
        draw_asset_dataset(tmp_path / "data", params_for(meshes))


def test_a_mesh_without_faces_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(UnusablePictureError, match="m.obj"):
        (tmp_path / "m.obj").write_text("v 0 0 0\n")
        draw_asset("m.obj", params_for(tmp_path), CaptionSources({"m.obj": ("x",)}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,text\na,b", "among them 'file' and 'caption'; got name, text"),
        ("", "got nothing"),
        ("file,caption\na.glb,\n", "line 2: file or caption is empty"),
        ("file,caption\na.glb\n", "line 2: file or caption is empty"),
    ],
)
def test_tables_that_lack_something_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "captions.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_caption_table(path)


def test_tables_may_have_more_columns_quotes_and_several_wordings(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text(
        '\ufeffid,File,Caption\n1,a.glb,"a mug, red"\n2,b\\c.obj,chair\n3,a.glb,mug\n', "utf-8"
    )
    assert read_caption_table(path) == {"a.glb": ("a mug, red", "mug"), "b/c.obj": ("chair",)}


def test_text_files_that_are_no_captions_are_named(tmp_path: Path) -> None:
    sources = CaptionSources()
    sidecar = tmp_path / "m.txt"
    for content, message in (
        (b"\n \n", "is empty"), (b"\xff\xff", "no UTF-8"), (b"x" * 70000, "more than 65536"),
    ):  # fmt: skip
        sidecar.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            sources.find(tmp_path, "m.glb", torch.ones(64, 64, 3))


def test_a_dataset_is_drawn_from_the_generator_too(tmp_path: Path) -> None:
    from lift3d.core.training.bundle_dataset import BundleDatasetParams

    procedural = BundleDatasetParams(count=2, categories=("duck",), supersampling=1)
    params = DatasetParams(tmp_path, procedural=procedural)
    files = draw_dataset(params, lambda progress: None)
    assert [path.name for path in files] == ["pictures_00000.npy", "records_00000.json"]
    records = open_dataset(DatasetParams(tmp_path, limit=1)).records
    assert len(records) == 1 and "duck" in records[0].captions[0]


def test_pictures_are_exported_with_their_prompts(meshes: Path, tmp_path: Path) -> None:
    from lift3d.core.formats.png import read_png

    table = caption_all(meshes, tmp_path / "captions.csv")
    params = DatasetParams(
        tmp_path / "data", params_for(meshes, captions=table), export=tmp_path / "pairs"
    )
    files = draw_dataset(params, lambda progress: None)
    names = ["00000_a", "00001_b", "00002_c"]
    assert sorted(path.name for path in (tmp_path / "pairs").iterdir()) == [
        f"{name}.{kind}" for name in names for kind in ("png", "txt")
    ]
    assert tmp_path / "pairs" / "00002_c.png" in files
    text = (tmp_path / "pairs" / "00002_c.txt").read_text()
    assert text == (
        "A grid of 2x4 multi-view image, elevation 5. White background. the thing deep/c.obj\n"
    )
    drawn = torch.from_numpy(PictureShards(tmp_path / "data")[2])
    written = read_png(tmp_path / "pairs" / "00002_c.png")
    assert torch.equal(written.mul(255).round().byte(), drawn)


def test_datasets_name_one_source(tmp_path: Path, meshes: Path) -> None:
    from lift3d.core.training.bundle_dataset import BundleDatasetParams

    with pytest.raises(ValueError, match="not both"):
        DatasetParams(tmp_path, params_for(meshes), BundleDatasetParams(count=1))
    with pytest.raises(ValueError, match="to draw something"):
        draw_dataset(DatasetParams(tmp_path), lambda progress: None)


def test_the_list_of_files_is_plain_json(meshes: Path, tmp_path: Path) -> None:
    table = caption_all(meshes, tmp_path / "captions.csv")
    draw_asset_dataset(tmp_path / "data", params_for(meshes, captions=table))
    content = json.loads((tmp_path / "data" / "assets.json").read_text())
    assert content["files"] == ["a.ply", "b.glb", "deep/c.obj"]
