"""Do pictures that climbed one encoder's gradient show anything to another? Drawn by one, judged by those never in the
loss.

Another encoder of other architecture and seed, and a detector, look at what was climbed. Every sentence of the answer
is made from the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rizbin.core.charts import Series
from rizbin.core.environment import describe
from rizbin.core.pages import Page
from rizbin.core.pieces import Cell, Number, Picture
from rizbin.data.sample import Source
from rizbin.evaluate.stills import HARMS, coarse_likeness, spectrum_slope, total_variation
from rizbin.generate.ascent.ascend import as_floats
from rizbin.generate.ascent.encoders import Encoder
from rizbin.generate.ascent.settings import PRESETS, Settings
from rizbin.generate.ascent.targets import Image, Text
from rizbin.generate.diffusion.repair import Verifier
from rizbin.studies.ascent_cells import (
    Drawn,
    Measured,
    Question,
    Seen,
    Variant,
    drawn,
    embedded,
    found_of,
    measured,
    questions,
    seen_by,
)
from rizbin.studies.report import OPENMOJI

QUESTION = "Do pictures that climb one encoder's gradient show anything to another?"
AMONG = 100
"""Prompts that the own one must be nearest of; chance is one in so many."""
CHUNK = 32
"""Copies in memory at a time: networks of this world are small, and many pictures climb together."""
NOISE = 0.05
"""The most, of what was tried, that an encoder of this world stands on its copies; 0.1 blinds it (docs/LOG.md)."""
SHOWN = 8
"""Pictures of a variant on the page."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is drawn."""

    prompts: int = 50
    """Of the forms that are compared."""
    seeds: int = 3
    """Of all but the paper's."""
    few: int = 10
    """Prompts of each variant of the ablation."""
    paper: int = 6
    """Prompts of the paper's preset, with one seed: it is slow."""
    rebuilt: int = 8
    """Pictures drawn again from their embedding."""


def forms(size: Size) -> list[Variant]:
    """What is compared: the default, its rivals and its adversary; the paper's on a few prompts."""
    default, many = replace(PRESETS["default"](), chunk=CHUNK), {"prompts": size.prompts, "seeds": size.seeds}
    slow = {"prompts": size.paper, "seeds": 1}
    paper = _seen_as(PRESETS["paper"](), default)
    return [
        Variant(name="waves (default)", settings=default, **many),
        Variant(name="several resolutions", settings=replace(default, parametrization="resolutions"), **many),
        Variant(name="pixels, same copies and smoothness", settings=replace(default, parametrization="pixels"), **many),
        Variant(name="plain pixels, no copies", settings=replace(PRESETS["adversarial"](), chunk=CHUNK), **many),
        Variant(name="paper", settings=paper, **slow),
        Variant(
            name="paper, ten times its rate", settings=replace(paper, learning_rate=10 * paper.learning_rate), **slow
        ),
    ]


def ablations(size: Size) -> list[Variant]:
    """The default with one thing changed; several resolutions and what is without smoothness change a second one."""
    base = replace(PRESETS["default"](), chunk=CHUNK)
    several = replace(base, parametrization="resolutions")
    noisy = replace(base, augment=replace(base.augment, noise=NOISE))
    changes: dict[str, Settings] = {
        "as it is": base,
        "half the smoothness": replace(base, smooth=base.smooth / 2),
        "twice the smoothness": replace(base, smooth=2 * base.smooth),
        "no smoothness": replace(base, smooth=0.0),
        f"no smoothness, noise of {NOISE:g}": replace(noisy, smooth=0.0),
        f"noise of {NOISE:g}": noisy,
        "noise of the paper (0.2)": replace(base, augment=replace(base.augment, noise=0.2)),
        "1 copy": replace(base, copies=1),
        "8 copies": replace(base, copies=2 * base.copies),
        "no shift": replace(base, augment=replace(base.augment, shift=0.0)),
        "crops of 80 percent": replace(base, augment=replace(base.augment, crop=0.8)),
        "several resolutions": several,
        "several resolutions, added as they are": replace(several, apart=False, decay=0.0),
        "coarse ones alone (1 to 16)": replace(several, resolutions=(1, 2, 4, 8, 16)),
        "finest alone (64)": replace(several, resolutions=(64,)),
    }
    return [Variant(name=name, settings=one, prompts=size.few, seeds=size.seeds) for name, one in changes.items()]


