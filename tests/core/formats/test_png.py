from __future__ import annotations

import pytest
import torch
from lift3d.core.formats.png import read_png, write_png
from PIL import Image


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_was_written_is_read_back(tmp_path, channels):
    image = (
        torch.randint(0, 256, (5, 7, channels), generator=torch.Generator().manual_seed(0)) / 255
    )
    write_png(tmp_path / "new" / "image.png", image)
    torch.testing.assert_close(read_png(tmp_path / "new" / "image.png"), image)


def test_values_outside_are_clipped_and_metadata_is_kept(tmp_path):
    image = torch.tensor([[[-1.0, 0.5, 2.0]]])
    write_png(tmp_path / "a.png", image, metadata={"prompt": "a red mug"})
    torch.testing.assert_close(read_png(tmp_path / "a.png")[0, 0], torch.tensor([0, 128 / 255, 1]))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.text == {"prompt": "a red mug"}


def test_palettes_and_deep_greys_are_understood(tmp_path):
    Image.new("RGB", (3, 2), (255, 0, 0)).convert("P").save(tmp_path / "palette.png")
    torch.testing.assert_close(
        read_png(tmp_path / "palette.png"), torch.tensor([1.0, 0, 0]).expand(2, 3, 3)
    )
    Image.new("I;16", (3, 2), 32768).save(tmp_path / "deep.png")
    assert float(read_png(tmp_path / "deep.png")[0, 0, 0]) == pytest.approx(32768 / 65535)


def test_a_damaged_file_is_named(tmp_path):
    write_png(tmp_path / "a.png", torch.rand(32, 32, 3))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="a.png is not a readable PNG"):
        read_png(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="b.png is not a readable PNG"):
        read_png(tmp_path / "b.png")


def test_wrong_images_are_refused_and_the_old_file_stays(tmp_path, unchecked_shapes):
    write_png(tmp_path / "a.png", torch.zeros(2, 2, 3))
    before = (tmp_path / "a.png").read_bytes()
    for image in (torch.zeros(1, 2, 2, 3), torch.zeros(2, 2, 2), torch.zeros(0, 2, 3)):
        with pytest.raises(ValueError, match="image must be"):
            write_png(tmp_path / "a.png", image)
    with pytest.raises(ValueError, match="NaN"):
        write_png(tmp_path / "a.png", torch.full((2, 2, 3), torch.nan))
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
