"""The benchmark of the extraction: parts agree with the evaluation at once, all cells are counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lift3d.benchmarks import lrm_extraction
from lift3d.core.networks.lrm import LrmGridParams
from lrm_scenes import TINY

SMALL = replace(TINY, grid=LrmGridParams(cells=(20, 20, 30), scale=(1.4, 1.4, 2.1)))


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(lrm_extraction, "load_lrm_params", lambda name: SMALL)
    return lrm_extraction.make_model("stdgen_slrm", with_planes=False)


def test_the_table_names_all_parts_and_the_meshes_agree(model, capsys) -> None:
    options = ["--size", "stdgen_slrm", "--no-planes", "--unchunked-cells", "24", "--slabs", "3"]
    assert lrm_extraction.main(options) == 0
    printed = capsys.readouterr().out
    assert all(f"{part} " in printed for part in lrm_extraction.PARTS)
    assert "in 3 slabs" in printed and "0.0e+00" in printed


@pytest.mark.parametrize("slabs", [1, 3])
def test_the_rival_evaluates_every_cell_once(model, slabs) -> None:
    triplane = lrm_extraction.make_lumpy_ball(model)
    assert lrm_extraction.run_all_cells(model, triplane, slabs) == 20 * 20 * 30
