"""Pixel reconstruction against MAE's formula."""

import pytest
import torch

from rizbin.losses.reconstruct import EPSILON, patchify, pixel_loss, unpatchify


def test_patches_are_squares_in_row_order_and_come_back() -> None:
    images = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).view(2, 3, 8, 12)
    patches = patchify(images, 4)
    assert patches.shape == (2, 6, 48)
    assert torch.equal(patches[0, 4].view(4, 4, 3), images[0, :, 4:8, 4:8].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, 4, (2, 3)), images)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_pixel_loss_equals_the_papers_formula(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(2, 6, 12, dtype=torch.float64, generator=generator).to(dtype)
    removed = torch.tensor([[1, 4, 5], [0, 2, 3]])
    predicted = torch.randn(2, 3, 12, dtype=torch.float64, generator=generator).to(dtype)
    total = 0.0
    for image in range(2):
        for slot, place in enumerate(removed[image].tolist()):
            pixels = patches[image, place].double().tolist()
            mean = sum(pixels) / len(pixels)
            variance = sum((value - mean) ** 2 for value in pixels) / (len(pixels) - 1)
            for guess, value in zip(predicted[image, slot].double().tolist(), pixels, strict=True):
                total += (guess - (value - mean) / (variance + EPSILON) ** 0.5) ** 2
    expected = total / predicted.numel()
    assert abs(float(pixel_loss(predicted, patches, removed)) - expected) <= tolerance * expected
    assert abs(float(pixel_loss(predicted, patches, removed.flip(1))) - expected) > 1e-2  # wrong places are found
