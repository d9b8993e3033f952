"""How to ask a detector: which threshold, all names at once or one by one, how small an object, what a score means.

One trained detector is asked, nothing is trained. Every sentence of the answer is made from the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float

from rizbin.core import outputs
from rizbin.core.commands import HIDDEN, Argument, Place, job
from rizbin.core.devices import BEST, choose
from rizbin.core.environment import describe
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar, MakeBar, advancing
from rizbin.data.open import open_source
from rizbin.data.sample import Sample, Source
from rizbin.detection.average_precision import iou_matrix
from rizbin.detection.detections import Proposals
from rizbin.detection.detector import Detector
from rizbin.detection.measure import Cases, DetectionSettings, among, boxes_measured, images_with, questions_about
from rizbin.detection.phrases import named
from rizbin.detection.presence import calibrate, calibration_error, matthews
from rizbin.pages.charts import Series
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number
from rizbin.reports.encoder import OPENMOJI
from rizbin.studies import grounding_words
from rizbin.studies.missing.chances import paired
from rizbin.studies.missing.verdict import CERTAIN
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, Kind, StudyVerdict, publish
from rizbin.workflows.load import load_detector
from rizbin.workflows.report import readable, writable

QUESTION = "How should a detector be asked, and how far is it to be believed?"
THRESHOLDS = tuple(round(value, 2) for value in np.arange(0.05, 0.95, 0.05).tolist())
SAME = 0.5
"""Intersection over union from which a box is the object's."""
PARTS = 4
"""Groups of equally many objects by their size."""
BINS = 10
"""Bins of probability in the table of what a score means."""


@dataclass(frozen=True)
class Counted:
    """Answers at one threshold."""

    threshold: float
    right: int
    said: int
    true: int

    @property
    def precision(self) -> float:
        """Percent of the boxes that are right; 100 of none."""
        return 100 * self.right / self.said if self.said else 100.0

    @property
    def recall(self) -> float:
        """Percent of the objects that are found."""
        return 100 * self.right / max(self.true, 1)

    @property
    def f1(self) -> float:
        """Percent: twice the right ones over boxes and objects together."""
        return 200 * self.right / max(self.said + self.true, 1)


def write_study(
    detector: Detector,
    source: Source,
    target: Path,
    *,
    images: int = 200,
    seed: int = 0,
    data: str = "",
    bar: MakeBar | None = None,
    small: str = "",
) -> Path:
    """Asks the detector about images whose objects are known and writes the page; returns its path.

    images: how many; each is asked for all names of the source at once, and for each of them alone. data: what the
    page calls the source; empty: its name. Raises RizbinError when the source has no objects.
    """
    settings = DetectionSettings(images=images, seed=seed)
    names = source.categories
    samples, _ = images_with(source, set(names), settings)
    if len(samples) < 2 or len(names) < 2:
        raise RizbinError(f"The source '{source.name}' has not two images with objects of two names.")
    image_arrays = [sample.image for sample in samples]
    proposals: list[list[Proposals]] = []
    for label, alone in (("asking for all at once", False), ("asking one by one", True)):
        with advancing(bar, len(image_arrays), label) as advance:
            proposals.append(
                detector.detect(image_arrays, named(names), separate=alone, batch=settings.batch, advance=advance)
            )
    together, one_by_one = proposals
    looks = None
    if detector.has_network:
        with advancing(bar, len(samples), "reading where words look") as advance:
            looks = grounding_words.word_looks(detector, samples, names, advance)
    machine = describe()
    page = Page(
        QUESTION,
        subtitle=f"{Path(detector.name).name} on {len(samples)} images of {data or source.name}, {len(names)} names · "
        f"{machine.get('cpu')} · commit {machine.get('commit')}",
    )
    ways = {"all names at once": together, "one name a pass": one_by_one}
    counts = {
        way: [counted(samples, boxes, names, threshold) for threshold in THRESHOLDS] for way, boxes in ways.items()
    }
    precision = {way: boxes_measured(samples, boxes, names)[0].value for way, boxes in ways.items()}
    cases_asked = questions_about(samples, names, settings)
    cases = {way: among(boxes, names, cases_asked) for way, boxes in ways.items()}
    sizes = by_size(samples, together, names, best(counts["all names at once"]).threshold)
    verdict = answer(counts, precision, cases, sizes)
    if looks is not None:
        verdict = replace(verdict, sentences=(*verdict.sentences, grounding_words.sentence(looks)))
    verdict.show(page, small=small)
    _show(page, counts, precision, cases, sizes)
    if looks is not None:
        grounding_words.show(page, looks)
    if source.name.startswith("scenes"):
        page.credits(*OPENMOJI)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return publish(page, verdict, target, small=small)


