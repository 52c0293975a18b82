"""Characters get a skeleton, are posed and saved through the nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from lift3d.core.formats import read_mesh
from lift3d.nodes import character_views, rig_character
from lift3d.nodes.sockets_mesh import meshes_from_link
from node_calls import outputs

pytestmark = pytest.mark.usefixtures("as_in_comfyui")


def test_a_character_is_rigged_posed_and_saved(out: Path) -> None:
    parts, _ = outputs(character_views.MakeCharacter, seed=3, cell=0.03)
    character, report = outputs(rig_character.RigCharacter, parts=parts)
    assert "joints" in report and "hair: " in report
    (posed,) = outputs(rig_character.PoseCharacter, character=character, pose="t_pose")
    rest, moved = meshes_from_link(parts), meshes_from_link(posed)
    assert [mesh.name for mesh in moved] == ["body", "clothes", "hair"]
    assert float(moved[0].vertices[:, 0].max()) > float(rest[0].vertices[:, 0].max()) + 0.1
    file, relative = outputs(rig_character.SaveCharacter, character=character)
    assert (out / relative).is_file() and file.get_source() == str(out / relative)
    assert [mesh.name for mesh in read_mesh(out / relative)] == ["body", "clothes", "hair"]


def test_links_of_other_nodes_are_refused() -> None:
    with pytest.raises(ValueError, match="must come from Rig Character, got a int"):
        outputs(rig_character.PoseCharacter, character=1)
