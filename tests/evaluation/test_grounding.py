"""Own word against the other word present: planted maps with known answers, and slow loops."""

import pytest
import torch
from torch.nn import functional as F

from rizbin.evaluation.embed import Objects
from rizbin.evaluation.grounding import confused, measure, present_words

SIZE, GRID = 16, (4, 4)


def objects_of(labels: torch.Tensor, images: list[int]) -> Objects:
    """One object for each category of each image."""
    rows = [
        (image, int(label) - 1, labels[place] == label)
        for place, image in enumerate(images)
        for label in labels[place].unique()
        if label > 0
    ]
    return Objects(
        image=torch.tensor([row[0] for row in rows]),
        category=torch.tensor([row[1] for row in rows]),
        area=torch.tensor([row[2].float().mean().item() for row in rows]),
        cover=torch.stack([F.adaptive_avg_pool2d(row[2][None].float(), GRID)[0] for row in rows]),
    )


def scenes() -> torch.Tensor:
    """Two equally large objects of categories 0 and 1; 1 and 2; and three of 0, 1, 2."""
    labels = torch.zeros(3, SIZE, SIZE, dtype=torch.int16)
    labels[0, :8, :8], labels[0, 8:, 8:] = 1, 2
    labels[1, :8, :8], labels[1, 8:, 8:] = 3, 2
    labels[2, :8, :8], labels[2, 8:, 8:], labels[2, :8, 8:] = 1, 2, 3
    return labels


def scores_of(labels: torch.Tensor, categories: int = 4) -> torch.Tensor:
    """Patch scores that know the truth."""
    shares = [F.adaptive_avg_pool2d((labels == 1 + category).float(), GRID) for category in range(categories)]
    return torch.stack(shares, dim=1)


IMAGES = [1, 4, 5]
"""Positions of the masked images among all."""


def values(scores: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, float]:
    labels = scenes() if labels is None else labels
    found, left_out = measure(scores, labels, objects_of(labels, IMAGES), torch.tensor(IMAGES), "zero_shot", "plain")
    assert not left_out
    return {each.name.removeprefix("grounding/zero_shot/"): each.value for each in found}


def test_a_perfect_map_is_right_about_everything() -> None:
    assert values(scores_of(scenes())) == {
        "pair_objects": 100,
        "pair_both": 100,
        "pair_patches": 100,
        "present_objects": 100,
        "confused_pixels": 0,
    }


def test_swapped_words_are_wrong_about_every_pair() -> None:
    scores = scores_of(scenes())
    swapped = scores.clone()
    swapped[0, [0, 1]], swapped[1, [1, 2]] = scores[0, [1, 0]], scores[1, [2, 1]]
    swapped[2, [0, 1, 2]] = scores[2, [1, 2, 0]]
    assert values(swapped) == {
        "pair_objects": 0,
        "pair_both": 0,
        "pair_patches": 0,
        "present_objects": 0,
        "confused_pixels": 100,
    }


def test_a_scene_painted_in_one_word_is_at_half_and_never_both() -> None:
    scores = torch.zeros(3, 4, *GRID)
    scores[:, 1] = 1
    found = values(scores)
    assert (found["pair_objects"], found["pair_both"], found["pair_patches"]) == (50, 0, 50)
    assert found["present_objects"] == pytest.approx(100 * 3 / 7)
    # Half of two objects and two thirds of three, all of 64 pixels.
    assert found["confused_pixels"] == pytest.approx(100 * (1 + 1 + 2) / 7)


def test_chance_is_that_of_the_words_present() -> None:
    labels = scenes()
    found, _ = measure(
        scores_of(labels), labels, objects_of(labels, IMAGES), torch.tensor(IMAGES), "dense_head", "windows"
    )
    chance = {each.name.rsplit("/", 1)[1]: each.chance for each in found}
    assert (chance["pair_objects"], chance["pair_both"], chance["pair_patches"]) == (50, 25, 50)
    assert chance["present_objects"] == pytest.approx(100 * (4 / 2 + 3 / 3) / 7)
    assert chance["confused_pixels"] == pytest.approx(100 * (4 * 1 / 2 + 3 * 2 / 3) / 7)
    pair, both, patches, present, pixels = found
    assert (pair.images, pair.items) == (2, "4 objects") and (both.images, both.items) == (2, "")
    assert patches.items == "16 patches" and present.images == 3
    assert not pixels.higher_is_better and pixels.items == f"{7 * 64} object pixels"
    assert all("training-free" in each.protocol for each in found)


def test_a_finer_grid_gives_the_numbers_of_its_means() -> None:
    """The dense head's grid is twice as fine as the patches that objects are known on."""
    labels = scenes()
    generator = torch.Generator().manual_seed(0)
    fine = torch.randn(3, 4, 8, 8, generator=generator)
    objects, images = objects_of(labels, IMAGES), torch.tensor(IMAGES)
    found, _ = measure(fine, labels, objects, images, "dense_head", "windows")
    means, _ = measure(F.avg_pool2d(fine, 2), labels, objects, images, "dense_head", "windows")
    for one, other in zip(found[:4], means[:4], strict=True):
        assert (one.name, one.value) == (other.name, other.value)
        assert "mean of its four cosines" in one.protocol
    assert "along the image's colors" in found[4].protocol


