"""Bands against a slow Fourier sum and Parseval; the simple fill; what a perfect and a blurred painter get."""

import cmath
import math
from dataclasses import dataclass

import pytest
import torch

from rizbin.evaluation.frequency import band_energy, measure, patches_of, smooth_fill


@dataclass(frozen=True)
class Shown:
    attention: torch.Tensor
    removed: torch.Tensor
    reconstruction: torch.Tensor | None


EDGES = (0.25, 0.5)


def pictures(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def removed(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(1)) < 0.6


def test_energy_is_that_of_a_slow_fourier_sum() -> None:
    patch = pictures()[:1, :1, :4, :4].double().expand(1, 3, 4, 4)
    slow = [0.0, 0.0, 0.0]
    for down in range(4):
        for across in range(4):
            total = sum(
                patch[0, 0, y, x].item() * cmath.exp(-2j * math.pi * (down * y + across * x) / 4)
                for y in range(4)
                for x in range(4)
            )
            radius = math.hypot(min(down, 4 - down) / 4, min(across, 4 - across) / 4) / 0.5
            band = 0 if radius <= 0.4 else 1 if radius <= 0.8 else 2
            slow[band] += 3 * abs(total) ** 2 / 16 if radius else 0
    assert band_energy(patch, (0.4, 0.8)).tolist() == pytest.approx(slow, abs=1e-9)


def test_bands_sum_to_the_squared_distance_from_the_patches_means() -> None:
    patches = pictures()
    centered = patches.double() - patches.double().mean(dim=(2, 3), keepdim=True)
    assert band_energy(patches, EDGES).sum().item() == pytest.approx(centered.square().sum().item(), rel=1e-9)


def test_a_wave_lies_in_its_own_band() -> None:
    x = torch.arange(8) / 8
    for cycles, band in ((1, 0), (2, 1), (3, 2)):
        wave = torch.cos(2 * math.pi * cycles * x).expand(1, 3, 8, 8)
        energy = band_energy(wave, EDGES)
        assert energy[band] / energy.sum() > 0.999


def test_patches_are_cut_where_they_are() -> None:
    images = pictures()
    chosen = torch.zeros(3, 2, 2, dtype=torch.bool)
    chosen[1, 0, 1] = chosen[2, 1, 0] = True
    found = patches_of(images, chosen)
    torch.testing.assert_close(found[0], images[1, :, :8, 8:])
    torch.testing.assert_close(found[1], images[2, :, 8:, :8])


def test_the_fill_sees_visible_pixels_only_and_keeps_them() -> None:
    images, gone = pictures(), removed()
    filled = smooth_fill(images, gone)
    hidden = gone.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand_as(images)
    torch.testing.assert_close(filled[~hidden], images[~hidden])
    other = torch.where(hidden, 100.0, images)
    torch.testing.assert_close(smooth_fill(other, gone), filled)
    flat = torch.full_like(images, 0.3)
    assert (smooth_fill(flat, gone)[~gone.all(dim=(1, 2))] - 0.3).abs().max() < 1e-5


def test_perfect_flat_and_opposite_painters() -> None:
    images = [pictures(), pictures(2) + 1]

    def painter(factor: float):
        return lambda batch: Shown(torch.zeros(len(batch), 2, 2), removed(len(batch)), batch * factor)

    names = ["reconstruction/low_frequency", "reconstruction/middle_frequency", "reconstruction/high_frequency"]
    for factor, error in ((1.0, 0.0), (0.0, 1.0), (-1.0, 4.0), (0.5, 0.25)):
        found = measure([(batch, painter(factor)(batch)) for batch in images], EDGES)
        assert [one.name for one in found] == names
        assert [one.value for one in found] == pytest.approx([error] * 3, abs=1e-6)
        assert not found[0].higher_is_better and found[0].unit == "relative"
    count = int(removed(3).sum() + removed(2).sum())
    assert f"{count} removed patches" in found[0].protocol and "above 0.5 of the Nyquist" in found[2].protocol


def test_other_numbers_of_bands_are_counted() -> None:
    found = measure([(pictures(), Shown(pictures(), removed(), pictures()))], (0.5,))
    assert [one.name for one in found] == ["reconstruction/band1", "reconstruction/band2"]


def test_a_mean_that_is_wrong_is_not_counted() -> None:
    """Methods that predict normalized patches are handed the mean; a wrong one must not count for others either."""
    found = measure([(pictures(), Shown(pictures(), removed(), pictures() + 3))], EDGES)
    assert [one.value for one in found] == pytest.approx([0.0] * 3, abs=1e-6)


def test_errors_on_visible_patches_do_not_count() -> None:
    hidden = removed().repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    noisy = torch.where(hidden, pictures(), pictures().flip(0))
    found = measure([(pictures(), Shown(pictures(), removed(), noisy))], EDGES)
    assert [one.value for one in found] == pytest.approx([0.0] * 3, abs=1e-6)


def test_without_a_painter_there_is_nothing() -> None:
    assert measure([(pictures(), None)], EDGES) == []
    assert measure([(pictures(), Shown(pictures(), removed(), None))], EDGES) == []
