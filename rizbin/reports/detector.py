"""The report of a detector: its numbers, its boxes beside the true ones, its worst images, how it was made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rizbin.core.measurement import Report
from rizbin.data.sample import Sample, Source
from rizbin.data.scenes.source import CREDIT
from rizbin.detection.average_precision import iou_matrix
from rizbin.detection.detections import THRESHOLD, Detections
from rizbin.detection.detector import Detector
from rizbin.detection.draw import drawn
from rizbin.detection.measure import DetectionSettings, images_with
from rizbin.detection.phrases import named
from rizbin.pages.page import Page
from rizbin.pages.pieces import Number, PageImage
from rizbin.reports.encoder import curves, how_made, read_json, subtitle
from rizbin.reports.numbers import numbers

SHOWN, SEARCHED, FAILED = 8, 64, 6
"""Images shown first, looked at for faults, and shown with faults."""
SAME = 0.5
"""Intersection over union from which a box is the object's."""


def write_detector_report(
    folder: Path,
    target: Path,
    *,
    detector: Detector,
    source: Source,
    names: Sequence[str],
    evaluation: Report,
    history: list[dict],
    forgetting: Sequence[tuple[str, float, float]] = (),
) -> Path:
    """Writes the page and returns its path.

    Args:
        folder: Of the run or the detector; `settings.json` and `environment.json` are read where they exist.
        target: The file.
        detector: What is shown.
        source: Images that were not learned from.
        names: What it is asked for.
        evaluation: Its numbers.
        history: Lines of metrics.jsonl.
        forgetting: As `rizbin.detection.measure.before_and_after` gives it, where it went on from a trained network.

    Raises RizbinError when the file cannot be written.
    """
    settings, machine = read_json(folder / "settings.json"), read_json(folder / "environment.json")
    samples, _ = images_with(source, set(names), DetectionSettings(images=SEARCHED))
    proposals = detector.detect([sample.image for sample in samples], named(names), batch=16)
    answers = [image_proposals.choose(THRESHOLD) for image_proposals in proposals]
    faults = [_faults(sample, answer, set(names)) for sample, answer in zip(samples, answers, strict=True)]
    page = Page(f"A detector on {source.name}", subtitle=subtitle(history, machine))
    numbers(page, evaluation)
    if forgetting:
        _forgetting(page, forgetting)
    page.heading("What it finds")
    page.text(
        f"The first {min(SHOWN, len(samples))} images, not chosen: its boxes with a score of {THRESHOLD:g} or more, "
        f"asked for {len(names)} names at once, and beside them the true ones."
    )
    for index in range(min(SHOWN, len(samples))):
        _card(page, samples[index], answers[index], faults[index], names)
    wrong = [index for index in sorted(range(len(samples)), key=lambda index: -len(faults[index])) if faults[index]]
    page.heading("Where it fails")
    page.text(f"{len(wrong)} of {len(samples)} images have a fault" + (", these most of all." if wrong else "."))
    for index in wrong[:FAILED]:
        _card(page, samples[index], answers[index], faults[index], names)
    curves(page, history)
    how_made(page, settings, machine)
    if source.name.startswith("scenes"):
        page.credits(CREDIT)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return page.write(target)


def _faults(sample: Sample, answer: Detections, names: set[str]) -> list[str]:
    """What is missed and what is wrong, in words."""
    objects = [instance for instance in sample.objects if instance.name in names]
    left, wrong = list(range(len(objects))), []
    for number, label in enumerate(answer.labels):
        own = [place for place in left if objects[place].name == label]
        fit = _overlaps(answer.boxes[number], [objects[place].box for place in own])
        if len(fit) and fit.max() >= SAME:
            left.remove(own[int(fit.argmax())])
        else:
            wrong.append(f"no {label} there")
    return [*(f"missed: {objects[place].name}" for place in left), *wrong]


def _overlaps(box: np.ndarray, others: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
    table = np.array(others, np.float64).reshape(-1, 4)
    return iou_matrix(box[None].astype(np.float64), table, np.zeros(len(table), bool))[0]


def _card(page: Page, sample: Sample, answer: Detections, faults: Sequence[str], names: Sequence[str]) -> None:
    page.card("; ".join(faults) or "all found, nothing else", box_images(sample, answer, names), small=sample.key)


def box_images(sample: Sample, answer: Detections, names: Sequence[str]) -> list[PageImage]:
    """The image with its boxes, and with the true ones."""
    place = {name: number for number, name in enumerate(names)}
    objects = [instance for instance in sample.objects if instance.name in place]
    truth = Detections(
        np.array([instance.box for instance in objects], np.float32).reshape(-1, 4),
        np.array([place[instance.name] for instance in objects], np.int64),
        np.ones(len(objects), np.float32),
        tuple(names),
        np.arange(len(objects)),
    )
    return [
        PageImage(image=drawn(sample.image, answer), caption="Found", alt=f"Boxes found: {', '.join(answer.labels)}"),
        PageImage(image=drawn(sample.image, truth), caption="Truth", alt=f"True boxes: {', '.join(truth.labels)}"),
    ]


def _forgetting(page: Page, rows: Sequence[tuple[str, float, float]]) -> None:
    page.heading("What was learned, and what was forgotten")
    page.text(
        "AP50 in percent of the network that it went on from and of this one; on names that were held out, a loss is "
        "what teaching took from its zero-shot ability."
    )
    page.table(
        ["Names", "before", "after", "change"],
        [
            (
                "",
                [
                    [
                        group,
                        Number(f"{before:.1f}", before),
                        Number(f"{after:.1f}", after),
                        Number(f"{after - before:+z.1f}", after - before),
                    ]
                    for group, before, after in rows
                ],
            )
        ],
    )
