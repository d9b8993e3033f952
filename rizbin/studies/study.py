"""Runs a study and writes its page, one file that opens without a network: question, answer, tables and charts."""

# The questions stand in `questions/`; `compare.py` makes one of any methods.

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from rizbin.core import outputs
from rizbin.core.commands import Argument, Place
from rizbin.core.environment import describe
from rizbin.data.open import open_source
from rizbin.pages.page import Page
from rizbin.reports.encoder import OPENMOJI
from rizbin.studies import lab, questions
from rizbin.studies.lab import Study, Variant
from rizbin.studies.verdict import publish
from rizbin.workflows.presets import Training

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Answer a question by experiment: train every variant several times, write one page. The same command goes on."""

    seeds: int = 3
    """Runs of every variant."""
    budget: float | None = None
    """Minutes for all of them together, from which one number of steps follows. None: by --steps."""
    steps: int | None = None
    """Steps of every variant. None: those of its preset."""
    jobs: int | None = None
    """Runs at the same time, each on its share of the cores. None: one a core, at most 4."""
    precision: Precision | None = None
    """Precision of every variant; bf16 is faster on processors that support it. None: that of its preset."""
    run: Place | None = None
    """Folder of the runs. None: runs/study-NAME."""
    output: Annotated[Place | None, Argument(short=("-o",))] = None
    """The page. None: study.html in that folder."""
    quiet: bool = False
    """Show no progress bar."""


def study(name: str, **options: Place | int | float | bool | None) -> Path:
    """Answers the question `name` (`questions.names()`) by experiment; returns the page.

    options: fields of `StudySettings`: seeds, budget, steps, jobs, precision, run, output, quiet.
    """
    made: Any = StudySettings
    return answer(questions.find(name), made(**options), folder=f"runs/study-{name}")


def answer(question: Study, settings: StudySettings, *, folder: str) -> Path:
    """Answers a question by experiment in the settings' folder, or else in `folder`, or goes on there; the page.

    Raises RizbinError when the folder holds another study.
    """
    return write_study(
        question,
        Path(settings.run or folder),
        seeds=settings.seeds,
        budget=settings.budget or 0.0,
        steps=settings.steps or 0,
        jobs=settings.jobs or 0,
        precision=settings.precision or "preset",
        to=Path(settings.output) if settings.output else None,
        quiet=settings.quiet,
    )


def write_study(
    question: Study,
    folder: Path,
    *,
    seeds: int = 3,
    budget: float = 0.0,
    steps: int = 0,
    jobs: int = 0,
    precision: Literal["preset", "fp32", "bf16"] = "preset",
    to: Path | None = None,
    quiet: bool = False,
) -> Path:
    """Answers a question by experiment in `folder`, or goes on there; returns the page.

    seeds: runs of every variant. budget: minutes for all of them together; 0: `steps`, or what the presets say.
    jobs: runs at the same time; 0: one a core. precision: of every variant; preset: what its preset says.
    to: the page; None: study.html in the folder.
    Raises RizbinError when the folder holds another study.
    """
    if to is not None:
        outputs.refuse_taken(to)
    variants = question.variants()
    if precision != "preset":
        variants = [replace(variant, training=_in_precision(variant.training, precision)) for variant in variants]
    start = None if question.start is None else question.start()
    if start is not None and precision != "preset":
        start = _in_precision(start, precision)
    results = lab.run(
        variants, folder, question.measure, seeds=seeds, budget=budget, steps=steps, jobs=jobs, start=start, quiet=quiet
    )
    machine = describe()
    first = variants[0].training
    page = Page(
        question.question,
        subtitle=f"{len(variants)} variants, {seeds} seed{'s' * (seeds != 1)} each, "
        f"{_length(variants, results.steps)}, "
        f"{' and '.join(sorted({variant.training.trainer.precision for variant in variants}))} · "
        f"{results.minutes:.0f} minutes of one core · {machine.get('cpu')} · commit {machine.get('commit')}",
    )
    verdict = question.answer(results)
    verdict.show(page, small=question.small)
    page.heading("Design")
    page.text(question.design)
    page.heading("Results")
    question.show(page, results)
    if open_source(first.data, size=32).name.startswith("scenes"):
        page.credits(*OPENMOJI)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return publish(page, verdict, to or folder / "study.html", small=question.small)


def _length(variants: Sequence[Variant], steps: int) -> str:
    """How long every variant trained, in words; variants with batches of their own see equal images, not steps."""
    batch = variants[0].training.batch
    if any(variant.training.batch != batch for variant in variants):
        return f"{steps * batch:,} images each"
    return f"{steps:,} steps of {batch} images"


def _in_precision(training: Training[Any], precision: Literal["fp32", "bf16"]) -> Training[Any]:
    """The same training, its steps computed in that precision."""
    return replace(training, trainer=replace(training.trainer, precision=precision))
