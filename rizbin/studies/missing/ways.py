"""Draws the same prompts with the same seeds in every way, and writes down what a detector found and what it cost.

One line of JSON for each picture, written when it is made: killed at any moment and started again, a study goes on.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rizbin.core.errors import RizbinError
from rizbin.core.progress import MakeBar, advancing
from rizbin.core.runs import RunFolder
from rizbin.generation.diffusion import attention_losses
from rizbin.generation.diffusion.attention_guidance import GUIDANCE_KINDS, SCALE, GuidanceKind, resolution_of, steering
from rizbin.generation.diffusion.repair import ObjectPresence, RepairStrategy, Verifier, repair
from rizbin.generation.diffusion.spans import spans_of
from rizbin.generation.diffusion.text_to_image import GeneratedImage, Sampling, TextToImage
from rizbin.generation.film import Pixels, write_png
from rizbin.studies.missing.memory import Peak
from rizbin.studies.missing.prompts import Prompt

PLAIN, WATCHED, LADDER, OTHER = "plain", "watched", "ladder", "other seed"
"""Ways beside the cures: drawn as it is; the same again with its attention kept, which costs time; draw, look and
repair; the same prompt from another seed, for best-of-N."""
APART = 1000
"""Between the seeds of two cases: more than a ladder or best-of-N ever goes on from one."""
MOST_OTHERS = 16
"""Pictures of best-of-N at most, so that a search for a noise that takes minutes does not ask for a hundred."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is drawn."""

    runs: int = 3
    """Groups of cases: how far their results lie apart says what chance does."""
    seeds: int = 200
    """Cases of a run: a prompt and a first noise each."""
    seed: int = 0
    """Another one draws other prompts and other noises: choose settings on one, report another."""
    guidances: tuple[GuidanceKind, ...] = GUIDANCE_KINDS[1:]
    """Compared with drawing plainly; empty: only the ladder and other seeds are."""
    scales: tuple[tuple[GuidanceKind, float], ...] = ()
    """Of the updates of some cures; the others keep the papers' 20. Choose them on another `seed`."""
    sampling: Sampling = Sampling(steps=15, guidance_scale=4.0, scheduler="dpm++")
    """Of every way; its seed is the case's."""
    ladder: RepairStrategy = RepairStrategy()
    """Draw, look, repair. Its threshold is where an object counts as there in every way."""

    def __post_init__(self) -> None:
        if min(self.runs, self.seeds) < 1:
            raise RizbinError(f"{self.runs} runs of {self.seeds} seeds are no study; give 1 or more of both.")

    @property
    def ways(self) -> tuple[str, ...]:
        """Drawn for every case."""
        return (PLAIN, WATCHED, *self.guidances, LADDER)


@dataclass(frozen=True)
class Case:
    """A prompt with a first noise, the same for every way."""

    run: int
    number: int
    """In the run."""
    prompt: Prompt
    seed: int

    @property
    def key(self) -> tuple[int, int]:
        return self.run, self.number