def counted(
    samples: Sequence[Sample], proposals: Sequence[Proposals], names: Sequence[str], threshold: float
) -> Counted:
    """Right boxes, all boxes and all objects at a threshold; an object is found once."""
    right = given = true = 0
    for sample, image_proposals in zip(samples, proposals, strict=True):
        hit, boxes = _hits(sample, image_proposals, names, threshold)
        right, given, true = right + int(hit.sum()), given + boxes, true + len(hit)
    return Counted(threshold, right, given, true)


def _hits(
    sample: Sample, proposals: Proposals, names: Sequence[str], threshold: float
) -> tuple[Bool[np.ndarray, " objects"], int]:
    """Which objects are found, and how many boxes were given."""
    objects = [instance for instance in sample.objects if instance.name in set(names)]
    hit = np.zeros(len(objects), bool)
    answer = proposals.choose(threshold)
    table = np.array([instance.box for instance in objects], np.float64).reshape(-1, 4)
    overlap = iou_matrix(answer.boxes.astype(np.float64), table, np.zeros(len(objects), bool))
    for row, label in enumerate(answer.labels):
        fits = np.array([not hit[at] and instance.name == label for at, instance in enumerate(objects)], bool)
        scores = np.where(fits, overlap[row], 0.0)
        if len(scores) and scores.max() >= SAME:
            hit[int(scores.argmax())] = True
    return hit, len(answer)


