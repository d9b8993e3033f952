"""Retrieval against a slow loop; identical captions and collapse."""

import pytest
import torch
from torch.nn import functional as F

from rizbin.evaluation.retrieval import measure, same_caption


def unit(rows: int, columns: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_recall_is_that_of_a_slow_loop_with_identical_captions_right() -> None:
    captions = [f"caption {number % 17}" for number in range(30)]
    images, texts = unit(30, 8, 1), unit(17, 8, 2).repeat(2, 1)[:30]
    found = {one.name: one for one in measure(images, texts, captions)}
    for way, scores in (("image_to_text", images @ texts.T), ("text_to_image", texts @ images.T)):
        ranks = []
        for query in range(30):
            wrong_first = sorted(range(30), key=lambda a: (-scores[query, a].item(), captions[a] == captions[query]))
            ranks.append(1 + next(p for p, a in enumerate(wrong_first) if captions[a] == captions[query]))
        for k in (1, 5, 10):
            value = 100 * sum(rank <= k for rank in ranks) / 30
            assert found[f"retrieval/{way}/r{k}"].value == pytest.approx(value)
        assert found[f"retrieval/{way}/median_rank"].value == (sorted(ranks)[14] + sorted(ranks)[15]) / 2
        assert not found[f"retrieval/{way}/median_rank"].higher_is_better
    assert "17 differ" in found["retrieval/image_to_text/r1"].protocol


def test_a_pair_that_knows_is_perfect_and_a_shift_by_one_is_not() -> None:
    rows = torch.eye(12)
    captions = [str(number) for number in range(12)]
    assert {one.value for one in measure(rows, rows, captions) if one.unit == "percent"} == {100.0}
    assert measure(rows, rows.roll(1, dims=0), captions)[0].value == 0


def test_a_collapsed_pair_finds_nothing() -> None:
    same = F.normalize(torch.ones(12, 3), dim=1)
    found = measure(same, same, [str(number) for number in range(12)])
    assert all(one.value == 0 for one in found if one.unit == "percent")


def test_captions_are_the_same_but_for_letter_case() -> None:
    assert same_caption(["a cat", "A Cat", "a dog"]).tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
    ]


def test_chance_of_the_median_is_known_only_when_all_captions_differ() -> None:
    rows = torch.eye(12)
    assert measure(rows, rows, [str(number) for number in range(12)])[3].chance == 6.5
    assert measure(rows, rows, ["same", "same", *map(str, range(10))])[3].chance is None
