from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import trimesh
from bundle_toy import ToyModel, ToyNetwork
from lift3d.core.bundle_image import join_bundle
from lift3d.core.mesh import Mesh
from lift3d.core.pipelines.bundle_prompt import BundlePrompt
from lift3d.core.pipelines.bundle_to_mesh import ReconstructionParams
from lift3d.core.pipelines.edit_mesh import EditMeshParams, edit_mesh
from lift3d.core.pipelines.enhance_bundle import ControlRequest
from lift3d.core.pipelines.isomer_params import load_isomer_params
from lift3d.core.pipelines.mesh_region import SphereRegion
from lift3d.core.pipelines.mesh_to_bundle import render_bundle
from lift3d.core.pipelines.text_to_bundle import BundleSampleParams

PROMPT = BundlePrompt("a red ball")
ISOMER = load_isomer_params("from_hull")
QUICK = ReconstructionParams(
    isomer=replace(
        ISOMER, coarse=replace(ISOMER.coarse, steps=2), fine=replace(ISOMER.fine, steps=2)
    )
)


def ball() -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=3)
    vertices = torch.tensor(shape.vertices).float()
    colors = torch.tensor([0.2, 0.3, 0.9]).expand(len(vertices), 3)
    return Mesh(vertices, torch.tensor(shape.faces).long(), vertex_colors=colors)


def painter() -> ToyModel:
    """Predicts the bundle of the same ball in red, whatever it is given."""
    red = replace(ball(), vertex_colors=torch.tensor([0.9, 0.1, 0.1]).expand(642, 3))
    picture = join_bundle(render_bundle(red, tile_px=64)[0])
    model = ToyModel(downscale=1)
    latents = (2 * picture - 1).permute(2, 0, 1)[None]
    model.rule = lambda x, sigma, conditioning: latents.expand_as(x)
    return model


@pytest.mark.slow
def test_an_edit_recolours_the_mesh_and_keeps_its_shape():
    params = EditMeshParams(BundleSampleParams(steps=3, strength=0.9), QUICK)
    reports = []
    made = edit_mesh(
        painter(),
        ball(),
        PROMPT,
        params,
        controls=[ControlRequest(ToyNetwork(), "depth", 0.5)],
        on_progress=reports.append,
    )
    color = made.mesh.vertex_colors.mean(dim=0)
    torch.testing.assert_close(color, torch.tensor([0.9, 0.1, 0.1]), atol=0.05, rtol=0)
    radius = made.mesh.vertices.norm(dim=1)
    assert float(radius.mean()) == pytest.approx(0.9, abs=0.05)
    stages = [report.message.split(":")[0] for report in reports]
    assert stages == sorted(stages) and set(stages) == {"bundle", "mesh"}


@pytest.mark.slow
def test_an_edit_of_a_region_leaves_the_rest_in_its_colour():
    params = EditMeshParams(BundleSampleParams(steps=3, strength=1.0, feather_px=1), QUICK)
    region = SphereRegion((0.0, 0.9, 0.0), 0.7)
    made = edit_mesh(painter(), ball(), PROMPT, params, region=region)
    colors, height = made.mesh.vertex_colors, made.mesh.vertices[:, 1]
    top, bottom = colors[height > 0.75].mean(dim=0), colors[height < 0].mean(dim=0)
    torch.testing.assert_close(top, torch.tensor([0.9, 0.1, 0.1]), atol=0.1, rtol=0)
    torch.testing.assert_close(bottom, torch.tensor([0.2, 0.3, 0.9]), atol=0.05, rtol=0)


def test_several_meshes_at_once_are_refused():
    with pytest.raises(ValueError, match="batch is 2; set it to 1"):
        EditMeshParams(BundleSampleParams(batch=2))