def _seen_as(settings: Settings, other: Settings) -> Settings:
    """With the canvas and the looks of the other, so that they are not what is compared.

    Its noise becomes `NOISE`: the paper's 0.2 is more than an encoder of this world stands, as the ablation shows.
    """
    seen = replace(other.augment, noise=NOISE)
    return replace(settings, size=other.size, room=other.room, augment=seen, chunk=other.chunk)


def write_study(
    encoder: Encoder,
    judge: Encoder,
    detector: Verifier,
    source: Source,
    target: Path,
    *,
    blind: Encoder,
    run: Path,
    size: Size = Size(),
    quiet: bool = False,
) -> Path:
    """Draws, measures, writes the page and returns its path; what is in `run` is not drawn again.

    encoder: draws. judge, detector: look, and were in no loss. blind: an encoder without words that looks at what both
    draw again.
    """
    asked = questions(source, AMONG)
    wishes = [[Text(text=one.text)] for one in asked]
    compared = {one.name: drawn(encoder, one, wishes, run, quiet=quiet) for one in forms(size)}
    numbers = {name: measured(one, asked, encoder, judge, detector, harms=True) for name, one in compared.items()}
    changed = {one.name: drawn(encoder, one, wishes, run, quiet=quiet) for one in ablations(size)}
    changes = {name: measured(one, asked, encoder, judge, detector, harms=False) for name, one in changed.items()}
    rebuilt = [
        _rebuilt(one, other, asked[: size.rebuilt], (blind, detector), run, quiet)
        for one, other in ((encoder, judge), (judge, encoder))
    ]
    real = _real(asked, encoder, judge, detector)
    machine = describe()
    first = next(iter(compared.values()))
    page = Page(
        QUESTION,
        subtitle=f"{Path(encoder.name).name} draws, {Path(judge.name).name} judges; {first.variant.prompts} prompts, "
        f"{first.variant.seeds} seeds, {AMONG} to choose from · {machine.get('cpu')}, {machine.get('threads')} threads "
        f"· commit {machine.get('commit')}",
    )
    paced = pace(compared, asked, judge)
    for number, sentence in enumerate(
        [*answer(numbers, real), *answer_changes(changes), paced[0], *answer_rebuilt(rebuilt)]
    ):
        page.lead(sentence) if number == 0 else page.text(sentence)
    _show_forms(page, compared, numbers, real)
    _show_pictures(page, compared, numbers, asked)
    _show_changes(page, changed, changes)
    page.heading("How fast")
    page.text(paced[0])
    page.curves("Held-out cosine", paced[1], x_label="processor seconds a picture")
    _show_rebuilt(page, rebuilt, asked)
    if source.name.startswith("scenes"):
        page.credits(*OPENMOJI)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return page.write(target)


def _real(asked: Sequence[Question], encoder: Encoder, judge: Encoder, detector: Verifier) -> Measured:
    """The same numbers of real scenes with these captions."""
    pictures, which = [one.real for one in asked], list(range(len(asked)))
    return Measured(
        own=seen_by(encoder, pictures, which, asked),
        held_out=seen_by(judge, pictures, which, asked),
        harmed={
            name: 100 * float(seen_by(judge, [harm(one) for one in pictures], which, asked).right.mean())
            for name, harm in HARMS.items()
        },
        found=found_of(pictures, [one.names for one in asked], detector),
        slope=float(np.mean([spectrum_slope(one) for one in pictures])),
        variation=float(np.mean([total_variation(one) for one in pictures])),
    )


