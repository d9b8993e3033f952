"""Pictures of what networks see, against answers known beforehand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rizbin.core.errors import RizbinError
from rizbin.visualization import attention, colors, grid, pca, reconstruct, removed, similarity, words

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.integers(0, 256, (32, 48, 3), dtype=np.uint8)


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colors."""
    part = rgb / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def test_heat_grows_evenly_lighter():
    scale = lightness(colors.heat(np.linspace(0, 1, 101)[None])[0])
    steps = np.diff(scale[::10])
    assert scale[0] < 5
    assert scale[-1] > 95
    assert steps[1:].min() > 8  # of 9.6 on average: no plateau, no turn; L* itself is flat near black


def test_heat_takes_what_is_not_a_number():
    assert (colors.heat(np.array([[np.nan, -3.0]])) == colors.heat(np.array([[0.0, 0.0]]))).all()


def test_distinct_colors_differ():
    found = np.array(colors.distinct(40)).astype(int)
    apart = np.abs(found[:, None] - found[None]).sum(axis=-1) + 999 * np.eye(len(found))
    assert apart[:12, :12].min() > 60
    assert apart.min() > 0
    assert colors.distinct(3) == colors.distinct(9)[:3]


def test_ink_is_read_on_any_color():
    assert colors.ink_on((255, 225, 25)) == (0, 0, 0)
    assert colors.ink_on((0, 0, 120)) == (255, 255, 255)


def test_scaling_ignores_one_outlier():
    values = np.linspace(0, 1, 200)
    values[7] = 1e6
    out = colors.scaled(values)
    assert out.min() == 0
    assert out[7] == 1
    assert 0.4 < out[100] < 0.6
    assert (colors.scaled(np.full(9, 3.0)) == 0).all()
    assert (colors.scaled(np.full(4, np.nan)) == 0).all()


def test_attention_glows_where_it_is():
    maps = np.zeros((4, 6))
    maps[1, 4] = 1.0
    shown = attention.overlay(np.full((32, 48, 3), 128, np.uint8), maps)
    light = lightness(shown)
    row, column = np.unravel_index(light.argmax(), light.shape)
    assert 8 <= row < 16
    assert 32 <= column < 40
    assert shown.shape == PICTURE.shape


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (300, 200)])
def test_pictures_of_any_size_can_be_overlaid(shape: tuple[int, int]):
    picture = np.zeros((*shape, 3), np.uint8)
    assert attention.overlay(picture, RANDOM.random((3, 3))).shape == picture.shape
    assert removed.removed(picture, np.ones((1, 1), bool)).shape[0] >= shape[0]


def test_heads_are_on_one_sheet():
    assert attention.overlay_heads(PICTURE, RANDOM.random((3, 4, 6))).ndim == 3


def test_removed_patches_show_nothing_of_the_picture():
    gone = np.array([[True, False], [False, True]])
    first, second = (removed.removed(one, gone, side=32) for one in (PICTURE, 255 - PICTURE))
    same = (first == second).all(axis=-1)
    assert same[:16, :24].all()
    assert same[16:, 24:].all()
    np.testing.assert_array_equal(first[:16, 24:], PICTURE[:16, 24:])
    np.testing.assert_array_equal(first[16:, :24], PICTURE[16:, :24])


def test_filling_takes_each_pixel_from_the_right_picture():
    gone = np.array([[True, False], [False, False]])
    out = reconstruct.filled(PICTURE, 255 - PICTURE, gone)
    np.testing.assert_array_equal(out[:16, :24], 255 - PICTURE[:16, :24])
    np.testing.assert_array_equal(out[16:], PICTURE[16:])
    assert reconstruct.compared(PICTURE, PICTURE, gone, side=32).shape == (32, 3 * 48 + 2 * grid.GAP, 3)


@pytest.mark.parametrize(
    ("caption", "names", "found"),
    [
        ("A hot dog, left of two dogs.", ["dog", "hot dog", "cat"], ["hot dog", "dog"]),
        ("butterflies over a bus", ["butterfly", "bus"], ["butterfly", "bus"]),
        ("a hotel", ["hot"], []),
        ("the dog and the dog", ["dog"], ["dog"]),
        ("Two red balloons near a tree!", [], ["red", "balloons", "tree"]),
        ("", ["dog"], []),
        ("c++ and a (bracket", ["c++", "(", ""], ["c++"]),
    ],
)
def test_words_of_captions(caption: str, names: list[str], found: list[str]):
    assert words.words_of(caption, names) == found


def slow_otsu(values: np.ndarray) -> float:
    """The best split by trying each."""
    ranked = np.sort(values.ravel())
    best, where = -1.0, -np.inf
    for i in range(1, len(ranked)):
        low, high = ranked[:i], ranked[i:]
        if low[-1] < high[0]:
            between = len(low) * len(high) * (low.mean() - high.mean()) ** 2
            if between > best:
                best, where = between, (low[-1] + high[0]) / 2
    return where


@settings(deadline=None, max_examples=60)
@given(values=st.lists(st.integers(-20, 20), min_size=1, max_size=30))
def test_the_threshold_parts_best(values: list[int]):
    array = np.array(values, dtype=np.float64)
    found, slow = words.threshold(array), slow_otsu(array)
    if found != slow:  # two splits can be equally good, and rounding decides
        between = [
            ((array < x).sum() * (array > x).sum() * (array[array < x].mean() - array[array > x].mean()) ** 2)
            for x in (found, slow)
        ]
        assert between[0] == pytest.approx(between[1], rel=1e-9)


