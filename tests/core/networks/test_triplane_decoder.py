import pytest
import torch
from lift3d.core.networks.triplane_decoder import TriplaneDecoder, TriplaneDecoderParams
from lrm_scenes import golden_model, load_golden


def _decoder(**changes) -> TriplaneDecoder:
    torch.manual_seed(0)
    return TriplaneDecoder(TriplaneDecoderParams(plane_channels=2, hidden_dim=5, **changes))


def test_every_head_equals_the_reference(shared_dir):
    golden, decoder = load_golden(shared_dir, "forward"), golden_model(shared_dir).decoder
    features = golden["plane_features"][0].permute(1, 0, 2).flatten(1)
    heads = {
        "sdf": decoder.sdf(features)[:, None],
        "deformation": decoder.deformation(features),
        "rgb": decoder.rgb(features),
        "semantics": decoder.semantic_logits(features).softmax(dim=-1),
        "weights": decoder.weight_logits(features[golden["corner_index"].long()]),
    }
    for name, value in heads.items():
        torch.testing.assert_close(value, golden[name][0], atol=1e-5, rtol=0)


def test_colours_are_one_half_at_zero_and_end_a_thousandth_beyond_the_range():
    decoder = _decoder()
    for parameter in decoder.net_rgb.parameters():
        parameter.data.zero_()
    features = torch.zeros(1, 6)
    assert decoder.rgb(features).tolist() == [[0.5, 0.5, 0.5]]
    decoder.net_rgb[6].bias.data = torch.tensor([-1e4, 1e4, 0.0])
    torch.testing.assert_close(decoder.rgb(features), torch.tensor([[-0.001, 1.001, 0.5]]))


def test_materials_keep_their_ranges():
    decoder = _decoder(has_material=True)
    decoder.net_material[6].weight.data.zero_()
    decoder.net_material[6].bias.data = torch.tensor([-1e4, -1e4])
    torch.testing.assert_close(decoder.material(torch.zeros(1, 6)), torch.tensor([[0.0, 0.0016]]))


def test_weights_read_the_corners_in_order_and_are_scaled_by_a_tenth():
    decoder = _decoder()
    corners = torch.randn(4, 8, 6)
    expected = decoder.net_weight(torch.cat([corners[:, k] for k in range(8)], dim=1)) / 10
    torch.testing.assert_close(decoder.weight_logits(corners), expected)


def test_the_nerf_stage_gives_density_and_colour():
    decoder = _decoder(stage="nerf", num_labels=3)
    features = torch.randn(7, 6)
    density, rgb = decoder.density_rgb(features)
    raw = decoder.net(features)
    torch.testing.assert_close(density, torch.log1p(torch.exp(raw[:, 0] - 1)))
    torch.testing.assert_close(rgb, torch.sigmoid(raw[:, 1:]) * 1.002 - 0.001)
    assert decoder.semantic_logits(features).shape == (7, 3)


def test_a_head_that_is_not_there_is_named():
    decoder = _decoder()
    with pytest.raises(ValueError, match="no head 'semantic_net'"):
        decoder.semantic_logits(torch.zeros(1, 6))
    with pytest.raises(ValueError, match="no head 'net'"):
        decoder.density_rgb(torch.zeros(1, 6))
    with pytest.raises(ValueError, match="no head 'net_sdf'"):
        _decoder(stage="nerf").sdf(torch.zeros(1, 6))


def test_unknown_stages_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="'mesh' or 'nerf'"):
        TriplaneDecoderParams(stage="splat")
    with pytest.raises(ValueError, match="at least 2 layers"):
        TriplaneDecoderParams(num_layers=1)
