"""Where heads look, against masks whose overlap is known."""

import pytest
import torch

from rizbin.evaluation.attention import measure


def test_the_best_head_of_each_picture_counts() -> None:
    """Two pictures of 4x4 pixels in 2x2 patches, an object on the left half of each."""
    labels = torch.zeros(2, 4, 4, dtype=torch.int16)
    labels[:, :, :2] = 3
    left, top, corner = (torch.tensor(one) for one in ([[2.0, 0], [2, 0]], [[2.0, 2], [0, 0]], [[0.0, 9], [0, 0]]))
    heads = torch.stack([torch.stack([left, corner]), torch.stack([top, corner])])
    best, mean = measure(heads, labels, mass=0.6)
    assert best.name == "attention/best_head_jaccard" and best.value == pytest.approx(100 * (1 + 4 / 12) / 2)
    # Of the means, the corner alone holds 9 of 13 and 11 of 13: no pixel of the object.
    assert mean.name == "attention/mean_jaccard" and mean.value == 0
    all_patches, _ = measure(heads.clamp(min=1), labels, mass=1.0)
    assert all_patches.value == pytest.approx(50)
    assert "hold 60%" in best.protocol and "2 images" in best.protocol
