from __future__ import annotations

import pytest
from lift3d.core.formats.atomic import atomic_write, write_files


def test_file_appears_with_its_content_and_nothing_else(tmp_path):
    target = tmp_path / "made" / "a.bin"
    with atomic_write(target, durable=True) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".bin"
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_keeps_the_old_file_and_leaves_no_litter(error, tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic_write(target) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_set_of_files_is_written_completely_or_not_at_all(tmp_path):
    first, second = tmp_path / "a.mtl", tmp_path / "a.obj"
    second.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_files({first: b"new", second: None})
    assert not first.exists() and second.read_bytes() == b"old"
    with pytest.raises(TypeError):
        write_files({first: None, second: b"new"})
    assert not first.exists() and second.read_bytes() == b"old"
    write_files({first: b"1", second: b"2"})
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
    assert len(list(tmp_path.iterdir())) == 2
