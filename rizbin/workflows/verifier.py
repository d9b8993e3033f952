"""A detector or an image-text encoder as the `Verifier` of generated images."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from rizbin.core.commands import Place
from rizbin.core.errors import RizbinError
from rizbin.detection.detections import Proposals
from rizbin.detection.detector import Detector
from rizbin.detection.phrases import ARTICLES, named
from rizbin.detection.presence import Calibration, judge
from rizbin.evaluation.benchmarks.names import COCO
from rizbin.generation.diffusion.repair import ObjectPresence
from rizbin.generation.film import Pixels
from rizbin.models.encoder import Encoder
from rizbin.workflows.known_words import known_names
from rizbin.workflows.load import calibration_of, load_detector, open_model

UNDECIDED = (0.5, 0.5)
"""Thresholds without an "unsure" range: only the probability is used."""


WINDOWS = ((1.0, 1), (0.6, 3), (0.4, 4))
"""Sides of an encoder's square windows as shares of the image's shorter side, and how many lie along each side of it;
along a longer side there are as many more as cover it."""


def judge_by(model: Place, *, among: Sequence[str] = (), device: str = "cpu") -> "Judge":
    """The verifier that a model makes.

    model: a detector, as `load.load_detector` takes it, with the calibration beside its weights; or an encoder of
    images and texts, such as conse or open_clip:NAME/WEIGHTS.
    among: names of other objects. None for an encoder: all that it was taught by name, else the 80 names of COCO, since
    an encoder only says which name fits better than others.
    Raises RizbinError for a model that is neither.
    """
    loaded = open_model(model, device=device).model if str(model) else load_detector(device=device)
    if isinstance(loaded, Encoder):
        if not loaded.reads_text:
            raise RizbinError(f"{model} reads no words, so it cannot say whether an image shows an object.")
        return EncoderVerifier(loaded, tuple(among) or known_names(model) or COCO)
    if isinstance(loaded, Detector):
        return judging(loaded, among=among)
    raise RizbinError(f"{model} draws; a detector, such as detector-mini, or an encoder says what an image shows.")


def judging(detector: Detector, *, among: Sequence[str] = ()) -> "DetectorVerifier":
    """The verifier of a detector that is loaded, with the calibration beside its weights; `among` as for `judge_by`."""
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


@dataclass(frozen=True)
class EncoderVerifier:
    """Asks an image-text encoder about the whole image and windows of it: an object is there where its name fits a view
    better than every other name.

    The probability is that of the name against the best other one, in the view where it is highest, by a softmax of
    cosines times the encoder's own scale: 0.5 and more where the name is first. It is not calibrated, and a view has no
    "nothing": of an image with less in it than names, some name is first by chance. docs/draw.md has what that costs.
    """

    encoder: Encoder
    among: tuple[str, ...]
    """Names of other objects."""

    def __call__(self, image: Pixels, phrases: Sequence[str]) -> list[ObjectPresence]:
        """One presence for each phrase; its box is the view in which it is most probable."""
        queries = [_bare(phrase) for phrase in phrases]
        names = list(dict.fromkeys((*queries, *(_bare(name) for name in self.among))))
        views = windows(*image.shape[:2])
        shown = [np.ascontiguousarray(image[top:bottom, left:right]) for left, top, right, bottom in views]
        fits = self.encoder.scale * self.encoder.similarity(shown, names).double().cpu().numpy()
        return [self._presence(fits, names.index(name), views) for name in queries]

    def _presence(
        self, fits: Float[np.ndarray, "views names"], place: int, views: Sequence[tuple[int, int, int, int]]
    ) -> ObjectPresence:
        if fits.shape[1] < 2:
            return ObjectPresence(0.0, known=False)  # without another name there is nothing to be better than
        rivals = np.delete(fits, place, axis=1).max(axis=1)
        odds = fits[:, place] - rivals
        view = int(odds.argmax())
        left, top, right, bottom = (float(side) for side in views[view])
        return ObjectPresence(float(1 / (1 + np.exp(-odds[view]))), (left, top, right, bottom))


Judge = DetectorVerifier | EncoderVerifier


def windows(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Left, top, right and bottom of the whole image and of overlapping squares, pixels."""
    views = [(0, 0, width, height)]
    for share, count in WINDOWS:
        side = max(1, round(share * min(height, width)))
        across, down = (
            np.linspace(0, long - side, max(count, -(-long // side))).round().astype(int) for long in (width, height)
        )
        views += [(int(left), int(top), int(left) + side, int(top) + side) for top in down for left in across]
    return list(dict.fromkeys(views))


def _bare(phrase: str) -> str:
    """The phrase without its article, as names are written."""
    first, _, rest = phrase.strip().partition(" ")
    return rest if rest and first.lower() in ARTICLES else phrase.strip()
