import pytest
import torch
from lift3d.core.rendering.texture import sample_texture


def _centres(height, width):
    v, u = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width,
                          indexing="ij")  # fmt: skip
    return torch.stack([u, v], dim=-1)


@pytest.mark.parametrize("wrap", ["repeat", "clamp"])
def test_texel_centres_give_the_texels(wrap):
    texture = torch.rand(5, 7, 3)
    torch.testing.assert_close(sample_texture(texture, _centres(5, 7), wrap=wrap), texture)


def test_origin_is_the_top_left_corner():
    texture = torch.arange(4.0).reshape(2, 2, 1)
    assert float(sample_texture(texture, torch.tensor([0.01, 0.01]), wrap="clamp")) == 0
    assert float(sample_texture(texture, torch.tensor([0.99, 0.01]), wrap="clamp")) == 1
    assert float(sample_texture(texture, torch.tensor([0.01, 0.99]), wrap="clamp")) == 2


def test_halfway_between_two_texels_is_their_mean():
    texture = torch.tensor([[[0.0], [1.0]]])
    assert float(sample_texture(texture, torch.tensor([0.5, 0.5]))) == pytest.approx(0.5)


def test_repeat_continues_with_the_other_side_and_clamp_with_the_border():
    texture = torch.tensor([[[0.0], [1.0], [3.0]]])
    border = torch.tensor([1.0, 0.5])
    assert float(sample_texture(texture, border, wrap="repeat")) == pytest.approx(1.5)
    assert float(sample_texture(texture, border, wrap="clamp")) == pytest.approx(3.0)
    uvs = torch.rand(20, 2)
    moved = uvs + torch.tensor([3.0, -2.0])
    torch.testing.assert_close(
        sample_texture(texture, moved), sample_texture(texture, uvs), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("wrap", ["repeat", "clamp"])
def test_gradients_to_texels_and_coordinates_equal_finite_differences(wrap):
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(4, 5, 2, generator=generator, dtype=torch.float64).requires_grad_()
    uvs = torch.rand(9, 2, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, x: sample_texture(t, x, wrap=wrap), (texture, uvs))
    level = torch.linspace(0, 2.5, 9)
    assert torch.autograd.gradcheck(
        lambda t, x: sample_texture(t, x, wrap=wrap, level=level), (texture, uvs)
    )


def test_mip_levels_are_means_and_blend_linearly():
    texture = torch.rand(8, 8, 3)
    half = texture.reshape(4, 2, 4, 2, 3).mean((1, 3))
    uvs = _centres(4, 4)
    first = sample_texture(texture, uvs, level=torch.ones(4, 4))
    torch.testing.assert_close(first, half)
    zeroth = sample_texture(texture, uvs, level=torch.zeros(4, 4))
    torch.testing.assert_close(zeroth, sample_texture(texture, uvs))
    between = sample_texture(texture, uvs, level=torch.full((4, 4), 0.25))
    torch.testing.assert_close(between, 0.75 * zeroth + 0.25 * first)
    last = sample_texture(texture, uvs, level=torch.full((4, 4), 99.0))
    torch.testing.assert_close(last, texture.mean((0, 1)).expand(4, 4, 3))


def test_no_lookups_give_no_values():
    assert sample_texture(torch.rand(2, 2, 3), torch.zeros(0, 2)).shape == (0, 3)
    assert sample_texture(torch.rand(2, 2, 3), torch.zeros(0, 2), level=torch.zeros(0)).shape == (
        0,
        3,
    )


def test_unknown_wrap_mode_raises(unchecked_shapes):
    with pytest.raises(ValueError, match="choose repeat or clamp"):
        sample_texture(torch.rand(2, 2, 3), torch.zeros(1, 2), wrap="mirror")
