"""Trains several methods on equal data, backbone and images, and writes one page with their spread."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from rizbin.core.commands import Argument, Place, job
from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.evaluation.suite import Evaluation, evaluate
from rizbin.pages.page import Page
from rizbin.pages.pieces import BarCell, Cell, Number
from rizbin.reports.numbers import label
from rizbin.studies.encoders import curves
from rizbin.studies.lab import Numbers, Results, Study, Variant
from rizbin.studies.study import StudySettings, answer
from rizbin.studies.verdict import NOT_TESTABLE, SHOWN, StudyVerdict
from rizbin.training.settings import ImageTextSettings
from rizbin.workflows import presets
from rizbin.workflows.catalogue import find
from rizbin.workflows.runs import load_run

MEASUREMENTS = (
    "zero_shot/top1",
    "retrieval/image_to_text/r1",
    "knn/top1",
    "probe/top1",
    "segmentation/zero_shot/miou",
    "segmentation/linear/miou",
    "sizes/small/localized",
)
"""Measurements of the table, as far as the methods have them; the first that all have decides."""


@dataclass(frozen=True)
class Compare(StudySettings):
    """Train several methods with several seeds on equal data, backbone and images; one page shows them side by side.

    The same command again goes on.
    """

    methods: Annotated[str | Sequence[str], Argument(positional=True, many=True, metavar="METHODS")] = ()
    """Two or more: simclr byol."""
    _: KW_ONLY
    preset: str | None = None
    """Preset of all methods. None: nano where all have it, which is a minute a run, else the first that they share."""
    data: Annotated[str | None, Argument(check="data")] = None
    """What to train on, as for train. None: what the preset says."""
    run: Place | None = None
    """Folder of the runs. None: runs/compare-METHODS."""


@job(Compare)
def compare(settings: Compare) -> Path:
    """Trains each method with several seeds under equal conditions; returns the page."""
    names = [settings.methods] if isinstance(settings.methods, str) else list(settings.methods)
    if not names:
        raise RizbinError("Name the methods: rizbin compare simclr byol --seeds 3.")
    question = comparison(names, preset=settings.preset or "", data=settings.data or "")
    return answer(question, settings, folder=f"runs/compare-{'-'.join(names)}")


def comparison(names: Sequence[str], *, preset: str = "", data: str = "") -> Study:
    """The study that compares these methods under one preset. Raises RizbinError when they cannot be."""
    if len(set(names)) < 2:
        raise RizbinError("Name two methods or more to compare, each once.")
    common = [name for name in presets.names(names[0]) if all(name in presets.names(other) for other in names)]
    # The laboratory's network answers in a minute a run where small takes eight.
    preset = preset or ("nano" if "nano" in common else common[0])
    if preset not in common:
        raise RizbinError(f"There is no preset {preset!r} that all of them have; they share {', '.join(common)}.")
    trainings = {name: presets.preset(name, preset) for name in names}
    first = trainings[names[0]]
    # One data set, batch and length for all: those of the first method's preset, unless told otherwise.
    data = data or first.data
    if (
        any(isinstance(training.settings, ImageTextSettings) for training in trainings.values())
        and data == "scenes:single"
    ):
        data = "scenes:easy"
    equal: dict[str, Any] = {"data": data, "batch": first.batch, "steps": first.steps}
    variants = [Variant(name=name, training=replace(training, **equal)) for name, training in trainings.items()]

    def show(page: Page, results: Results) -> None:
        _table(page, results, names)
        curves(page, results, "k-NN over the run, percent", "knn", names)
        curves(page, results, "Loss (of each method its own)", "loss", names)

    return Study(
        question=f"Which learns more: {', '.join(names[:-1])} or {names[-1]}?",
        design=f"Preset {preset} of each method on {data}: the same backbone, {first.batch} images a step, the same "
        "number of images, and every method's own loss, views and heads. Measured by one code on new images, by "
        "what all of them have.",
        variants=lambda: variants,
        measure=measure,
        answer=lambda results: _answer(results, names),
        show=show,
    )


def measure(folder: Path) -> Numbers:
    """What an evaluation gives of a run, in percent."""
    run = load_run(folder)
    test, train = (
        open_source(run.training.data, split=part, size=run.encoder.image_size) for part in ("test", "train")
    )
    report = evaluate(
        run.encoder,
        test,
        train_source=train,
        settings=Evaluation.Settings(),
        look=run.method.look,
        reconstruct=run.method.reconstruct,
    )
    numbers = {
        measurement.name: measurement.value for measurement in report.measurements if measurement.unit == "percent"
    }
    return numbers | {
        f"random/{measurement.name}": measurement.baseline
        for measurement in report.measurements
        if measurement.unit == "percent" and measurement.baseline is not None
    }


def _table(page: Page, results: Results, names: Sequence[str]) -> None:
    groups: list[tuple[str, list[list[Cell]]]] = []
    for measured in MEASUREMENTS:
        rows: list[list[Cell]] = []
        for name in names:
            value, spread = results.mean(name, measured), results.spread(name, measured)
            if value == value:  # not nan: this method has it
                ticks = (
                    ("random weights", results.mean(name, f"random/{measured}")),
                    ("one deviation below", value - spread),
                    ("one above", value + spread),
                )
                rows.append(
                    [name, Number(results.shown(name, measured), value), BarCell(value=value, ticks=ticks, high=100)]
                )
        if rows:
            groups.append((label(measured), rows))
    page.table(
        ["Method", "Percent", "with its spread, beside random weights"],
        groups,
        legend=("the same network with random weights", "one standard deviation below", "one above"),
        caption=f"Mean ± standard deviation over {results.seeds} seeds",
    )


def _answer(results: Results, names: Sequence[str]) -> StudyVerdict:
    """Who is ahead in what all methods have, and whether the seeds can tell."""
    for measured in MEASUREMENTS:
        values = {name: results.mean(name, measured) for name in names}
        if all(value == value for value in values.values()):
            break
    else:
        return StudyVerdict(
            NOT_TESTABLE, "The methods have no measurement in common.", "Not delivered: there is nothing to compare by."
        )
    best, second = sorted(names, key=lambda name: -values[name])[:2]
    noise = ((results.spread(best, measured) ** 2 + results.spread(second, measured) ** 2) / results.seeds) ** 0.5
    ahead = values[best] - values[second]
    if results.seeds < 2:
        sure = "one seed cannot tell whether that is chance"
    elif ahead > 2 * noise:
        sure = f"more than twice the standard error of their difference ({noise:.1f})"
    else:
        sure = (
            f"within twice the standard error of their difference ({noise:.1f}), so these seeds cannot tell them apart"
        )
    what = label(measured)
    kind = SHOWN if results.seeds > 1 and ahead > 2 * noise else NOT_TESTABLE
    reason = (
        f"{what}: {best} is ahead with {results.shown(best, measured)} percent, {ahead:.1f} above {second}; {sure}."
    )
    sentences = []
    weak = [name for name in names if values[name] <= results.mean(name, f"random/{measured}")]
    flagged = [f"{name} ({results.flagged(name)} of {results.seeds})" for name in names if results.flagged(name)]
    if flagged:
        sentences.append(f"An alarm stood at the end of {', '.join(flagged)}.")
    kinds = [name for name in names if issubclass(find(name).Settings, ImageTextSettings)]
    if kinds and len(kinds) < len(names):
        sentences.append(f"{', '.join(kinds)} also had the captions; the others saw images alone.")
    delivered = (
        f"Not delivered: no better than random weights are {', '.join(weak)}."
        if weak
        else "Delivered: every method learned, all are above their random weights."
    )
    return StudyVerdict(NOT_TESTABLE if best in weak else kind, reason, delivered, tuple(sentences))
