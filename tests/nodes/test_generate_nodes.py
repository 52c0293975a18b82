from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bundle_toy import ToyModel, ToyNetwork
from lift3d.core.pipelines.bundle_prompt import BUNDLE_PREFIX
from lift3d.nodes.bundle import RenderBundle
from lift3d.nodes.edit_bundle import (
    AddBundleControl,
    CompositeBundle,
    MakeControlImage,
    MaskMeshRegion,
)
from lift3d.nodes.generate import EnhanceBundle, MakeBundlePrompt, SampleBundle
from lift3d.nodes.sockets_mesh import mesh_to_link

SETTINGS = {
    "seed": 0, "steps": 2, "batch": 1, "tile_px": 0, "sampler": "heun", "guidance": 0.0,
    "shift": 3.0, "clean": True, "strength": 1.0,
}  # fmt: skip
REGION = {
    "region": "box", "center_x": 0.0, "center_y": 0.5, "center_z": 0.0, "size_x": 4.0,
    "size_y": 1.0, "size_z": 4.0, "radius": 0.5, "color": "#c83232", "tolerance": 0.15,
    "part": 0, "grow_px": 0, "tile_px": 64, "normalize": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def as_in_comfyui():
    with torch.inference_mode():
        yield


def prompt(text: str = "a red mug"):
    return MakeBundlePrompt.execute(text, BUNDLE_PREFIX, 0.5).args[0]


def bundle_of(mesh, tile_px: int = 64):
    return RenderBundle.execute(mesh_to_link(mesh), tile_px, True).args[0]


def test_the_prompt_node_hands_on_both_texts():
    made, clip_l, t5xxl = MakeBundlePrompt.execute("a red mug", BUNDLE_PREFIX, 0.5).args
    assert clip_l == BUNDLE_PREFIX and t5xxl == f"{BUNDLE_PREFIX} a red mug"
    assert made.image is None
    picture = torch.rand(1, 8, 8, 3)
    with_picture = MakeBundlePrompt.execute("a red mug", BUNDLE_PREFIX, 0.7, picture).args[0]
    assert with_picture.image.strength == 0.7
    torch.testing.assert_close(with_picture.image.image, picture)


def test_an_empty_prompt_is_refused_before_anything_runs():
    assert MakeBundlePrompt.validate_inputs(prompt="a mug") is True
    assert MakeBundlePrompt.validate_inputs() is True, "linked from another node"
    assert "The prompt is empty" in MakeBundlePrompt.validate_inputs(prompt="  ")
    with pytest.raises(ValueError, match="The prompt is empty"):
        MakeBundlePrompt.execute(" ", BUNDLE_PREFIX, 0.5)


def test_sampling_gives_pictures_and_latents():
    model = ToyModel(lambda x, s, c: torch.full_like(x, 0.5))
    bundle, latent = SampleBundle.execute(model, prompt(), **{**SETTINGS, "batch": 2}).args
    assert bundle.shape == (2, 128, 256, 3)
    torch.testing.assert_close(latent["samples"], torch.full((2, 3, 16, 32), 0.5))
    assert len(model.sigmas) == 3


def test_a_start_bundle_is_used_below_full_strength(tetrahedron):
    model = ToyModel(lambda x, s, c: x)
    start = bundle_of(tetrahedron)
    settings = {**SETTINGS, "steps": 20, "strength": 0.05, "clean": False}
    made = SampleBundle.execute(model, prompt(), start_bundle=start, **settings).args[0]
    cells = torch.nn.functional.avg_pool2d(start.movedim(-1, 1), 8)
    smooth = cells.repeat_interleave(8, 2).repeat_interleave(8, 3).movedim(1, -1)
    assert float((made - smooth).abs().mean()) < 0.02
    assert len(model.sigmas) == 1


def test_controls_chain_and_presets_replace_the_settings(tetrahedron):
    first = AddBundleControl.execute(ToyNetwork(), "mesh", "blur", 9.0, 0.5, 0.6).args[0]
    picture = torch.rand(1, 128, 256, 3)
    both = AddBundleControl.execute(
        ToyNetwork(7), "custom", "canny", 0.4, 0.1, 0.9, picture, first
    ).args[0]
    assert len(first) == 1 and len(both) == 2
    assert (both[0].kind, both[0].scale, both[0].end) == ("tile", 0.1, 0.2)
    assert (both[1].kind, both[1].scale, both[1].start) == ("canny", 0.4, 0.1)
    model = ToyModel()
    settings = {**SETTINGS, "steps": 20, "strength": 0.95}
    EnhanceBundle.execute(
        model, prompt(), bundle_of(tetrahedron), feather_px=2.0, controls=both, **settings
    )
    counts = [len(asked.controls) for asked in model.asked]
    assert counts[:4] == [1, 1, 1, 1] and counts[4:7] == [2, 2, 2] and counts[-1] == 0


def test_a_masked_enhancement_keeps_the_rest(tetrahedron):
    model = ToyModel(lambda x, s, c: torch.full_like(x, -1.0))
    link, reference = mesh_to_link(tetrahedron), bundle_of(tetrahedron)
    settings = {**SETTINGS, "clean": False}
    mask, views = MaskMeshRegion.execute(link, **REGION).args
    assert mask.shape == (1, 128, 256) and views.shape == (4, 64, 64)
    made = EnhanceBundle.execute(
        model, prompt(), reference, feather_px=0.0, mask=mask, **settings
    ).args[0]
    assert torch.equal(made[mask == 0], reference[mask == 0])
    assert float(made[mask == 1].max()) < 0.05 < float(reference[mask == 1].mean())
    again = EnhanceBundle.execute(
        model, prompt(), reference, feather_px=0.0, mask=views, **settings
    ).args[0]
    torch.testing.assert_close(made, again)


def test_regions_of_every_kind(tetrahedron):
    red = replace(tetrahedron, vertex_colors=torch.tensor([0.8, 0.2, 0.2]).expand(4, 3))
    blue = replace(red, vertex_colors=torch.tensor([0.1, 0.1, 0.9]).expand(4, 3))
    blue = replace(blue, vertices=blue.vertices + torch.tensor([0.0, 2.0, 0.0]))
    link = mesh_to_link([red, blue])

    def area(**settings) -> float:
        return float(MaskMeshRegion.execute(link, **{**REGION, **settings}).args[1].sum())

    assert area(region="color") == pytest.approx(area(region="part", part=0), rel=0.02)
    assert area(region="color", color="#1a1ae6") == pytest.approx(area(region="part", part=1), 0.02)
    whole = area(center_y=0.0, size_y=4.0)
    assert area(region="part") + area(region="part", part=1) == pytest.approx(whole, rel=0.01)
    assert 0 < area(region="sphere", center_y=0.9, radius=0.4) < area()
    assert area(grow_px=3) > area()
    with pytest.raises(ValueError, match="written as #rrggbb"):
        area(region="color", color="red")
    with pytest.raises(ValueError, match="No view of the bundle sees any of the chosen region"):
        area(region="part", part=2)


def test_control_images_from_bundle_and_mesh(tetrahedron):
    bundle, link = bundle_of(tetrahedron), mesh_to_link(tetrahedron)
    numbers = (1.0, 2.0, 0.15, 0.3, True)
    for kind in ("tile", "blur", "canny", "normal", "gray", "low quality"):
        picture = MakeControlImage.execute(bundle, kind, *numbers).args[0]
        assert picture.shape == bundle.shape
    drawn = MakeControlImage.execute(bundle, "depth", *numbers, mesh=link).args[0]
    found = MakeControlImage.execute(bundle, "depth", *numbers).args[0]
    assert float((drawn - found).abs().mean()) < 0.2  # its smooth normals are no surface
    assert float(drawn[0, 0, 0].max()) == 0.0 < float(drawn.max())


def test_a_small_edit_goes_into_a_large_original(tetrahedron):
    original = bundle_of(tetrahedron, 128)
    edited = torch.zeros(1, 128, 256, 3)
    mask = torch.zeros(4, 32, 32)
    mask[1, 8:16, 8:16] = 1.0
    made = CompositeBundle.execute(original, edited, mask, 4.0).args[0]
    assert made.shape == original.shape
    assert float(made[0, 40:60, 128 + 40 : 128 + 60].max()) < 1e-6
    untouched = torch.ones(256, 512, dtype=torch.bool)
    untouched[:128, 128:256] = untouched[128:, 128:256] = False
    assert torch.equal(made[0][untouched], original[0][untouched])


def test_bundles_of_the_wrong_size_are_refused():
    model = ToyModel()
    with pytest.raises(ValueError, match="2 square tiles high and 4 wide"):
        EnhanceBundle.execute(model, prompt(), torch.rand(1, 64, 64, 3), feather_px=1.0, **SETTINGS)
    with pytest.raises(ValueError, match="bundle must be one picture, got a batch of 2"):
        EnhanceBundle.execute(
            model, prompt(), torch.rand(2, 128, 256, 3), feather_px=1.0, **SETTINGS
        )
    with pytest.raises(ValueError, match=r"must be an IMAGE \[batch, height, width, 3 or 4\]"):
        CompositeBundle.execute(
            torch.rand(1, 128, 256, 1), torch.rand(1, 128, 256, 3), torch.ones(1, 128, 256), 0.0
        )
    broken = torch.rand(1, 128, 256, 3)
    broken[0, 3, 4] = torch.nan
    with pytest.raises(ValueError, match="rgb_views holds 3 NaN"):
        SampleBundle.execute(model, prompt(), start_bundle=broken, **SETTINGS)
    assert not model.texts


def test_masks_of_other_shapes_and_empty_ones_are_refused():
    model, bundle = ToyModel(), torch.rand(1, 128, 256, 3)
    for mask, message in (
        (torch.ones(3, 64, 64), "one picture of the whole bundle"),
        (torch.zeros(1, 128, 256), "The mask selects nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            EnhanceBundle.execute(model, prompt(), bundle, feather_px=1.0, mask=mask, **SETTINGS)
    assert not model.texts
