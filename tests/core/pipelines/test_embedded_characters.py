"""The embedded S-LRM: small, nameless, and right about a character that it has never seen."""

from __future__ import annotations

import pytest
import torch
from lift3d.core.camera import make_stdgen_rig
from lift3d.core.datasets.characters import CHARACTER_PARTS, character_meshes, make_character
from lift3d.core.diffusion.embedded import EMBEDDED_FOLDER, list_embedded
from lift3d.core.evaluation.part_scores import score_part, share_inside
from lift3d.core.mesh import merge_meshes
from lift3d.core.networks.lrm_checkpoint import load_lrm_checkpoint
from lift3d.core.pipelines.character_field import field_to_parts, views_to_field
from lift3d.core.rendering.mesh import render_mesh

FOLDER = EMBEDDED_FOLDER / "slrm"
HELD_OUT = 990


def test_it_is_small_has_a_card_and_does_not_say_where_it_lay() -> None:
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"README.md", "lift3d.json", "slrm.yaml"}
    assert sum(path.stat().st_size for path in files) < 12e6
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix != ".safetensors"]
    assert not any(part in text for text in texts for part in ("/work", "/home", "/root", "/tmp"))


def test_it_is_no_model_control_or_lora_of_other_nodes() -> None:
    for kind in ("model", "control", "lora"):
        assert not any("slrm" in name for name in list_embedded(kind))


@pytest.mark.parametrize("view_px", [64, 160])
def test_it_tells_the_parts_of_a_new_character(view_px: int) -> None:
    truth = list(character_meshes(make_character(HELD_OUT), cell=0.02).values())
    drawn = render_mesh(merge_meshes(truth), make_stdgen_rig(), width=view_px, height=view_px)
    model = load_lrm_checkpoint(FOLDER / "slrm.safetensors").model
    field = views_to_field(model, drawn.rgb.clamp(0, 1))
    parts = field_to_parts(field, CHARACTER_PARTS).meshes
    for part, goal in zip(parts, truth, strict=True):
        scores = score_part(part, goal, tau=0.04, num_points=1000)
        assert scores.iou > 0.6 and scores.f_score > 0.9, part.name
    assert share_inside(parts[1], parts[0]) < 0.01
    tones = [mesh.vertex_colors.mean(dim=0) for mesh in (*parts, *truth)]
    pairs = zip(tones[:3], tones[3:], strict=True)
    wrong = torch.stack([(read - true).abs().max() for read, true in pairs])
    assert float(wrong.max()) < 0.25
