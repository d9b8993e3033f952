"""Attention as masks: what is kept, and how it is scored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rizbin.core.errors import RizbinError
from rizbin.nets.masks import jaccard, jaccards, mass_mask


def test_the_mask_keeps_the_largest_patches_of_a_known_map() -> None:
    heat = np.array([[0.1, 0.4], [0.2, 0.3]])
    assert mass_mask(heat, 0.4).tolist() == [[False, True], [False, False]]
    assert mass_mask(heat, 0.6).tolist() == [[False, True], [False, True]]
    assert mass_mask(heat, 0.7).tolist() == [[False, True], [False, True]]  # exactly the two
    assert mass_mask(heat, 0.71).tolist() == [[False, True], [True, True]]
    assert mass_mask(7 * heat, 1.0).all()
    assert not mass_mask(np.zeros((2, 2)), 1.0).any()
    both = mass_mask(np.stack([heat, heat.T]), 0.5)
    np.testing.assert_array_equal(both, [mass_mask(heat, 0.5), mass_mask(heat.T, 0.5)])
    for mass in (0.0, 1.1, float("nan")):
        with pytest.raises(RizbinError, match="mass"):
            mass_mask(heat, mass)


@settings(deadline=None, max_examples=60)
@given(weights=st.lists(st.integers(0, 50), min_size=4, max_size=12), mass=st.floats(0.05, 1))
def test_the_mask_is_the_smallest_that_holds_the_mass(weights: list[int], mass: float) -> None:
    heat = np.array([weights], dtype=np.float64)
    kept = mass_mask(heat, mass)
    total = heat.sum()
    assert heat[kept].sum() >= mass * total - 1e-6 * total
    if kept.any():
        assert heat[kept].sum() - heat[kept].min() < mass * total + 1e-6 * total, "one patch less would have done"
        assert heat[~kept].max(initial=0) <= heat[kept].min()


def test_jaccard_of_known_masks() -> None:
    left, top = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    left[:, :2], top[:2] = True, True
    assert jaccard(left, left) == 1
    assert jaccard(left, ~left) == 0
    assert jaccard(left, top) == pytest.approx(4 / 12)
    assert jaccard(left & ~left, top & ~top) == 1
    patches = np.array([[[True, False], [True, False]], [[True, True], [False, False]]])
    np.testing.assert_allclose(jaccards(patches, left), [1, 4 / 12])
