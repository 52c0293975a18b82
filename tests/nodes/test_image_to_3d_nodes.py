"""From a picture to the reference bundle through the nodes, with tiny random models on disk."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lift3d.core.camera import make_kiss3dgen_rig
from lift3d.core.diffusion.embedded import embedded_path, list_embedded
from lift3d.core.networks.lrm_checkpoint import load_lrm_checkpoint
from lift3d.core.training.slrm import save_slrm
from lift3d.nodes import lrm, model_files, multiview, video
from lift3d.nodes.sockets_mesh import mesh_from_link
from lrm_scenes import write_tiny_prm, write_tiny_slrm
from multiview_scenes import make_tiny_zero123plus
from node_calls import outputs
from tiny_models import make_tiny_unet, seeded

pytestmark = pytest.mark.usefixtures("as_in_comfyui")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A working folder with tiny models where ours are searched."""
    root = tmp_path_factory.mktemp("work")
    folder = root / "models" / "lift3d"
    folder.mkdir(parents=True)
    write_tiny_prm(folder / "final_ckpt.ckpt")
    make_tiny_zero123plus(root / "models" / "diffusers" / "zero123plus-v1.2")
    with seeded(3):
        torch.save(make_tiny_unet().state_dict(), folder / "flexgen.ckpt")
    return root


@pytest.fixture
def in_models(models, monkeypatch):
    monkeypatch.chdir(models)
    return models


def picture(side=60):
    image = torch.ones(1, side, side, 3)
    image[:, 10:40, 20:50] = torch.tensor([0.9, 0.2, 0.1])
    mask = torch.zeros(1, side, side)
    mask[:, 10:40, 20:50] = 1.0
    return image, mask


def test_a_picture_becomes_a_reference_bundle(in_models) -> None:
    image, mask = picture()
    before = image.clone(), mask.clone()
    prepared, coverage = outputs(multiview.PrepareImage, image=image, mask=mask, size_px=64)
    assert prepared.shape == (1, 64, 64, 3) and coverage.shape == (1, 64, 64)
    (model,) = outputs(multiview.LoadMultiviewModel)
    views, rig, tiles = outputs(
        multiview.ImageToViews, multiview=model, image=prepared, steps=2, tile_px=32
    )
    assert views.shape == (4, 32, 32, 3) and tiles.shape == (1, 64, 64, 3) and len(rig) == 4
    network, report = outputs(lrm.LoadLrm)
    assert "all keys fit" in report
    (link,) = outputs(lrm.ReconstructWithLrm, lrm=network, images=views)
    mesh = mesh_from_link(link)
    assert mesh.num_faces > 10 and mesh.vertex_colors is not None
    bundle, masks, used = outputs(
        lrm.LrmReferenceBundle, mesh=link, images=views, tile_px=64, radius=4.15
    )
    assert bundle.shape == (1, 128, 256, 3) and masks.shape == (4, 64, 64) and len(used) == 4
    small = torch.nn.functional.avg_pool2d(bundle[:, :64].permute(0, 3, 1, 2), 2)
    assert float((small[0, :, :, :32] - views[0].permute(2, 0, 1)).abs().mean()) < 0.05
    assert torch.equal(image, before[0]) and torch.equal(mask, before[1])


@pytest.mark.parametrize("shows", ["object", "background"])
def test_masks_of_either_meaning_are_understood(shows) -> None:
    image, mask = picture()
    given = mask if shows == "object" else 1 - mask
    made, coverage = outputs(
        multiview.PrepareImage, image=image, mask=given, mask_shows=shows, size_px=64
    )
    assert float(coverage.mean()) == pytest.approx(0.85**2, abs=0.05)
    assert float(made[..., 1].min()) < 0.25


