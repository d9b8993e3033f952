"""What is alike: matches of patches, nearest pictures, directions whose sign does not flip."""

import numpy as np
import pytest

from rizbin.visualization.passes import over
from rizbin.visualization.pca import components, foreground, foregrounds, joint_colors, pca_colors
from rizbin.visualization.similarity import correspondences, corresponding, nearest
from tests.visualization.pixel_encoder import PixelEncoder

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (32, 48, 3), dtype=np.uint8)


def test_a_picture_corresponds_with_itself_patch_by_patch() -> None:
    (features,) = over(PixelEncoder(), [NOISE], PixelEncoder().patches)
    found = correspondences(features, features, 999)
    assert len(found) == 8 * 12
    np.testing.assert_array_equal(found[:, :2], found[:, 2:])


def test_a_shifted_copy_corresponds_by_the_shift() -> None:
    moved = np.roll(NOISE, (8, -12), axis=(0, 1))
    features = over(PixelEncoder(), [NOISE, moved], PixelEncoder().patches)
    found = correspondences(features[0], features[1], 999)
    inside = (found[:, 0] < 6) & (found[:, 1] >= 3)
    np.testing.assert_array_equal(found[inside, 2:] - found[inside, :2], np.tile([2, -3], (inside.sum(), 1)))
    assert inside.sum() == 6 * 9


def test_only_marked_patches_correspond() -> None:
    (features,) = over(PixelEncoder(), [NOISE], PixelEncoder().patches)
    keep = np.zeros((8, 12), bool)
    keep[2:4, 3:5] = True
    found = correspondences(features, features, 99, keep=(keep, keep))
    assert sorted(map(tuple, found[:, :2].tolist())) == [(2, 3), (2, 4), (3, 3), (3, 4)]
    assert correspondences(features, features, keep=(keep, ~keep & keep)).shape == (0, 4)
    shown = corresponding(NOISE, NOISE, found, ((8, 12), (8, 12)), side=64)
    assert shown.shape == (64, 2 * 96 + 6, 3)


def test_neighbors_come_nearest_first_and_never_oneself() -> None:
    angles = np.array([0.0, 0.1, 0.5, 3.0])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1], [5], [0.1], [2]])
    order, cosines = nearest(features, 2)
    assert order.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    np.testing.assert_allclose(cosines[0], np.cos([0.1, 0.5]))
    assert nearest(features, 99, of=1)[0].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("attended", [False, True])
def test_directions_do_not_flip_when_features_are_negated_or_turned(attended: bool) -> None:
    features = RANDOM.gamma(2.0, size=(60, 6)) * np.array([5, 3, 2, 1, 0.5, 0.1])
    toward = RANDOM.random(60) if attended else None
    turn, _ = np.linalg.qr(RANDOM.normal(size=(6, 6)))
    expected = components(features, 3, toward)
    for other in (-features, features @ turn, -features @ turn + 7):
        np.testing.assert_allclose(components(other, 3, toward), expected, atol=1e-8)
    if toward is not None:
        assert ((expected * (toward - toward.mean())[:, None]).sum(axis=0) > 0).all()
        np.testing.assert_allclose(components(features, 3, -toward), -expected, atol=1e-8)


def test_what_is_attended_is_the_foreground_wherever_it_lies() -> None:
    features = RANDOM.normal(size=(1, 6, 6, 8)) * 0.01
    thing = np.ones((1, 6, 6), bool)  # on the border, and the greater part
    thing[:, 2:4, 2:4] = False
    features[thing, 0] += 1
    attention = np.where(thing, 1.0, 0.2) * RANDOM.uniform(0.5, 1.5, thing.shape)
    for sign in (1, -1):
        np.testing.assert_array_equal(foreground(sign * features, attention), thing)
        np.testing.assert_array_equal(foreground(sign * features, 1 - attention), ~thing)
        np.testing.assert_array_equal(foreground(sign * features), ~thing)  # what the border would have said
    np.testing.assert_array_equal(pca_colors(features), pca_colors(-features))


def test_colors_are_joint_over_pictures_of_several_sizes() -> None:
    features = RANDOM.normal(size=(48, 4))
    parts = [features[:24].reshape(4, 6, 4), features[24:].reshape(8, 3, 4)]
    keep = [np.ones(one.shape[:2], bool) for one in parts]
    together = joint_colors([features.reshape(6, 8, 4)], [np.ones((6, 8), bool)])[0].reshape(-1, 3)
    found = joint_colors(parts, keep)
    assert [one.shape for one in found] == [(4, 6, 3), (8, 3, 3)]
    np.testing.assert_array_equal(np.concatenate([one.reshape(-1, 3) for one in found]), together)
    assert [one.shape for one in foregrounds(parts)] == [(4, 6), (8, 3)]
