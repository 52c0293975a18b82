"""Contains the captions of a folder of meshes: a table, or a text file beside each mesh.

In order of precedence: the table (CSV with the columns ``file`` and ``caption``; several lines of
one file are several wordings), the file ``NAME.txt`` beside the mesh (one wording per line), and a
captioner that looks at the front view.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

Captioner = Callable[[Float[Tensor, "height width 3"]], str]
"""Picture 0..1 -> description."""

MAX_CAPTION_BYTES = 2**16
FILE_COLUMN, CAPTION_COLUMN = "file", "caption"


@dataclass(frozen=True)
class CaptionSources:
    """Where captions come from, in order of precedence.

    Attributes:
        table: wordings by the file's path below the folder, with forward slashes.
        captioner: asked last; None for none.
    """

    table: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    captioner: Captioner | None = None

    def written(self, folder: Path, name: str) -> tuple[str, ...]:
        """Wordings that people wrote for one mesh; none if there are none.

        Raises:
            ValueError: the text file is damaged.
        """
        if name in self.table:
            return self.table[name]
        sidecar = sidecar_file(folder, name)
        return _read_sidecar(sidecar) if sidecar.is_file() else ()

    def find(
        self, folder: Path, name: str, front: Float[Tensor, "height width 3"]
    ) -> tuple[str, ...]:
        """Wordings of one mesh from the first source that has some.

        Args:
            folder: of the meshes.
            name: of the mesh's file, below the folder.
            front: its front view.

        Raises:
            ValueError: no source has anything to say, or the text file is damaged.
        """
        written = self.written(folder, name)
        if written:
            return written
        if self.captioner is None:
            raise ValueError(
                f"it has no caption; add a line to the table, write "
                f"{sidecar_file(folder, name).name} beside it, or name a captioner."
            )
        caption = " ".join(self.captioner(front).split())
        if not caption:
            raise ValueError("the captioner said nothing about it.")
        return (caption,)


def sidecar_file(folder: Path, name: str) -> Path:
    """The text file beside a mesh."""
    return (folder / name).with_suffix(".txt")


def read_caption_table(path: Path) -> dict[str, tuple[str, ...]]:
    """Wordings by file name from a CSV with the columns ``file`` and ``caption``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: other columns, or a line without file or caption; names the line.
    """
    wordings: dict[str, list[str]] = {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
        if not {FILE_COLUMN, CAPTION_COLUMN} <= set(columns):
            raise ValueError(
                f"{path.name} must begin with a line of column names, among them 'file' and "
                f"'caption'; got {', '.join(columns) or 'nothing'}."
            )
        reader.fieldnames = columns
        for line in reader:
            name, caption = ((line[key] or "").strip() for key in (FILE_COLUMN, CAPTION_COLUMN))
            if not name or not caption:
                raise ValueError(f"{path.name}, line {reader.line_num}: file or caption is empty.")
            wordings.setdefault(name.replace("\\", "/"), []).append(caption)
    return {name: tuple(captions) for name, captions in wordings.items()}


def _read_sidecar(path: Path) -> tuple[str, ...]:
    if path.stat().st_size > MAX_CAPTION_BYTES:
        raise ValueError(f"{path.name} holds more than {MAX_CAPTION_BYTES} bytes; is it a caption?")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is no UTF-8 text.") from error
    captions = tuple(" ".join(line.split()) for line in text.splitlines() if line.strip())
    if not captions:
        raise ValueError(f"{path.name} is empty.")
    return captions
