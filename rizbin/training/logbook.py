"""The output of a run in training: lines of metrics.jsonl, the progress bar, and warnings."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rizbin.core import parallel
from rizbin.core.progress import Bar
from rizbin.core.runs import RunFolder
from rizbin.training.method import Method
from rizbin.training.trackers import Trackers


@dataclass(frozen=True)
class Diagnostics:
    """The results of one call of a callback during training."""

    numbers: dict[str, float]
    alarms: tuple[str, ...] = ()
    """Problems, each in a sentence."""
    silent: bool = False
    """Record the alarms without printing them."""


Callback = Callable[[int, Method, dict[str, float]], Diagnostics]
"""Steps made, the method, and the last step's records in; called on the main process alone."""


class Logbook:
    """Writes what steps recorded. Only the main process writes; the others make the same calls."""

    def __init__(self, run: RunFolder, bar: Bar, *, begin: float, batch: int, trackers: Trackers | None = None) -> None:
        """begin: the `time.perf_counter()` from which seconds count; batch: images of one step, of all processes."""
        self.run, self.bar, self.begin, self.batch, self.trackers = run, bar, begin, batch, trackers
        self._warned_of_refused = False

    def refused(self, images: Sequence[tuple[str, str]]) -> None:
        """Lists images that could not be used, by name and reason; the first of a run is also said."""
        if not parallel.is_main():
            return
        self.run.note_refused(images)
        if images and not self._warned_of_refused:
            self._warned_of_refused = True
            self.bar.warn(
                f"An image was skipped: {images[0][1].rstrip('.')}. All of them are listed in {self.run.refused_list}."
            )

    def write(
        self, done: int, records: Mapping[str, Tensor | float], method: Method, watch: Callback | None = None
    ) -> None:
        """A line of metrics.jsonl after `done` steps, with the numbers and alarms of a `watch` where one is due."""
        numbers: dict[str, Any] = {name: round(float(value), 6) for name, value in records.items()}
        if watch is not None and parallel.is_main():
            looked = watch(done, method, numbers)
            numbers |= looked.numbers
            for sentence in () if looked.silent else looked.alarms:
                self.bar.warn(f"At step {done}: {sentence}")
            if looked.alarms:
                numbers["alarm"] = " ".join(looked.alarms)
        if parallel.is_main():
            elapsed = round(time.perf_counter() - self.begin, 3)
            record = {"step": done, "images": done * self.batch, "seconds": elapsed, **numbers}
            self.run.metrics.append(record)
            if self.trackers is not None:
                self.trackers.log(done, record)
        self.bar.update(done, **{name: numbers[name] for name in ("loss", "contrast") if name in numbers})
