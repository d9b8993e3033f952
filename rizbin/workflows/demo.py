"""The demo: DetailCLIP on the embedded world, six minutes on two cores."""

from pathlib import Path

from rizbin.workflows.presets import small
from rizbin.workflows.runs import train

MINUTES = 6.0
"""Training; with the installation before it and the report after it a fresh clone takes about eleven on two cores."""


def demo(run: Path, *, minutes: float = MINUTES, quiet: bool = False) -> Path:
    """Trains the small DetailCLIP in the folder `run`, or goes on with it there; returns the folder."""
    return train(small("detailclip"), run, minutes=minutes, quiet=quiet)
