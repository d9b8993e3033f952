"""Presence of objects: calibrated probabilities, their quality, and verdicts that may also be "unsure".

A detector's best score for a phrase says little by itself: networks that were taught with something to find in every
image find something in every image. So a score is first put beside those of phrases for what else it might be, and
then through a calibration fitted where the truth is known.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, overload, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from rizbin.core.bounded import read_json
from rizbin.core.errors import RizbinError
from rizbin.core.results import Table
from rizbin.detection.detections import Proposals
from rizbin.detection.detector import ImageLike
from rizbin.detection.phrases import PhraseLike, read_phrases

State = Literal["present", "absent", "unsure"]
SAME = 0.5
"""Intersection over union from which two boxes count as the same object."""
_TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From a score to the probability that the object is present: sigmoid(slope * logit(score) + offset), Platt's
    form."""

    slope: float = 1.0
    """Factor of the score's log odds; 1 leaves scores as they are."""
    offset: float = 0.0
    """Added to the log odds: above 0 where the detector's scores are too low, below 0 where they are too high."""
    threshold: float = 0.3
    """Score at which presence is as likely as not, or where it was fitted to be decided."""

    def probability(self, scores: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """The calibrated probability of each score, 0 to 1."""
        return _sigmoid(self.slope * _logit(scores) + self.offset)

    def save(self, path: Path) -> None:
        """Writes it as JSON beside the detector that it belongs to."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Raises RizbinError when the file holds none."""
        try:
            return cls(**read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise RizbinError(f"{path} holds no calibration ({error}); make one with `calibrate`.") from error


def calibrate(scores: Float[np.ndarray, " cases"], there: Bool[np.ndarray, " cases"]) -> Calibration:
    """Fits slope and offset to cases whose truth is known, and the threshold where most of them are decided rightly.

    Targets are Platt's, (n + 1) / (n + 2) and 1 / (m + 2) of n present and m absent cases, so that cases told apart
    without a fault do not end in an infinite slope. Of equally good thresholds the middle one of the widest run counts,
    by Matthews' correlation. Raises RizbinError when all cases are of one kind.
    """
    yes, no = int(there.sum()), int((~there).sum())
    if not yes or not no:
        raise RizbinError("All cases are of one kind; calibrate on some where the object is there and some where not.")
    x = _logit(scores)
    target = np.where(there, (yes + 1) / (yes + 2), 1 / (no + 2))
    design, weights = np.stack([x, np.ones_like(x)], axis=1), np.array([1.0, 0.0])
    for _ in range(100):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (p - target)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    return Calibration(slope=float(weights[0]), offset=float(weights[1]), threshold=_best_threshold(scores, there))


def _best_threshold(scores: Float[np.ndarray, " cases"], there: Bool[np.ndarray, " cases"]) -> float:
    values = np.unique(scores)
    middles = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2, [(values[-1] + 1) / 2]])
    rated = np.array([matthews(scores >= threshold, there) for threshold in middles])
    best = np.nonzero(rated >= rated.max() - 1e-12)[0]
    # Between neighbors any threshold decides alike: the widest gap leaves most room to both sides.
    edges = np.concatenate([[0.0], values, [1.0]])
    widest = max(best.tolist(), key=lambda place: edges[place + 1] - edges[place])
    return float(middles[widest])


def matthews(decisions: Bool[np.ndarray, " cases"], there: Bool[np.ndarray, " cases"]) -> float:
    """Matthews' correlation of decisions with the truth, -1 to 1; 0 where one side is all of one kind."""
    tp, tn = float((decisions & there).sum()), float((~decisions & ~there).sum())
    fp, fn = float((decisions & ~there).sum()), float((~decisions & there).sum())
    below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return float((tp * tn - fp * fn) / below) if below else 0.0


def calibration_error(
    probabilities: Float[np.ndarray, " cases"], there: Bool[np.ndarray, " cases"], bins: int = 15
) -> float:
    """Expected calibration error, 0 to 1: |mean probability - share present| over equal bins, weighted by their cases.

    Source: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, equation 5.
    """
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            error += inside.mean() * abs(float(probabilities[inside].mean()) - float(there[inside].mean()))
    return float(error)


@dataclass(frozen=True)
class Verdict:
    """The verdict on one phrase."""

    name: str
    state: State
    probability: float
    """Calibrated probability that the object is in the image, 0 to 1."""
    score: float
    """The highest score that the detector gives the phrase on a box that no rival fits better."""
    count: int
    """Number of objects: boxes above the calibration's threshold after non-maximum suppression."""
    boxes: tuple[tuple[float, float, float, float], ...]
    """Boxes of these objects: left, top, right, bottom in pixels, the best first."""
    rival: str = ""
    """The phrase that fitted the best box better, where that is why it is not there."""
    notes: tuple[str, ...] = ()
    """What the reader should know, such as words that the network does not know."""


