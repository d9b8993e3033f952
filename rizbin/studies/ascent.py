"""Study of gradient ascent: images are made by the gradient of one encoder and judged by models that were in no loss.

Another encoder of other architecture and seed, and a detector, look at what was climbed. Every sentence of the answer
is made from the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rizbin.core.environment import describe
from rizbin.data.sample import Source
from rizbin.evaluation.stills import HARMS, coarse_likeness, spectrum_slope, total_variation
from rizbin.generation.ascent.ascend import as_floats
from rizbin.generation.ascent.settings import PRESETS, AscentSettings
from rizbin.generation.ascent.targets import ImageTarget, TextTarget
from rizbin.generation.diffusion.repair import Verifier
from rizbin.models.protocol import Embedder
from rizbin.pages.charts import Series
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.reports.encoder import OPENMOJI
from rizbin.studies.ascent_page import AMONG, show_changes, show_forms, show_images, show_rebuilt
from rizbin.studies.ascent_runs import (
    AscentImage,
    AscentVariant,
    Measured,
    Question,
    Rebuilt,
    detected_percent,
    draw_variant,
    embedded,
    gap,
    judged_by,
    margin,
    measured,
    percent,
    questions,
)
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict, publish

QUESTION = "Do images made by gradient ascent on one encoder show anything to another?"
CHUNK = 32
"""Copies in memory at a time: networks of this world are small, and many images climb together."""


@dataclass(frozen=True, kw_only=True)
class StudySize:
    """How much is drawn."""

    prompts: int = 50
    """Number of prompts for the forms that are compared."""
    seeds: int = 3
    """Seeds for all forms but the paper's and the adversary."""
    few: int = 10
    """Prompts of each variant of the ablation."""
    paper: int = 24
    """Prompts of the paper's preset, with one seed: it is slow."""
    rebuilt: int = 8
    """Images drawn again from their embedding."""


def forms(size: StudySize) -> list[AscentVariant]:
    """What is compared: the default, its rivals and its adversary; the paper's on a few prompts."""
    default, many = replace(PRESETS["default"](), chunk=CHUNK), {"prompts": size.prompts, "seeds": size.seeds}
    slow = {"prompts": size.paper, "seeds": 1}
    paper = _seen_as(PRESETS["paper"](), default)
    return [
        AscentVariant(name="several resolutions (default)", settings=default, **many),
        AscentVariant(name="waves", settings=replace(default, parametrization="fourier"), **many),
        AscentVariant(
            name="pixels, same copies and smoothness", settings=replace(default, parametrization="pixels"), **many
        ),
        _adversary("plain pixels, no copies", size),
        AscentVariant(name="paper", settings=paper, **slow),
        AscentVariant(
            name="paper, ten times its rate", settings=replace(paper, learning_rate=10 * paper.learning_rate), **slow
        ),
    ]


def _adversary(name: str, size: StudySize) -> AscentVariant:
    """One seed: without shifts and noise nothing is drawn by lot."""
    return AscentVariant(
        name=name, settings=replace(PRESETS["adversarial"](), chunk=CHUNK), prompts=size.prompts, seeds=1
    )


def ablations(size: StudySize) -> list[AscentVariant]:
    """The default with one object changed; a few change a second one."""
    base = replace(PRESETS["default"](), chunk=CHUNK)
    changes: dict[str, AscentSettings] = {
        "as it is": base,
        "half the smoothness": replace(base, smooth=base.smooth / 2),
        "twice the smoothness": replace(base, smooth=2 * base.smooth),
        "no smoothness": replace(base, smooth=0.0),
        "half the noise": _with_noise(base, base.augment.noise / 2),
        "twice the noise": _with_noise(base, 2 * base.augment.noise),
        "no noise": _with_noise(base, 0.0),
        "neither noise nor smoothness": replace(_with_noise(base, 0.0), smooth=0.0),
        "1 copy": replace(base, copies=1),
        "8 copies": replace(base, copies=2 * base.copies),
        "no shift": replace(base, augment=replace(base.augment, shift=0.0)),
        "crops of 80 percent": replace(base, augment=replace(base.augment, crop=0.8)),
        "waves": replace(base, parametrization="fourier"),
        "latent of an autoencoder": replace(base, parametrization="latent"),
        "strokes": replace(base, parametrization="strokes"),
        "all resolutions": replace(base, resolutions="all"),
        "resolutions added as they are": replace(base, apart=False, decay=0.0),
        "coarse ones alone (1 to 16)": replace(base, resolutions=(1, 2, 4, 8, 16)),
        "finest alone (64)": replace(base, resolutions=(64,)),
    }
    return [
        AscentVariant(name=name, settings=changed, prompts=size.few, seeds=size.seeds)
        for name, changed in changes.items()
    ]


