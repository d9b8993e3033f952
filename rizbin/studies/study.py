"""Runs a study and writes its page: question, answer, tables, charts. One file that opens without network."""

# The questions stand in `questions/`; `compare.py` makes one of any methods.

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rizbin.core import outputs
from rizbin.core.environment import describe
from rizbin.data.open import open_source
from rizbin.pages.page import Page
from rizbin.reports.encoder import OPENMOJI
from rizbin.studies import lab
from rizbin.studies.lab import Study
from rizbin.workflows.presets import Training


def study(
    asked: Study,
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
    jobs: cells at the same time; 0: one a core. precision: of every variant; preset: what its preset says.
    to: the page; None: study.html in the folder.
    Raises RizbinError when the folder holds another study.
    """
    if to is not None:
        outputs.refuse_taken(to)
    variants = asked.variants()
    if precision != "preset":
        variants = [replace(one, training=_in_precision(one.training, precision)) for one in variants]
    start = None if asked.start is None else asked.start()
    if start is not None and precision != "preset":
        start = _in_precision(start, precision)
    results = lab.run(
        variants, folder, asked.measure, seeds=seeds, budget=budget, steps=steps, jobs=jobs, start=start, quiet=quiet
    )
    machine = describe()
    first = variants[0].training
    page = Page(
        asked.question,
        subtitle=f"{len(variants)} variants, {seeds} seeds each, {results.steps:,} steps of {first.batch} pictures, "
        f"{' and '.join(sorted({one.training.trainer.precision for one in variants}))} · "
        f"{results.minutes:.0f} minutes of one core · {machine.get('cpu')} · commit {machine.get('commit')}",
    )
    verdict, *more = asked.answer(results)
    page.lead(verdict)
    for sentence in more:
        page.text(sentence)
    page.heading("How it was asked")
    page.text(asked.design)
    page.heading("What came out")
    asked.show(page, results)
    if open_source(first.data, size=32).name.startswith("scenes"):
        page.credits(*OPENMOJI)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return page.write(to or folder / "study.html")


def _in_precision(training: Training[Any], precision: Literal["fp32", "bf16"]) -> Training[Any]:
    """The same training, its steps computed in that precision."""
    return replace(training, trainer=replace(training.trainer, precision=precision))