def percent(seen: Seen) -> float:
    """Percent right."""
    return 100 * float(seen.right.mean())


def margin(seen: Seen) -> float:
    """Half the 95 percent interval of percent right, by the normal approximation of Agresti and Coull (1998)."""
    count = len(seen.right) + 4
    share = (seen.right.sum() + 2) / count
    return 196 * float((share * (1 - share) / count) ** 0.5)


def gap(one: Measured, real: Measured) -> float:
    """How much more the climbed encoder likes the pictures than the held-out one, beyond its liking of real ones."""
    excess = float(one.own.cosine.mean() - one.held_out.cosine.mean())
    return excess - float(real.own.cosine.mean() - real.held_out.cosine.mean())


def answer(numbers: dict[str, Measured], real: Measured) -> list[str]:
    """What the forms gave, in sentences from the numbers: the first is the default, the fourth its adversary."""
    names = list(numbers)
    default, adversary = numbers[names[0]], numbers[names[3]]
    shows = percent(default.held_out) - margin(default.held_out) > 10 * 100 / AMONG
    verdict = "Yes" if shows else "Hardly"
    worst = min(default.harmed, key=lambda name: default.harmed[name])
    return [
        f"{verdict}: of {AMONG} prompts the held-out judge names the right one for {percent(default.held_out):.0f} "
        f"percent (± {margin(default.held_out):.0f}) of the pictures made of {names[0]}, for "
        f"{percent(adversary.held_out):.0f} percent of {names[3]}, for {percent(real.held_out):.0f} percent of real "
        f"scenes; chance is {100 / AMONG:.0f}.",
        f"What was climbed says nothing of this: the encoder itself gives {names[3]} a cosine of "
        f"{adversary.own.cosine.mean():.2f} and {names[0]} {default.own.cosine.mean():.2f} (real scenes "
        f"{real.own.cosine.mean():.2f}). Beyond what real scenes have, the gap to the judge is "
        f"{gap(adversary, real):.2f} and {gap(default, real):.2f}.",
        f"The detector finds {default.found:.0f} percent of the named things in {names[0]}, {adversary.found:.0f} in "
        f"{names[3]}, {real.found:.0f} in real scenes.",
        f"Of harms, {worst} costs the default most: {default.harmed[worst]:.0f} percent are still right. The spectrum "
        f"falls with a slope of {default.slope:.1f} ({names[3]} {adversary.slope:.1f}, real scenes {real.slope:.1f}).",
    ]


def answer_changes(changes: dict[str, Measured]) -> list[str]:
    """What of the default matters: changes that cost or gain more than the interval of the difference."""
    base = changes["as it is"]
    moved = {name: percent(one.held_out) - percent(base.held_out) for name, one in changes.items() if one is not base}
    sure = {
        name: value
        for name, value in moved.items()
        if abs(value) > (margin(changes[name].held_out) ** 2 + margin(base.held_out) ** 2) ** 0.5
    }
    if not sure:
        return ["Of the changes to the default none moves the held-out share by more than its interval."]
    told = ", ".join(f"{name} {value:+.0f}" for name, value in sorted(sure.items(), key=lambda one: one[1]))
    return [
        f"Changes to the default that move its {percent(base.held_out):.0f} percent by more than chance, in points: "
        f"{told}."
    ]