def _seen_as(settings: AscentSettings, other: AscentSettings) -> AscentSettings:
    """The settings with the canvas and the shifts of `other`, so that only the remaining settings, noise included,
    differ."""
    seen = replace(other.augment, noise=settings.augment.noise)
    return replace(settings, size=other.size, room=other.room, augment=seen, chunk=other.chunk)


def _with_noise(settings: AscentSettings, noise: float) -> AscentSettings:
    return replace(settings, augment=replace(settings.augment, noise=noise))


def write_study(
    encoder: Embedder,
    judge: Embedder,
    detector: Verifier,
    source: Source,
    target: Path,
    *,
    rival: Embedder,
    rebuild: Sequence[Embedder],
    autoencoder: Any,
    blind: Embedder,
    run: Path,
    size: StudySize = StudySize(),
    quiet: bool = False,
    small: str = "",
) -> Path:
    """Draws, measures, writes the page and returns its path; what is in `run` is not drawn again.

    encoder: draws. judge, detector: look, and were in no loss. rival: climbed beside it. rebuild: two that draw again
    what they see. autoencoder: of diffusers, whose latents are climbed too. blind: an encoder without words that looks
    at what both draw again. small: a sentence for a page of a small size.
    """
    prompts = questions(source, AMONG)
    wishes = [[TextTarget(text=question.text)] for question in prompts]
    compared = {variant.name: draw_variant(encoder, variant, wishes, run, quiet=quiet) for variant in forms(size)}
    numbers = {
        name: measured(images, prompts, encoder, judge, detector, harms=True) for name, images in compared.items()
    }
    first = next(iter(compared.values()))
    # An encoder that was trained without noise cannot use noisy copies: the rival gets none.
    clean, called = _with_noise(first.variant.settings, 0.0), Path(rival.name).name
    others = [
        replace(first.variant, name=f"{called}, without noise", settings=clean),
        _adversary(f"{called}, plain pixels, no copies", size),
    ]
    beside = {variant.name: draw_variant(rival, variant, wishes, run, quiet=quiet) for variant in others}
    rivals = {name: measured(images, prompts, rival, judge, detector, harms=True) for name, images in beside.items()}
    changed = {
        variant.name: draw_variant(encoder, variant, wishes, run, autoencoder=autoencoder, quiet=quiet)
        for variant in ablations(size)
    }
    changes = {
        name: measured(images, prompts, encoder, judge, detector, harms=False) for name, images in changed.items()
    }
    rebuilt = [
        _rebuilt(redrawing, other, prompts[: size.rebuilt], (blind, detector), run, quiet)
        for redrawing, other in (rebuild, reversed(rebuild))
    ]
    real = _real(prompts, encoder, judge, detector)
    paced = pace(compared, prompts, judge)
    return _write_page(
        _Findings(prompts, compared, numbers, called, beside, rivals, changed, changes, rebuilt, real, paced),
        f"{Path(encoder.name).name} draws, {Path(judge.name).name} judges",
        source,
        target,
        small,
    )


@dataclass(frozen=True)
class _Findings:
    """All that the study drew and measured."""

    prompts: list[Question]
    compared: dict[str, AscentImage]
    numbers: dict[str, Measured]
    rival: str
    """Name of the other encoder."""
    beside: dict[str, AscentImage]
    """Its images."""
    rivals: dict[str, Measured]
    changed: dict[str, AscentImage]
    changes: dict[str, Measured]
    """Changes to the default settings."""
    rebuilt: list[Rebuilt]
    real: Measured
    """The same numbers of real scenes."""
    paced: tuple[str, list[Series]]
    """Sentence and curves of `pace`."""


def _write_page(findings: _Findings, models: str, source: Source, target: Path, small: str) -> Path:
    """Writes the page of the study and returns its path."""
    prompts, compared, numbers, real = findings.prompts, findings.compared, findings.numbers, findings.real
    first = next(iter(compared.values()))
    machine = describe()
    page = Page(
        QUESTION,
        subtitle=f"{models}; {first.variant.prompts} prompts, "
        f"{first.variant.seeds} seeds, {AMONG} to choose from · {machine.get('cpu')}, {machine.get('threads')} threads "
        f"· commit {machine.get('commit')}",
    )
    sentences = [
        answer_rival(findings.rival, list(findings.rivals.values()), numbers[first.variant.name]),
        *answer_changes(findings.changes),
        findings.paced[0],
        *answer_rebuilt(findings.rebuilt),
    ]
    verdict = answer(numbers, real)
    verdict = replace(verdict, sentences=(*verdict.sentences, *sentences))
    verdict.show(page, small=small)
    every, all_numbers = {**compared, **findings.beside}, {**numbers, **findings.rivals}
    show_forms(page, every, all_numbers, real)
    show_images(page, every, all_numbers, prompts)
    show_changes(page, findings.changed, findings.changes)
    page.heading("How fast")
    page.text(findings.paced[0])
    page.curves("Held-out cosine", findings.paced[1], x_label="processor seconds for an image")
    show_rebuilt(page, findings.rebuilt, prompts)
    if source.name.startswith("scenes"):
        page.credits(*OPENMOJI)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return publish(page, verdict, target, small=small)


