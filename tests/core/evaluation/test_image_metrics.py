import math

import numpy as np
import pytest
import torch
from lift3d.core.evaluation.image_metrics import psnr, silhouette_iou, ssim
from scipy import ndimage


def noise_image(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def slow_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """One channel, float64, scipy's Gaussian; only windows inside the image count."""

    def blur(x: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(x, 1.5, radius=5)[5:-5, 5:-5]

    m1, m2 = blur(first), blur(second)
    v1, v2 = blur(first**2) - m1**2, blur(second**2) - m2**2
    cov = blur(first * second) - m1 * m2
    c1, c2 = 0.01**2, 0.03**2
    values = ((2 * m1 * m2 + c1) * (2 * cov + c2)) / ((m1**2 + m2**2 + c1) * (v1 + v2 + c2))
    return float(values.mean())


def test_constant_offset_of_a_tenth_is_20_db():
    image = torch.full((2, 8, 8, 3), 0.4)
    assert psnr(image, image + 0.1) == pytest.approx(20.0, abs=1e-4)


def test_equal_images_have_infinite_psnr_and_ssim_one():
    image = noise_image(0, 1, 16, 16, 3)
    assert psnr(image, image) == math.inf
    assert ssim(image, image) == pytest.approx(1.0, abs=1e-6)


def test_ssim_matches_a_float64_reference_with_scipy():
    first, second = noise_image(1, 1, 24, 31, 1), noise_image(2, 1, 24, 31, 1)
    mixed = 0.7 * first + 0.3 * second
    expected = slow_ssim(first[0, ..., 0].double().numpy(), mixed[0, ..., 0].double().numpy())
    assert ssim(first, mixed) == pytest.approx(expected, abs=1e-5)


def test_ssim_falls_with_noise():
    clean = ndimage.gaussian_filter(noise_image(3, 64, 64).numpy(), 4)
    clean = torch.from_numpy((clean - clean.min()) / np.ptp(clean))[None, ..., None]
    noise = noise_image(4, *clean.shape) - 0.5
    assert 1.0 > ssim(clean, clean + 0.05 * noise) > ssim(clean, clean + 0.3 * noise)


def test_iou_of_half_overlapping_squares_is_one_third():
    first, second = torch.zeros(1, 10, 10), torch.zeros(1, 10, 10)
    first[:, :, 0:4] = 1
    second[:, :, 2:6] = 1
    assert silhouette_iou(first, second).tolist() == pytest.approx([1 / 3])


def test_iou_of_two_empty_views_is_one_and_of_one_empty_view_zero():
    empty, full = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    assert silhouette_iou(torch.cat([empty, empty]), torch.cat([empty, full])).tolist() == [1, 0]


def test_different_shapes_are_named_in_the_error(unchecked_shapes):
    with pytest.raises(ValueError, match=r"\[1, 8, 8, 3\] and \[1, 9, 8, 3\]"):
        psnr(torch.zeros(1, 8, 8, 3), torch.zeros(1, 9, 8, 3))


def test_small_images_are_refused_by_ssim():
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(torch.zeros(1, 8, 20, 3), torch.zeros(1, 8, 20, 3))


def test_nan_pixels_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        psnr(torch.full((1, 4, 4, 3), float("nan")), torch.zeros(1, 4, 4, 3))
