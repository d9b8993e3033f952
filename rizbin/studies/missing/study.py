"""Study of missing objects: all ways of drawing on the same prompts and seeds, two judges, one page."""

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
from rizbin.studies.missing.answer import Result, Verdicts, result_of
from rizbin.studies.missing.page import show, show_scales
from rizbin.studies.missing.prompts import Prompt
from rizbin.studies.missing.second import Accuracy, SecondJudge, accuracy, kernel_distance, truth_of, variation
from rizbin.studies.missing.tuning import with_own_scales
from rizbin.studies.missing.verdict import answer
from rizbin.studies.missing.ways import PLAIN, REPAIR, Case, DrawnCase, Plan, Studio, cases_of
from rizbin.studies.verdict import StudyVerdict, publish

QUESTION = "Missing objects: which guidance helps, and is it worth its time?"
CHECKED = 200
"""Number of true scenes on which the detector is measured, which takes five seconds of one core."""


def write_study(
    text_to_image: TextToImage,
    verifier: Verifier,
    prompts: Sequence[Prompt],
    folder: Path,
    plan: Plan,
    *,
    source: Source | None = None,
    pairs: Sequence[ImageTextPair] = (),
    target: Path | None = None,
    identity: dict[str, object] | None = None,
    bar: MakeBar | None = None,
    small: str = "",
) -> Path:
    """Draws in `folder` what is not drawn yet and writes the page; returns its path.

    Args:
        text_to_image: A model with a UNet.
        verifier: Verifies the images of every way, and steers the repair.
        prompts: See `prompts.prompts_named`.
        folder: Folder of the study; it goes on where it was stopped.
        plan: What is drawn.
        source: True images whose objects are known; the judges are measured on them.
        pairs: Encoders of the second judge; without them, or without `source`, there is none.
        target: The page; None: study.html in the folder.
        identity: What else identifies the study, so that no other study goes on in its folder.
        bar: Makes a progress bar.
        small: A sentence for a page of a small size.

    Raises RizbinError when the folder holds another study, and for models that cannot be steered.
    """
    if text_to_image.unet is None:
        raise RizbinError(f"{text_to_image.name} has no UNet, whose attention could be guided; study another model.")
    run = RunFolder(folder)
    # The prompts belong to the identity of the study: their file may change.
    texts, objects = [prompt.text for prompt in prompts], min(len(prompt.objects) for prompt in prompts)
    run.create_or_resume({**(identity or {}), "plan": _recorded(plan), "prompts": texts})
    try:
        cases = cases_of(prompts, plan)
        plan, tuned, apart = with_own_scales(Studio(text_to_image, verifier, run, plan, ()), prompts, bar)
        drawn = Studio(text_to_image, verifier, run, plan, cases).work(bar)
    finally:
        run.release()
    judge = None if source is None or not pairs else SecondJudge(pairs, source, objects=objects)
    verdicts, quality = _judged(judge, drawn, cases, plan, folder) if judge is not None else ({}, {})
    result = result_of(drawn, cases, plan, verdicts)
    accuracies = [] if source is None else [_measured(verifier, source, plan.strategy.threshold, objects)]
    if judge is not None:
        accuracies += [_renamed(reading, judge.reading) for reading in judge.accuracies]
    page = _begun_page(text_to_image.name, plan, result, drawn)
    verdict = _with_ceiling(answer(result), accuracies, objects)
    verdict.show(page, small=small)
    page.heading("Design")
    page.text(_design(prompts, plan, judge, apart))
    show_scales(page, tuned, plan)
    show(page, result, drawn, cases, plan, folder, quality, accuracies)
    if source is not None and source.name.startswith("scenes"):
        page.credits(*OPENMOJI)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return publish(page, verdict, target or folder / "study.html", small=small)


def _begun_page(model: str, plan: Plan, result: Result, drawn: Sequence[DrawnCase]) -> Page:
    """The page with its title and with what the study took."""
    machine = describe()
    spent = sum(case.seconds + case.looking for case in drawn) / 60
    return Page(
        QUESTION,
        subtitle=f"{Path(model).name}, {result.cases} pairs of prompt and seed in {plan.runs} runs, each "
        f"drawn in {len(result.rows)} ways · {spent:.0f} minutes of one core · {machine.get('cpu')} · "
        f"commit {machine.get('commit')}",
    )


def _recorded(plan: Plan) -> dict[str, object]:
    """The plan as settings.json holds it, under the names that folders of earlier studies have."""
    fields = asdict(plan)
    strategy = fields.pop("strategy")
    if not fields["tuning"]:
        del fields["tuning"]
    return {**fields, "ladder": {"rungs": strategy.pop("stages"), **strategy}}