@dataclass(frozen=True, repr=False)
class Verdicts(Table, Sequence[Verdict]):
    """The verdict on each phrase, in their order."""

    verdicts: tuple[Verdict, ...]

    @overload
    def __getitem__(self, index: int) -> Verdict: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Verdict, ...]: ...
    def __getitem__(self, index: int | slice) -> Verdict | tuple[Verdict, ...]:
        return self.verdicts[index]

    def __len__(self) -> int:
        return len(self.verdicts)

    def __repr__(self) -> str:
        each = (f"{verdict.name}: {verdict.state} {verdict.probability:.2f}" for verdict in self.verdicts)
        return f"Verdicts({', '.join(each)})"

    def rows(self) -> list[dict[str, Any]]:
        """A row for each phrase."""
        return [asdict(verdict) for verdict in self.verdicts]


@runtime_checkable
class Finds(Protocol):
    """What verifying asks of a detector; `rizbin.detection.detector.Detector` is one."""

    def detect(self, images: Sequence[ImageLike], phrases: Sequence[PhraseLike]) -> list[Proposals]: ...


def verify(
    detector: Finds,
    image: ImageLike,
    phrases: Sequence[PhraseLike],
    *,
    rivals: Sequence[PhraseLike] = (),
    margin: float = 0.0,
    calibration: Calibration = Calibration(),
    unsure: tuple[float, float] = (0.35, 0.65),
) -> list[Verdict]:
    """Whether each phrase is in the image, one pass for each, so that long descriptions do not disturb each other.

    Args:
        detector: Finds boxes for phrases.
        image: See `Detector.detect`.
        phrases: What is to be there.
        rivals: What might be mistaken for it ("toy cat"): a box counts only where its phrase beats all of them.
        margin: By how much it must.
        calibration: Of this detector.
        unsure: Probabilities between which nothing is decided.

    Raises RizbinError when the phrases cannot be looked for, or `unsure` is no range.
    """
    if not 0 <= margin <= 1:
        raise RizbinError(f"margin is {margin:g}; give a share from 0 to 1.")
    if not 0 <= unsure[0] <= unsure[1] <= 1:
        raise RizbinError(f"unsure is {unsure[0]:g} to {unsure[1]:g}; give two shares, the lower one first.")
    sought, rival_phrases = read_phrases(phrases), read_phrases(rivals) if rivals else ()
    verdicts = []
    for phrase in sought:
        others = [rival for rival in rival_phrases if rival.name != phrase.name]
        (proposals,) = detector.detect([image], [phrase, *others])
        verdicts.append(judge(proposals, margin=margin, calibration=calibration, unsure=unsure))
    return verdicts


def judge(
    proposals: Proposals, *, margin: float = 0.0, calibration: Calibration = Calibration(), unsure: tuple[float, float]
) -> Verdict:
    """The verdict on the first phrase of `proposals`; all others are its rivals.

    A phrase that the network was not asked for, for it does not know its words, is unsure with a probability of 0.
    """
    if 0 in proposals.unasked:
        return Verdict(proposals.names[0], "unsure", 0.0, 0.0, 0, (), notes=proposals.notes)
    scores = np.nan_to_num(proposals.scores, nan=0.0)
    mine = scores[:, 0] if len(scores) else np.zeros(0)
    against = _rivals(proposals, scores)
    free = mine > against + margin if scores.shape[1] > 1 else np.ones(len(mine), bool)
    best = float(mine[free].max()) if free.any() else 0.0
    rival = ""
    if len(mine) and not free[mine.argmax()]:
        rival = proposals.names[1 + int(scores[mine.argmax(), 1:].argmax())]
    uncontested = Proposals(
        proposals.width, proposals.height, proposals.boxes[free], mine[free][:, None], proposals.phrases[:1]
    )
    answer = uncontested.choose(min(max(calibration.threshold, 0.0), 1.0), nms_iou=SAME)
    probability = float(calibration.probability(np.array([best]))[0])
    state: State = "unsure"
    if probability >= unsure[1]:
        state = "present"
    elif probability <= unsure[0]:
        state = "absent"
    boxes = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in answer.boxes)
    return Verdict(proposals.names[0], state, probability, best, len(boxes), boxes, rival, proposals.notes)


def _rivals(proposals: Proposals, scores: Float[np.ndarray, "boxes phrases"]) -> Float[np.ndarray, " boxes"]:
    """The best score of a rival on a box around the same object, which may come from another query."""
    if scores.shape[1] < 2 or not len(scores):
        return np.zeros(len(scores))
    best = scores[:, 1:].max(axis=1)
    low = np.maximum(proposals.boxes[:, None, :2], proposals.boxes[None, :, :2])
    high = np.minimum(proposals.boxes[:, None, 2:], proposals.boxes[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    area = np.prod(proposals.boxes[:, 2:] - proposals.boxes[:, :2], axis=1)
    either = np.maximum(area[:, None] + area[None] - both, _TINY)
    return np.where(both / either >= SAME, best[None], 0.0).max(axis=1)


def _logit(scores: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    inside = np.clip(np.asarray(scores, np.float64), _TINY, 1 - _TINY)
    return np.log(inside / (1 - inside))


def _sigmoid(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))
