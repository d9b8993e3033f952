"""Evaluates a detector on images with known objects: boxes by COCO's protocol, and presence as `verify` decides it."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from rizbin.core import random
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import Advance, MakeBar, advancing
from rizbin.data.order import index_at
from rizbin.data.sample import Refused, Sample, Source
from rizbin.detection.average_precision import Boxes, average_precision
from rizbin.detection.detections import Proposals
from rizbin.detection.detector import Detector
from rizbin.detection.phrases import named
from rizbin.detection.presence import Calibration, calibrate, calibration_error, matthews

_AREAS = {"small": "under 32 x 32", "medium": "from 32 x 32 to 96 x 96", "large": "over 96 x 96"}


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """How a detector is measured."""

    images: int = 300
    """Images; each holds several objects, and a share of 0.8 of them has a standard error of about 1.5 points."""
    presence: int = 2
    """Names there and as many not there that each image is asked for one by one; 0 leaves presence out."""
    batch: int = 16
    """Images in a pass; changes speed and memory only."""
    seed: int = 0
    """Decides which images of a finite source and which absent names are taken, and the random weights."""
    baseline: bool = True
    """Measure the same network with random weights too; doubles the time."""


@dataclass(frozen=True)
class Cases:
    """Cases of one name in one image, each with the score of the detector's best box."""

    scores: Float[np.ndarray, " cases"]
    there: Bool[np.ndarray, " cases"]
    image: np.ndarray
    """The number of each case's image."""


def measure(
    detector: Detector,
    source: Source,
    *,
    names: Sequence[str] = (),
    calibration: Calibration | None = None,
    settings: DetectionSettings = DetectionSettings(),
    bar: MakeBar | None = None,
) -> Report:
    """All numbers of a detector on a source whose samples have `objects`.

    Args:
        detector: What is measured.
        source: Its images; a finite one gives a random choice that the seed decides, an endless one its first.
        names: What is asked for; empty: the source's categories. Objects of other names do not count.
        calibration: Of the detector; None: fitted to every second image, and presence is measured on the others.
        settings: See there.
        bar: Makes a progress bar.

    Raises RizbinError when no image has objects of these names.
    """
    queried = tuple(names) or source.categories
    samples, refused = images_with(source, set(queried), settings)
    if not samples:
        reason = f" (the first reason: {refused[0][1]})" if refused else ""
        raise RizbinError(
            f"The source '{source.name}' has no image with objects of the names asked for{reason}; a detector is "
            "measured on scenes or on a COCO file with instances."
        )
    questions = questions_about(samples, queried, settings)
    networks = [detector, random_like(detector, settings.seed)] if settings.baseline else [detector]
    total = len(networks) * (len(samples) + len(questions))
    with advancing(bar, total, "measuring") as advance:
        results = [
            _measured(network, samples, queried, questions, calibration, settings.batch, advance)
            for network in networks
        ]
    measurements, unknown = results[0]
    baselines = {each.name: each.value for each in results[-1][0]} if settings.baseline else {}
    left_out = [] if questions else [("presence", "Names there and not there are needed, and `presence` above 0.")]
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        left_out.append(
            (
                "unknown names",
                f"The network does not know the words of {len(unknown)} of {len(queried)} names ({shown}); it was not "
                "asked for them, so their objects count as not found.",
            )
        )
    return Report(
        measurements=tuple(_beside(each, baselines.get(each.name)) for each in measurements),
        left_out=tuple(left_out),
        images=len(samples),
        source=source.name,
        refused=tuple(refused),
    )


def _measured(
    detector: Detector,
    samples: Sequence[Sample],
    names: Sequence[str],
    questions: Sequence[tuple[int, str, bool]],
    calibration: Calibration | None,
    batch: int,
    advance: Advance,
) -> tuple[list[Measurement], list[str]]:
    """All numbers of one network, and the names whose words it does not know."""
    proposals = detector.detect([sample.image for sample in samples], named(names), batch=batch, advance=advance)
    numbers = boxes_measured(samples, proposals, names)
    if questions:
        alone = ask(detector, samples, questions, batch, advance)
        numbers += presence_measured(alone, calibration)
        numbers += presence_measured(among(proposals, names, questions), None, among=len(names))
    return numbers, [names[place] for place in proposals[0].unasked]


