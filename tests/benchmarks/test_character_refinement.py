"""The benchmark of character refinement prints a rough and a refined row per layer, and a sheet."""

from __future__ import annotations

from pathlib import Path

import pytest
from lift3d.benchmarks import character_refinement


@pytest.mark.slow
def test_it_prints_two_rows_per_layer_and_a_sheet(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(character_refinement, "NUM_POINTS", 1000)
    monkeypatch.setattr(character_refinement, "SCORE_PX", 64)
    code = character_refinement.main(
        ["--seeds", "1", "--size", "64", "--steps", "2", "1", "--out", str(tmp_path)]
    )
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 1 ")]
    assert code == 0 and (tmp_path / "character_refinement.png").is_file()
    assert [row.split("|")[1].strip() for row in rows] == [
        f"1 {part}, {state}"
        for part in ("body", "clothes", "hair")
        for state in ("rough", "refined")
    ]
    numbers = {row.split("|")[1].strip(): row.split("|")[2:-1] for row in rows}
    assert float(numbers["1 clothes, refined"][3]) < float(numbers["1 clothes, rough"][3])
