"""The most memory that a piece of work took."""

import math
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """Inside, watches; afterwards `megabytes` is the most beyond what was there before: of the GPU if one is used.

    On the processor by Linux's own counter, which is set back first; nan where there is none.
    """

    def __init__(self) -> None:
        self.megabytes = math.nan
        self._before = math.nan

    def __enter__(self) -> "Peak":
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated() / 2**20
            return self
        self._before = math.nan
        with suppress(OSError):
            _RESET.write_text("5")
            self._before = _status_megabytes("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if torch.cuda.is_initialized():
            self.megabytes = torch.cuda.max_memory_allocated() / 2**20 - self._before
            return
        self.megabytes = math.nan
        with suppress(OSError):
            self.megabytes = max(_status_megabytes("VmHWM") - self._before, 0.0)


def _status_megabytes(name: str) -> float:
    """Megabytes; nan where the system does not count it."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) / 1024
    return math.nan
