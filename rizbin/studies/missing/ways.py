"""Draws the same prompts with the same seeds in every way, and records what a detector found and what it cost.

Each image is recorded as one line of JSON when it is made: a study that was killed goes on when it is started again.
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

PLAIN, WATCHED, REPAIR, OTHER = "plain", "watched", "ladder", "other seed"
"""Ways of drawing beside the attention guidances: plain sampling; the same with its attention maps kept, which costs
time; drawing, verifying and repairing (its name in the records of a study is "ladder"); and the same prompt from
another seed, for best-of-N."""
APART = 1000
"""Between the seeds of two cases: more than repair or best-of-N ever adds to a seed."""
MOST_OTHERS = 16
"""Most images of best-of-N, so that a slow guidance such as the search for a noise does not ask for a hundred."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is drawn."""

    runs: int = 3
    """Groups of cases; the spread of their results shows the influence of chance."""
    seeds: int = 200
    """Cases of a run, each a prompt and a first noise."""
    seed: int = 0
    """Seed of prompts and noises: choose settings with one seed, report the results of another."""
    guidances: tuple[GuidanceKind, ...] = GUIDANCE_KINDS[1:]
    """Attention guidances that are compared with plain drawing; empty: only repair and other seeds are."""
    scales: tuple[tuple[GuidanceKind, float], ...] = ()
    """Scales of the updates of some guidances; the others use the papers' 20. Choose them with another `seed`."""
    tuning: int = 0
    """Cases of other prompts on which the scale of every guidance is chosen before; 0: `scales` hold."""
    sampling: Sampling = Sampling(steps=15, guidance_scale=4.0, scheduler="dpm++")
    """Sampling settings of every way; the seed is the case's."""
    strategy: RepairStrategy = RepairStrategy()
    """Strategy of the repair. From its threshold on an object counts as there in every way."""

    def __post_init__(self) -> None:
        if min(self.runs, self.seeds) < 1:
            raise RizbinError(f"{self.runs} runs of {self.seeds} seeds are no study; give 1 or more of both.")
        if self.tuning < 0:
            raise RizbinError(f"No scale can be chosen on {self.tuning} cases; give 0 or more.")

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways in which every case is drawn."""
        return (PLAIN, WATCHED, *self.guidances, REPAIR)


@dataclass(frozen=True)
class Case:
    """A prompt with a first noise, the same for every way."""

    run: int
    number: int
    """Number of the case in its run."""
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
    """One image of a case."""

    way: str
    run: int
    number: int
    other: int
    """How far the seed is from the case's own; 0 for the case's own seed."""
    found: dict[str, float]
    """Probability of each object."""
    seconds: float
    """Seconds of one core that drawing took."""
    looking: float
    """Seconds of one core that the detector took; with repair they are part of `seconds`."""
    megabytes: float
    """Peak memory of the drawing beyond what was used before it, in MB; nan where the system does not report it."""
    tried: tuple[str, ...] = ()
    """Stages that repair tried, in order."""
    kept: str = ""
    """The stage whose image repair kept."""
    statistics: dict[str, float] | None = None
    """Statistics of the attention maps; None where the maps were not kept."""
    passes: int = 0
    """Number of passes of the network with gradient."""

    def whole(self, threshold: float) -> bool:
        """Whether every object is there."""
        return all(probability >= threshold for probability in self.found.values())

    @property
    def least(self) -> float:
        """The least probability."""
        return min(self.found.values(), default=1.0)

    @property
    def key(self) -> tuple[int, int]:
        return self.run, self.number

    def file(self, folder: Path) -> Path:
        """The file of its image."""
        return folder / "pictures" / f"{self.run}-{self.number:04d}-{self.way.replace(' ', '-')}-{self.other}.png"


class Studio:
    """Draws every way of every case that is not drawn yet."""

    def __init__(
        self, text_to_image: TextToImage, verifier: Verifier, run: RunFolder, plan: Plan, cases: Sequence[Case]
    ) -> None:
        self.text_to_image, self.verifier, self.run, self.plan, self.cases = text_to_image, verifier, run, plan, cases
        self.peak = Peak()
        self.drawn = read_drawn(run)

    def work(self, bar: MakeBar | None = None) -> list[DrawnCase]:
        """Draws every way for every case, then the other seeds of best-of-N; returns all drawn cases."""
        known = {(case.way, *case.key) for case in self.drawn}
        # All ways of a case one after the other, so that a busy machine is busy for all of them.
        left = [(way, case) for case in self.cases for way in self.plan.ways if (way, *case.key) not in known]
        with advancing(bar, len(left), "drawing every way") as advance:
            for way, case in left:
                self._keep(*self.draw(way, case))
                advance(1)
        self._draw_others(bar)
        return self.drawn

    def _draw_others(self, bar: MakeBar | None) -> None:
        """Draws other seeds of the cases that lack an object, as many as fit into the time of the slowest guidance."""
        most = most_images(self.drawn, self.plan.guidances)
        known = {(*case.key, case.other): case for case in self.drawn if case.way in (PLAIN, OTHER)}
        threshold = self.plan.strategy.threshold
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
        # The image is written first: a line of the record means that it is there.
        write_png(image, drawn.file(self.run.path))
        self.run.metrics.append({**asdict(drawn), "tried": list(drawn.tried)})
        self.drawn.append(drawn)
        return drawn

    def draw(self, way: str, case: Case, scale: float | None = None) -> tuple[DrawnCase, Pixels]:
        """Draws and verifies a case in one way; recorded nowhere. scale: of a guidance, in place of the plan's."""
        if way == REPAIR:
            return self._repaired(case)
        sampling = replace(self.plan.sampling, seed=case.seed)
        kinds: dict[str, GuidanceKind] = {kind: kind for kind in self.plan.guidances}
        kind = kinds.get(way, "none")
        guide: Any = None
        attend = 0
        if way == WATCHED:
            attend = resolution_of(self.text_to_image)
        begin = time.process_time()
        with self.peak:
            if kind != "none":
                guide, _ = steering(
                    self.text_to_image,
                    case.prompt.text,
                    kind,
                    objects=case.prompt.objects,
                    scale=dict(self.plan.scales).get(kind, SCALE) if scale is None else scale,
                )
            painted = self.text_to_image.paint(case.prompt.text, sampling, guide=guide, attend=attend)
        seconds = time.process_time() - begin
        passes = sum(int(record.get("passes", 0)) for record in getattr(guide, "records", ()))
        made = self._verified(way, case, 0, painted.image, seconds)
        statistics = self._statistics(case.prompt, painted) if way == WATCHED else None
        return replace(made, passes=passes, statistics=statistics), painted.image

    def _other(self, case: Case, other: int) -> tuple[DrawnCase, Pixels]:
        begin = time.process_time()
        with self.peak:
            painted = self.text_to_image.paint(case.prompt.text, replace(self.plan.sampling, seed=case.seed + other))
        return self._verified(OTHER, case, other, painted.image, time.process_time() - begin), painted.image

    def _verified(self, way: str, case: Case, other: int, image: Pixels, seconds: float) -> DrawnCase:
        begin = time.process_time()
        presences = self.verifier(image, case.prompt.queries)
        probabilities = {
            name: presence.probability for name, presence in zip(case.prompt.objects, presences, strict=True)
        }
        looking = time.process_time() - begin
        return DrawnCase(way, *case.key, other, probabilities, seconds, looking, self.peak.megabytes)

    def _repaired(self, case: Case) -> tuple[DrawnCase, Pixels]:
        plain = next((drawn for drawn in self.drawn if drawn.way == PLAIN and drawn.key == case.key), None)
        if plain is not None and plain.whole(self.plan.strategy.threshold):
            # Repair would draw exactly this image, verify it and stop.
            image = _read(plain.file(self.run.path))
            cost = plain.seconds + plain.looking
            return replace(plain, way=REPAIR, seconds=cost, looking=0.0, tried=("draw",), kept="draw"), image
        begin = time.process_time()
        with self.peak:
            made = repair(
                self.text_to_image,
                case.prompt.text,
                _ByNoun(self.verifier, case.prompt),
                sampling=replace(self.plan.sampling, seed=case.seed),
                strategy=self.plan.strategy,
                objects=case.prompt.objects,
            )
        seconds = time.process_time() - begin
        probabilities = {name: presence.probability for name, presence in made.best.presences.items()}
        tried = tuple(attempt.how for attempt in made.attempts)
        drawn = DrawnCase(REPAIR, *case.key, 0, probabilities, seconds, 0.0, self.peak.megabytes, tried, made.best.how)
        return drawn, made.best.image

    def _statistics(self, prompt: Prompt, painted: GeneratedImage) -> dict[str, float] | None:
        """Statistics of the objects' attention maps, mean over the first half of the steps, which decide the layout."""
        spans, _ = spans_of(prompt.text, list(prompt.objects), self.text_to_image.pipeline.tokenizer)
        early = [frame.attention for frame in painted.frames[: max(len(painted.frames) // 2, 1)]]
        maps = [attention for attention in early if attention is not None]
        if not spans or not maps:
            return None
        mean = torch.stack(maps).mean(dim=0)
        return attention_losses.statistics(attention_losses.maps_of(mean, [span.tokens for span in spans]))


@dataclass(frozen=True)
class _ByNoun:
    """Asks the verifier for the nouns of objects that have a color in the prompt."""

    verifier: Verifier
    prompt: Prompt

    def __call__(self, image: Pixels, phrases: Sequence[str]) -> Sequence[ObjectPresence]:
        nouns = dict(zip(self.prompt.objects, self.prompt.queries, strict=True))
        return self.verifier(image, [nouns[phrase] for phrase in phrases])


def name_of(way: str) -> str:
    """The name of a way on the page; in the records repair has another."""
    return "repair" if way == REPAIR else way


def read_drawn(run: RunFolder) -> list[DrawnCase]:
    """The drawn cases recorded in the study's folder; those of incomplete lines are drawn again."""
    made = {}
    for line in run.metrics.read():
        line = {**line, "tried": tuple(line["tried"])}
        if line["megabytes"] is None:
            line["megabytes"] = math.nan
        case = DrawnCase(**line)
        made[case.way, *case.key, case.other] = case
    return list(made.values())


def mean_seconds(drawn: Sequence[DrawnCase], way: str) -> float:
    """Seconds of one core for drawing an image; nan where there is none."""
    seconds = [case.seconds for case in drawn if case.way == way]
    return sum(seconds) / len(seconds) if seconds else math.nan


def images_in(drawn: Sequence[DrawnCase], seconds: float) -> float:
    """How many images can be drawn plainly and verified in the time; 1 at least."""
    plain = [case.seconds + case.looking for case in drawn if case.way == PLAIN]
    return max(seconds * len(plain) / sum(plain), 1.0)


def most_images(drawn: Sequence[DrawnCase], guidances: Sequence[str]) -> int:
    """N of best-of-N within the time of the slowest guidance, rounded up; 2 at least, `MOST_OTHERS` at most."""
    slowest = max((mean_seconds(drawn, way) for way in guidances), default=0.0)
    return min(max(math.ceil(images_in(drawn, slowest)), 2), MOST_OTHERS)


def best_of(drawn: Sequence[DrawnCase], count: int, threshold: float) -> dict[tuple[int, int], DrawnCase]:
    """For each case the best of its first `count` images: the first that is whole, else the one with most objects.

    Other seeds are drawn only until an image is whole; later ones would not have been chosen.
    """
    series: dict[tuple[int, int], list[DrawnCase]] = {}
    for case in drawn:
        if case.way in (PLAIN, OTHER) and case.other < count:
            series.setdefault(case.key, []).append(case)
    return {key: max(some, key=lambda case: (_there(case, threshold), case.least)) for key, some in series.items()}


def _there(case: DrawnCase, threshold: float) -> int:
    return sum(value >= threshold for value in case.found.values())


def _read(path: Path) -> Pixels:
    from rizbin.data.image_io import read_image

    return read_image(path)