def boxes_measured(
    samples: Sequence[Sample], proposals: Sequence[Proposals], names: Sequence[str]
) -> list[Measurement]:
    """COCO's numbers of what was found, percent."""
    number = {name: place for place, name in enumerate(names)}
    truths = []
    for sample in samples:
        known_objects = [known for known in sample.objects if known.name in number]
        truths.append(
            Boxes(
                np.array([known.box for known in known_objects], np.float64).reshape(-1, 4),
                np.array([number[known.name] for known in known_objects], np.int64),
                areas=np.array([known.area for known in known_objects], np.float64),
            )
        )
    values = average_precision(truths, [image.pairs() for image in proposals])
    how = f"by COCO's protocol over {len(names)} names, the best 300 pairs of box and name an image, mean over names"
    protocols = {
        "ap50": f"Average precision at an intersection over union of 0.5, {how}.",
        "ap": f"Mean of the average precision at 0.50, 0.55 to 0.95, {how}.",
        "ap75": f"Average precision at 0.75, {how}.",
        **{f"ap_{size}": f"Mean average precision of objects {area} pixels, {how}." for size, area in _AREAS.items()},
        "recall": f"Share of objects found among 100 boxes of a name and image, mean over 0.50 to 0.95, {how}.",
    }
    return [
        Measurement(name=f"boxes/{name}", value=100 * values[name], protocol=protocol)
        for name, protocol in protocols.items()
        if values[name] == values[name]  # nan: nothing of that size is there
    ]


def images_with(
    source: Source, names: set[str], settings: DetectionSettings
) -> tuple[list[Sample], list[tuple[str, str]]]:
    """Images with an object of these names, and (index, reason) of refused ones."""
    samples: list[Sample] = []
    refused: list[tuple[str, str]] = []
    # Of an endless source others take the place of refused ones, but one that gives nothing else must end.
    for position in range(settings.images + 100 if source.endless else len(source)):
        if len(samples) == settings.images:
            break
        index = position if source.endless else index_at(settings.seed, position, len(source))
        try:
            sample = source[index]
        except Refused as reason:
            refused.append((str(index), str(reason)))
            continue
        if sample.names & names and sample.objects:
            samples.append(sample)
    return samples, refused


def questions_about(
    samples: Sequence[Sample], names: Sequence[str], settings: DetectionSettings
) -> list[tuple[int, str, bool]]:
    """(image, name, whether it is there): as many there as not there, of each image."""
    made = []
    for place, sample in enumerate(samples):
        draw = random.generator(settings.seed, "presence", place)
        there = sorted(sample.names & set(names))
        absent = sorted(set(names) - sample.names)
        count = min(settings.presence, len(there), len(absent))
        for kind, holds in ((there, True), (absent, False)):
            made += [(place, kind[at], holds) for at in draw.permutation(len(kind))[:count].tolist()]
    return made


def ask(
    detector: Detector,
    samples: Sequence[Sample],
    questions: Sequence[tuple[int, str, bool]],
    batch: int = 16,
    advance: Advance = lambda done: None,
) -> Cases:
    """Asks for each (image, name, truth) alone, as `verify` does; a score is that of the name's best box."""
    by_name: dict[str, list[int]] = {}
    for place, (_, name, _) in enumerate(questions):
        by_name.setdefault(name, []).append(place)
    scores = np.zeros(len(questions))
    for name, places in by_name.items():
        images = [samples[questions[place][0]].image for place in places]
        for place, proposals in zip(
            places, detector.detect(images, named([name]), batch=batch, advance=advance), strict=True
        ):
            scores[place] = np.nan_to_num(proposals.scores, nan=0.0).max(initial=0.0)
    return _cases(scores, questions)