def test_a_batch_is_prepared_picture_by_picture() -> None:
    image, mask = picture()
    images, masks = torch.cat([image, image.flip(1)]), torch.cat([mask, mask.flip(1)])
    made, coverage = outputs(
        multiview.PrepareImage, image=images, mask=masks, size_px=64, share=0.75
    )
    assert made.shape == (2, 64, 64, 3) and torch.allclose(coverage[0], coverage[1].flip(0))
    one, _ = outputs(multiview.PrepareImage, image=images[:1], mask=mask[0], size_px=64, share=0.75)
    assert torch.equal(one[0], made[0])
    with pytest.raises(ValueError, match="Got 2 masks for 1 pictures"):
        outputs(multiview.PrepareImage, image=image, mask=masks, size_px=64)


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        ({"image": torch.ones(1, 8, 8, 3)}, "no alpha channel and no mask"),
        ({"image": torch.ones(1, 8, 8, 3), "mask": torch.zeros(1, 8, 8)}, "selects nothing"),
        ({"image": torch.ones(1, 8, 8, 3), "mask": torch.zeros(1, 64, 40)}, "other proportions"),
        ({"image": torch.ones(8, 8, 3)}, "must be an IMAGE"),
        ({"image": torch.full((1, 8, 8, 4), torch.nan)}, "NaN"),
    ],
)
def test_bad_pictures_are_refused(unchecked_shapes, inputs, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        outputs(multiview.PrepareImage, size_px=64, **inputs)


def test_views_are_the_same_for_cameras_by_name_and_by_rig(in_models) -> None:
    network, _ = outputs(lrm.LoadLrm)
    views = torch.rand(4, 32, 32, 3)
    (named,) = outputs(lrm.ReconstructWithLrm, lrm=network, images=views, cameras="kiss3dgen")
    (by_rig,) = outputs(
        lrm.ReconstructWithLrm, lrm=network, images=views, rig=make_kiss3dgen_rig(4.5)
    )
    torch.testing.assert_close(named.vertices, by_rig.vertices, atol=1e-4, rtol=0)


def test_chunks_change_nothing(in_models) -> None:
    network, _ = outputs(lrm.LoadLrm)
    views = torch.rand(4, 32, 32, 3)
    (large,) = outputs(lrm.ReconstructWithLrm, lrm=network, images=views)
    (small,) = outputs(
        lrm.ReconstructWithLrm, lrm=network, images=views, chunk_points=1024, chunk_cells=256
    )
    torch.testing.assert_close(large.vertices, small.vertices, atol=1e-5, rtol=0)


def test_wrong_numbers_of_views_are_refused(in_models) -> None:
    network, _ = outputs(lrm.LoadLrm)
    with pytest.raises(ValueError, match="'flexgen' are 4, but there are 3 images"):
        outputs(lrm.ReconstructWithLrm, lrm=network, images=torch.rand(3, 32, 32, 3))
    with pytest.raises(ValueError, match="Got 3 images for 4 cameras"):
        outputs(
            lrm.ReconstructWithLrm,
            lrm=network, images=torch.rand(3, 32, 32, 3), rig=make_kiss3dgen_rig(),
        )  # fmt: skip
    with pytest.raises(ValueError, match="must come from Load LRM"):
        outputs(lrm.ReconstructWithLrm, lrm="model", images=torch.rand(4, 32, 32, 3))
    with pytest.raises(ValueError, match="must come from Load Multiview Model"):
        outputs(multiview.ImageToViews, multiview=None, image=torch.rand(1, 32, 32, 3))


def test_models_lie_in_main_memory_between_nodes(in_models) -> None:
    network, _ = outputs(lrm.LoadLrm, precision="bfloat16")
    outputs(lrm.ReconstructWithLrm, lrm=network, images=torch.rand(4, 32, 32, 3))
    assert network.device.type == "cpu" and network.dtype == torch.bfloat16


def test_lists_show_what_is_there_and_the_published_names(in_models) -> None:
    assert model_files.weight_files() == ["final_ckpt.ckpt", "flexgen.ckpt"]
    assert model_files.diffusers_folders() == ["zero123plus-v1.2"]
    (found,) = (
        item for item in multiview.LoadMultiviewModel.define_schema().inputs if item.id == "unet"
    )
    assert found.options["options"] == ["flexgen.ckpt", "of the folder", "final_ckpt.ckpt"]
    assert lrm.LoadLrm.validate_inputs("final_ckpt.ckpt") is True
    assert multiview.LoadMultiviewModel.validate_inputs("zero123plus-v1.2", "of the folder") is True


def test_missing_weights_are_named_with_place_and_link(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    verdict = str(lrm.LoadLrm.validate_inputs("final_ckpt.ckpt"))
    for part in ("final_ckpt.ckpt", "huggingface.co/LTT/PRM", "models/lift3d"):
        assert part in verdict.replace("\\", "/")
    verdict = str(lrm.LoadLrm.validate_inputs("StdGEN-mesh-slrm.pth"))
    assert "huggingface.co/hyz317/StdGEN" in verdict and "LTT" not in verdict
    verdict = str(multiview.LoadMultiviewModel.validate_inputs("zero123plus-v1.2", "flexgen.ckpt"))
    assert "huggingface.co/sudo-ai/zero123plus-v1.2" in verdict and "diffusers" in verdict
    with pytest.raises(ValueError, match="is not there"):
        outputs(lrm.LoadLrm)
    assert lrm.LoadLrm.validate_inputs(None) is True  # brought by a link


def test_the_embedded_slrm_is_found_by_name_or_said_to_be_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(video, "embedded_path", partial(embedded_path, root=tmp_path))
    verdict = str(lrm.LoadLrm.validate_inputs(lrm.EMBEDDED_SLRM))
    assert "'embedded: slrm" in verdict and "install it again" in verdict
    (tmp_path / "slrm").mkdir()
    assert lrm.LoadLrm.validate_inputs(lrm.EMBEDDED_SLRM) is not True  # the card alone
    model = load_lrm_checkpoint(write_tiny_slrm(tmp_path / "own.pt")).model
    save_slrm(tmp_path / "slrm" / "slrm.safetensors", model, half_precision=True)
    assert lrm.LoadLrm.validate_inputs(lrm.EMBEDDED_SLRM) is True
    network, report = outputs(lrm.LoadLrm, checkpoint=lrm.EMBEDDED_SLRM)
    assert network.params == model.params and "size 'slrm.yaml'" in report
    assert list_embedded("lora", tmp_path) == []


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("../secret.ckpt", "leads out of"),
        ("/etc/secret.ckpt", "leads out of"),
        ("", "No weights are named"),
        ("notes.txt", "is no weight file"),
    ],
)
def test_only_files_in_the_model_folders_are_read(in_models, name: str, part: str) -> None:
    (in_models / "models" / "lift3d" / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=part):
        outputs(lrm.LoadLrm, checkpoint=name)


def test_a_changed_file_runs_again(in_models) -> None:
    path = in_models / "models" / "lift3d" / "other.ckpt"
    states = []
    for content in (None, b"1", b"22"):
        if content is not None:
            path.write_bytes(content)
        states.append(lrm.LoadLrm.fingerprint_inputs("other.ckpt", "auto", "float32"))
    path.unlink()
    assert len(set(states)) == 3


def test_progress_reaches_the_listener(in_models) -> None:
    from lift3d.nodes import host

    seen = []
    network, _ = outputs(lrm.LoadLrm)
    host.standalone_progress_hook.append(seen.append)
    try:
        outputs(lrm.ReconstructWithLrm, lrm=network, images=torch.rand(4, 32, 32, 3))
    finally:
        host.standalone_progress_hook.remove(seen.append)
    assert seen[-1].step == seen[-1].total == 100
