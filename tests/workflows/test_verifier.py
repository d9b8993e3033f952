"""Judges: a detector, whose one pass for all phrases says what a pass for each would, and an encoder of any library."""

import numpy as np
import pytest
import torch

from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.detection.presence import Calibration
from rizbin.models.encoder import Encoder
from rizbin.workflows.load import calibration_of, load_detector
from rizbin.workflows.verifier import DetectorVerifier, EncoderVerifier, judge_by, windows


def test_one_pass_serves_all_phrases() -> None:
    detector = load_detector("detector-mini")
    source = open_source("scenes:drawn,categories=16", split="test", size=64)
    side = detector.preparation.shorter
    judge = DetectorVerifier(detector, calibration_of(detector) or Calibration(), source.categories, side)
    right = asked = 0
    for index in range(6):
        sample = source[index]
        phrases = [*sorted(sample.names), "whale", "pizza"]
        together = judge(sample.image, phrases)
        for phrase, presence in zip(phrases, together, strict=True):
            (alone,) = judge(sample.image, [phrase])
            # Another order of the names in the text is another order of sums in float32.
            assert presence.probability == pytest.approx(alone.probability, abs=2e-3)
            assert (presence.box is None) == (alone.box is None)
            if presence.box is not None and alone.box is not None:
                np.testing.assert_allclose(presence.box, alone.box, atol=0.5)
            right += (presence.probability >= 0.5) == (phrase in sample.names)
            asked += 1
    assert right >= 0.8 * asked


def test_windows_cover_the_image_and_stay_inside() -> None:
    for height, width in ((64, 64), (60, 100), (100, 60), (1, 7)):
        views = windows(height, width)
        assert views[0] == (0, 0, width, height) and len(set(views)) == len(views)
        covered = np.zeros((height, width), bool)
        for left, top, right, bottom in views[1:]:
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
            assert right - left == bottom - top
            covered[top:bottom, left:right] = True
        assert covered.all()


class Reds(Encoder):
    """Knows "red" and "green" by the mean of those channels."""

    reads_text, has_patches = True, False

    def __init__(self) -> None:
        super().__init__(
            torch.nn.Linear(1, 1), name="reds", image_size=16, patch_size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
        )

    @property
    def scale(self) -> float:
        return 50.0

    def _run(self, batch: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return batch.mean(dim=(2, 3)), None, None

    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.mean(dim=(2, 3))

    def _encode_text(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[float(name in text) for name in ("red", "green", "blue")] for text in texts])


def test_an_encoder_finds_what_a_window_shows() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 2] = 255
    image[:26, :26] = (255, 0, 0)  # the first of the small windows
    judge = EncoderVerifier(Reds(), ("blue", "green"))
    red, green, blue = judge(image, ["a red", "a green", "blue"])
    assert red.probability > 0.99 and red.box == (0, 0, 26, 26)
    assert green.probability < 0.01 and blue.probability > 0.99
    # 1 / (1 + exp(-50 times the difference of cosines)), in the view that is half red, half blue.
    half = np.zeros((8, 8, 3), np.uint8)
    half[:, :, 0], half[:, :, 2] = 200, 100
    (weak,) = EncoderVerifier(Reds(), ("blue",))(half, ["red"])
    assert weak.probability == pytest.approx(1 / (1 + np.exp(-50 * (200 - 100) / np.hypot(200, 100))), rel=1e-4)
    (alone,) = EncoderVerifier(Reds(), ())(image, ["red"])
    assert not alone.known


def test_what_a_model_is_decides_how_it_judges() -> None:
    encoder = judge_by("detailclip-mini")
    assert isinstance(encoder, EncoderVerifier) and len(encoder.among) == 172
    assert judge_by("detailclip-mini", among=["cat"]).among == ("cat",)
    assert isinstance(judge_by("detector-mini"), DetectorVerifier)
    with pytest.raises(RizbinError, match="reads no words"):
        judge_by("dino-mini")
    with pytest.raises(RizbinError, match="draws"):
        judge_by("diffusion-mini")


def test_an_encoder_judges_true_scenes_better_than_chance() -> None:
    source = open_source("scenes:drawn,categories=16", split="test", size=64)
    judge = judge_by("detailclip-mini", among=source.categories)
    there, absent = [], []
    for index in range(12):
        sample = source[index]
        names = list(source.categories)
        for name, presence in zip(names, judge(sample.image, names), strict=True):
            (there if name in sample.names else absent).append(presence.probability >= 0.5)
    assert np.mean(there) > 0.8 and np.mean(absent) < 0.35
