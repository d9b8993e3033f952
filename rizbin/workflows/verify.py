"""Presence: whether each of some objects is in an image, with a calibrated probability."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from rizbin.core.commands import Argument, Place, job
from rizbin.core.devices import BEST, choose
from rizbin.data.image_io import read_image
from rizbin.detection import presence
from rizbin.detection.phrases import PhraseLike, read_phrases
from rizbin.detection.presence import Calibration, Verdicts
from rizbin.workflows.detect import Phrases, phrases_of
from rizbin.workflows.load import calibration_of, load_detector


@dataclass(frozen=True)
class Verify:
    """Say whether objects are in an image; exit code 0 all present, 1 one is absent, 3 one is unsure."""

    image: Annotated[Place, Argument(positional=True, metavar="IMAGE", check="image")]
    """A file."""
    phrases: Annotated[str | Sequence[PhraseLike], Argument(positional=True, many=True, metavar="PHRASES")]
    """What is to be there, each in quotes; each gets a pass of its own."""
    _: KW_ONLY
    distractor: Annotated[Phrases, Argument(many=True, metavar="PHRASE")] = ()
    """What might be mistaken for it, once for each: a box that a distractor fits better does not count."""
    margin: float = 0.0
    """Margin in probability by which a phrase must exceed all distractors."""
    model: Annotated[Place | None, Argument(check="model")] = None
    """The detector, as for detect."""
    calibration: Annotated[Place | None, Argument(check="path")] = None
    """File that says what probability a score is. None: calibration.json in the model's folder where there is one, else
    scores are taken as probabilities."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""


@job(Verify)
def verify(settings: Verify) -> Verdicts:
    """Whether each phrase is in the image: present, absent or unsure, with its probability."""
    phrases = phrases_of(settings.phrases)
    read_phrases(phrases)
    image = Path(settings.image)
    read_image(image)  # one that cannot be used is said before a model is loaded
    detector = load_detector(settings.model or "", device=str(choose(settings.device)))
    if settings.calibration is not None:
        calibration = Calibration.load(Path(settings.calibration))
    else:
        calibration = calibration_of(detector) or Calibration()
    return Verdicts(
        tuple(
            presence.verify(
                detector,
                image,
                phrases,
                rivals=phrases_of(settings.distractor),
                margin=settings.margin,
                calibration=calibration,
            )
        )
    )
