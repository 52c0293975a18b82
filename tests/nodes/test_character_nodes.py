"""Characters through the nodes: read, cut into parts, swapped, under inference mode."""

from __future__ import annotations

import pytest
import torch
from lift3d.nodes import characters
from lift3d.nodes.sockets_mesh import mesh_to_link, meshes_from_link
from lrm_scenes import make_lively_model, make_views
from node_calls import outputs

pytestmark = pytest.mark.usefixtures("as_in_comfyui")


def test_views_become_named_parts() -> None:
    views = make_views(6)
    views[4] = 1.0
    before = views.clone()
    field, report = outputs(characters.ReadCharacter, lrm=make_lively_model(), images=views)
    assert "hair, skin_1, skin_2, clothes" in report and "'left' is empty" in report
    link, labels, sizes = outputs(characters.ExtractParts, field=field)
    parts = meshes_from_link(link)
    assert labels == "body, clothes, hair" == ", ".join(mesh.name for mesh in parts)
    assert all(f"{mesh.name}: {mesh.num_faces} triangles" in sizes for mesh in parts)
    assert torch.equal(views, before)


def test_parts_are_swapped_and_keep_their_names(tetrahedron, textured_quad) -> None:
    batch = mesh_to_link([tetrahedron, textured_quad])
    part, others = outputs(characters.SelectPart, parts=batch, part="quad")
    assert [mesh.name for mesh in meshes_from_link(part)] == ["quad"]
    assert [mesh.name for mesh in meshes_from_link(others)] == ["tetra"]
    combined, labels = outputs(
        characters.CombineParts, parts=part, added=others, names="coat, boots"
    )
    assert labels == "coat, boots"
    assert [mesh.name for mesh in meshes_from_link(combined)] == ["coat", "boots"]
    replaced, labels = outputs(characters.CombineParts, parts=batch, added=part)
    assert labels == "tetra, quad" and len(meshes_from_link(replaced)) == 2


def test_links_of_other_nodes_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="must come from Load LRM, got a int"):
        outputs(characters.ReadCharacter, lrm=3, images=make_views(6))
    with pytest.raises(ValueError, match="must come from Read Character, got a str"):
        outputs(characters.ExtractParts, field="x")
