from __future__ import annotations

import pytest
import torch
from bundle_toy import ToyModel, ToyNetwork
from lift3d.core.bundle_image import BundleImage
from lift3d.core.pipelines.bundle_presets import load_control_preset
from lift3d.core.pipelines.bundle_prompt import BundlePrompt
from lift3d.core.pipelines.control_images import make_control_image
from lift3d.core.pipelines.enhance_bundle import (
    ControlRequest,
    enhance_bundle,
    make_control,
    union_mode,
)
from lift3d.core.pipelines.text_to_bundle import BundleSampleParams

PROMPT = BundlePrompt("a statue")
UNION = ToyNetwork(num_modes=7, name="union.safetensors")


def bundle(seed: int = 0, tile: int = 64) -> BundleImage:
    generator = torch.Generator().manual_seed(seed)
    return BundleImage(*torch.rand(2, 4, tile, tile, 3, generator=generator).unbind(0))


@pytest.mark.parametrize(
    ("kind", "index"),
    [("canny", 0), ("tile", 1), ("depth", 2), ("blur", 3), ("gray", 5), ("low quality", 6)],
)
def test_union_networks_get_the_published_index(kind, index):
    assert union_mode(UNION, kind) == index
    assert union_mode(ToyNetwork(), kind) is None


def test_the_tile_preset_acts_on_24_of_37_evaluations_with_mode_1():
    model = ToyModel()
    request = ControlRequest.from_preset(UNION, load_control_preset("image"))
    enhance_bundle(model, bundle(), PROMPT, controls=[request])
    assert len(model.asked) == 37
    used = [asked.controls for asked in model.asked]
    assert [len(controls) for controls in used] == [1] * 24 + [0] * 13
    control = used[0][0]
    assert (control.mode, control.scale, control.network) == (1, 0.6, UNION)
    torch.testing.assert_close(control.image[0], bundle().image())


def test_several_controls_act_together_each_in_its_span():
    model = ToyModel()
    pictures = torch.rand(1, 128, 256, 3, generator=torch.Generator().manual_seed(1))
    requests = [
        ControlRequest(UNION, "tile", 0.5, end=0.5),
        ControlRequest(UNION, "canny", 0.7, start=0.25),
        ControlRequest(ToyNetwork(), "normal", 1.0, image=pictures),
    ]
    enhance_bundle(
        model, bundle(), PROMPT, BundleSampleParams(steps=2, strength=1.0), controls=requests
    )
    scales = [[control.scale for control in asked.controls] for asked in model.asked]
    assert scales == [[0.5, 1.0], [0.7, 1.0], [0.7, 1.0]]
    first, second = model.asked[0].controls[-1], model.asked[-1].controls[0]
    assert torch.equal(first.image, pictures) and first.mode is None
    expected = make_control_image(bundle(), "canny")
    assert second.mode == 0 and torch.equal(second.image[0], expected)


def test_the_condition_pictures_have_the_size_that_is_sampled():
    model = ToyModel()
    request = ControlRequest(ToyNetwork(), "blur")
    params = BundleSampleParams(steps=2, strength=1.0)
    enhance_bundle(model, bundle(tile=128), PROMPT, params, controls=[request])
    assert model.asked[0].controls[0].image.shape == (1, 128, 256, 3)


def test_a_masked_edit_leaves_the_other_views_alone():
    model = ToyModel(lambda x, s, c: torch.full_like(x, -1.0))
    masks = torch.zeros(4, 32, 32)
    masks[2, 8:24, 8:24] = 1.0
    params = BundleSampleParams(feather_px=2, clean=False)
    reference = bundle(3)
    made = enhance_bundle(model, reference, PROMPT, params, mask=masks).bundles[0]
    for before, after in (
        (reference.rgb_views, made.rgb_views),
        (reference.normal_views, made.normal_views),
    ):
        assert all(torch.equal(before[view], after[view]) for view in (0, 1, 3))
        assert float(after[2, 20:44, 20:44].max()) < 1e-5
        assert torch.equal(before[2, :12], after[2, :12])


def test_a_union_network_without_the_mode_is_refused_before_the_model_is_asked():
    model = ToyModel()
    old = ToyNetwork(num_modes=4, name="old.safetensors")
    with pytest.raises(ValueError, match=r"'old.safetensors' has no mode for 'gray' pictures"):
        enhance_bundle(model, bundle(), PROMPT, controls=[ControlRequest(old, "gray")])
    with pytest.raises(ValueError, match="it knows canny, tile, depth, blur"):
        make_control(ControlRequest(old, "normal"), bundle())
    assert not model.texts and not model.asked


def test_a_mask_that_selects_nothing_is_refused_before_the_model_is_asked():
    model = ToyModel()
    with pytest.raises(ValueError, match="The mask selects nothing"):
        enhance_bundle(model, bundle(), PROMPT, mask=torch.zeros(4, 64, 64))
    assert not model.texts and not model.encoded
