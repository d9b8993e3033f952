"""The demo: DetailCLIP on the embedded world, six minutes on two cores."""

from dataclasses import replace
from pathlib import Path

from rizbin.recipes.presets import small
from rizbin.recipes.training import train

MINUTES = 6.0
"""Training; with the installation before it and the report after it a fresh clone takes about eleven on two cores."""
LATE_START = 0.8
"""Distillation and reconstruction triple the cost of a step, so in six minutes they start later than in the preset."""


def demo(run: Path, *, minutes: float = MINUTES, quiet: bool = False) -> Path:
    """Trains the small DetailCLIP in the folder `run`, or goes on with it there; returns the folder."""
    training = small("detailclip")
    training = replace(training, settings=replace(training.settings, late_start=LATE_START))
    return train(training, run, minutes=minutes, quiet=quiet)
