import json

import pytest
import torch
from lift3d.core.networks.image_processor import (
    ImageProcessor,
    processor_from_config,
    read_image_processor,
)

CLIP = {
    "do_resize": True, "size": {"shortest_edge": 24}, "resample": 3,
    "do_center_crop": True, "crop_size": {"height": 24, "width": 24},
    "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],
}  # fmt: skip
CONFIGS = {
    "clip": CLIP,
    "old size": {**CLIP, "size": 24, "crop_size": 20},
    "exact size": {**CLIP, "size": {"height": 20, "width": 30}, "do_center_crop": False},
    "bilinear": {**CLIP, "resample": 2},
    "enlarged": {**CLIP, "size": {"shortest_edge": 60}, "crop_size": {"height": 64, "width": 50}},
    "only scaled": {
        "do_resize": False, "do_center_crop": False, "do_normalize": True,
        "image_mean": [0.5] * 3, "image_std": [0.8] * 3,
    },
    "nothing": {"do_resize": False, "do_center_crop": False, "do_normalize": False},
}  # fmt: skip


def smooth_pictures(height, width):
    """Pictures of whole 8-bit values, so that Pillow sees the same."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 5, width), indexing="ij")
    picture = torch.stack([torch.sin(x) ** 2, torch.cos(y * x) ** 2, (x + y) / 8], dim=-1)
    return (picture[None] * 255).round() / 255


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", [(40, 50), (50, 41)])
def test_pixels_are_those_of_transformers(name, size):
    import transformers

    # Named differently in versions that need torchvision for the default one.
    cls = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    images = smooth_pictures(*size)
    config = CONFIGS[name]
    theirs = cls(**config)(
        images=[(image * 255).byte().numpy() for image in images], return_tensors="pt"
    ).pixel_values
    ours = processor_from_config(config)(images)
    step = 1 / 255 / min(config.get("image_std", [1.0])) if config["do_normalize"] else 1 / 255
    assert ours.shape == theirs.shape
    # Pillow rounds after each of its two passes.
    torch.testing.assert_close(ours, theirs.to(ours), atol=2.1 * step, rtol=0)


def test_a_folder_is_read(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CLIP), encoding="utf-8")
    processor = read_image_processor(tmp_path)
    assert processor.shortest_side_px == 24 and processor.crop_px == (24, 24)
    assert processor == read_image_processor(tmp_path / "preprocessor_config.json")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "no usable image processor"),
        ("[]", "no usable image processor"),
        (json.dumps({**CLIP, "size": {}}), "'height'"),
        (json.dumps({**CLIP, "size": 10**9}), "within 1..4096"),
        (json.dumps({**CLIP, "image_std": [0, 1, 1]}), "std positive"),
        (json.dumps({**CLIP, "resample": 77}), "77"),
    ],
)
def test_unusable_files_are_refused(tmp_path, text, part):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=part):
        read_image_processor(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="download the whole model folder"):
        read_image_processor(tmp_path)


def test_the_input_is_left_alone():
    images = smooth_pictures(8, 9)
    before = images.clone()
    ImageProcessor(shortest_side_px=4)(images)
    assert torch.equal(images, before)
