from __future__ import annotations

import time

import pytest
from lift3d.core.formats.json_fields import JsonObject, parse_json, pick


def test_fields_come_with_their_types_and_defaults():
    entry = JsonObject(
        {"a": 3, "b": 2.0, "c": "x", "d": [1, 2], "e": {"f": True}, "n": None}, "top"
    )
    assert entry.integer("a") == 3 and entry.integer("b") == 2 and entry.integer("z", 5) == 5
    assert entry.number("a") == 3.0 and entry.number("n", 1.5) == 1.5
    assert entry.numbers("d", 2) == [1.0, 2.0] and entry.indices("d") == [1, 2]
    assert entry.text("c") == "x" and entry.child("e").flag("f") and not entry.child("q").flag("f")
    assert entry.children("none") == [] and entry.texts("none") == []
    assert not entry.has("n")


@pytest.mark.parametrize(
    ("method", "arguments", "value"),
    [
        ("integer", (), -1),
        ("integer", (), True),
        ("integer", (), 1.5),
        ("integer", (), 2**60),
        ("number", (), "1"),
        ("number", (), 10**400),
        ("numbers", (3,), [1, 2]),
        ("numbers", (1,), [True]),
        ("numbers", (1,), [1e999]),
        ("text", (), 3),
        ("flag", (), 1),
        ("child", (), []),
        ("children", (), [1]),
        ("children", (), {}),
        ("texts", (), [1]),
        ("indices", (), [-1]),
        ("indices", (), [1.0]),
    ],
)
def test_wrong_types_are_refused_with_the_place(method, arguments, value):
    with pytest.raises(ValueError, match=r"top\.a must be .*got"):
        getattr(JsonObject({"a": value}, "top"), method)("a", *arguments)


def test_missing_field_is_named():
    with pytest.raises(ValueError, match=r"meshes\[1\]\.x is missing"):
        JsonObject({}, "meshes[1]").integer("x")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"3",
        b"{",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\xff"}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b"[" * 100_000,
    ],
)
def test_bad_json_is_refused(text):
    with pytest.raises(ValueError, match="JSON"):
        parse_json(text)


def test_brackets_inside_strings_are_not_depth():
    assert parse_json(b'{"a": "' + b"[{" * 500 + b'\\"[["}').text("a").endswith('"[[')


def test_depth_of_hostile_text_is_found_in_linear_time():
    started = time.perf_counter()
    for text in (
        b'"\\' * 1_000_000,
        b'{"a": "' + b"\\" * 1_000_001,
        b'"' * 999_999,
        b"[{" * 500_000,
    ):
        with pytest.raises(ValueError, match="JSON"):
            parse_json(text)
    assert time.perf_counter() - started < 5


def test_pick_refuses_what_is_not_there():
    with pytest.raises(ValueError, match="node 3 does not exist: the file has 2"):
        pick([1, 2], 3, "node")
