from __future__ import annotations

import pytest
from lift3d.core.formats import files as files_module
from lift3d.core.formats.files import folder_loader, read_bounded, safe_relative_name

UNSAFE = [
    "../secret.png",
    "a/../../secret.png",
    "..\\secret.png",
    "/etc/passwd",
    "\\\\server\\share\\x.png",
    "C:\\x.png",
    "c:x.png",
    "file:///etc/passwd",
    "https://example.com/x.png",
    "a\0b.png",
    "",
    "  ",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_could_leave_the_folder_are_refused(name):
    with pytest.raises(ValueError, match="names"):
        safe_relative_name(name)


def test_names_below_the_folder_are_accepted():
    assert safe_relative_name("textures\\wood.png").as_posix() == "textures/wood.png"
    assert safe_relative_name(" my ..file.png ").as_posix() == "my ..file.png"


def test_loader_does_not_follow_links_out_of_the_folder(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.png").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ValueError, match="leads out"):
        folder_loader(inside)("link.png")


def test_empty_missing_and_huge_files_are_told_apart(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_bounded(tmp_path / "none.glb")
    empty = tmp_path / "empty.glb"
    empty.touch()
    with pytest.raises(ValueError, match="empty"):
        read_bounded(empty)
    monkeypatch.setattr(files_module, "MAX_FILE_BYTES", 3)
    empty.write_bytes(b"1234")
    with pytest.raises(ValueError, match="at most 3"):
        read_bounded(empty)
