"""From a portrait to the views of three levels through the nodes, with tiny models on disk."""

from __future__ import annotations

import pytest
import torch
from lift3d.nodes import character_generation as generation
from lift3d.nodes.character_views import FrameCharacter
from node_calls import outputs
from stdgen_scenes import make_portrait, make_tiny_pose_model, make_tiny_views_model

pytestmark = pytest.mark.usefixtures("as_in_comfyui")
SMALL = {"steps": 2, "height_px": 128}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A working folder with tiny models where ours are searched."""
    root = tmp_path_factory.mktemp("work")
    make_tiny_pose_model(root / "models" / "lift3d" / generation.POSE_FOLDER)
    make_tiny_views_model(root / "models" / "diffusers" / generation.VIEWS_FOLDER)
    return root


@pytest.fixture
def in_models(models, monkeypatch):
    monkeypatch.chdir(models)
    return models


def test_a_picture_becomes_views_of_three_levels(in_models) -> None:
    image = make_portrait(160, 120)[None]
    mask = (image.amin(dim=-1) < 0.99).float()
    before = image.clone()
    portrait, _, _, warnings = outputs(FrameCharacter, image=image, mask=mask)
    assert portrait.shape == (1, 1024, 640, 3) and not warnings
    model, report = outputs(generation.LoadPoseModel)
    assert report.count("all keys fit") == 2 and "not needed" in report
    (pose,) = outputs(generation.CanonicalizePose, image=portrait, pose_model=model, **SMALL)
    assert pose.shape == (1, 128, 80, 3)
    views_model, report = outputs(generation.LoadCharacterViews)
    assert "all keys fit" in report
    seen = []
    for level in ("whole", "without_hair", "body"):
        images, normals, rig = outputs(
            generation.GenerateCharacterViews, views_model=views_model, image=pose, level=level,
            **SMALL,
        )  # fmt: skip
        assert images.shape == normals.shape == (6, 128, 128, 3) and len(rig) == 6
        assert (
            images.dtype == torch.float32 and 0 <= float(images.min()) <= float(images.max()) <= 1
        )
        seen.append(images)
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    assert torch.equal(image, before)


def test_a_kept_pose_needs_no_model() -> None:
    image = make_portrait()[None]
    (made,) = outputs(generation.CanonicalizePose, image=image, keep_pose=True)
    assert torch.equal(made, image)
    ask = generation.CanonicalizePose.check_lazy_status
    assert ask(keep_pose=True, steps=40) == [] and ask(keep_pose=False) == ["pose_model"]
    assert ask(keep_pose=False, pose_model=object()) == []
    with pytest.raises(ValueError, match="Load A-Pose Model, got a NoneType; connect one"):
        outputs(generation.CanonicalizePose, image=image)


def test_bad_links_and_pictures_are_refused(in_models) -> None:
    with pytest.raises(ValueError, match="must come from Load Character Views Model, got a str"):
        outputs(generation.GenerateCharacterViews, views_model="x", image=make_portrait()[None])
    model, _ = outputs(generation.LoadPoseModel)
    with pytest.raises(ValueError, match="portrait of 5 : 8"):
        outputs(
            generation.CanonicalizePose, image=torch.rand(1, 64, 64, 3), pose_model=model, **SMALL
        )
    with pytest.raises(ValueError, match="2"):
        outputs(generation.CanonicalizePose, image=torch.rand(2, 128, 80, 3), pose_model=model)


def test_pictures_whose_alpha_says_nothing_are_refused() -> None:
    image = make_portrait(160, 120)[None]
    with pytest.raises(ValueError, match="no background"):  # RGBA, opaque everywhere
        outputs(FrameCharacter, image=image, mask=torch.ones(1, 160, 120))
    with pytest.raises(ValueError, match="mask is empty"):
        outputs(FrameCharacter, image=image, mask=torch.zeros(1, 160, 120))


def test_missing_weights_are_named_with_place_and_link(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for node, folder in (
        (generation.LoadPoseModel, generation.POSE_FOLDER),
        (generation.LoadCharacterViews, generation.VIEWS_FOLDER),
    ):
        verdict = str(node.validate_inputs(folder)).replace("\\", "/")
        assert folder in verdict and "huggingface.co/hyz317/StdGEN" in verdict
        assert "models/lift3d" in verdict and node.validate_inputs(None) is True
        with pytest.raises(ValueError, match="is not there"):
            outputs(node)
        assert "missing" in node.fingerprint_inputs(folder, "auto")


def test_lists_show_folders_without_an_index_too(in_models) -> None:
    (folder, _) = generation.LoadPoseModel.define_schema().inputs
    assert folder.options["options"] == [generation.POSE_FOLDER, generation.VIEWS_FOLDER]


def test_models_lie_in_main_memory_between_nodes(in_models) -> None:
    model, _ = outputs(generation.LoadPoseModel, precision="bfloat16")
    outputs(generation.CanonicalizePose, image=make_portrait()[None], pose_model=model, **SMALL)
    weight = next(model.networks.parameters())
    assert weight.device.type == "cpu" and weight.dtype == torch.bfloat16


def test_progress_reaches_the_listener(in_models) -> None:
    from lift3d.nodes import host

    seen = []
    model, _ = outputs(generation.LoadCharacterViews)
    host.standalone_progress_hook.append(seen.append)
    try:
        outputs(
            generation.GenerateCharacterViews, views_model=model, image=make_portrait()[None],
            **SMALL,
        )  # fmt: skip
    finally:
        host.standalone_progress_hook.remove(seen.append)
    assert seen[-1].step == seen[-1].total == 100 and seen[0].preview is not None
