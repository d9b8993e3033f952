"""Masks carried through frames, against where things went and against slow loops."""

from collections.abc import Sequence

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.nets.masks import jaccard
from rizbin.visualization.passes import over
from rizbin.visualization.propagate import propagated
from tests.visualization.pixel_encoder import PixelEncoder

RANDOM = np.random.default_rng(0)


def film(frames: int, step: int = 2) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A square of noise that moves over still noise, and where it is."""
    ground = RANDOM.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    square = RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    pictures, truths = [], []
    for frame in range(frames):
        picture, truth = ground.copy(), np.zeros((48, 64), int)
        place = slice(8 + step * frame, 24 + step * frame)
        picture[place, place], truth[place, place] = square, 5
        pictures.append(picture)
        truths.append(truth)
    return pictures, truths


def test_a_moving_square_is_followed() -> None:
    pictures, truths = film(6, step=4)
    features = over(PixelEncoder(), pictures, PixelEncoder().patches)
    found = propagated(features, truths[0])
    assert set(np.unique(found)) == {0, 5}
    np.testing.assert_array_equal(found[0], truths[0])
    for mask, truth in zip(found, truths, strict=True):
        assert jaccard(mask == 5, truth == 5) > 0.8


def test_a_thing_that_leaves_does_not_come_back_as_noise() -> None:
    pictures, truths = film(2)
    pictures[1] = np.where(truths[0][..., None] > 0, 0, pictures[0]).astype(np.uint8)
    features = over(PixelEncoder(), pictures, PixelEncoder().patches)
    features[1][2:6, 2:6] = features[0][0, 0]  # what was there now looks like the ground
    assert not propagated(features, truths[0])[1].any()


def slowly(
    features: Sequence[np.ndarray], shares: np.ndarray, previous: int, temperature: float, radius: float, most: int
) -> np.ndarray:
    """The last frame's labels by loops, as the paper's protocol reads."""
    units = [one / np.linalg.norm(one, axis=-1, keepdims=True) for one in features]
    labels = [shares]
    rows, columns = shares.shape[:2]
    for frame in range(1, len(features)):
        context = [0, *(index for index in range(max(1, frame - previous), frame))]
        out = np.zeros_like(shares)
        for row in range(rows):
            for column in range(columns):
                near = [
                    (np.exp(units[frame][row, column] @ units[index][y, x] / temperature), labels[index][y, x])
                    for index in context
                    for y in range(rows)
                    for x in range(columns)
                    if np.hypot(y - row, x - column) <= radius
                ]
                best = sorted(near, key=lambda pair: -pair[0])[:most]
                out[row, column] = sum(weight * label for weight, label in best) / sum(weight for weight, _ in best)
        labels.append(out)
    return labels[-1]


def test_it_is_the_protocol_in_slow_loops() -> None:
    features = [RANDOM.normal(size=(5, 6, 4)).astype(np.float32) for _ in range(5)]
    first = RANDOM.integers(0, 3, (5, 6))  # one pixel a patch: shares are 0 and 1
    expected = slowly(features, np.eye(3)[first], 2, 0.2, 2.5, 4)
    found = propagated(features, first, previous=2, temperature=0.2, radius=2.5, most=4)
    np.testing.assert_array_equal(found[-1], (expected / expected.max(axis=(0, 1))).argmax(axis=-1))


def test_what_cannot_be_followed_is_refused() -> None:
    pictures, truths = film(2)
    features = over(PixelEncoder(), pictures, PixelEncoder().patches)
    with pytest.raises(RizbinError, match="empty"):
        propagated(features, np.zeros((48, 64), int))
    with pytest.raises(RizbinError, match="differ in size"):
        propagated([features[0], features[1][:3]], truths[0])
