"""The laboratory: trains every variant of a question with several seeds, and keeps what each cell gave.

A cell is an ordinary run folder with `numbers.json` beside its settings. Stopped and started again, finished cells are
kept and unfinished ones go on. All cells of a study see equally many images, on the same backbone, and are measured
by the same code.
"""

import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rizbin.core import outputs
from rizbin.core.bounded import read_json
from rizbin.core.deadlines import DeadlinePassed, deadline
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.core.runs import RunFolder, time_spent
from rizbin.core.settings import to_dict
from rizbin.pages.page import Page
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, Kind, StudyVerdict
from rizbin.workflows.presets import Training

Numbers = dict[str, float]
Measure = Callable[[Path], Numbers]
"""The folder of a finished run in, its numbers out; a function of a module's top level, as it is called elsewhere."""
SHORT = 20
"""Steps of the cell that is timed: one for each look."""
KEPT_BACK = 0.15
"""Share of a budget that is not planned with: cells of `collapse` took 1.16 times what the timed one foretold."""
LEAST_STEPS = 40
"""Fewer than these teach nothing, and no alarm would have been awake."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question and how it is answered."""

    question: str
    """One sentence with a question mark."""
    design: str
    """What is varied, what is equal, what is measured; one paragraph."""
    variants: "Callable[[], Sequence[Variant]]"
    measure: Measure
    answer: "Callable[[Results], StudyVerdict]"
    """What follows from the numbers: one of three verdicts, the check of the treatment, and plain sentences. It has to
    do with some of the variants alone, as small sizes train few."""
    show: "Callable[[Page, Results], None]"
    """Adds tables and charts."""
    start: "Callable[[], Training[Any]] | None" = None
    """One training a seed from whose weights all variants of that seed go on, so that they differ in nothing but what
    is asked about; None: each begins at random weights."""
    small: str = ""
    """A sentence that says how it is smaller than the study that its page reports; empty: it is that study."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of a question's table."""

    name: str
    """Name in the words of the table."""
    training: Training[Any]
    """Its settings; the seed is the cell's."""
    length: float = 1.0
    """How many times the images of the others it sees: for rows at equal time."""
    fresh: bool = False
    """Whether it begins at random weights although the study has a start: for networks that the start does not fit."""
    group: str = ""
    """Under which heading it stands."""
    paper: float | None = None
    """What the paper reports for it."""
    collapses: bool | None = None
    """Whether the paper says that it collapses; None where it says nothing."""


@dataclass(frozen=True)
class Cell:
    """A variant trained with one seed, measured."""

    variant: str
    seed: int
    numbers: Numbers
    history: list[dict[str, Any]]
    """Lines of its metrics.jsonl."""
    folder: Path | None = None
    """Its run; None where only its numbers are left."""

    @property
    def flagged(self) -> bool:
        """Whether an alarm stood at its end: at one of its last three looks."""
        looks = [line for line in self.history if "feature_std" in line]
        return any("alarm" in line for line in looks[-3:])


