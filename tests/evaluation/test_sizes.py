"""Recall by size: what counts as right, what as small."""

import pytest
import torch

from rizbin.evaluation.embed import Objects
from rizbin.evaluation.sizes import above_absent, measure, under_masks


def test_an_object_is_right_when_it_beats_every_absent_category() -> None:
    scores = torch.tensor([[0.5, 0.9, 0.1], [0.5, 0.9, 0.6], [0.5, 0.9, 0.5]])
    present = torch.tensor([True, True, False]).expand(3, 3)
    # Category 1 is in the picture too and may score higher; category 2 is absent and may not, nor draw.
    assert above_absent(scores, torch.zeros(3, dtype=torch.long), present).tolist() == [True, False, False]


def test_scores_under_masks_are_those_of_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, cover = torch.randn(3, 4, 2, 5, generator=generator), torch.rand(600, 2, 5, generator=generator)
    picture = torch.arange(600) % 3
    found = under_masks(scores, cover, picture)
    for place in (0, 1, 511, 512, 599):
        weights = cover[place] / cover[place].sum()
        for category in range(4):
            expected = (weights * scores[picture[place], category]).sum()
            assert found[place, category].item() == pytest.approx(expected.item(), abs=1e-5)


def objects() -> Objects:
    """A small object of category 0 in picture 0; a large one of category 1 in picture 2. Picture 1 has no masks."""
    cover = torch.zeros(2, 2, 2)
    cover[0, 0, 0], cover[1] = 0.04, 1.0
    return Objects(
        image=torch.tensor([0, 2]), category=torch.tensor([0, 1]), area=torch.tensor([0.01, 0.9]), cover=cover
    )


def test_small_and_large_are_told_apart_and_patches_can_find_what_the_picture_does_not_name() -> None:
    words = torch.eye(3)
    images = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    right = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 0]]).bool()
    patches = torch.zeros(2, 3, 2, 2)  # of pictures 0 and 2
    patches[0, 0, 0, 0] = 1
    patches[1, 2] = 1
    found, left_out = measure(images, words, right, objects(), torch.tensor([0, 2]), patches, (0.02, 0.1))
    values = {one.name: one.value for one in found}
    assert values == {
        "sizes/small/classified": 0,
        "sizes/small/localized": 100,
        "sizes/large/classified": 100,
        "sizes/large/localized": 0,
    }
    assert [name for name, _ in left_out] == ["sizes/medium"]
    assert all(one.chance == pytest.approx(100 / 3) for one in found)
    assert "under 0.02" in found[0].protocol


def test_edges_move_objects_to_another_size() -> None:
    right = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 0]]).bool()
    found, _ = measure(
        torch.eye(3), torch.eye(3), right, objects(), torch.tensor([0, 2]), torch.zeros(2, 3, 2, 2), (0.001, 0.005)
    )
    assert {one.name.split("/")[1] for one in found} == {"large"}
