"""Numbers of pictures on pictures whose numbers are known."""

import numpy as np
import pytest

from rizbin.evaluation.stills import HARMS, coarse_likeness, spectrum_slope, total_variation


def of_slope(slope: float, side: int = 64) -> np.ndarray:
    """Random waves whose power falls with frequency ** slope."""
    random = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = 1
    waves = np.fft.fft2(random.normal(size=(side, side))) * frequency ** (slope / 2)
    values = np.fft.ifft2(waves).real
    values = (values - values.mean()) / (6 * values.std()) + 0.5
    return (np.clip(values, 0, 1)[..., None].repeat(3, -1) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("slope", [0.0, -1.0, -2.0])
def test_the_slope_of_a_known_spectrum_is_found(slope: float) -> None:
    assert abs(spectrum_slope(of_slope(slope)) - slope) < 0.3


def test_variation() -> None:
    assert total_variation(np.full((8, 8, 3), 7, np.uint8)) == 0
    checks = ((np.indices((8, 8)).sum(0) % 2)[..., None].repeat(3, -1) * 255).astype(np.uint8)
    assert total_variation(checks) == 1


def test_harms_keep_the_shape_and_change_a_little() -> None:
    picture = of_slope(-2.0)
    for harm in HARMS.values():
        harmed = harm(picture)
        assert harmed.shape == picture.shape and harmed.dtype == np.uint8
        difference = np.abs(harmed.astype(float) - picture).mean()
        assert 0 < difference < 60 and np.array_equal(harmed, harm(picture))


def test_likeness_of_places_and_colors() -> None:
    picture = of_slope(-2.0)
    assert coarse_likeness(picture, picture) > 0.999 and coarse_likeness(picture, 255 - picture) < -0.99
    assert coarse_likeness(picture, np.zeros_like(picture)) == 0
