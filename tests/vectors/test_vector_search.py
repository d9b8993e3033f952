"""The nearest rows: as sorting all of them says, by FAISS almost all of them; and the place in an image."""

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.vectors import search
from rizbin.vectors.search import nearest, place_of


def unit(rows: int, dim: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_the_exact_search_is_the_sorting_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_ROWS", 64)
    vectors, queries = unit(1000, 8, 0), unit(3, 8, 1)
    vectors[500] = vectors[3]  # of equals the earlier comes first
    rows, scores = nearest(vectors, queries, 20)
    whole = queries @ vectors.T
    expected = np.stack([np.lexsort((np.arange(1000), -row))[:20] for row in whole])
    assert np.array_equal(rows, expected)
    assert np.allclose(scores, np.take_along_axis(whole, expected, axis=1), atol=1e-6)
    assert nearest(vectors[:5], queries, 20)[0].shape == (3, 5)


def test_lists_find_almost_all() -> None:
    pytest.importorskip("faiss")
    centers = unit(50, 32, 0)
    vectors = centers[np.random.default_rng(1).integers(0, 50, 20_000)] + 0.7 * unit(20_000, 32, 2)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:100]
    exact, scores = nearest(vectors, queries, 10)
    listed, found = nearest(vectors, queries, 10, "faiss")
    assert np.array_equal(listed[:, 0], exact[:, 0])
    shared = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), listed.tolist(), strict=True)]
    assert np.mean(shared) > 9  # of 10
    assert (found <= scores + 1e-5).all() and np.allclose(found[:, 0], 1, atol=1e-5)
    few, _ = nearest(vectors[:100], queries[:2], 10, "faiss")  # so few are all compared
    assert np.array_equal(few, nearest(vectors[:100], queries[:2], 10)[0])


def test_without_faiss_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(search, "import_module", missing)
    with pytest.raises(RizbinError, match=r"rizbin\[vectors\].*exact"):
        nearest(unit(5000, 4, 0), unit(1, 4, 1), 3, "faiss")


def test_the_place_is_around_the_patches_that_fit() -> None:
    patches = np.zeros((4, 4, 2), np.float32)
    patches[..., 0] = 1  # ground
    patches[1, 2] = patches[2, 2] = (0, 1)
    patches[0, 0] = (0.1, 0.9)  # as near, and not joined to the best
    place = place_of(patches, np.array([0, 1], np.float32), (120, 80))
    # The central square of 120x80 begins at 20; a patch has 20 pixels.
    assert place.box == (60.0, 20.0, 80.0, 60.0)
    assert place.heat.shape == (4, 4) and place.heat.argmax() == 6
    tall = place_of(patches, np.array([0, 1], np.float32), (80, 120))
    assert tall.box == (40.0, 40.0, 60.0, 80.0)