def pace(compared: dict[str, Drawn], asked: Sequence[Question], judge: Encoder) -> tuple[str, list[Series]]:
    """When the default reaches what the paper's settings reach in the end, on the prompts that both drew."""
    names = list(compared)
    papers = names[4:]
    shared = min(len(compared[name].frames[0][1]) for name in (names[0], *papers))
    lines, ends = [], {}
    for name in (names[0], *papers):
        one = compared[name]
        steps = one.variant.settings.steps
        seen = [seen_by(judge, shown[:shared], range(shared), asked).cosine.mean() for _, shown in one.frames]
        lines.append(
            Series(name=name, x=[step / steps * one.seconds for step, _ in one.frames], y=[float(v) for v in seen])
        )
        ends[name] = float(seen[-1])
    best = max(papers, key=lambda name: ends[name])
    full = compared[best].seconds
    reached = next((x for x, y in zip(lines[0].x, lines[0].y, strict=True) if y >= ends[best]), None)
    told = (
        f"On the {shared} prompts that both drew, {best} ends with a held-out cosine of {ends[best]:.2f} after "
        f"{full:.0f} processor seconds a picture; the default "
    )
    if reached is None:
        return f"{told}does not reach it: {ends[names[0]]:.2f} after {compared[names[0]].seconds:.1f} seconds.", lines
    return f"{told}has as much after {reached:.1f} seconds, {100 * reached / full:.0f} percent of the time.", lines


@dataclass(frozen=True)
class Rebuilt:
    """Pictures drawn again from nothing but their embedding."""

    encoder: str
    pictures: list[Picture]
    likeness: Float[np.ndarray, " pictures"]
    """Correlation of eight by eight squares with the original, of each."""
    blind: float
    """Mean cosine with the originals by an encoder without words that drew none of them."""
    other: float
    """The same by the encoder that did not draw."""
    found: float
    """Percent of the originals' things that the detector finds."""


def _rebuilt(
    encoder: Encoder,
    other: Encoder,
    asked: Sequence[Question],
    looks: tuple[Encoder, Verifier],
    run: Path,
    quiet: bool,
) -> Rebuilt:
    """What an encoder keeps of pictures, by drawing them again from what it says of them."""
    blind, detector = looks
    originals = [one.real for one in asked]
    wishes = [[Image(picture=as_floats(one))] for one in originals]
    variant = Variant(name=f"again from {encoder.name}", settings=PRESETS["default"](), prompts=len(originals), seeds=1)
    made = drawn(encoder, variant, wishes, run, quiet=quiet).pictures
    cosine = [float((embedded(one, made) * embedded(one, originals)).sum(dim=1).mean()) for one in (blind, other)]
    return Rebuilt(
        encoder=Path(encoder.name).name,
        pictures=[
            Picture(image=one, alt=f"drawn again from an embedding: {q.text}")
            for one, q in zip(made, asked, strict=True)
        ],
        likeness=np.array([coarse_likeness(*both) for both in zip(made, originals, strict=True)]),
        blind=cosine[0],
        other=cosine[1],
        found=found_of(made, [one.names for one in asked], detector),
    )


def answer_rebuilt(rebuilt: Sequence[Rebuilt]) -> list[str]:
    """Who keeps more of a picture."""
    first, second = rebuilt
    ahead = first.likeness - second.likeness
    error = float(ahead.std(ddof=1)) / len(ahead) ** 0.5 if len(ahead) > 1 else float("inf")
    sure = abs(float(ahead.mean())) > 1.96 * error
    more = ("more" if ahead.mean() > 0 else "less") if sure else "neither surely more nor surely less"
    return [
        f"Drawn again from their embedding alone, pictures keep {more} of where things and colors are with "
        f"{first.encoder} than with {second.encoder}: over {len(ahead)} pictures the correlation of coarse squares is "
        f"{first.likeness.mean():.2f} to {second.likeness.mean():.2f}. The detector finds {first.found:.0f} and "
        f"{second.found:.0f} percent of their things again."
    ]