def test_pixels_follow_the_colors_of_the_images_given() -> None:
    """Objects that end inside patches: colors know where. An image of one word stands before the one that counts."""
    labels = torch.ones(2, SIZE, SIZE, dtype=torch.int16)
    labels[1, :, 6:] = 2
    images = torch.where(labels[..., None] == 1, 250, 10).expand(-1, -1, -1, 3).to(torch.uint8)
    scores = scores_of(labels, 2)
    scores[1, :, :, 1] = torch.tensor([0.8, 0.2])[:, None]  # the patches with the border lean to one side
    assert confused(scores, labels, images)[0] == 0 < confused(scores, labels)[0]
    found, _ = measure(
        scores, labels, objects_of(labels, [0, 1]), torch.arange(2), "dense_head", "windows", images=images
    )
    assert found[-1].name == "grounding/dense_head/confused_pixels" and found[-1].value == 0


def test_words_that_are_not_there_do_not_compete() -> None:
    scores = scores_of(scenes())
    scores[:, 3] = 9
    assert values(scores)["present_objects"] == 100 and values(scores)["confused_pixels"] == 0


def test_ties_are_wrong() -> None:
    found = values(torch.zeros(3, 4, *GRID))
    assert found == {**dict.fromkeys(found, 0.0), "confused_pixels": 100}


def test_all_numbers_are_those_of_slow_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = [(0, 0), (0, 8), (8, 0), (8, 8)]
    labels = torch.zeros(12, SIZE, SIZE, dtype=torch.int16)
    for image in range(12):
        for (top, left), label in zip(corners, torch.randperm(5, generator=generator)[: 1 + image % 4], strict=False):
            height, width = torch.randint(3, 9, (2,), generator=generator).tolist()
            labels[image, top : top + height, left : left + width] = 1 + label
    scores = torch.randn(12, 5, *GRID, generator=generator)
    objects = objects_of(labels, list(range(12)))
    measured, _ = measure(scores, labels, objects, torch.arange(12), "zero_shot", "plain")
    found = {each.name.rsplit("/", 1)[1]: each for each in measured}

    fine = F.interpolate(scores, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    pair_objects, pair_both, pair_patches, present_objects, pixels = [], [], [], [], []
    chance_pixels, chance_objects = [], []
    for image in range(12):
        words = [int(label) - 1 for label in labels[image].unique() if label > 0]
        if len(words) < 2:
            continue
        right = []
        for word in words:
            cover = F.adaptive_avg_pool2d((labels[image] == word + 1)[None].float(), GRID)[0]
            means = {
                other: sum(
                    (cover[row, column] * scores[image, other, row, column]).item()
                    for row in range(4)
                    for column in range(4)
                )
                / cover.sum().item()
                for other in words
            }
            right.append(all(means[word] > means[other] for other in words if other != word))
            present_objects.append(right[-1])
            chance_objects.append(1 / len(words))
            for row in range(4):
                for column in range(4):
                    if len(words) == 2 and cover[row, column] > 0.5:
                        (other,) = set(words) - {word}
                        pair_patches.append(bool(scores[image, word, row, column] > scores[image, other, row, column]))
        if len(words) == 2:
            pair_objects += right
            pair_both.append(all(right))
        for y in range(SIZE):
            for x in range(SIZE):
                if labels[image, y, x] > 0:
                    own = int(labels[image, y, x]) - 1
                    pixels.append(
                        any(fine[image, other, y, x] >= fine[image, own, y, x] for other in words if other != own)
                    )
                    chance_pixels.append(1 - 1 / len(words))

    def percent(hits: list) -> float:
        return 100 * sum(hits) / len(hits)

    assert found["pair_objects"].value == pytest.approx(percent(pair_objects))
    assert found["pair_both"].value == pytest.approx(percent(pair_both))
    assert found["pair_patches"].value == pytest.approx(percent(pair_patches))
    assert found["present_objects"].value == pytest.approx(percent(present_objects))
    assert found["present_objects"].chance == pytest.approx(percent(chance_objects))
    assert found["confused_pixels"].value == pytest.approx(percent(pixels))
    assert found["confused_pixels"].chance == pytest.approx(percent(chance_pixels))


def test_two_objects_of_one_category_are_no_pair() -> None:
    labels = scenes()[:1]
    objects = objects_of(labels, [0])
    twice = Objects(
        image=objects.image.repeat_interleave(2),
        category=objects.category.repeat_interleave(2),
        area=objects.area.repeat_interleave(2),
        cover=objects.cover.repeat_interleave(2, 0),
    )
    found, left_out = measure(scores_of(labels), labels, twice, torch.tensor([0]), "zero_shot", "plain")
    assert [each.name for each in found] == [
        "grounding/zero_shot/present_objects",
        "grounding/zero_shot/confused_pixels",
    ]
    assert [name for name, _ in left_out] == ["grounding/zero_shot/pair_objects"]
    assert present_words(twice, 4).tolist() == [[True, True, False, False]] * 4


def test_images_of_one_word_say_nothing() -> None:
    labels = torch.ones(1, SIZE, SIZE, dtype=torch.int16)
    found, left_out = measure(
        scores_of(labels), labels, objects_of(labels, [0]), torch.tensor([0]), "zero_shot", "plain"
    )
    assert not found and [name for name, _ in left_out] == ["grounding/zero_shot"]
    assert confused(scores_of(labels), labels) == (0, 0, 0.0, 0)