def _cases(scores: Float[np.ndarray, " cases"], questions: Sequence[tuple[int, str, bool]]) -> Cases:
    there = np.array([holds for _, _, holds in questions])
    return Cases(scores, there, np.array([image for image, _, _ in questions]))


def among(proposals: Sequence[Proposals], names: Sequence[str], questions: Sequence[tuple[int, str, bool]]) -> Cases:
    """The same questions answered by a pass that asked for all names at once."""
    number = {name: place for place, name in enumerate(names)}
    scores = [
        np.nan_to_num(proposals[place].scores[:, number[name]], nan=0.0).max(initial=0.0)
        for place, name, _ in questions
    ]
    return _cases(np.array(scores), questions)


def presence_measured(cases: Cases, calibration: Calibration | None, *, among: int = 0) -> list[Measurement]:
    """Accuracy, Matthews' correlation and calibration of verdicts on single names; among: asked with so many others."""
    held = np.ones(len(cases.there), bool) if calibration else cases.image % 2 == 1
    how = "the calibration that comes with the detector"
    if calibration is None:
        fit = ~held
        if len(set(cases.there[fit].tolist())) < 2 or not held.any():
            return []
        calibration = calibrate(cases.scores[fit], cases.there[fit])
        how = f"a calibration fitted to {int(fit.sum())} questions about other images"
    scores, there = cases.scores[held], cases.there[held]
    says_yes = scores >= calibration.threshold
    questions = f"{len(there)} questions after one name each, half of them after something that is not there, by {how}"
    questions += f"; all {among} names were asked for at once" if among else ""
    room = "presence_among" if among else "presence"
    return [
        Measurement(
            name=f"{room}/accuracy",
            value=100 * float((says_yes == there).mean()),
            chance=50.0,
            protocol=f"Share of right answers to {questions}.",
        ),
        Measurement(
            name=f"{room}/mcc",
            value=matthews(says_yes, there),
            unit="number",
            chance=0.0,
            protocol=f"Matthews' correlation, -1 to 1, of the answers to {questions}.",
        ),
        Measurement(
            name=f"{room}/calibration_error",
            value=calibration_error(calibration.probability(scores), there),
            unit="number",
            higher_is_better=False,
            protocol=f"Expected calibration error in 15 equal bins of the probability, 0 to 1, of {questions}.",
        ),
    ]


def before_and_after(
    before: Detector,
    after: Detector,
    source: Source,
    groups: Mapping[str, Sequence[str]],
    settings: DetectionSettings = DetectionSettings(),
) -> list[tuple[str, float, float]]:
    """Gains and losses by training: (group of names, AP50 before, AP50 after), percent.

    Each group of names is asked for by itself, on images that have one of them; one without images is left out.
    """
    rows = []
    for group, names in groups.items():
        samples, _ = images_with(source, set(names), settings)
        if not samples or not names:
            continue
        images = [sample.image for sample in samples]
        values = []
        for detector in (before, after):
            proposals = detector.detect(images, named(names), batch=settings.batch)
            values.append(boxes_measured(samples, proposals, names)[0].value)
        rows.append((group, values[0], values[1]))
    return rows


def calibrated(detector: Detector, source: Source, *, settings: DetectionSettings = DetectionSettings()) -> Calibration:
    """The calibration of a detector, fitted to all questions that `settings` make of the source.

    Raises RizbinError when the source has no image with objects.
    """
    samples, _ = images_with(source, set(source.categories), settings)
    if not samples:
        raise RizbinError(f"The source '{source.name}' has no image with objects to calibrate on.")
    cases = ask(detector, samples, questions_about(samples, source.categories, settings), settings.batch)
    return calibrate(cases.scores, cases.there)


def random_like(detector: Detector, seed: int = 0) -> Detector:
    """The same network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.key(seed, "random weights"))
        model = type(detector.model)(copy.deepcopy(detector.model.config))
    return Detector(model.to(detector.device), detector.tokenizer, detector.preparation, "random weights")


def _beside(measurement: Measurement, baseline: float | None) -> Measurement:
    return measurement if baseline is None else replace(measurement, baseline=baseline)
