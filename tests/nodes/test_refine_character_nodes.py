"""Characters are made, drawn, refined and edited through the nodes, under inference mode."""

from __future__ import annotations

import pytest
import torch
from lift3d.nodes import character_views, characters, refine_character
from lift3d.nodes.sockets_mesh import mesh_to_link, meshes_from_link
from node_calls import outputs

pytestmark = pytest.mark.usefixtures("as_in_comfyui")

STEPS = {"shape_steps": 1, "detail_steps": 1}


@pytest.fixture(scope="module")
def made():
    with torch.inference_mode():
        return outputs(character_views.MakeCharacter, seed=1, cell=0.03)


@pytest.fixture(scope="module")
def levels(made):
    with torch.inference_mode():
        names = [item.id for item in character_views.RenderCharacterLevels.define_schema().outputs]
        drawn = outputs(character_views.RenderCharacterLevels, parts=made[0], size_px=64)
        return dict(zip(names, drawn, strict=True))


def test_a_character_is_drawn_in_three_levels(made, levels) -> None:
    parts, rough = (meshes_from_link(link) for link in made)
    assert [mesh.name for mesh in parts] == ["body", "clothes", "hair"]
    assert not torch.equal(parts[0].vertices, rough[0].vertices)
    assert levels["images_whole"].shape == (6, 64, 64, 3) and len(levels["rig"]) == 6
    covered = [(1 - levels[f"normals_{name}"]).abs().sum() for name in ("whole", "without_hair")]
    assert float(covered[0]) > float(covered[1])


@pytest.mark.slow
def test_layers_are_refined_and_the_hair_is_found(made, levels, snapshot) -> None:
    pictures = {name: levels[name] for name in levels if name != "rig"}
    (mask,) = outputs(
        character_views.MakeHairMask,
        images_whole=levels["images_whole"],
        images_without_hair=levels["images_without_hair"],
    )
    assert mask.shape == (1, 64, 64) and 0 < float(mask.mean()) < 0.2
    before = snapshot(made[1])
    link, report = outputs(
        refine_character.RefineCharacter, parts=made[1], hair_mask=mask, **STEPS, **pictures
    )
    parts = meshes_from_link(link)
    assert [mesh.name for mesh in parts] == ["body", "clothes", "hair"]
    assert all(mesh.vertex_colors is not None for mesh in parts)
    assert [line.split(":")[0] for line in report.splitlines()] == ["body", "clothes", "hair"]
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(made[1]), strict=True))


def test_one_part_is_replaced_and_the_others_stay(made, levels) -> None:
    clothes, others = outputs(characters.SelectPart, parts=made[1], part="clothes")
    body, _ = outputs(characters.SelectPart, parts=others, part="body")
    part, report = outputs(
        refine_character.RefinePart,
        part=clothes,
        fixed=body,
        images=levels["images_without_hair"],
        normals=levels["normals_without_hair"],
        **STEPS,
    )
    assert "of its vertices in body" in report
    combined, labels = outputs(characters.CombineParts, parts=made[1], added=part)
    assert labels == "body, clothes, hair"
    kept = meshes_from_link(combined)[0]
    assert torch.equal(kept.vertices, meshes_from_link(made[1])[0].vertices)


def test_a_character_is_framed_and_cut_off_feet_are_told() -> None:
    image, mask = torch.full((1, 60, 40, 3), 0.4), torch.zeros(1, 60, 40)
    mask[:, 10:60, 12:28] = 1
    portrait, covered, free, warnings = outputs(
        character_views.FrameCharacter, image=image, mask=mask, pad_below=0.5
    )
    assert portrait.shape == (1, 1024, 640, 3) and covered.shape == free.shape == (1, 1024, 640)
    assert "cut off below" in warnings and float(free.max()) == 1


def test_levels_that_are_not_connected_keep_their_parts(made, levels) -> None:
    link, report = outputs(
        refine_character.RefineCharacter,
        parts=made[1],
        images_body=levels["images_body"],
        normals_body=levels["normals_body"],
        **STEPS,
    )
    assert "hair: kept as it is" in report
    with pytest.raises(ValueError, match="Connect normals_body too"):
        outputs(refine_character.RefineCharacter, parts=made[1], images_body=levels["images_body"])
    with pytest.raises(ValueError, match="nothing to refine"):
        outputs(refine_character.RefineCharacter, parts=made[1])


def test_parts_without_triangles_are_told(levels) -> None:
    from lift3d.core.mesh import Mesh

    empty = mesh_to_link(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), name="hair"))
    with pytest.raises(ValueError, match="nothing to refine"):
        outputs(
            refine_character.RefineCharacter,
            parts=empty,
            images_whole=levels["images_whole"],
            normals_whole=levels["normals_whole"],
        )
