"""Prompts, ensembles and what is counted as right."""

import pytest
import torch
from torch.nn import functional as F

from rizbin.evaluation.zero_shot import PLAIN, ensemble, measure, prompt, rank_measurements, templates


@pytest.mark.parametrize(
    ("template", "name", "expected"),
    [
        ("a photo of a {}.", "apple", "a photo of an apple."),
        ("a photo of a {}.", "pizza", "a photo of a pizza."),
        ("a {}", "unicorn", "a unicorn"),
        ("a {}", "hourglass", "an hourglass"),
        ("a origami {}", "egg", "a origami egg"),
        ("a photo of the {}.", "egg", "a photo of the egg."),
        ("a small {}", "ant", "a small ant"),
        ("a {}", "Airplane", "an Airplane"),
    ],
)
def test_the_article_fits_the_name(template: str, name: str, expected: str) -> None:
    assert prompt(template, name) == expected


def test_the_published_templates_are_eighty_and_the_plain_ones_are_among_them() -> None:
    published = templates("openai80")
    assert len(set(published)) == 80
    assert set(PLAIN) <= set(published)
    assert all(template.count("{}") == 1 for which in ("scenes", "plain", "openai80") for template in templates(which))


def test_an_ensemble_is_the_unit_mean_of_unit_embeddings() -> None:
    prompts = torch.randn(3, 4, 5) * torch.rand(3, 4, 1) * 10  # lengths differ: a plain mean would follow the longest
    for category, found in zip(prompts, ensemble(prompts), strict=True):
        mean = torch.stack([one / one.norm() for one in category]).mean(dim=0)
        torch.testing.assert_close(found, mean / mean.norm())


def pictures_of(right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings that point at one right category each, and the categories' own."""
    words = F.normalize(torch.eye(right.shape[1]), dim=1)
    return words[right.float().argmax(dim=1)], words


def test_a_network_that_knows_gets_everything_right_and_a_shift_by_one_nothing() -> None:
    right = F.one_hot(torch.arange(20) % 6, 6).bool()
    images, words = pictures_of(right)
    knows = {one.name: one for one in measure(images, words, right, "plain")}
    assert knows["zero_shot/top1"].value == 100
    assert knows["zero_shot/top1"].chance == pytest.approx(100 / 6)
    assert knows["zero_shot/top5"].chance == pytest.approx(500 / 6)
    assert "zero_shot/map" not in knows  # each picture holds one category: top-1 says it all
    shifted = {one.name: one for one in measure(images, words.roll(1, dims=0), right, "plain")}
    assert shifted["zero_shot/top1"].value == 0


def test_any_category_in_the_picture_is_right() -> None:
    right = torch.tensor([[1, 1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1, 0]]).bool()
    scores = torch.tensor([[0.0, 9, 8, 0, 0, 0, 0], [9.0, 0, 8, 0, 0, 7, 0]])
    found = {one.name: one for one in rank_measurements("zero_shot", scores, right, "by hand")}
    assert found["zero_shot/top1"].value == 50
    assert found["zero_shot/top5"].value == 100
    assert "by hand" in found["zero_shot/map"].protocol


def test_pictures_without_a_name_do_not_count_and_the_protocol_says_how_many_did() -> None:
    right = torch.cat([torch.eye(6), torch.zeros(4, 6)]).bool()
    images, words = torch.cat([torch.eye(6), torch.randn(4, 6)]), torch.eye(6)
    top1 = measure(images, words, right, "scenes")[0]
    assert top1.value == 100
    assert "6 images" in top1.protocol and "scenes" in top1.protocol