_STUDENT = (float("inf"), 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t of one seed, two seeds, and on: 95 percent of such means of noise lie within as many standard errors."""


def beyond_chance(gaps: Sequence[float]) -> bool:
    """Whether the mean of differences, one a seed, lies further from 0 than noise of their spread does in 95 percent.

    Student's t, because three seeds tell little of their own spread; one seed tells nothing.
    """
    least = _STUDENT[min(len(gaps), len(_STUDENT)) - 1]
    return len(gaps) > 1 and abs(mean(gaps)) > least * stdev(gaps) / len(gaps) ** 0.5


def interval(gaps: Sequence[float]) -> tuple[float, float]:
    """Where the mean of differences, one a seed, lies with 95 percent, by Student's t; without bounds for one seed."""
    if len(gaps) < 2:
        return -math.inf, math.inf
    half = _STUDENT[min(len(gaps), len(_STUDENT)) - 1] * stdev(gaps) / len(gaps) ** 0.5
    return mean(gaps) - half, mean(gaps) + half


def judged(gaps: Sequence[float], *, delivered: bool, least: float) -> Kind:
    """The verdict on the claim that a treatment raises something, from differences seed by seed.

    delivered: whether it arrived; without that nothing is said. least: the smallest gain that would matter, in the unit
    of the gaps: where the interval of the mean stays below it, the claim is refuted although 0 lies within.
    """
    if not delivered:
        return NOT_TESTABLE
    if beyond_chance(gaps):
        return SHOWN if mean(gaps) > 0 else REFUTED
    return REFUTED if interval(gaps)[1] < least else NOT_TESTABLE


@dataclass(frozen=True)
class Results:
    """All cells of a study."""

    cells: tuple[Cell, ...]
    seeds: int
    steps: int
    minutes: float
    """Processor minutes of one thread, all cells together."""

    def of(self, variant: str) -> list[Cell]:
        """A variant's cells, by seed."""
        return [cell for cell in self.cells if cell.variant == variant]

    def runs(self, *variants: str) -> dict[str, Path]:
        """The run of each of these variants with its first seed, of those that there are: for pictures."""
        first = {name: [cell.folder for cell in self.of(name) if cell.folder is not None][:1] for name in variants}
        return {name: folder for name, folders in first.items() for folder in folders}

    def trained(self, *variants: str) -> bool:
        """Whether there are cells of all these variants: a small size trains some alone."""
        return all(self.of(variant) for variant in variants)

    def mean(self, variant: str, name: str) -> float:
        """Mean over the seeds; nan where it was not measured."""
        values = [cell.numbers[name] for cell in self.of(variant) if name in cell.numbers]
        return mean(values) if values else float("nan")

    def spread(self, variant: str, name: str) -> float:
        """Standard deviation over the seeds; 0 of one."""
        values = [cell.numbers[name] for cell in self.of(variant) if name in cell.numbers]
        return stdev(values) if len(values) > 1 else 0.0

    def shown(self, variant: str, name: str, digits: int = 1) -> str:
        """Both in words: "54.0 ± 1.2"."""
        value = self.mean(variant, name)
        if value != value:  # nan
            return "n/a"
        return f"{value:.{digits}f}" + (f" ± {self.spread(variant, name):.{digits}f}" if self.seeds > 1 else "")

    def by_seed(self, variant: str, name: str) -> dict[int, float]:
        """A number of each seed that has it."""
        return {cell.seed: cell.numbers[name] for cell in self.of(variant) if name in cell.numbers}

    def gaps(self, variant: str, other: str, name: str) -> list[float]:
        """How far `variant` lies above `other`, seed by seed.

        With one seed both see the same images in the same order, and how soon a run takes off depends on these more
        than on what is compared.
        """
        values, others = self.by_seed(variant, name), self.by_seed(other, name)
        return [value - others[seed] for seed, value in values.items() if seed in others]

    def flagged(self, variant: str) -> int:
        """The number of seeds with an alarm at the end."""
        return sum(cell.flagged for cell in self.of(variant))

    def curve(self, variant: str, name: str) -> tuple[list[float], list[float]]:
        """Steps, and the mean over seeds of a record at each of them."""
        by_step: dict[int, list[float]] = {}
        for cell in self.of(variant):
            for line in cell.history:
                if isinstance(line.get(name), int | float):
                    by_step.setdefault(int(line["step"]), []).append(float(line[name]))
        steps = sorted(by_step)
        return [float(step) for step in steps], [mean(by_step[step]) for step in steps]


def run(
    variants: Sequence[Variant],
    folder: Path,
    measure: Measure,
    *,
    seeds: int,
    budget: float = 0.0,
    steps: int = 0,
    jobs: int = 0,
    start: Training[Any] | None = None,
    quiet: bool = False,
) -> Results:
    """Trains and measures all cells in `folder`, or goes on there.

    budget: minutes for all cells together, from which one number of steps for all follows; 0: `steps`, or what the
    variants say. jobs: cells at the same time, each on its share of the cores; 0: one a core, at most 4. start: trained
    once a seed, and not shortened by budget or steps; all variants of that seed go on from it.
    Raises RizbinError when the folder holds another study, or the budget is too small.
    """
    if seeds < 1:
        raise RizbinError(f"seeds is {seeds}; give 1 or more.")
    names = [variant.name for variant in variants]
    assert len(set(names)) == len(names), "variants need names of their own"
    jobs = jobs or min(os.cpu_count() or 1, 4)
    folder.mkdir(parents=True, exist_ok=True)
    batch = variants[0].training.batch
    steps = _planned(
        variants, folder, measure, seeds=seeds, budget=budget, steps=steps, jobs=jobs, start=start, quiet=quiet
    )
    work = []
    for seed in range(seeds):
        begins = ""
        if start is not None:
            from rizbin.workflows.runs import train

            begins = str(train(replace(start, seed=seed), folder / f"start-{seed}", quiet=quiet, silent=True))
        for number, row in enumerate(variants):
            length = round(row.length * _steps(row.training, steps, batch))
            training = replace(row.training, steps=length, seed=seed, start="" if row.fresh else begins)
            work.append((folder / f"{number:02d}-{seed}", training, measure))
    _train_all([job for job in work if not (job[0] / "numbers.json").exists()], len(work), folder, jobs, quiet)
    cells = [
        Cell(variants[number].name, seed, *_stored(cell), cell)
        for seed in range(seeds)
        for number in range(len(variants))
        for cell in [folder / f"{number:02d}-{seed}"]
    ]
    spent = sum(cell.numbers.get("cpu_seconds", 0.0) for cell in cells) / 60
    return Results(tuple(cells), seeds, steps or variants[0].training.steps, spent)


def _steps(training: Training[Any], steps: int, batch: int) -> int:
    """Steps of a training that sees as many images as `steps` of `batch` are; 0: what it says itself."""
    return max(round(steps * batch / training.batch), 1) if steps else training.steps


def _planned(
    variants: Sequence[Variant],
    folder: Path,
    measure: Measure,
    *,
    seeds: int,
    budget: float,
    steps: int,
    jobs: int,
    start: Training[Any] | None,
    quiet: bool,
) -> int:
    """Steps of every cell; decided once and kept, so that a study that goes on stays one study."""
    requested = {
        "variants": {variant.name: to_dict(replace(variant.training, seed=0, steps=0)) for variant in variants},
        "budget": budget,
        "steps": steps,
        **({"start": to_dict(replace(start, seed=0))} if start is not None else {}),
    }
    plan = folder / "plan.json"
    if plan.exists():
        try:
            stored = read_json(plan)
            planned = int(stored["planned"])
        except (OSError, ValueError, TypeError, LookupError, OverflowError) as error:
            raise RizbinError(f"{plan} is no plan of a study ({error}); name another folder.") from error
        if _as_now({name: stored.get(name) for name in requested}) != json.loads(json.dumps(requested)):
            raise RizbinError(
                f"{folder} holds a study with other settings, budget or steps; give the same ones, or another folder."
            )
        return planned
    planned = steps
    if budget:
        timing = outputs.claim_folder(folder / "timing")
        planned = _steps_within(budget, variants, timing, measure, seeds=seeds, jobs=jobs, start=start, quiet=quiet)
    if outputs.write(plan, json.dumps({**requested, "planned": planned}, indent=1)) != plan:
        raise RizbinError(f"{plan} is no plan of a study; name another folder.")
    return planned


def _as_now(stored: dict[str, Any]) -> dict[str, Any]:
    """A plan with the fields that settings got after it was written, each with the value that it then had."""
    from rizbin.workflows.runs import as_now

    try:
        filled = {**stored, "variants": {name: as_now(training) for name, training in stored["variants"].items()}}
        return filled if stored.get("start") is None else {**filled, "start": as_now(stored["start"])}
    except (LookupError, AttributeError, TypeError):
        return stored  # no plan of a study, or of none that is known: it is compared as it is


def _steps_within(
    budget: float,
    variants: Sequence[Variant],
    folder: Path,
    measure: Measure,
    *,
    seeds: int,
    jobs: int,
    start: Training[Any] | None = None,
    quiet: bool = False,
) -> int:
    """Steps of every cell that make `budget` minutes in all. Raises RizbinError when those are too few."""
    from rizbin.workflows.runs import seconds_a_step

    first, count = variants[0].training, len(variants)
    # Seconds of one process in a minute of the budget. Two side by side slow each other down: two cores gave 1.3 times
    # the work of one here.
    worth = 60 * (1 - KEPT_BACK) * (1 + 0.3 * (jobs - 1))

    def planned(besides: float) -> int:
        steps = int((budget * worth / seeds - besides) / seconds)
        if steps < LEAST_STEPS:
            needed = (LEAST_STEPS * seconds + besides) * seeds / worth
            raise RizbinError(
                f"{budget:g} minutes are {max(steps, 0)} steps a cell for {count} variants and {seeds} seeds, too few "
                f"to show anything; give {math.ceil(needed)} minutes or more, or fewer seeds."
            )
        return steps

    # The cheap part first: where the steps alone take too long, nobody waits for a measurement to hear it.
    seconds = besides = 0.0
    with Bar(count + 2, "timing the variants", quiet=quiet) as bar:
        for number, variant in enumerate(variants, 1):
            seconds += variant.length * seconds_a_step(variant.training) * first.batch / variant.training.batch
            bar.update(number)
        if start is not None:
            besides = seconds_a_step(start) * start.steps
        planned(besides)
        # What a cell costs besides its steps (its looks, its measurement) is seen on a short one.
        bar.say(f"now one run of {SHORT} steps is trained and measured, to see what a measurement costs")
        most = (budget * worth / seeds - besides - (LEAST_STEPS - SHORT) * seconds) / count
        short = _measured_within(most, folder, replace(first, steps=SHORT), measure, count * seeds, budget)
        bar.update(count + 2)
    steps = planned(besides + max(count * short - SHORT * seconds, 0.0))
    if not quiet:
        Bar(0, "").say(f"{steps:,} steps a cell, {count * seeds} cells, fit into {budget:g} minutes.")
    return steps


def _measured_within(
    most: float, folder: Path, training: Training[Any], measure: Measure, runs: int, budget: float
) -> float:
    """Seconds of a short run with its measurement, in a folder that is removed; given up after `most` of them.

    Raises RizbinError then: nobody waits for the end of a measurement to hear that its beginning was too long already.
    """
    begin = time.perf_counter()
    try:
        with deadline(most):
            _cell(folder, training, measure)
    except DeadlinePassed:
        raise RizbinError(
            f"A run of {SHORT} steps with its measurement takes more than {most:.1f} seconds, so {runs} do not fit "
            f"into {budget:g} minutes; give more minutes, fewer seeds or fewer variants."
        ) from None
    finally:
        RunFolder(folder).release()
        outputs.remove_folder(folder)
    return time.perf_counter() - begin


def _train_all(
    work: Sequence[tuple[Path, Training[Any], Measure]], total: int, folder: Path, jobs: int, quiet: bool
) -> None:
    """All cells, `jobs` at a time."""
    done = total - len(work)
    with Bar(total, folder.name, start=done, quiet=quiet) as bar:
        if jobs == 1:
            for job in work:
                _cell(*job)
                done += 1
                bar.update(done)
            return
        threads = max(1, (os.cpu_count() or 1) // jobs)
        # spawn: a fork after torch has made its threads would hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_threads, initargs=(threads,)) as pool:
            for finished in as_completed([pool.submit(_cell, *job) for job in work]):
                finished.result()
                done += 1
                bar.update(done)


def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def _cell(folder: Path, training: Training[Any], measure: Measure) -> None:
    """Trains and measures one cell."""
    from rizbin.workflows.runs import train

    begin, fresh = time.process_time(), not RunFolder(folder).exists
    # Of what a stopped process paid only the clock of its steps is left.
    paid = 0.0 if fresh else time_spent(RunFolder(folder).metrics.read())[2]
    train(training, folder, quiet=True, silent=True)  # collapses are asked for here
    trained = time.process_time() - begin
    numbers = {**measure(folder), "cpu_seconds": paid + time.process_time() - begin}
    if fresh:  # the first steps of a cell that was stopped were paid by another process
        numbers["milliseconds"] = 1000 * trained / training.steps
    waiting = folder / ".numbers.json"
    waiting.unlink(missing_ok=True)
    waiting.write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    waiting.replace(folder / "numbers.json")
    RunFolder(folder).release()


def _stored(folder: Path) -> tuple[Numbers, list[dict[str, Any]]]:
    numbers: Mapping[str, float] = read_json(folder / "numbers.json")
    return dict(numbers), list(RunFolder(folder).metrics.read())
