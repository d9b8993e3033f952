"""Attention as masks: how they are drawn."""

import numpy as np

from rizbin.nets.masks import mass_mask
from rizbin.visualization.attention import heads_outlined, outlined


def test_rings_lie_around_what_is_kept_and_the_rest_is_dark() -> None:
    picture = np.full((32, 32, 3), 200, np.uint8)
    shown = outlined(picture, np.array([[True, False], [False, False]]), side=64)
    assert shown.shape == (64, 64, 3)
    assert (shown[4:28, 4:28] == 200).all()
    assert (shown[40:, 40:] == 70).all()
    ring = (shown == np.array([255, 225, 25])).all(axis=-1)
    assert ring[:32, :32].sum() > 60 and not ring[34:, 34:].any()


def test_the_best_head_stands_out() -> None:
    heat = np.random.default_rng(0).random((3, 4, 4))
    picture = np.zeros((16, 16, 3), np.uint8)
    plain = heads_outlined(picture, heat, mass_mask(heat), labels=["a", "b", "c"], side=32)
    marked = heads_outlined(picture, heat, mass_mask(heat), labels=["a", "b", "c"], best=1, side=32)
    yellow = (marked == np.array([255, 225, 25])).all(axis=-1) & ~(plain == np.array([255, 225, 25])).all(axis=-1)
    assert yellow.any() and not yellow[:, :36].any()
