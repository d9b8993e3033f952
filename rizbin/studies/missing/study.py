"""Does anything help against forgotten objects? All ways on the same prompts and seeds, two judges, one page."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from rizbin.core.environment import describe
from rizbin.core.errors import RizbinError
from rizbin.core.progress import MakeBar
from rizbin.core.runs import RunFolder
from rizbin.data.image_io import read_image
from rizbin.data.sample import Source
from rizbin.generation.diffusion.attention_guidance import SCALE
from rizbin.generation.diffusion.repair import Verifier
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.nets.dual import ImageTextPair
from rizbin.pages.page import Page
from rizbin.reports.encoder import OPENMOJI
from rizbin.reports.examples import first_samples
from rizbin.studies.missing.answer import Verdicts, result_of
from rizbin.studies.missing.page import show
from rizbin.studies.missing.prompts import Prompt
from rizbin.studies.missing.second import Accuracy, SecondJudge, accuracy, kernel_distance, truth_of, variation
from rizbin.studies.missing.verdict import answer
from rizbin.studies.missing.ways import LADDER, PLAIN, Case, DrawnCase, Plan, Studio, cases_of
from rizbin.studies.verdict import publish

QUESTION = "Objects that are asked for and not drawn: what helps, and is it worth its time?"
CHECKED = 200
"""True scenes on which the detector is measured: five seconds of one core."""


def write_study(
    painter: TextToImage,
    verifier: Verifier,
    prompts: Sequence[Prompt],
    folder: Path,
    plan: Plan,
    *,
    source: Source | None = None,
    pairs: Sequence[ImageTextPair] = (),
    target: Path | None = None,
    asked: dict[str, object] | None = None,
    bar: MakeBar | None = None,
    small: str = "",
) -> Path:
    """Draws what is not drawn yet in `folder` and writes the page; returns its path.

    Args:
        painter: Of a model with a UNet.
        verifier: Looks in every way, and steers the ladder.
        prompts: See `prompts.prompts_named`.
        folder: Of the study; it goes on where it was stopped.
        plan: What is drawn.
        source: True pictures whose things are known: judges are measured on them.
        pairs: Of the second judge; none, or no `source`: there is none.
        target: The page; None: study.html in the folder.
        asked: What else the folder shall remember, so that another study does not go on in it.
        bar: Shows how far it is.
        small: A sentence for a page of a small size.

    Raises RizbinError when the folder holds another study, and for models that cannot be steered.
    """
    if painter.unet is None:
        raise RizbinError(f"{painter.name} has no UNet, whose attention could be guided; study another model.")
    run = RunFolder(folder)
    # Which prompts there are belongs to what was asked: files change.
    texts = [one.text for one in prompts]
    run.create_or_resume({**(asked or {}), "plan": asdict(plan), "prompts": texts})
    try:
        cases = cases_of(prompts, plan)
        drawn = Studio(painter, verifier, run, plan, cases).work(bar)
    finally:
        run.release()
    judge = SecondJudge(pairs, source) if pairs and source is not None else None
    verdicts, quality = _judged(judge, drawn, cases, plan, folder) if judge is not None else ({}, {})
    result = result_of(drawn, cases, plan, verdicts)
    accuracies = [] if source is None else [_measured(verifier, source, plan.ladder.threshold)]
    if judge is not None:
        accuracies += [_renamed(one, judge.reading) for one in judge.accuracies]
    machine = describe()
    spent = sum(one.seconds + one.looking for one in drawn) / 60
    page = Page(
        QUESTION,
        subtitle=f"{Path(painter.name).name}, {result.cases} pairs of prompt and seed in {plan.runs} runs, each drawn "
        f"in {len(plan.ways)} ways · {spent:.0f} minutes of one core · {machine.get('cpu')} · "
        f"commit {machine.get('commit')}",
    )
    verdict = answer(result)
    verdict.show(page, small=small)
    page.heading("How it was asked")
    page.text(_design(prompts, plan, judge))
    show(page, result, drawn, cases, plan, folder, quality, accuracies)
    if source is not None and source.name.startswith("scenes"):
        page.credits(*OPENMOJI)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return publish(page, verdict, target or folder / "study.html", small=small)


def _design(prompts: Sequence[Prompt], plan: Plan, judge: SecondJudge | None) -> str:
    sampling = plan.sampling
    second = (
        f"A second judge that no way asks says what it sees beside it: {_counted(len(judge.pairs))} read by "
        f"{judge.reading}, the reading that decides best on true scenes."
        if judge is not None
        else "There is no second judge."
    )
    return (
        f"{plan.runs} runs of {plan.seeds} pairs of a prompt and a first noise, from {len(prompts)} prompts in an "
        f'order drawn by lot (seed {plan.seed}), such as "{prompts[0].text}". Every way draws the same pairs with '
        f"{sampling.steps} steps of {sampling.scheduler} and a guidance of {sampling.guidance_scale:g}. A detector "
        f"looks for each thing among all names of the study; from a probability of {plan.ladder.threshold:g} it counts "
        f"as there. "
        f"{_scaled(plan)}{second} Time is that of one core, measured for each picture."
    )


def _counted(encoders: int) -> str:
    return "an image-text encoder," if encoders == 1 else f"{encoders} image-text encoders together,"


def _scaled(plan: Plan) -> str:
    """What was set otherwise than in the papers, in a sentence."""
    told = ", ".join(f"{cure} {scale:g}" for cure, scale in plan.scales)
    return f"Updates of guidance have the papers' scale of {SCALE:g}" + (f", but: {told}. " if told else ". ")


def _judged(
    judge: SecondJudge, drawn: Sequence[DrawnCase], cases: Sequence[Case], plan: Plan, folder: Path
) -> tuple[Verdicts, dict[str, tuple[float, float]]]:
    """What the second judge sees in every way's pictures, and how far these are from true scenes."""
    prompts = {case.key: case.prompt for case in cases}
    edges = variation(judge.scenes)
    verdicts: Verdicts = {}
    quality: dict[str, tuple[float, float]] = {}
    for way in (PLAIN, *plan.guidances, LADDER):
        mine = [one for one in drawn if one.way == way and one.key in prompts]
        if not mine:
            continue
        pictures = [read_image(one.file(folder)) for one in mine]
        encoded = judge.encode(pictures)
        for one, seen in zip(mine, judge(encoded), strict=True):
            wanted = prompts[one.key].asked
            if all(name in judge.names for name in wanted):
                verdicts[way, one.key] = all(bool(seen[judge.names.index(name)]) for name in wanted)
        quality[way] = kernel_distance(encoded.pooled, judge.pooled), variation(pictures) / edges
    return verdicts, quality


def _measured(verifier: Verifier, source: Source, threshold: float) -> Accuracy:
    """The detector on true scenes."""
    samples = first_samples(source, CHECKED)
    said = np.array(
        [[one.probability >= threshold for one in verifier(sample.image, source.categories)] for sample in samples]
    )
    return accuracy("the detector", said, truth_of(samples, source.categories))


def _renamed(one: Accuracy, reading: str) -> Accuracy:
    return replace(one, name=f"the second judge, {one.name}" + (" (taken)" if one.name == reading else ""))