def _real(prompts: Sequence[Question], encoder: Embedder, judge: Embedder, detector: Verifier) -> Measured:
    """The same numbers of real scenes with these captions."""
    images, which = [question.real for question in prompts], list(range(len(prompts)))
    return Measured(
        own=judged_by(encoder, images, which, prompts),
        held_out=judged_by(judge, images, which, prompts),
        harmed={
            name: 100 * float(judged_by(judge, [harm(image) for image in images], which, prompts).right.mean())
            for name, harm in HARMS.items()
        },
        detected=detected_percent(images, [question.names for question in prompts], detector),
        slope=float(np.mean([spectrum_slope(image) for image in images])),
        variation=float(np.mean([total_variation(image) for image in images])),
    )


def answer(numbers: dict[str, Measured], real: Measured) -> StudyVerdict:
    """The verdict by the default, with its adversary beside it: the first of the forms and the fourth."""
    names = list(numbers)
    default, adversary = numbers[names[0]], numbers[names[3]]
    shows = percent(default.held_out) - margin(default.held_out) > 10 * 100 / AMONG
    # What was not climbed shows nothing of climbing: the encoder itself has to like what it climbed.
    climbed, liked = float(default.own.cosine.mean()), float(real.own.cosine.mean())
    arrived = climbed > liked / 2
    kind = NOT_TESTABLE if not arrived else SHOWN if shows else REFUTED
    begins = {SHOWN: "Yes", REFUTED: "Hardly", NOT_TESTABLE: "Nothing was climbed, so nothing can be said"}[kind]
    worst = min(default.harmed, key=lambda name: default.harmed[name])
    reason = (
        f"{begins}: of {AMONG} prompts the held-out judge names the right one for {percent(default.held_out):.0f} "
        f"percent (± {margin(default.held_out):.0f}) of the images made of {names[0]}, where a detector finds "
        f"{default.detected:.0f} percent of the named objects ({real.detected:.0f} in real scenes); for "
        f"{percent(adversary.held_out):.0f} percent of {names[3]}, for {percent(real.held_out):.0f} percent of real "
        f"scenes; chance is {100 / AMONG:.0f}."
    )
    delivered = (
        f"{'Delivered' if arrived else 'Not delivered'}: the encoder that is climbed gives the images a cosine of "
        f"{climbed:.2f} with their prompts, and real scenes {liked:.2f}."
    )
    return StudyVerdict(
        kind,
        reason,
        delivered,
        (
            f"What was climbed says nothing of this: the encoder itself gives {names[3]} a cosine of "
            f"{adversary.own.cosine.mean():.2f} and {names[0]} {default.own.cosine.mean():.2f} (real scenes "
            f"{real.own.cosine.mean():.2f}). Beyond what real scenes have, the gap to the judge is "
            f"{gap(adversary, real):.2f} and {gap(default, real):.2f}.",
            f"The detector finds {default.detected:.0f} percent of the named objects in {names[0]}, "
            f"{adversary.detected:.0f} in {names[3]}, {real.detected:.0f} in real scenes.",
            f"Of harms, {worst} costs the default most: {default.harmed[worst]:.0f} percent are still right (of real "
            f"scenes, at worst, {min(real.harmed.values()):.0f}: a judge must stand harms itself). The spectrum "
            f"falls with a slope of {default.slope:.1f} ({names[3]} {adversary.slope:.1f}, real scenes "
            f"{real.slope:.1f}).",
        ),
    )


def answer_rival(name: str, rivals: Sequence[Measured], default: Measured) -> str:
    """What another encoder draws in the same way, and by plain pixels."""
    same, adversary = rivals
    return (
        f"Used in the same way but without noise, {name} has {percent(same.held_out):.0f} percent "
        f"(± {margin(same.held_out):.0f}) right, {percent(same.held_out) - percent(default.held_out):+z.0f} points, "
        f"and {same.detected:.0f} percent of its objects are found; it gives its own images a cosine of "
        f"{same.own.cosine.mean():.2f}. Of its plain pixels, with a cosine of {adversary.own.cosine.mean():.2f}, "
        f"{percent(adversary.held_out):.0f} percent are right."
    )


