"""A detector as judge: one pass for all phrases gives the verdicts that a pass for each would give."""

import numpy as np
import pytest

from rizbin.data.open import open_source
from rizbin.detection.presence import Calibration
from rizbin.workflows.load import calibration_of, load_detector
from rizbin.workflows.verifier import DetectorVerifier


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