def _design(prompts: Sequence[Prompt], plan: Plan, judge: SecondJudge | None, apart: bool) -> str:
    sampling = plan.sampling
    second = (
        f"A second judge, which no way of drawing uses, verifies too: {_counted(len(judge.pairs))} read by "
        f"{judge.reading}, the reading that decides best on true scenes."
        if judge is not None
        else "There is no second judge."
    )
    return (
        f"{plan.runs} runs of {plan.seeds} pairs of a prompt and a first noise, from {len(prompts)} prompts in an "
        f'order drawn by lot (seed {plan.seed}), such as "{prompts[0].text}". Every way draws the same pairs with '
        f"{sampling.steps} steps of {sampling.scheduler} and a guidance scale of {sampling.guidance_scale:g}. A "
        f"detector looks for each object among all names of the study; from a probability of "
        f"{plan.strategy.threshold:g} the object counts as there. "
        f"{_scaled(plan, apart)}{second} Time is that of one core, measured for each image."
    )


def _counted(encoders: int) -> str:
    return "an image-text encoder," if encoders == 1 else f"{encoders} image-text encoders together,"


def _scaled(plan: Plan, apart: bool) -> str:
    """A sentence about settings that differ from the papers. apart: the scales were chosen on prompts not used here."""
    if not plan.guidances:
        return ""
    if plan.tuning:
        where = "other prompts" if apart else "the same prompts from other noises, as the study uses them all"
        return f"Updates of every guidance have a scale of their own, chosen on {plan.tuning} cases of {where}. "
    scales = ", ".join(f"{guidance} {scale:g}" for guidance, scale in plan.scales)
    if {guidance for guidance, _ in plan.scales} >= set(plan.guidances):
        return f"Updates of guidance have scales of their own ({scales}; the papers: {SCALE:g}). "
    return f"Updates of guidance have the papers' scale of {SCALE:g}" + (f", but: {scales}. " if scales else ". ")


def _with_ceiling(verdict: StudyVerdict, judges: Sequence[Accuracy], objects: int) -> StudyVerdict:
    """Adds how many true images of as many objects the judges call complete: what drawn ones are held against."""
    judges = [judge for judge in judges if judge.crowded_scenes][:2]
    if not judges:
        return verdict
    shares = " and ".join(
        f"{judge.name.split(',')[0]} calls {judge.crowded:.1f} percent of {judge.crowded_scenes}" for judge in judges
    )
    sentence = f"Of true scenes with {objects} objects or more {shares} complete."
    return replace(verdict, sentences=(*verdict.sentences, sentence))


def _judged(
    judge: SecondJudge, drawn: Sequence[DrawnCase], cases: Sequence[Case], plan: Plan, folder: Path
) -> tuple[Verdicts, dict[str, tuple[float, float]]]:
    """Verdicts of the second judge on the images of every way, and the distance of these images from true scenes."""
    prompts = {case.key: case.prompt for case in cases}
    edges = variation(judge.scenes)
    verdicts: Verdicts = {}
    quality: dict[str, tuple[float, float]] = {}
    for way in (PLAIN, *plan.guidances, REPAIR):
        mine = [case for case in drawn if case.way == way and case.key in prompts]
        if not mine:
            continue
        images = [read_image(case.file(folder)) for case in mine]
        encoded = judge.encode(images)
        for drawn_case, seen in zip(mine, judge(encoded), strict=True):
            names = prompts[drawn_case.key].queries
            if all(name in judge.names for name in names):
                verdicts[way, drawn_case.key] = all(bool(seen[judge.names.index(name)]) for name in names)
        quality[way] = kernel_distance(encoded.pooled, judge.pooled), variation(images) / edges
    return verdicts, quality


def _measured(verifier: Verifier, source: Source, threshold: float, objects: int) -> Accuracy:
    """Accuracy of the detector on true scenes; objects: of a prompt."""
    samples = first_samples(source, CHECKED)
    present = np.array(
        [
            [presence.probability >= threshold for presence in verifier(sample.image, source.categories)]
            for sample in samples
        ]
    )
    return accuracy("the detector", present, truth_of(samples, source.categories), objects=objects)


def _renamed(measured: Accuracy, reading: str) -> Accuracy:
    return replace(
        measured, name=f"the second judge, {measured.name}" + (" (taken)" if measured.name == reading else "")
    )