def cases_of(prompts: Sequence[Prompt], plan: Plan) -> list[Case]:
    """All cases, run by run: prompts in an order drawn by lot, each as often as any other, every case its own seed."""
    random = np.random.default_rng(plan.seed)
    order: list[int] = []
    while len(order) < plan.runs * plan.seeds:
        order += random.permutation(len(prompts)).tolist()
    begin = plan.seed * 10_000_000
    return [
        Case(place // plan.seeds, place % plan.seeds, prompts[order[place]], begin + APART * place)
        for place in range(plan.runs * plan.seeds)
    ]


@dataclass(frozen=True)
class DrawnCase:
    """One picture of a case."""

    way: str
    run: int
    number: int
    other: int
    """Of another seed, how many on; else 0."""
    found: dict[str, float]
    """Probability of each thing."""
    seconds: float
    """Of one core, drawing."""
    looking: float
    """Of one core, the detector; of a ladder both stand in `seconds`."""
    megabytes: float
    """Most memory while it was drawn, beyond what there was before; nan where the system does not say."""
    tried: tuple[str, ...] = ()
    """Rungs of a ladder, in order."""
    kept: str = ""
    """The rung whose picture a ladder kept."""
    statistics: dict[str, float] | None = None
    """Of the attention maps, of a watched drawing."""
    passes: int = 0
    """With gradient."""

    def whole(self, threshold: float) -> bool:
        """Whether all is there."""
        return all(one >= threshold for one in self.found.values())

    @property
    def least(self) -> float:
        """The least probability."""
        return min(self.found.values(), default=1.0)

    @property
    def key(self) -> tuple[int, int]:
        return self.run, self.number

    def file(self, folder: Path) -> Path:
        """Its picture."""
        return folder / "pictures" / f"{self.run}-{self.number:04d}-{self.way.replace(' ', '-')}-{self.other}.png"


class Studio:
    """Draws what is not drawn yet."""

    def __init__(
        self, painter: TextToImage, verifier: Verifier, run: RunFolder, plan: Plan, cases: Sequence[Case]
    ) -> None:
        self.painter, self.verifier, self.run, self.plan, self.cases = painter, verifier, run, plan, cases
        self.peak = Peak()
        self.drawn = read_drawn(run)

    def work(self, bar: MakeBar | None = None) -> list[DrawnCase]:
        """Every way for every case, then the other seeds that best-of-N is made of; all there is afterwards."""
        known = {(one.way, *one.key) for one in self.drawn}
        # All ways of a case one after the other, so that a busy machine is busy for all of them.
        left = [(way, case) for case in self.cases for way in self.plan.ways if (way, *case.key) not in known]
        with advancing(bar, len(left), "drawing every way") as advance:
            for way, case in left:
                self._keep(*self._one(way, case))
                advance(1)
        self._draw_others(bar)
        return self.drawn

    def _draw_others(self, bar: MakeBar | None) -> None:
        """Other seeds of the cases that are not whole, as many as fit into the dearest cure's time."""
        most = most_images(self.drawn, self.plan.guidances)
        known = {(*one.key, one.other): one for one in self.drawn if one.way in (PLAIN, OTHER)}
        threshold = self.plan.ladder.threshold
        with advancing(bar, len(self.cases), "drawing other seeds") as advance:
            for case in self.cases:
                whole = known[*case.key, 0].whole(threshold)
                for other in range(1, most):
                    if whole:
                        break
                    key = (*case.key, other)
                    if key not in known:
                        known[key] = self._keep(*self._other(case, other))
                    whole = known[key].whole(threshold)
                advance(1)

    def _keep(self, drawn: DrawnCase, image: Pixels) -> DrawnCase:
        # The picture first: a line of the record says that it is there.
        write_png(image, drawn.file(self.run.path))
        self.run.metrics.append({**asdict(drawn), "tried": list(drawn.tried)})
        self.drawn.append(drawn)
        return drawn

    def _one(self, way: str, case: Case) -> tuple[DrawnCase, Pixels]:
        if way == LADDER:
            return self._ladder(case)
        sampling = replace(self.plan.sampling, seed=case.seed)
        cures: dict[str, GuidanceKind] = {one: one for one in self.plan.guidances}
        cure = cures.get(way, "none")
        guide: Any = None
        attend = 0
        if way == WATCHED:
            attend = resolution_of(self.painter)
        begin = time.process_time()
        with self.peak:
            if cure != "none":
                guide, _ = steering(
                    self.painter,
                    case.prompt.text,
                    cure,
                    objects=case.prompt.objects,
                    scale=dict(self.plan.scales).get(cure, SCALE),
                )
            painted = self.painter.paint(case.prompt.text, sampling, guide=guide, attend=attend)
        seconds = time.process_time() - begin
        passes = sum(int(one.get("passes", 0)) for one in getattr(guide, "records", ()))
        made = self._looked(way, case, 0, painted.image, seconds)
        statistics = self._statistics(case.prompt, painted) if way == WATCHED else None
        return replace(made, passes=passes, statistics=statistics), painted.image

    def _other(self, case: Case, other: int) -> tuple[DrawnCase, Pixels]:
        begin = time.process_time()
        with self.peak:
            painted = self.painter.paint(case.prompt.text, replace(self.plan.sampling, seed=case.seed + other))
        return self._looked(OTHER, case, other, painted.image, time.process_time() - begin), painted.image

    def _looked(self, way: str, case: Case, other: int, image: Pixels, seconds: float) -> DrawnCase:
        begin = time.process_time()
        looked = self.verifier(image, case.prompt.asked)
        found = {name: one.probability for name, one in zip(case.prompt.objects, looked, strict=True)}
        looking = time.process_time() - begin
        return DrawnCase(way, *case.key, other, found, seconds, looking, self.peak.megabytes)

    def _ladder(self, case: Case) -> tuple[DrawnCase, Pixels]:
        plain = next((one for one in self.drawn if one.way == PLAIN and one.key == case.key), None)
        if plain is not None and plain.whole(self.plan.ladder.threshold):
            # It would draw that very picture, look and stop.
            image = _read(plain.file(self.run.path))
            cost = plain.seconds + plain.looking
            return replace(plain, way=LADDER, seconds=cost, looking=0.0, tried=("draw",), kept="draw"), image
        begin = time.process_time()
        with self.peak:
            made = repair(
                self.painter,
                case.prompt.text,
                _ByNoun(self.verifier, case.prompt),
                sampling=replace(self.plan.sampling, seed=case.seed),
                ladder=self.plan.ladder,
                objects=case.prompt.objects,
            )
        seconds = time.process_time() - begin
        found = {name: one.probability for name, one in made.best.found.items()}
        tried = tuple(one.how for one in made.attempts)
        drawn = DrawnCase(LADDER, *case.key, 0, found, seconds, 0.0, self.peak.megabytes, tried, made.best.how)
        return drawn, made.best.image

    def _statistics(self, prompt: Prompt, painted: GeneratedImage) -> dict[str, float] | None:
        """Of the objects' maps, the mean over the first half of the steps, where it is decided what goes where."""
        spans, _ = spans_of(prompt.text, list(prompt.objects), self.painter.pipeline.tokenizer)
        early = [frame.attention for frame in painted.frames[: max(len(painted.frames) // 2, 1)]]
        maps = [one for one in early if one is not None]
        if not spans or not maps:
            return None
        mean = torch.stack(maps).mean(dim=0)
        return attention_losses.statistics(attention_losses.maps_of(mean, [span.tokens for span in spans]))


@dataclass(frozen=True)
class _ByNoun:
    """Asks the judge for the nouns of things that have a color in the prompt."""

    verifier: Verifier
    prompt: Prompt

    def __call__(self, image: Pixels, phrases: Sequence[str]) -> Sequence[ObjectPresence]:
        nouns = dict(zip(self.prompt.objects, self.prompt.asked, strict=True))
        return self.verifier(image, [nouns[one] for one in phrases])


def read_drawn(run: RunFolder) -> list[DrawnCase]:
    """What the study's folder knows; lines that a kill tore are drawn again."""
    made = {}
    for line in run.metrics.read():
        line = {**line, "tried": tuple(line["tried"])}
        if line["megabytes"] is None:
            line["megabytes"] = math.nan
        one = DrawnCase(**line)
        made[one.way, *one.key, one.other] = one
    return list(made.values())


def mean_seconds(drawn: Sequence[DrawnCase], way: str) -> float:
    """Of one core, drawing a picture; nan of none."""
    seconds = [one.seconds for one in drawn if one.way == way]
    return sum(seconds) / len(seconds) if seconds else math.nan


def images_in(drawn: Sequence[DrawnCase], seconds: float) -> float:
    """How many pictures can be drawn plainly and looked at in the time; 1 at least."""
    plain = [one.seconds + one.looking for one in drawn if one.way == PLAIN]
    return max(seconds * len(plain) / sum(plain), 1.0)


def most_images(drawn: Sequence[DrawnCase], cures: Sequence[str]) -> int:
    """Of best-of-N with the dearest cure's time, rounded up in its favor; 2 at least, `MOST_OTHERS` at most."""
    dearest = max((mean_seconds(drawn, cure) for cure in cures), default=0.0)
    return min(max(math.ceil(images_in(drawn, dearest)), 2), MOST_OTHERS)


def best_of(drawn: Sequence[DrawnCase], count: int, threshold: float) -> dict[tuple[int, int], DrawnCase]:
    """For each case the best of its first `count` pictures: the first that is whole, else the surest.

    Drawn is only until one is whole; what would have come after it would not have been kept.
    """
    series: dict[tuple[int, int], list[DrawnCase]] = {}
    for one in drawn:
        if one.way in (PLAIN, OTHER) and one.other < count:
            series.setdefault(one.key, []).append(one)
    return {key: max(some, key=lambda one: (_there(one, threshold), one.least)) for key, some in series.items()}


def _there(one: DrawnCase, threshold: float) -> int:
    return sum(value >= threshold for value in one.found.values())


def _read(path: Path) -> Pixels:
    from rizbin.data.image_io import read_image

    return read_image(path)