def test_each_place_takes_its_best_word_and_weak_ones_none():
    maps = np.zeros((2, 4, 4))
    maps[0, :, 0], maps[1, :, 3] = 1.0, 0.9
    numbers = words.segmented(maps, 16, 16)
    assert (numbers[:, :2] == 0).all()
    assert (numbers[:, -2:] == 1).all()
    assert (numbers[:, 7:9] == words.NOTHING).all()


def test_the_truth_is_painted_back_to_front():
    back, front = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    front[:2] = True
    numbers = words.true_numbers([("cat", back), ("dog", front), ("owl", front & back.T)], ["dog", "cat"])
    assert (numbers[:2] == words.NOTHING).all()  # the owl in front has no word
    assert (numbers[2:] == 1).all()


def test_painting_keeps_words_apart_and_the_rest_gray():
    picture = np.full((2, 3, 3), 200, np.uint8)
    out = words.painted(picture, np.array([[0, 1, -1], [0, 1, -1]]), [(255, 0, 0), (0, 0, 255)])
    assert out[0, 0, 0] > out[0, 0, 2]
    assert out[0, 1, 2] > out[0, 1, 0]
    assert len(set(out[0, 2].tolist())) == 1
    assert words.painted(picture, np.full((2, 3), -1)).shape == picture.shape
    assert words.heat_of_words(PICTURE, RANDOM.random((2, 4, 6)), ["a", "b"]).ndim == 3


def test_components_are_those_of_a_library():
    decomposition = pytest.importorskip("sklearn.decomposition")
    features = RANDOM.normal(size=(40, 6)) * np.array([5, 3, 2, 1, 0.5, 0.1])
    ours, theirs = pca.components(features, 3), decomposition.PCA(3).fit_transform(features)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    assert pca.components(features[:2], 3).shape == (2, 3)


def test_the_thing_in_the_middle_is_the_foreground_and_like_patches_get_like_colors():
    features = RANDOM.normal(size=(2, 6, 6, 8)) * 0.01
    thing = np.zeros((2, 6, 6), bool)
    thing[:, 2:4, 2:5] = True
    features[thing, 0] += 1
    features[0, 2:4, 2, 1] += 0.3
    features[1, 2:4, 2, 1] += 0.3
    for sign in (1, -1):  # whichever way the first direction points
        np.testing.assert_array_equal(pca.foreground(sign * features), thing)
    out = pca.pca_colors(features)
    assert (out[~thing] == pca.DIM).all()
    assert (out[thing] >= 60).all()
    assert np.ptp(out[:, 2:4, 2, 0].astype(int)) < 40 < np.abs(out[0, 2, 2, 0].astype(int) - out[0, 2, 4, 0])
    assert pca.foreground(np.ones((1, 3, 3, 4))).all()


def test_a_patch_is_most_like_itself():
    features = RANDOM.normal(size=(4, 5, 7))
    cosines = similarity.similarity_to(features, 2, 3)
    assert cosines[2, 3] == pytest.approx(1)
    assert cosines.max() == cosines[2, 3]
    assert similarity.similar(PICTURE, features, 2, 3).shape[0] >= 160
    with pytest.raises(RizbinError, match="4 x 5"):
        similarity.similarity_to(features, 4, 0)
    assert (similarity.similarity_to(np.zeros((2, 2, 3)), 0, 0) == 0).all()


def test_shuffled_patches_find_their_way_back():
    features = RANDOM.normal(size=(3, 4, 16))
    order = RANDOM.permutation(12)
    moved = features.reshape(12, 16)[order].reshape(2, 6, 16)
    matches = similarity.correspondences(features, moved, 99)
    assert len(matches) == 12
    for row, column, row2, column2 in matches.tolist():
        assert order[row2 * 6 + column2] == row * 4 + column
    shown = similarity.corresponding(PICTURE, PICTURE[:20], matches, ((3, 4), (2, 6)), side=32)
    assert shown.shape[2] == 3


def test_only_mutual_neighbors_correspond():
    left = np.array([[[1.0, 0.0], [0.9, 0.1]]])  # both are nearest to the right's only patch, which prefers the first
    assert similarity.correspondences(left, np.array([[[1.0, 0.0]]])).tolist() == [[0, 0, 0, 0]]


def test_enlarging_keeps_pixels_square_and_never_shrinks():
    assert grid.enlarge(PICTURE[:, :32], 96).shape == (96, 96, 3)
    assert grid.enlarge(PICTURE, 5).shape == PICTURE.shape
    np.testing.assert_array_equal(grid.enlarge(PICTURE, 96)[1::3, 2::3], PICTURE)


def test_sheets_hold_every_picture():
    sheet = grid.sheet([PICTURE, PICTURE[:20], 255 - PICTURE], side=32, columns=2)
    # The 20 rows of the second are doubled to come near 32: 40 x 96 is the largest cell.
    assert sheet.shape == (2 * 40 + grid.GAP, 2 * 96 + grid.GAP, 3)
    np.testing.assert_array_equal(sheet[:32, :48], PICTURE)
    np.testing.assert_array_equal(sheet[40 + grid.GAP :][:32, :48], 255 - PICTURE)
    labelled = grid.labelled(PICTURE, "a very long label that cannot fit", color=(0, 0, 0))
    assert labelled.shape[0] > 32
    assert labelled[32:].max() > 128  # something is written, in light ink
    assert grid.framed(PICTURE, (1, 2, 3))[0, 0].tolist() == [1, 2, 3]
    with pytest.raises(RizbinError, match="at least one"):
        grid.sheet([])
    with pytest.raises(RizbinError, match="2 labels for 1 images"):
        grid.sheet([PICTURE], labels=["a", "b"])
