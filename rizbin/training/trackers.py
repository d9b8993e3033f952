"""Experiment trackers beside metrics.jsonl: CSV, TensorBoard, W&B, trackio; none of them can stop a run.

A tracker works in a thread of its own and is given numbers through a queue, so that a server that does not answer costs
no step. What it raises, whatever it is, becomes one warning, and that tracker is left alone from then on. Only the main
process has trackers.
"""

import csv
import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from rizbin.core.progress import Real
from rizbin.core.runs import RunFolder

TrackerName = Literal["csv", "tensorboard", "wandb", "trackio"]
PROJECT = "rizbin"
"""Name of the project in W&B and trackio unless WANDB_PROJECT or TRACKIO_PROJECT name another."""
MOST_WAITING = 10_000
"""Records that wait for a tracker; of more the newest are dropped, and that is said."""
PATIENCE = 60.0
"""Seconds that the end of a run waits for a tracker to send what is left."""


class Tracker(Protocol):
    """What a tracker does, in its own thread."""

    def log(self, step: int, numbers: Mapping[str, Real]) -> None:
        """Takes the numbers after so many steps."""
        ...

    def finish(self) -> None:
        """Sends what is left."""
        ...


class CsvTracker:
    """metrics.csv in the run folder: a row a record, a column a number; made from metrics.jsonl, so complete."""

    def __init__(self, run: RunFolder, start: int) -> None:
        self._run = run
        self._path = run.path / "metrics.csv"
        self._columns: list[str] = []
        self._rewrite(start)

    def log(self, step: int, numbers: Mapping[str, Real]) -> None:
        """Adds a row; numbers that are new make the whole file anew, with their columns."""
        row = {"step": step, **numbers}
        if not set(row) <= set(self._columns):
            self._rewrite(step)
            return
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def finish(self) -> None:
        """There is nothing left: each row is written when it comes."""

    def _rewrite(self, last: int) -> None:
        """All records up to a step; what a killed run wrote behind its checkpoint is not among them."""
        rows = [_numbers(row) for row in self._run.metrics.read() if int(row["step"]) <= last]
        self._columns = list(dict.fromkeys(name for row in rows for name in row)) or ["step"]
        draft = self._path.with_name(f".{self._path.name}")
        with draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(draft, self._path)


class TensorBoardTracker:
    """Event files in the folder tensorboard of the run: `tensorboard --logdir runs` shows them."""

    def __init__(self, run: RunFolder, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # here: it imports tensorboard, an extra

        # What a killed run wrote behind its checkpoint is hidden by the steps that come again.
        self._writer: Any = SummaryWriter(str(run.path / "tensorboard"), purge_step=start + 1 if start else None)
        self._writer.add_text("settings", f"```json\n{json.dumps(_settings(run), indent=2)}\n```", start)

    def log(self, step: int, numbers: Mapping[str, Real]) -> None:
        """One scalar a number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        """Writes what is held back."""
        self._writer.close()


class ModuleTracker:
    """W&B, or trackio, which has its functions: `init`, `log`, `finish`. A run that goes on goes on there too."""

    def __init__(self, module: str, run: RunFolder, start: int) -> None:
        self._module: Any = import_module(module)
        name = run.path.name
        given: dict[str, Any] = {
            "project": os.environ.get(f"{module.upper()}_PROJECT", PROJECT),
            "name": name,
            "config": _settings(run),
            "resume": "allow",
        }
        if module == "wandb":
            place = hashlib.sha256(str(run.path.resolve()).encode()).hexdigest()[:8]
            given |= {"id": f"{name}-{place}", "dir": str(run.path)}
        self._module.init(**given)

    def log(self, step: int, numbers: Mapping[str, Real]) -> None:
        """The numbers at their step."""
        self._module.log(dict(numbers), step=step)

    def finish(self) -> None:
        """Sends what is left."""
        self._module.finish()


_MAKERS: Mapping[TrackerName, Callable[[RunFolder, int], Tracker]] = {
    "csv": CsvTracker,
    "tensorboard": TensorBoardTracker,
    "wandb": lambda run, start: ModuleTracker("wandb", run, start),
    "trackio": lambda run, start: ModuleTracker("trackio", run, start),
}


class Trackers:
    """The trackers of one run, from `with` to its end."""

    def __init__(self, names: Sequence[TrackerName], run: RunFolder, start: int, warn: Callable[[str], None]) -> None:
        """`warn` says a sentence; it is called from this thread alone."""
        chosen: list[TrackerName] = list(dict.fromkeys(names))
        self._threads = [_Thread(name, run, start) for name in chosen]
        self._warn = warn

    def __enter__(self) -> "Trackers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.end()
        self._complain()

    def log(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Hands numbers to all trackers; returns at once."""
        values = {name: value for name, value in _numbers(numbers).items() if name != "step"}
        for thread in self._threads:
            thread.put(step, values)
        self._complain()

    def _complain(self) -> None:
        for thread in self._threads:
            if (sentence := thread.complaint()) is not None:
                self._warn(sentence)


class _Thread:
    """One tracker with its thread."""

    def __init__(self, name: TrackerName, run: RunFolder, start: int) -> None:
        self._name: TrackerName = name
        self._run, self._start = run, start
        self._waiting: queue.Queue[tuple[int, dict[str, Real]] | None] = queue.Queue(MOST_WAITING)
        self._problem = ""
        self._said = False
        # A daemon: a server that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, step: int, numbers: dict[str, Real]) -> None:
        if self._problem:
            return
        try:
            self._waiting.put_nowait((step, numbers))
        except queue.Full:
            self._problem = f"it does not keep up, and {MOST_WAITING:,} records wait for it"

    def end(self) -> None:
        """Waits for what is left, for `PATIENCE` seconds at most."""
        if not self._problem:
            self._waiting.put(None) if not self._waiting.full() else None
            self._thread.join(PATIENCE)
            if self._thread.is_alive() and not self._problem:
                self._problem = f"it did not end within {PATIENCE:.0f} seconds"

    def complaint(self) -> str | None:
        """The sentence about its problem, once."""
        if not self._problem or self._said:
            return None
        self._said = True
        return f"The tracker {self._name} is off for the rest of this run: {self._problem}. Training goes on."

    def _work(self) -> None:
        try:
            tracker = _MAKERS[self._name](self._run, self._start)
            while (record := self._waiting.get()) is not None:
                if self._problem:
                    return
                tracker.log(*record)
            tracker.finish()
        except ImportError as error:
            self._problem = f"it is not installed ({error}); pip install 'rizbin[track]' or {self._name} brings it"
        except BaseException as error:  # whatever a foreign library raises, SystemExit too, stops itself alone
            text = " ".join(str(error).split())[:200] or "without a reason"
            self._problem = f"{type(error).__name__}, {text}".rstrip(".")


def _numbers(record: Mapping[str, Any]) -> dict[str, Real]:
    """What of a record is a number."""
    return {name: value for name, value in record.items() if isinstance(value, int | float)}


def _settings(run: RunFolder) -> dict[str, Any]:
    """The settings of the run, as they lie in its folder."""
    try:
        settings = json.loads(Path(run.path / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}
