"""Small sizes of the studies: the same code on fewer variants, seeds or images, within minutes; their pages say so.

Every function takes the folder of the run, the minutes that it may take, whether to show a bar, and the sentence for
the page; the rest are the settings of a lesson (`rizbin.studies.course`). Each returns its page.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion.attention_guidance import GuidanceKind
from rizbin.studies import questions
from rizbin.studies.ascent_job import study_ascent
from rizbin.studies.denoising import study_denoising
from rizbin.studies.grounding import study_grounding
from rizbin.studies.lab import Study
from rizbin.studies.missing.job import study_missing_objects
from rizbin.studies.study import write_study

PAGE = "study.html"


def study(
    folder: Path,
    minutes: float,
    quiet: bool,
    says: str,
    *,
    study: str,
    only: Sequence[str] = (),
    seeds: int = 3,
    start_steps: int = 0,
    images: int = 0,
) -> Path:
    """A question's study with some of its variants, as long as the minutes allow.

    only: names of the variants; none: all. start_steps: of the training that all go on from; 0: as in the study.
    images: to measure on; 0: as in the study.
    """
    question = smaller(questions.find(study), only=only, start_steps=start_steps, images=images, says=says)
    return write_study(question, folder, seeds=seeds, budget=minutes, to=folder / PAGE, quiet=quiet)


def smaller(study: Study, *, only: Sequence[str], start_steps: int, images: int, says: str) -> Study:
    """The study with less of everything. Raises RizbinError for a variant that it does not have."""
    variants = study.variants()
    names = [variant.name for variant in variants]
    if unknown := [name for name in only if name not in names]:
        raise RizbinError(f"This study has no variant {unknown[0]!r}; there are {', '.join(names)}.")
    chosen = [variant for variant in variants if not only or variant.name in only]
    begin = study.start
    if begin is not None and start_steps:
        shorter = replace(begin(), steps=start_steps, checkpoint_every=start_steps)
        study = replace(study, start=lambda: shorter)
    measure: Any = partial(cast(Any, study.measure), images=images) if images else study.measure
    return replace(study, variants=lambda: chosen, measure=measure, small=says)


def grounding(folder: Path, minutes: float, quiet: bool, says: str, *, images: int) -> Path:
    """How a detector is asked, on fewer images."""
    return study_grounding(images=images, output=folder / PAGE, quiet=quiet, small=says)


def denoising(folder: Path, minutes: float, quiet: bool, says: str, *, prompts: tuple[str, ...], seeds: int) -> Path:
    """What each denoising step decides, of fewer images."""
    return study_denoising(prompts=prompts, seeds=seeds, output=folder / PAGE, quiet=quiet, small=says)


def missing(
    folder: Path,
    minutes: float,
    quiet: bool,
    says: str,
    *,
    runs: int,
    seeds: int,
    guidances: tuple[GuidanceKind, ...],
    scales: tuple[str, ...],
    guidance_scale: float,
) -> Path:
    """What helps against missing objects, on fewer pairs of prompt and noise, at scales that the whole study chose."""
    return study_missing_objects(
        runs=runs, seeds=seeds, guidances=guidances, scales=scales, guidance_scale=guidance_scale, run=folder,
        output=folder / PAGE, quiet=quiet, small=says,
    )  # fmt: skip


def ascent(folder: Path, minutes: float, quiet: bool, says: str, **sizes: int) -> Path:
    """Images from an encoder's gradient, fewer of each form. sizes: those of `StudySize`."""
    more: Any = sizes
    return study_ascent(run=folder, output=folder / PAGE, quiet=quiet, small=says, **more)