def answer_changes(changes: dict[str, Measured]) -> list[str]:
    """What of the default matters: changes that cost or gain more than the interval of the difference."""
    base = changes["as it is"]
    moved = {
        name: percent(measured_change.held_out) - percent(base.held_out)
        for name, measured_change in changes.items()
        if measured_change is not base
    }
    sure = {
        name: value
        for name, value in moved.items()
        if abs(value) > (margin(changes[name].held_out) ** 2 + margin(base.held_out) ** 2) ** 0.5
    }
    if not sure:
        return ["Of the changes to the default none moves the held-out share by more than its interval."]
    moves = ", ".join(f"{name} {value:+z.0f}" for name, value in sorted(sure.items(), key=lambda item: item[1]))
    return [
        f"Changes to the default that move its {percent(base.held_out):.0f} percent by more than chance, in points: "
        f"{moves}."
    ]


def pace(compared: dict[str, AscentImage], prompts: Sequence[Question], judge: Embedder) -> tuple[str, list[Series]]:
    """When the default and the paper's settings reach what both reach in the end, on the prompts that both drew."""
    names = list(compared)
    default, papers = names[0], names[4:]
    shared = min(len(compared[name].frames[0][1]) for name in (default, *papers))
    lines = {}
    for name in (default, *papers):
        series = compared[name]
        steps = series.variant.settings.steps
        seen = [judged_by(judge, shown[:shared], range(shared), prompts).cosine.mean() for _, shown in series.frames]
        lines[name] = Series(
            name=name, x=[step / steps * series.seconds for step, _ in series.frames], y=[float(v) for v in seen]
        )
    best = max(papers, key=lambda name: lines[name].y[-1])
    ends = [lines[name].y[-1] for name in (default, best)]
    level = min(ends)
    first, second = (_reached(lines[name], level) for name in (default, best))
    sentence = (
        f"On the {shared} prompts that both drew, the default ends with a held-out cosine of {ends[0]:.2f} after "
        f"{compared[default].seconds:.1f} processor seconds an image, {best} with {ends[1]:.2f} after "
        f"{compared[best].seconds:.1f}. The lower of these the default has after {first:.1f} seconds and {best} after "
        f"{second:.1f}: {100 * first / second:.0f} percent of the time."
    )
    return sentence, list(lines.values())


def _reached(line: Series, level: float) -> float:
    """Where a line first comes to this height, straight between its points."""
    before = (line.x[0], line.y[0])
    for x, y in zip(line.x, line.y, strict=True):
        if y >= level:
            return x if y == before[1] else before[0] + (x - before[0]) * (level - before[1]) / (y - before[1])
        before = (x, y)
    return line.x[-1]


def _rebuilt(
    encoder: Embedder,
    other: Embedder,
    prompts: Sequence[Question],
    looks: tuple[Embedder, Verifier],
    run: Path,
    quiet: bool,
) -> Rebuilt:
    """What an encoder keeps of images: they are drawn again from their embeddings alone."""
    blind, detector = looks
    originals = [question.real for question in prompts]
    wishes = [[ImageTarget(image=as_floats(original))] for original in originals]
    # Without noise, with which encoders that were trained without it cannot work.
    settings = _with_noise(PRESETS["default"](), 0.0)
    variant = AscentVariant(name=f"again from {encoder.name}", settings=settings, prompts=len(originals), seeds=1)
    made = draw_variant(encoder, variant, wishes, run, quiet=quiet).images
    cosine = [float((embedded(judge, made) * embedded(judge, originals)).sum(dim=1).mean()) for judge in (blind, other)]
    return Rebuilt(
        encoder=Path(encoder.name).name,
        images=[
            PageImage(image=image, alt=f"drawn again from an embedding: {q.text}")
            for image, q in zip(made, prompts, strict=True)
        ],
        likeness=np.array([coarse_likeness(*both) for both in zip(made, originals, strict=True)]),
        blind=cosine[0],
        other=cosine[1],
        detected=detected_percent(made, [question.names for question in prompts], detector),
    )


def answer_rebuilt(rebuilt: Sequence[Rebuilt]) -> list[str]:
    """Sentence about which encoder keeps more of an image."""
    first, second = rebuilt
    ahead = first.likeness - second.likeness
    error = float(ahead.std(ddof=1)) / len(ahead) ** 0.5 if len(ahead) > 1 else float("inf")
    sure = abs(float(ahead.mean())) > 1.96 * error
    more = ("more" if ahead.mean() > 0 else "less") if sure else "neither surely more nor surely less"
    return [
        f"Drawn again from their embedding alone, images keep {more} of where objects and colors are with "
        f"{first.encoder} than with {second.encoder}: over {len(ahead)} images the correlation of coarse squares is "
        f"{first.likeness.mean():.2f} to {second.likeness.mean():.2f}. The detector finds {first.detected:.0f} and "
        f"{second.detected:.0f} percent of their objects again."
    ]
