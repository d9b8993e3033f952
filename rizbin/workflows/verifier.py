"""A detector as the `Verifier` of generated images."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rizbin.core.commands import Place
from rizbin.detection.detections import Proposals
from rizbin.detection.detector import Detector
from rizbin.detection.phrases import named
from rizbin.detection.presence import Calibration, judge
from rizbin.generation.diffusion.repair import ObjectPresence
from rizbin.generation.film import Pixels
from rizbin.workflows.load import calibration_of, load_detector

UNDECIDED = (0.5, 0.5)
"""Thresholds without an "unsure" range: only the probability is used."""


def judge_by(model: Place, *, among: Sequence[str] = (), device: str = "cpu") -> "DetectorVerifier":
    """The verifier of a detector, as `load.load_detector` takes it, with the calibration beside its weights."""
    detector = load_detector(model, device=device)
    return DetectorVerifier(
        detector, calibration_of(detector) or Calibration(), tuple(among), detector.preparation.shorter
    )


@dataclass(frozen=True)
class DetectorVerifier:
    """Asks a detector for all phrases of a closed set at once, among which it decides best (docs/detect.md)."""

    detector: Detector
    calibration: Calibration
    among: tuple[str, ...] = ()
    """Names of other objects: a phrase counts where it fits a box better than these."""
    side: int = 0
    """Images are enlarged to this shorter side, pixels; 0 leaves them."""

    def __call__(self, image: Pixels, phrases: Sequence[str]) -> list[ObjectPresence]:
        """One presence for each phrase."""
        scale = max(self.side / min(image.shape[:2]), 1.0) if self.side else 1.0
        shown = image
        if scale > 1:
            shown = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), np.uint8)
        # One pass serves all phrases: the detector reads each name by itself, whatever stands before it in the text.
        names = tuple(dict.fromkeys((*phrases, *self.among)))
        (seen,) = self.detector.detect([shown], named(names))
        return [self._presence(seen, names.index(phrase), scale) for phrase in phrases]

    def _presence(self, seen: Proposals, place: int, scale: float) -> ObjectPresence:
        """The presence of the phrase at this position; the other phrases are its rivals."""
        order = [place, *(index for index in range(len(seen.phrases)) if index != place)]
        phrases = tuple(seen.phrases[index] for index in order)
        if place in seen.unasked:
            return ObjectPresence(0.0, known=False)
        unasked = tuple(order.index(index) for index in seen.unasked)
        mine = Proposals(seen.width, seen.height, seen.boxes, seen.scores[:, order], phrases, seen.notes, unasked)
        verdict = judge(mine, calibration=self.calibration, unsure=UNDECIDED)
        box = None
        if verdict.boxes:
            left, top, right, bottom = (float(value) / scale for value in verdict.boxes[0])
            box = (left, top, right, bottom)
        return ObjectPresence(float(verdict.probability), box)