def _show_forms(page: Page, compared: dict[str, Drawn], numbers: dict[str, Measured], real: Measured) -> None:
    page.heading("What a picture is made of")
    page.text(
        f"Right: the own prompt is the nearest of {AMONG}, by the held-out judge; after ±, half the 95 percent "
        "interval over pictures. Climbed: the score as the ascent saw it on its copies. Gap: by how much the encoder "
        "that was climbed likes the pictures more than the judge does, less the same for real scenes."
    )
    rows: list[list[Cell]] = [
        _row(name, one, real, f"{compared[name].seconds:.1f}", float(np.mean(compared[name].climbed)))
        for name, one in numbers.items()
    ]
    rows.append(_row("real scenes", real, real, "-", None))
    page.table(_COLUMNS, [("", rows)])
    page.text("Percent right after a harm:")
    page.table(
        ["Made of", *HARMS],
        [
            (
                "",
                [
                    [name, *(Number(f"{one.harmed[harm]:.0f}", one.harmed[harm]) for harm in HARMS)]
                    for name, one in {**numbers, "real scenes": real}.items()
                ],
            )
        ],
    )


_COLUMNS = (
    "Made of",
    "pictures",
    "climbed",
    "own cosine",
    "held-out cosine",
    "gap",
    "right, percent",
    "things found, percent",
    "slope",
    "variation",
    "seconds a picture",
)


def _row(name: str, one: Measured, real: Measured, seconds: str, climbed: float | None) -> list[Cell]:
    beyond = gap(one, real)
    return [
        name,
        Number(str(len(one.held_out.right)), len(one.held_out.right)),
        Number("-" if climbed is None else f"{climbed:.2f}", climbed),
        Number(f"{one.own.cosine.mean():.2f}", float(one.own.cosine.mean())),
        Number(f"{one.held_out.cosine.mean():.2f}", float(one.held_out.cosine.mean())),
        Number(f"{beyond:.2f}", beyond),
        Number(f"{percent(one.held_out):.0f} ± {margin(one.held_out):.0f}", percent(one.held_out)),
        Number(f"{one.found:.0f}", one.found),
        Number(f"{one.slope:.1f}", one.slope),
        Number(f"{one.variation:.3f}", one.variation),
        seconds,
    ]


def _show_pictures(
    page: Page, compared: dict[str, Drawn], numbers: dict[str, Measured], asked: Sequence[Question]
) -> None:
    page.heading("The pictures, failures among them")
    page.text("The first of each, none left out; right and wrong is what the held-out judge says.")
    for name, one in compared.items():
        page.heading(name, level=3)
        page.pictures(
            [
                Picture(image=picture, caption=asked[which].text, alt=asked[which].text, good=bool(right))
                for picture, which, right in zip(
                    one.pictures[:SHOWN], one.which, numbers[name].held_out.right, strict=False
                )
            ]
        )


def _show_changes(page: Page, changed: dict[str, Drawn], changes: dict[str, Measured]) -> None:
    page.heading("What of the default matters")
    rows: list[list[Cell]] = [
        [
            name,
            Number(str(len(one.held_out.right)), len(one.held_out.right)),
            Number(f"{one.own.cosine.mean():.2f}", float(one.own.cosine.mean())),
            Number(f"{percent(one.held_out):.0f} ± {margin(one.held_out):.0f}", percent(one.held_out)),
            Number(f"{one.found:.0f}", one.found),
            Number(f"{changed[name].seconds:.1f}", changed[name].seconds),
        ]
        for name, one in changes.items()
    ]
    page.table(
        ["Change", "pictures", "own cosine", "right, percent", "things found, percent", "seconds a picture"],
        [("", rows)],
    )


def _show_rebuilt(page: Page, rebuilt: Sequence[Rebuilt], asked: Sequence[Question]) -> None:
    page.heading("What an encoder keeps of a picture")
    page.text(
        "A picture is climbed until its embedding is that of the original; nothing else of the original is known. What "
        "comes back is what the embedding holds, without grain."
    )
    count = len(rebuilt[0].pictures)
    page.card("originals", [Picture(image=one.real, caption=one.text, alt=one.text) for one in asked[:count]])
    for one in rebuilt:
        page.card(
            one.encoder,
            one.pictures,
            small=f" coarse correlation {one.likeness.mean():.2f}, cosine by an encoder without words {one.blind:.2f}, "
            f"by the other {one.other:.2f}, things found {one.found:.0f} percent",
        )
