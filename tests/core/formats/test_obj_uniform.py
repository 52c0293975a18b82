"""The quick way through uniform lines gives what reading word by word gives, or steps aside."""

import numpy as np
import pytest
from lift3d.core.formats import obj_text
from lift3d.core.formats.obj_text import ObjText, parse_obj
from lift3d.core.formats.obj_uniform import uniform_faces, uniform_floats

VERTICES = "".join(f"v {x}.5 -{x}e-1 {x * 0.25}\n" for x in range(1, 7))
UVS = "".join(f"vt 0.{x} 0.{9 - x}\n" for x in range(1, 7))
NORMALS = "".join(f"vn {x} 0 -{x}\n" for x in range(1, 7))
ALL = VERTICES + UVS + NORMALS
QUICK = {
    "positions": ALL + "f 1 2 3\nf 4 5 6\n",
    "uvs": ALL + "f 1/1 2/2 3/3\nf 4/4 5/5 6/6\n",
    "normals": ALL + "f 1//1 2//2 3//3\nf 4//4 5//5 6//6\n",
    "all three": ALL + "f 1/6/1 2/5/2 3/4/3\nf 4/3/4 5/2/5 6/1/6\n",
    "triangles and quads": ALL + "f 1/1 2/2 3/3 4/4\nf 4/4 5/5 6/6\nf 1/1 2/2 3/3 5/5 6/6\n",
    "negative": ALL + "f -1 -2 -3\nf 1 -5 6\n",
    "colours": VERTICES.replace("\n", " 0.1 0.2 0.3\n") + "f 1 2 3\n",
    "spaces and returns": VERTICES.replace("v ", "v  ").replace("\n", " \r\n") + "f 1  2 3 \r\n",
}
SLOW = {
    "mixed corners": ALL + "f 1/1 2/2 3/3\nf 4 5 6\n",
    "missing indices": ALL + "f 1/1/1 2//2 3/3/3\nf 4//4 5/5/5 6//6\n",
    "one slash at the end": ALL + "f 1/ 2/ 3/\n",
    "comment": ALL + "f 1 2 3 # a comment\n",
    "plus signs": ALL + "f +1 2 3\n",
    "some colours": VERTICES + "v 1 2 3 0.1 0.2 0.3\nf 1 2 7\n",
}
DAMAGED = {
    "zero": ALL + "f 0 1 2\n",
    "zero uv": ALL + "f 1/0 2/0 3/0\n",
    "beyond 64 bits": ALL + "f 1 2 99999999999999999999\n",
    "beyond the end": ALL + "f 1 2 7\n",
    "glued": ALL + "f 1-2 3 4\n",
    "three slashes": ALL + "f 1/1/1/1 2/2/2/2 3/3/3/3\n",
    "no number": ALL + "f 1 2 -\n",
    "fraction": ALL + "f 1 2 3.5\n",
    "two points": VERTICES + "v 1.5.2 3 4\nf 1 2 3\n",
    "two numbers": VERTICES + "v 1 2\nf 1 2 3\n",
    "signs": VERTICES + "v 1 2 --3\nf 1 2 3\n",
    "endless": VERTICES + f"v 1 2 {'3' * 200}\nf 1 2 3\n",
}


@pytest.fixture
def word_by_word(monkeypatch):
    """Calls `parse_obj` with the quick way closed."""

    def parse(data: bytes) -> ObjText:
        with monkeypatch.context() as patch:
            patch.setattr(obj_text, "uniform_faces", lambda lines: None)
            patch.setattr(obj_text, "uniform_floats", lambda lines, keyword: None)
            return parse_obj(data)

    return parse


def assert_same(first: ObjText, second: ObjText) -> None:
    for name in ("vertices", "colors", "uvs", "normals", "corners", "face_sizes", "face_parts"):
        one, two = getattr(first, name), getattr(second, name)
        assert (one is None) == (two is None)
        if one is not None:
            assert one.dtype == two.dtype and np.array_equal(one, two, equal_nan=True), name


def face_lines(text: str) -> list[bytes]:
    return [line.encode() for line in text.splitlines() if line.startswith("f ")]


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_both_ways_read_the_same(name: str, word_by_word):
    data = {**QUICK, **SLOW}[name].encode()
    assert_same(parse_obj(data), word_by_word(data))


def test_what_programs_write_takes_the_quick_way_and_odd_text_does_not():
    assert all(uniform_faces(face_lines(text)) is not None for text in QUICK.values())
    odd = [text for name, text in SLOW.items() if name != "some colours"]
    assert all(uniform_faces(face_lines(text)) is None for text in odd)
    assert uniform_floats([b"v 1 2 3", b"v 1 2 3 4"], b"v") is None
    assert uniform_floats([b"vtx 1 2"], b"vt") is None and uniform_floats([], b"v") is None


def test_numbers_are_rounded_as_python_rounds_them():
    words = ["0.1", "1e-7", "123456789.123456789", "-2.2250738585072014e-308", "1E+5", ".5"]
    table = uniform_floats([f"v {word}".encode() for word in words], b"v")
    assert table is not None and table[:, 0].tolist() == [float(word) for word in words]


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused_by_both(name: str, word_by_word):
    data = DAMAGED[name].encode()
    with pytest.raises(ValueError) as quick:
        parse_obj(data)
    with pytest.raises(ValueError) as slow:
        word_by_word(data)
    assert str(quick.value) == str(slow.value)


def test_random_damage_never_makes_the_ways_differ(word_by_word):
    random = np.random.default_rng(0)
    sources = [text.encode() for text in QUICK.values()]
    for _ in range(600):
        data = bytearray(sources[random.integers(len(sources))])
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(data)))
            new = b" /-.\n0179e#v+\r"[random.integers(14)]
            if random.random() < 0.5:
                data[place] = new
            else:
                data[place:place] = bytes([new])
        results = []
        for parse in (parse_obj, word_by_word):
            try:
                results.append(parse(bytes(data)))
            except ValueError:
                results.append(None)
        assert (results[0] is None) == (results[1] is None), bytes(data)
        if results[0] is not None:
            assert_same(*results)
