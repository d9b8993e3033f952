"""The demo: DetailCLIP on the embedded world, six minutes on two cores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rizbin.core.commands import HIDDEN, Argument, Place, job
from rizbin.workflows.presets import small
from rizbin.workflows.runs import train

MINUTES = 6.0
"""Training; with the installation before it and the report after it a fresh clone takes about eleven on two cores."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train DetailCLIP on drawn scenes for six minutes and write a report of what it learned.

    The report also shows detection, generation, repair and gradient ascent with bundled models.
    """

    run: Annotated[Place, Argument(short=("-o",))] = "runs/demo"
    """Folder of the run. A demo that was stopped goes on when it is started again."""
    minutes: Annotated[float, HIDDEN] = MINUTES
    """Minutes of training."""
    quiet: bool = False
    """Show no progress bar."""


@job(Demo)
def demo(settings: Demo) -> Path:
    """Trains the small DetailCLIP, or goes on with it; returns the folder of the run."""
    return train(small("detailclip"), Path(settings.run), minutes=settings.minutes, quiet=settings.quiet)
