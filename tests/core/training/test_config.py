"""Configurations: what is accepted, what is refused, and that the message names the key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from lift3d.core.training.config import PACK_FOLDER, ConfigError, read_config, settings_as_json


@dataclass(frozen=True)
class Inner:
    steps: int
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}.")


@dataclass(frozen=True)
class Outer:
    folder: Path
    name: str = "x"
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    targets: tuple[str, ...] = ("one",)
    limit: int | None = None
    maybe: Inner | None = None
    inner: Inner = field(default_factory=lambda: Inner(steps=7, rate=0.5))


@pytest.fixture
def read(tmp_path: Path):
    def read(text: str, *settings: str) -> Outer:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return read_config(Outer, path, settings)

    return read


def test_a_file_fills_the_dataclass(read) -> None:
    text = """
    folder: some/where
    kind: b
    flag: true
    targets: [q, k]
    limit: 3
    maybe: {steps: 2, betas: [0, 1]}
    """
    assert read(text) == Outer(
        Path("some/where"), "x", "b", True, ("q", "k"), 3, Inner(2, betas=(0.0, 1.0))
    )


def test_keys_left_out_of_a_group_keep_the_trainers_defaults(read) -> None:
    assert read("folder: a\ninner: {steps: 9}").inner == Inner(steps=9, rate=0.5)
    assert read("folder: a\nmaybe: {steps: 9}").maybe == Inner(steps=9, rate=1e-3)


def test_settings_win_over_the_file(read) -> None:
    made = read("folder: a\nlimit: 4\ninner: {steps: 3}", "inner.steps=5", "limit=null", "name=y")
    assert (made.inner.steps, made.limit, made.name) == (5, None, "y")


def test_scientific_numbers_are_numbers(read) -> None:
    assert read("folder: a\ninner: {rate: 1e-4}").inner.rate == 1e-4


def test_pack_stands_for_the_folder_of_lift3d(read) -> None:
    assert read("folder: ${pack}/models").folder == PACK_FOLDER / "models"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("folder: a\nlearning: 1", "unknown key learning; Outer knows folder, name"),
        ("folder: a\ninner: {step: 1}", "unknown key inner.step; Inner knows steps"),
        ("name: y", "folder must be given"),
        ("folder: a\nmaybe: {rate: 1}", "maybe.steps must be given"),
        ("folder: a\nlimit: many", "limit must be a whole number, got 'many'"),
        ("folder: a\nlimit: 2.5", "limit must be a whole number"),
        ("folder: a\nlimit: true", "limit must be a whole number, got True"),
        ("folder: a\nflag: 1", "flag must be true or false"),
        ("folder: a\nname: 3", "name must be a text, got 3"),
        ("folder: 3", "folder must be a path"),
        ("folder: a\nkind: c", "kind must be one of a, b"),
        ("folder: a\ntargets: q", "targets must be a list"),
        ("folder: a\ntargets: [q, 1]", r"targets\[1\] must be a text"),
        ("folder: a\ninner: {betas: [1]}", "inner.betas must have 2 entries"),
        ("folder: a\ninner: {steps: 0}", "inner: steps must be at least 1, got 0"),
        ("folder: a\ninner: 5", "inner must hold keys and values"),
        ("folder: a\ninner: null", "inner must hold keys and values"),
        ("folder: ${nothing}", "mine.yaml cannot be read"),
        ("folder: a\npack: b", "'pack' is the name of Lift3D's folder"),
        ("folder: ???", "mine.yaml cannot be read"),
        ("folder: [", "mine.yaml cannot be read"),
        ("- folder", "must hold keys and values"),
        ("7", "mine.yaml"),
        ("", "folder must be given"),
    ],
)
def test_what_is_wrong_is_named(read, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text)


def test_settings_must_be_assignments(read) -> None:
    with pytest.raises(ConfigError, match="key=value, got limit"):
        read("folder: a", "limit")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="nowhere is neither a file"):
        read_config(Outer, "nowhere")
    with pytest.raises(ConfigError, match="neither a file"):
        read_config(Outer, "../configs/lrm")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00folder")
    with pytest.raises(ConfigError, match="mine.yaml"):
        read_config(Outer, path)


def test_settings_are_told_without_the_place_of_the_pack() -> None:
    told = settings_as_json(Outer(folder=PACK_FOLDER / "models" / "one"))
    assert told["folder"] == "${pack}/models/one"
    assert json.loads(json.dumps(told)) == told


def test_a_base_holds_where_the_file_gives_nothing(read, tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("folder: low\nname: low\nmaybe: {steps: 2, rate: 0.1}\n")
    middle = tmp_path / "middle.yaml"
    middle.write_text(f"base: {tmp_path / 'low.yaml'}\nname: middle\nmaybe: {{steps: 3}}\n")
    made = read(f"base: {middle}\nflag: true\n", "maybe.rate=0.2")
    assert made == Outer(Path("low"), "middle", flag=True, maybe=Inner(3, 0.2))


def test_a_base_that_leads_back_or_nowhere_is_refused(read, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mine.yaml is a base of itself"):
        read(f"base: {tmp_path / 'mine.yaml'}\nfolder: x\n")
    with pytest.raises(ConfigError, match="nowhere is neither a file nor the name"):
        read("base: nowhere\nfolder: x\n")
