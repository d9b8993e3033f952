"""How far the work is: a bar on a terminal, a plain line now and then anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

_EVERY = 10.0
"""Seconds between two plain lines: a log of hours stays readable, and silence never looks like a hang."""

_SHOWN = 4
"""Numbers beside the bar; more do not fit into 120 columns."""


MakeBar = Callable[[int, str], AbstractContextManager[Any]]
"""(total, label) in, something with `update(done)` to enter out: `Bar` itself, or a quiet one."""
Advance = Callable[[int], None]
"""Is told how many more units are done."""
Real = int | float
"""A number; the checker of the tests does not take an int for a float."""
Costs = Sequence[tuple[Real, Real]]
"""Pieces of a work in their order: (units, what each of them costs beside the others'). Empty: all cost the same."""


@contextmanager
def advancing(bar: MakeBar | None, total: int, label: str, costs: Costs = ()) -> Iterator[Advance]:
    """A bar that adds up what it is told; None shows nothing. `costs` make the time left that of uneven work."""
    done = 0
    with bar(total, label) if bar is not None else nullcontext() as shown:
        if isinstance(shown, Bar):
            shown.costs = costs

        def advance(more: int) -> None:
            nonlocal done
            done += more
            if shown is not None:
                shown.update(done)

        yield advance


Listener = Callable[[str, int, int, str], None]
"""Is told of every advance (label, done, total, "") and of every warning (label, done, total, its text)."""
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within it, what bars show is told to `listener` too, whether they are quiet or not: for pages that show it."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def warn(text: str) -> None:
    """Prints one line that must be seen to standard error, where no bar stands."""
    Bar(0, "").warn(text)


class Bar:
    """Shows how much of `total` is done, from `with` to its end.

    On a terminal: label, bar, done and total, rate, elapsed, time left and up to four numbers. Elsewhere (a file, a
    pipe) the same as plain lines: the first, the last and one about every ten seconds. `say` and `warn` print between
    without tearing the bar.

    total: units of work, 0 when unknown.
    label: what is being done: "training detailclip".
    start: units that were done before, so that a resumed run is not taken for a fast one.
    costs: pieces of the work whose units cost more or less than others: the time left follows them, and not the rate
        alone, which promises too little where the costly part comes last.
    quiet: no bar and no `say`; warnings are still printed.
    Everything goes to standard error, so that results on standard output stay clean.
    """

    def __init__(self, total: int, label: str, *, start: int = 0, quiet: bool = False, costs: Costs = ()) -> None:
        self.total = total
        self.costs = costs
        self.label = label
        self.quiet = quiet
        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._rich: Progress | None = None
        self._start = start
        self._began = time.monotonic()
        self._printed = (float("-inf"), -1)  # when the last plain line came, and for how much done
        self._latest: tuple[int, dict[str, Any]] | None = None

    def __enter__(self) -> "Bar":
        self._began = time.monotonic()
        if not self.quiet and self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                _RateColumn(),
                TimeElapsedColumn(),
                _LeftColumn(),
                TextColumn("{task.fields[numbers]}"),
            )
            self._rich = Progress(*columns, console=self._console, refresh_per_second=5)
            self._rich.add_task(
                _plain(self.label), total=self.total or None, completed=self._start, numbers="", rate=None, left=None
            )
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
            self._rich = None
        elif not self.quiet and self._latest is not None and self._latest[0] != self._printed[1]:
            self._line(*self._latest)

    def update(self, done: int, **numbers: float | int | str) -> None:
        """`done` units of the total are done; `numbers` stand beside the bar, the first four of them."""
        if (listener := _LISTENER.get()) is not None:
            listener(self.label, done, self.total, "")
        if self.quiet:
            return
        now = time.monotonic()
        self._latest = (done, numbers)
        if self._rich is not None:
            task = self._rich.tasks[0]
            self._rich.update(
                task.id,
                completed=done,
                numbers=_spelled(numbers),
                rate=self._rate(now, done),
                left=self._left(now, done),
            )
        elif now - self._printed[0] >= _EVERY or (done == self.total and self._printed[1] != done):
            self._line(done, numbers)

    def say(self, text: str) -> None:
        """Prints one line of news; not when quiet."""
        if not self.quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """Prints one line that must be seen, quiet or not."""
        if (listener := _LISTENER.get()) is not None:
            done = self._latest[0] if self._latest is not None else self._start
            listener(self.label, done, self.total, text)
        self._print(f"warning: {text}", style="yellow")

    def _print(self, text: str, style: str | None = None) -> None:
        console = self._rich.console if self._rich is not None else self._console
        console.print(Text(text, style=style or ""))

    def _line(self, done: int, numbers: dict[str, Any]) -> None:
        now = time.monotonic()
        self._printed = (now, done)
        rate = self._rate(now, done)
        elapsed = now - self._began
        parts = [f"{self.label}: {done}" + (f"/{self.total}" if self.total else "")]
        if rate is not None:
            parts.append(f"{_number(rate)}/s")
            parts.append(f"{_duration(elapsed)} elapsed")
            if (left := self._left(now, done)) is not None:
                parts.append(f"{_duration(left)} left")
        parts += [_spelled(numbers)] if numbers else []
        self._print(", ".join(parts))

    def _left(self, now: float, done: int) -> float | None:
        """Seconds to the end at the speed so far, by the costs of the units; None before there is a speed."""
        spent = self._work(done) - self._work(self._start)
        if not self.total or now <= self._began or spent <= 0:
            return None
        return max(self._work(self.total) - self._work(done), 0.0) * (now - self._began) / spent

    def _work(self, done: Real) -> float:
        """What the first `done` units cost, by the costs of their pieces; what lies beyond these costs as the last."""
        work, each = 0.0, 1.0
        for units, each in self.costs:
            inside = min(done, units)
            work, done = work + inside * each, done - inside
        return work + done * each

    def _rate(self, now: float, done: int) -> float | None:
        """Units a second since the start; None before there is anything to divide."""
        if now <= self._began or done <= self._start:
            return None
        return (done - self._start) / (now - self._began)


class _RateColumn(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        rate = task.fields["rate"]
        return Text(f"{_number(rate)}/s" if rate is not None else "")


class _LeftColumn(ProgressColumn):
    """Time left, by what the units cost."""

    def render(self, task: Task) -> Text:
        left = task.fields["left"]
        return Text(f"{_duration(left)} left" if left is not None else "")


def _plain(text: str) -> str:
    """Text in which rich finds no markup."""
    return text.replace("[", r"\[")


def _spelled(numbers: dict[str, Any]) -> str:
    return "  ".join(f"{name} {_number(value)}" for name, value in list(numbers.items())[:_SHOWN])


def _number(value: Any) -> str:
    """A number with four significant digits."""
    if isinstance(value, str | int):
        return str(value)
    return f"{value:.4g}" if abs(value) < 10_000 or value != value else f"{value:.3g}"


def _duration(seconds: float) -> str:
    """4:09 or 1:02:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
