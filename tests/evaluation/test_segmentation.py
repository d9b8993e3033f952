"""Confusion, IoU, patch truth and thresholds against scikit-learn and slow loops."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score
from torch.nn import functional as F

from rizbin.core.measurement import Measurement
from rizbin.evaluation.probe import LinearProbe
from rizbin.evaluation.segmentation import (
    boundary_band,
    boundary_iou,
    choose_threshold,
    confusion,
    linear_segmentation,
    mean_iou,
    objects_miou,
    patch_accuracy,
    patch_shares,
    standing_out,
    zero_shot_segmentation,
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


def shapes(seed: int) -> torch.Tensor:
    """Blobs of four labels, some at the edge of the image."""
    noise = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=(18, 18), mode="bicubic").argmax(dim=1).to(torch.int16)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_boundary_iou_is_that_of_a_slow_loop(width: int) -> None:
    truth, predicted = shapes(0), shapes(1)
    shares = []
    for category in range(1, 4):
        both = either = 0
        for image in range(3):
            regions = []
            for labels in (truth, predicted):
                region = labels[image] == category
                band = set()
                for y in range(18):
                    for x in range(18):
                        around = [
                            (y + down, x + across)
                            for down in range(-width, width + 1)
                            for across in range(-width, width + 1)
                        ]
                        inside = all(0 <= a < 18 and 0 <= b < 18 and bool(region[a, b]) for a, b in around)
                        if bool(region[y, x]) and not inside:
                            band.add((y, x))
                regions.append(band)
            both += len(regions[0] & regions[1])
            either += len(regions[0] | regions[1])
        shares.append(both / either)
    assert boundary_iou(predicted, truth, 4, width) == pytest.approx(sum(shares) / 3)


def test_boundary_iou_of_known_shapes() -> None:
    square, larger = torch.zeros(1, 32, 32, dtype=torch.int16), torch.zeros(1, 32, 32, dtype=torch.int16)
    square[:, 8:24, 8:24], larger[:, 6:26, 6:26] = 1, 1
    assert boundary_iou(square, square, 2, 2) == 1
    # A rim of 2 pixels too many: no pixel of the two bands of 2 is common, though the regions overlap by 64 percent.
    assert boundary_iou(larger, square, 2, 2) == 0
    assert mean_iou(confusion(square, larger, 2)) > 0.7
    assert boundary_iou(torch.zeros_like(square), square, 2, 2) == 0
    # A band as wide as the object is the object.
    assert boundary_iou(larger, square, 2, 16) == pytest.approx(16**2 / 20**2)
    assert np.isnan(boundary_iou(torch.zeros_like(square), torch.zeros_like(square), 2, 2))


def test_the_band_knows_the_frame_or_not() -> None:
    labels = torch.zeros(1, 6, 6, dtype=torch.int16)
    labels[:, :, 4:] = 7
    assert boundary_band(labels, 1, frame=False)[0].all(dim=0).tolist() == [False, False, False, True, True, False]
    framed = boundary_band(labels, 1)[0]
    assert framed[0].all() and framed[:, 5].all() and framed[:, 0].all() and not framed[2, 2]


def test_zero_shot_segmentation_that_knows_is_good_and_a_shift_by_one_is_not() -> None:
    labels = quadrants()
    scores = scores_of(labels, 3)

    def both(scores: torch.Tensor, head: str = "plain") -> list[Measurement]:
        return zero_shot_segmentation(scores, labels, scores, labels, "zero_shot", head, boundary_width=2)

    good, boundary = both(scores)
    assert good.value > 80 and "at 16x16" in good.protocol and "2 training images" in good.protocol
    assert boundary.name == "segmentation/zero_shot/boundary_iou" and "within 2 pixels" in boundary.protocol
    assert 40 < boundary.value < good.value and boundary.images == 2
    assert all(each.value < 40 for each in both(scores.roll(1, dims=1)))
    assert all(each.value < 40 for each in both(-scores))


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
    plain = zero_shot_segmentation(scores, labels, scores, labels, "zero_shot", "plain", boundary_width=1)
    dense = zero_shot_segmentation(scores, labels, scores, labels, "dense_head", "windows", boundary_width=1)
    for one, other in zip(plain, dense, strict=True):
        assert "training-free" in other.protocol and "training-free" not in one.protocol
        assert "bilinearly" in one.protocol and "colors" in other.protocol
        assert "times the plain CPU time" in other.protocol


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

    def both(**guides: torch.Tensor) -> list[Measurement]:
        return zero_shot_segmentation(
            scores, labels, scores, labels, "dense_head", "windows", boundary_width=1, **guides
        )

    for with_colors, without in zip(both(images=images, train_images=images), both(), strict=True):
        assert with_colors.value > without.value


def test_patch_accuracy_counts_covered_patches_only() -> None:
    labels = quadrants()
    shares = patch_shares(labels, (4, 4), 4)
    scores = scores_of(labels, 3)
    everywhere, present = patch_accuracy(scores, shares, "zero_shot", "plain")
    assert everywhere.value == present.value == 100
    assert "Share of 16 patches" in everywhere.protocol  # two quadrants of four patches in each of two pictures
    assert everywhere.chance == pytest.approx(100 / 3) and present.chance == 50
    assert patch_accuracy(scores.roll(1, dims=1), shares, "zero_shot", "plain")[0].value == 0


def test_patch_accuracy_among_those_present_chooses_among_what_is_there() -> None:
    labels = quadrants()
    scores = scores_of(labels, 3)
    scores[:, 2] = 5  # the third category, which is in no picture, is liked best everywhere
    everywhere, present = patch_accuracy(scores, patch_shares(labels, (4, 4), 4), "zero_shot", "plain")
    assert everywhere.value == 0 and present.value == 100


def test_pictures_of_one_category_say_nothing_about_choosing_among_those_there() -> None:
    labels = torch.ones(1, 16, 16, dtype=torch.int16)
    found = patch_accuracy(scores_of(labels, 3), patch_shares(labels, (4, 4), 4), "zero_shot", "plain")
    assert [one.name for one in found] == ["segmentation/zero_shot/patch_accuracy"]


def test_a_linear_layer_that_knows_segments() -> None:
    labels = quadrants()
    patches = patch_shares(labels, (4, 4), 4)
    probe = LinearProbe(torch.eye(4), torch.zeros(4), torch.zeros(4), torch.ones(4), 0.01)
    good, boundary = linear_segmentation(probe, patches.half(), labels, (4, 4), taught="by hand", boundary_width=2)
    assert good.value > 80 and "by hand" in good.protocol and "weight decay 0.01" in good.protocol
    assert 40 < boundary.value < good.value and boundary.name == "segmentation/linear/boundary_iou"
    wrong = LinearProbe(torch.eye(4).roll(1, dims=0), torch.zeros(4), torch.zeros(4), torch.ones(4), 0.01)
    poor, boundary = linear_segmentation(wrong, patches.half(), labels, (4, 4), taught="by hand", boundary_width=2)
    assert poor.value < 10 and boundary.value < 10
