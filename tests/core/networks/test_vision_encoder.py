import pytest
import torch
from lift3d.core.networks.vision_encoder import (
    VisionEncoder,
    VisionEncoderParams,
    normalize_pixels,
)
from lrm_scenes import TINY, golden_model, load_golden


@pytest.fixture
def encoder() -> VisionEncoder:
    torch.manual_seed(0)
    encoder = VisionEncoder(TINY.encoder).eval()
    for layer in encoder.model.encoder.layer:
        torch.nn.init.normal_(layer.adaLN_modulation[1].weight, std=0.5)
    return encoder


def _record(modules: dict[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    outputs: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        module.register_forward_hook(lambda _, __, out, name=name: outputs.__setitem__(name, out))
    return outputs


def test_every_stage_equals_the_reference(shared_dir):
    golden, model = load_golden(shared_dir, "forward"), golden_model(shared_dir)
    vit = model.encoder.model
    outputs = _record(
        {
            "x_camera_embedding": model.encoder.camera_embedder,
            "x_vit_embeddings": vit.embeddings,
            "x_vit_layer0": vit.encoder.layer[0],
            "x_vit_layer1": vit.encoder.layer[1],
            "tokens": vit,
        }
    )
    tokens = model.encoder(golden["images"], golden["cameras"])
    assert tokens.shape == (1, 3 * 26, 32)
    for name, output in outputs.items():
        torch.testing.assert_close(
            output.reshape(golden[name].shape), golden[name], atol=1e-4, rtol=0
        )


def test_pixels_are_normalised_as_in_the_reference(shared_dir):
    golden = load_golden(shared_dir, "forward")
    torch.testing.assert_close(
        normalize_pixels(golden["images"][0]), golden["x_pixel_values"], atol=1e-5, rtol=0
    )


def test_views_are_encoded_independently_and_joined_in_order(encoder):
    images, cameras = torch.rand(1, 3, 3, 48, 48), torch.rand(1, 3, 16)
    tokens = encoder(images, cameras)
    for view in range(3):
        alone = encoder(images[:, view : view + 1], cameras[:, view : view + 1])
        torch.testing.assert_close(
            tokens[:, 10 * view : 10 * view + 10], alone, atol=1e-5, rtol=1e-5
        )


def test_the_camera_changes_the_tokens(encoder):
    images = torch.rand(1, 1, 3, 48, 48)
    first, second = (encoder(images, torch.full((1, 1, 16), x)) for x in (0.0, 1.0))
    assert (first - second).abs().max() > 1e-3


def test_a_fresh_encoder_ignores_the_camera():
    encoder = VisionEncoder(TINY.encoder)
    images = torch.rand(1, 1, 3, 48, 48)
    first, second = (encoder(images, torch.full((1, 1, 16), x)) for x in (0.0, 1.0))
    torch.testing.assert_close(first, second, atol=0, rtol=0)


def test_positions_of_the_trained_size_are_used_as_they_are(encoder):
    embeddings = encoder.model.embeddings
    assert embeddings._positions(3, 3) is embeddings.position_embeddings


def _keys_kernel(distance: float, a: float = -0.75) -> float:
    """Cubic convolution (Keys 1981, Eq. 15)."""
    x = abs(distance)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def test_positions_are_resized_with_the_tenth_of_a_patch_that_dino_adds(encoder):
    """Resized by (5 + 0.1) / 3, column c reads at (c + 0.5) * 3 / 5.1 - 0.5."""
    embeddings = encoder.model.embeddings
    values = [1.0, -2.0, 4.0]
    picture = torch.tensor(values).expand(3, 3)[..., None].expand(3, 3, 32)
    embeddings.position_embeddings.data[:, 1:] = picture.reshape(1, 9, 32)
    resized = embeddings._positions(5, 5)[0, 1:].detach().reshape(5, 5, 32)
    for column in range(5):
        place = (column + 0.5) * 3 / 5.1 - 0.5
        taps = range(int(place + 2) - 3, int(place + 2) + 1)
        expected = sum(_keys_kernel(place - k) * values[min(max(k, 0), 2)] for k in taps)
        torch.testing.assert_close(
            resized[:, column], torch.full((5, 32), expected), atol=1e-5, rtol=0
        )


def test_oblong_images_keep_rows_and_columns_apart(encoder):
    tokens = encoder(torch.rand(1, 1, 3, 48, 80), torch.rand(1, 1, 16))
    assert tokens.shape == (1, 1 + 3 * 5, 32)


def test_images_that_do_not_divide_into_patches_are_refused(encoder):
    with pytest.raises(ValueError, match="patches of 16"):
        encoder(torch.rand(1, 1, 3, 50, 48), torch.rand(1, 1, 16))


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        VisionEncoderParams(dim=10, num_heads=3)
    with pytest.raises(ValueError, match="must be positive"):
        VisionEncoderParams(patch_px=0)
