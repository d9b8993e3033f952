"""Confusion, IoU, patch truth and thresholds against scikit-learn and slow loops."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from rizbin.evaluate.probe import LinearProbe
from rizbin.evaluate.segmentation import (
    choose_threshold,
    confusion,
    foreground,
    linear_miou,
    mean_iou,
    objects_miou,
    patch_shares,
    standing_out,
    zero_shot_miou,
)


def quadrants() -> torch.Tensor:
    """Two pictures of 16x16: background, category 0 (label 1), category 1 (label 2), background; and turned."""
    labels = torch.zeros(2, 16, 16, dtype=torch.int16)
    labels[0, :8, 8:], labels[0, 8:, :8] = 1, 2
    labels[1, :8, :8], labels[1, 8:, 8:] = 2, 1
    return labels


def scores_of(labels: torch.Tensor, categories: int) -> torch.Tensor:
    """Patch scores on a 4x4 grid that know the truth; background patches like nothing."""
    shares = patch_shares(labels, (4, 4), categories + 1)[:, :, 1:]
    return shares.transpose(1, 2).unflatten(2, (4, 4))


def test_confusion_and_iou_are_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, predicted = (torch.randint(0, 5, (3, 20, 20), generator=generator) for _ in range(2))
    counts = confusion(truth, predicted, 5)
    flat = truth.flatten().numpy(), predicted.flatten().numpy()
    np.testing.assert_array_equal(counts.numpy(), confusion_matrix(*flat))
    assert mean_iou(counts) == pytest.approx(jaccard_score(*flat, average="macro"))


def test_a_class_that_is_neither_there_nor_predicted_does_not_count() -> None:
    truth = torch.tensor([0, 0, 1, 1])
    assert mean_iou(confusion(truth, truth, 7)) == 1
    assert mean_iou(confusion(truth, torch.tensor([0, 0, 1, 5]), 7)) == pytest.approx((1 + 0.5 + 0) / 3)


def test_patch_shares_are_those_of_a_slow_loop() -> None:
    labels = torch.randint(0, 4, (2, 12, 12), generator=torch.Generator().manual_seed(1)).to(torch.int16)
    found = patch_shares(labels, (3, 3), 4)
    for picture in range(2):
        for patch in range(9):
            row, column = patch // 3 * 4, patch % 3 * 4
            inside = labels[picture, row : row + 4, column : column + 4]
            for kind in range(4):
                assert found[picture, patch, kind].item() == pytest.approx((inside == kind).float().mean().item())


def test_the_threshold_parts_objects_from_background() -> None:
    labels = quadrants()
    margins, predicted = standing_out(scores_of(labels, 3), 16)
    threshold = choose_threshold(margins, predicted, labels, 4)
    assert 0 < threshold < 2 / 3
    everything = mean_iou(confusion(labels, predicted, 4))
    chosen = mean_iou(confusion(labels, torch.where(margins >= threshold, predicted, 0), 4))
    assert chosen > everything + 0.3


def test_zero_shot_segmentation_that_knows_is_good_and_a_shift_by_one_is_not() -> None:
    labels = quadrants()
    scores = scores_of(labels, 3)
    good = zero_shot_miou(scores, labels, scores, labels, "zero_shot", "plain")
    assert good.value > 80 and "at 16x16" in good.protocol and "2 training pictures" in good.protocol
    shifted = zero_shot_miou(scores.roll(1, dims=1), labels, scores.roll(1, dims=1), labels, "zero_shot", "plain")
    assert shifted.value < 40
    least = zero_shot_miou(-scores, labels, -scores, labels, "zero_shot", "plain")
    assert least.value < 40


def test_miou_of_objects_asks_about_their_pixels_alone() -> None:
    labels = quadrants()
    scores = scores_of(labels, 3)
    good = objects_miou(scores, labels, "zero_shot", "plain")
    assert good.name == "segmentation/zero_shot/objects_miou" and good.value == 100
    assert f"the {2 * 128} pixels" in good.protocol
    noisy = scores.clone()
    noisy[:, 2] += 0.4 * (scores.sum(dim=1) == 0)  # background may look like anything
    assert objects_miou(noisy, labels, "zero_shot", "plain").value > 80
    swapped = objects_miou(scores[:, [1, 0, 2]], labels, "zero_shot", "plain")
    assert swapped.value == 0


def test_the_protocol_follows_what_was_done() -> None:
    labels = quadrants()
    scores = scores_of(labels, 3)
    plain = zero_shot_miou(scores, labels, scores, labels, "zero_shot", "plain").protocol
    dense = zero_shot_miou(scores, labels, scores, labels, "dense_head", "windows").protocol
    assert "training-free" in dense and "training-free" not in plain
    assert "bilinearly" in plain and "colors" in dense and "times the plain CPU time" in dense


def test_the_images_given_guide_the_upsampling() -> None:
    """Patches of 4 pixels whose objects end inside them: colors know where."""
    labels = torch.zeros(1, 16, 16, dtype=torch.int16)
    labels[0, :, :6], labels[0, :, 6:] = 1, 2
    images = torch.where(labels[..., None] == 1, 250, 10).expand(-1, -1, -1, 3).to(torch.uint8)
    scores = scores_of(labels, 2)
    scores[0, :, :, 1] = torch.tensor([0.8, 0.2])[:, None]  # the patches with the border lean to one side
    bilinear = objects_miou(scores, labels, "dense_head", "windows").value
    guided = objects_miou(scores, labels, "dense_head", "windows", images=images).value
    assert guided == 100 > bilinear
    with_background = zero_shot_miou(
        scores, labels, scores, labels, "dense_head", "windows", images=images, train_images=images
    )
    assert with_background.value > zero_shot_miou(scores, labels, scores, labels, "dense_head", "windows").value


def test_foreground_counts_covered_patches_only() -> None:
    labels = quadrants()
    shares = patch_shares(labels, (4, 4), 4)
    scores = scores_of(labels, 3)
    everywhere, present = foreground(scores, shares, "zero_shot", "plain")
    assert everywhere.value == present.value == 100
    assert "Share of 16 patches" in everywhere.protocol  # two quadrants of four patches in each of two pictures
    assert everywhere.chance == pytest.approx(100 / 3) and present.chance == 50
    assert foreground(scores.roll(1, dims=1), shares, "zero_shot", "plain")[0].value == 0


def test_foreground_in_picture_chooses_among_what_is_there() -> None:
    labels = quadrants()
    scores = scores_of(labels, 3)
    scores[:, 2] = 5  # the third category, which is in no picture, is liked best everywhere
    everywhere, present = foreground(scores, patch_shares(labels, (4, 4), 4), "zero_shot", "plain")
    assert everywhere.value == 0 and present.value == 100


def test_pictures_of_one_category_say_nothing_about_choosing_among_those_there() -> None:
    labels = torch.ones(1, 16, 16, dtype=torch.int16)
    found = foreground(scores_of(labels, 3), patch_shares(labels, (4, 4), 4), "zero_shot", "plain")
    assert [one.name for one in found] == ["segmentation/zero_shot/foreground"]


def test_a_linear_layer_that_knows_segments() -> None:
    labels = quadrants()
    patches = patch_shares(labels, (4, 4), 4)
    probe = LinearProbe(torch.eye(4), torch.zeros(4), torch.zeros(4), torch.ones(4), 0.01)
    good = linear_miou(probe, patches.half(), labels, (4, 4), taught="by hand")
    assert good.value > 80 and "by hand" in good.protocol and "weight decay 0.01" in good.protocol
    wrong = LinearProbe(torch.eye(4).roll(1, dims=0), torch.zeros(4), torch.zeros(4), torch.ones(4), 0.01)
    assert linear_miou(wrong, patches.half(), labels, (4, 4), taught="by hand").value < 10