def best(counts: Sequence[Counted]) -> Counted:
    """The threshold with the highest F1; of equals the middle one."""
    top = max(count.f1 for count in counts)
    equals = [count for count in counts if count.f1 > top - 1e-9]
    return equals[len(equals) // 2]


def by_size(
    samples: Sequence[Sample], proposals: Sequence[Proposals], names: Sequence[str], threshold: float
) -> list[tuple[float, float, float, int]]:
    """(smallest side, largest side, percent found, objects) of groups of objects by the root of their visible area."""
    sides, hits = [], []
    for sample, image_proposals in zip(samples, proposals, strict=True):
        hit, _ = _hits(sample, image_proposals, names, threshold)
        objects = [instance for instance in sample.objects if instance.name in set(names)]
        sides += [instance.area**0.5 for instance in objects]
        hits += hit.tolist()
    order = np.argsort(sides, kind="stable")
    groups = [part for part in np.array_split(order, PARTS) if len(part)]
    return [
        (float(sides[part[0]]), float(sides[part[-1]]), 100 * float(np.mean([hits[at] for at in part])), len(part))
        for part in groups
    ]


Decided = tuple[float, float, Float[np.ndarray, " cases"], Bool[np.ndarray, " cases"]]


def verdicts(cases: Cases) -> Decided:
    """Matthews' correlation and calibration error on every second image, with its probabilities and truths.

    Calibrated on the others.
    """
    held = cases.image % 2 == 1
    made = calibrate(cases.scores[~held], cases.there[~held])
    probability, there = made.probability(cases.scores[held]), cases.there[held]
    present = cases.scores[held] >= made.threshold
    return matthews(present, there), calibration_error(probability, there), probability, there


def answer(
    counts: dict[str, list[Counted]],
    precision: dict[str, float],
    cases: dict[str, Cases],
    sizes: Sequence[tuple[float, float, float, int]],
) -> StudyVerdict:
    """The answer from the numbers; the claim is that asking for all names at once decides better what is there."""
    joint, single = (best(counts[way]) for way in counts)
    ahead = "all names at once" if precision["all names at once"] >= precision["one name a pass"] else "one name a pass"
    other = next(way for way in counts if way != ahead)
    verdict_of = {way: verdicts(way_cases) for way, way_cases in cases.items()}
    joint_way = next(iter(cases))
    raw = uncalibrated(cases[joint_way])
    small, large = sizes[0], sizes[-1]
    changed, better, p = compared(cases)
    matthews_both = {way: each[0] for way, each in verdict_of.items()}
    begins = {
        SHOWN: "Ask for all names at once",
        REFUTED: "Ask for each name in a pass of its own",
        NOT_TESTABLE: "Which way of asking decides better cannot be told from these images",
    }
    kind: Kind = NOT_TESTABLE if not changed or p >= CERTAIN else SHOWN if better > changed / 2 else REFUTED
    reason = (
        f"{begins[kind]}: of the {changed} questions that the two ways decide differently, all at once is right in "
        f"{better} (p {p:.3f} by McNemar); Matthews' correlation with the truth is "
        f"{matthews_both['all names at once']:.2f} against {matthews_both['one name a pass']:.2f}, thresholds "
        "calibrated on other images."
    )
    there = next(iter(verdict_of.values()))[3]
    delivered = (
        f"{'Delivered' if changed else 'Not delivered'}: {len(there)} questions on images that calibrated nothing, "
        f"{100 * float(there.mean()):.0f} percent of them about an object that is there; another way of asking changes "
        f"{changed} of the answers."
    )
    return StudyVerdict(
        kind,
        reason,
        delivered,
        (
            f"Boxes: a threshold of {joint.threshold:g} is best when all names are asked at once (F1 {joint.f1:.1f} "
            f"percent, precision {joint.precision:.1f}, recall {joint.recall:.1f}), and {single.threshold:g} when each "
            f"has a pass of its own (F1 {single.f1:.1f}); both chosen on the images that they are reported on.",
            f"Asking for {ahead} has the higher AP50, {precision[ahead]:.1f} against {precision[other]:.1f}; no "
            "interval of the difference was measured.",
            "A score is no probability: taken as one that the object is there, the best box's is off by "
            f"{100 * raw:.0f} points on average with {joint_way}, calibrated on other images by "
            f"{100 * verdict_of[joint_way][1]:.0f}.",
            f"Size: of the smallest quarter, {small[0]:.0f} to {small[1]:.0f} pixels of side, {small[2]:.0f} percent "
            f"are found, of the largest, {large[0]:.0f} to {large[1]:.0f}, {large[2]:.0f} percent.",
        ),
    )


def uncalibrated(cases: Cases) -> float:
    """Calibration error of raw scores on every second image, where `verdicts` measures the calibrated ones."""
    held = cases.image % 2 == 1
    return calibration_error(cases.scores[held], cases.there[held])


def compared(cases: dict[str, Cases]) -> tuple[int, int, float]:
    """Questions that two ways decide differently, those of them that the first decides rightly, and McNemar's exact p.

    On every second image, as `verdicts` does, with thresholds calibrated on the others.
    """
    right = []
    for way_cases in cases.values():
        held = way_cases.image % 2 == 1
        threshold = calibrate(way_cases.scores[~held], way_cases.there[~held]).threshold
        right.append(((way_cases.scores[held] >= threshold) == way_cases.there[held]).tolist())
    both = paired(right[1], right[0])
    return both.repaired + both.broken, both.repaired, both.p


def _show(
    page: Page,
    counts: dict[str, list[Counted]],
    precision: dict[str, float],
    cases: dict[str, Cases],
    sizes: Sequence[tuple[float, float, float, int]],
) -> None:
    page.heading("Thresholds")
    for title, number in (("F1", "f1"), ("Precision", "precision"), ("Recall", "recall")):
        lines = [
            Series(name=way, x=[100 * point for point in THRESHOLDS], y=[getattr(point, number) for point in points])
            for way, points in counts.items()
        ]
        page.curves(f"{title}, percent", lines, x_label="threshold, percent")
    page.heading("Together or one by one")
    verdict_of = {way: verdicts(way_cases) for way, way_cases in cases.items()}
    rows: list[list[Cell]] = []
    for way in counts:
        top = best(counts[way])
        rows.append(
            [
                way,
                Number(f"{precision[way]:.1f}", precision[way]),
                Number(f"{top.f1:.1f} at {top.threshold:g}", top.f1),
                Number(f"{verdict_of[way][0]:.2f}", verdict_of[way][0]),
                Number(f"{uncalibrated(cases[way]):.3f}", uncalibrated(cases[way])),
                Number(f"{verdict_of[way][1]:.3f}", verdict_of[way][1]),
            ]
        )
    page.table(
        [
            "Asked",
            "AP50, percent",
            "best F1, percent",
            "presence: Matthews' correlation",
            "error of scores",
            "calibrated",
        ],
        [("", rows)],
    )
    page.note(
        "Presence and both errors are of every second image; the threshold and the calibration come from the others."
    )
    _show_sizes(page, sizes, best(counts["all names at once"]).threshold)
    _show_calibration(page, verdict_of)


def _show_sizes(page: Page, sizes: Sequence[tuple[float, float, float, int]], threshold: float) -> None:
    page.heading("Recall by object size")
    page.table(
        ["Side in pixels (root of the visible area)", "found, percent", "objects"],
        [
            (
                "",
                [
                    [f"{low:.0f} to {high:.0f}", Number(f"{share:.1f}", share), Number(str(count), count)]
                    for low, high, share, count in sizes
                ],
            )
        ],
        caption=f"All names at once, at a threshold of {threshold:g}",
    )


def _show_calibration(page: Page, verdict_of: dict[str, Decided]) -> None:
    page.heading("Calibration")
    page.text("Of all questions with about the same probability, the share in which the object was there.")
    lines = [Series(name="as it should be", x=[0, 100], y=[0, 100])]
    for way, (_, _, probability, there) in verdict_of.items():
        place = np.minimum((probability * BINS).astype(int), BINS - 1)
        used = [bin_number for bin_number in range(BINS) if (place == bin_number).sum() >= 5]
        lines.append(
            Series(
                name=way,
                x=[100 * float(probability[place == bin_number].mean()) for bin_number in used],
                y=[100 * float(there[place == bin_number].mean()) for bin_number in used],
            )
        )
    page.curves("Share present, percent", lines, x_label="probability, percent")


@dataclass(frozen=True, kw_only=True)
class StudyGrounding:
    """Ask a detector about images whose objects are known: thresholds, one by one or not, sizes, calibration."""

    model: Annotated[Place, Argument(check="model")] = "detector-mini"
    """A model as for `rizbin detect`, or a run."""
    data: Annotated[str, Argument(check="data")] = "scenes:several"
    """Images with objects, as for train; its test part."""
    images: int = 200
    """How many of them."""
    seed: int = 0
    """Which ones, of a finite source, and which absent names are asked for."""
    output: Annotated[Place, Argument(short=("-o",))] = "runs/study-grounding.html"
    """The page."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""
    small: Annotated[str, HIDDEN] = ""
    """A sentence for the page that says how this is smaller than the whole study."""


@job(StudyGrounding)
def study_grounding(settings: StudyGrounding) -> Path:
    """Asks a detector about images whose objects are known and writes a page of how it is best asked."""
    page, quiet = Path(settings.output), settings.quiet
    readable(settings.data)
    writable(page)
    outputs.refuse_taken(page)
    detector = load_detector(settings.model, device=str(choose(settings.device)))
    source = open_source(settings.data, split="test", size=min(detector.preparation.shorter, 512))
    return write_study(
        detector,
        source,
        page,
        images=settings.images,
        seed=settings.seed,
        data=settings.data,
        bar=lambda total, label: Bar(total, label, quiet=quiet),
        small=settings.small,
    )
