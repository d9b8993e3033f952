"""Object pixels kept by attention, by its opposite and by chance."""

import itertools

import pytest
import torch

from rizbin.evaluation.tokens import kept_patches, measure, measure_hidden, object_pixels_on


def labels() -> torch.Tensor:
    """An object on the upper left quarter, 3 pixels of one at the lower right."""
    found = torch.zeros(1, 16, 16, dtype=torch.int16)
    found[0, :8, :8] = 2
    found[0, 15, 13:] = 1
    return found


def test_attention_on_the_object_keeps_it_and_its_opposite_loses_it() -> None:
    attention = torch.zeros(1, 4, 4)
    attention[0, :2, :2] = 1
    # int(4 * 0.25) + 1 = 2 of 4 blocks stay.
    good = measure(attention, labels(), keep_ratio=0.25, block=2, whose="a test")
    assert good.value == pytest.approx(100 * 64 / 67) and good.chance == 50
    assert "8 of 16 patches kept by a test (keep ratio 0.25, 2x2 blocks" in good.protocol
    assert measure(-attention, labels(), keep_ratio=0.25, block=2, whose="a test").value <= 100 * 3 / 67


def test_what_the_method_hides_is_counted_and_not_judged() -> None:
    removed = torch.zeros(1, 4, 4, dtype=torch.bool)
    removed[0, :2, :3] = True
    found = measure_hidden(removed, labels())
    assert found.name == "tokens/object_pixels_hidden" and found.value == pytest.approx(100 * 64 / 67)
    assert found.chance == pytest.approx(100 * 6 / 16)
    assert found.higher_is_better is None and found.worse_than_chance is None
    kept = object_pixels_on(~removed, labels())
    assert found.value == pytest.approx(100 - 100 * kept)


def test_single_patches_can_be_chosen() -> None:
    attention = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    kept = kept_patches(attention, keep_ratio=0.5, block=1)
    assert kept.sum(dim=(1, 2)).tolist() == [9, 9, 9]
    for picture in range(3):
        assert attention[picture][kept[picture]].min() > attention[picture][~kept[picture]].max()


def test_chance_is_the_mean_over_all_choices() -> None:
    shares = []
    for chosen in itertools.combinations(range(16), 2):
        kept = torch.zeros(1, 16, dtype=torch.bool)
        kept[0, list(chosen)] = True
        shares.append(object_pixels_on(kept.view(1, 4, 4), labels()))
    found = measure(torch.rand(1, 4, 4), labels(), keep_ratio=1 / 16, block=1, whose="a test")
    assert found.chance == pytest.approx(100 * sum(shares) / len(shares))
