"""Draws until every named object is there: draw, look, and repair only what is missing.

Rungs, each tried only while something is missing: another seed; attention guidance from the same noise; and the missing
object alone, drawn into a free place of the best picture (blended latents, arXiv 2206.02779). The picture with most
objects verified is kept, so no rung makes it worse. Best-of-N, which everything must beat, is the first rung alone.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.core.progress import MakeBar, advancing
from rizbin.data.scenes.captions import article
from rizbin.generation.diffusion.cure import SCALE, Cure, steering
from rizbin.generation.diffusion.painter import Frame, Moment, Painted, Painter, Sampling, fingerprint, seed_after
from rizbin.generation.diffusion.spans import objects_in
from rizbin.generation.film import Pixels

Rung = Literal["reseed", "attention", "place"]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


ALONE: Cure = "attend-and-excite"
"""What guides where one object alone is named."""


@dataclass(frozen=True)
class Presence:
    """What a verifier says of one object."""

    probability: float
    """That it is in the picture, 0 to 1."""
    box: Box | None = None
    """Where, when it is."""
    known: bool = True
    """Whether the verifier knows what the object is; what it does not know cannot be verified."""


@runtime_checkable
class Verifier(Protocol):
    """Looks for things in a picture. A detector is one; the room above passes it in."""

    def __call__(self, picture: Pixels, phrases: Sequence[str]) -> Sequence[Presence]:
        """One presence for each phrase."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What is tried, in which order."""

    rungs: tuple[Rung, ...] = ("attention", "place", "reseed")
    """Repairs, each tried as often as it says below, until all is verified. In this order the first noise gets its
    chance before another picture is begun."""
    cure: Cure = "center-distance"
    """Of the rung attention, where two objects and more are named; one alone gets attend-and-excite. In trials on 60
    pairs it was the one that repaired more than it broke (docs/LOG.md)."""
    scale: float = SCALE
    """Of its updates."""
    seeds: int = 4
    """Other seeds at most, for the rung reseed."""
    places: int = 2
    """Pictures at most with a missing object drawn into a free place."""
    threshold: float = 0.5
    """Probability from which an object counts as there."""
    share: float = 0.75
    """Of the steps in which a free place is drawn anew; the first, noisy ones would only move what is around it."""


@dataclass(frozen=True)
class Attempt:
    """One picture on the way."""

    how: Literal["draw", "reseed", "attention", "place"]
    seed: int
    image: Pixels
    found: dict[str, Presence]
    seconds: float
    """Drawing and looking."""
    painted: Painted
    """How it came to be."""
    sampling: Sampling
    cure: Cure = "none"
    """What guided."""

    @property
    def known(self) -> dict[str, Presence]:
        """What was found of the objects that the verifier knows."""
        return {name: one for name, one in self.found.items() if one.known}

    def there(self, threshold: float) -> int:
        """How many objects are."""
        return sum(one.probability >= threshold for one in self.known.values())

    def sure(self) -> float:
        """Least probability of any object: which of two equally complete pictures is the better one."""
        return min((one.probability for one in self.known.values()), default=1.0)


@dataclass(frozen=True)
class Repaired:
    """The best picture, and all that was tried."""

    best: Attempt
    attempts: list[Attempt]
    objects: tuple[str, ...]
    whole: bool
    """Whether every object was verified."""
    notes: list[str] = field(default_factory=list)
    file: Path | None = None
    """Where the best picture was written, where it was."""

    def record(self, threshold: float) -> list[dict[str, object]]:
        """What was tried and what it cost, for a file."""
        return [
            {
                "how": one.how,
                "seed": one.seed,
                "cure": one.cure,
                "seconds": round(one.seconds, 2),
                "there": one.there(threshold),
                "probabilities": {name: round(value.probability, 3) for name, value in one.found.items()},
                "unknown_to_the_judge": [name for name, value in one.found.items() if not value.known],
                "kept": one is self.best,
                "pixels": fingerprint(one.image),
            }
            for one in self.attempts
        ]


def repair(
    painter: Painter,
    prompt: str,
    verifier: Verifier,
    *,
    sampling: Sampling | None = None,
    ladder: Ladder | None = None,
    objects: Sequence[str] = (),
    attend: int = 0,
    bar: MakeBar | None = None,
) -> Repaired:
    """A picture of the prompt with all its objects, as far as the ladder leads.

    objects: what shall be there; empty: what `spans.objects_in` finds in the prompt. A prompt without any is drawn once
    and counts as whole, with a note. An object that the verifier does not know is said and not looked for: the picture
    is then never whole, and no stage is tried for it alone. attend: as for `Painter.paint`.
    """
    sampling, ladder = sampling or Sampling(), ladder or Ladder()
    wanted = tuple(objects) or tuple(objects_in(prompt))
    notes = [] if wanted else ["No object was found in the prompt; it was drawn once and not looked through."]
    attempts: list[Attempt] = []
    tries = {"reseed": ladder.seeds, "attention": 1, "place": ladder.places}

    with advancing(bar, 1 + sum(tries[rung] for rung in ladder.rungs), "drawing and looking") as advance:

        def tried(
            how: Literal["draw", "reseed", "attention", "place"],
            painted: Painted,
            drawn_by: Sampling = sampling,
            cure: Cure = "none",
        ) -> bool:
            begin = time.perf_counter()
            looked = verifier(painted.image, wanted) if wanted else []
            found = dict(zip(wanted, looked, strict=True))
            seconds = painted.seconds + time.perf_counter() - begin
            attempt = Attempt(how, drawn_by.seed, painted.image, found, seconds, painted, drawn_by, cure)
            attempts.append(attempt)
            said = [
                f'The judge does not know "{name}", so whether it is there cannot be verified.'
                for name, one in found.items()
                if not one.known
            ]
            notes.extend(one for one in [*said, *painted.notes] if one not in notes)
            advance(1)
            return attempt.there(ladder.threshold) == len(attempt.known)

        done = tried("draw", painter.paint(prompt, sampling, attend=attend))
        for rung in ladder.rungs:
            for number in range(tries[rung]):
                if done:
                    break
                if rung == "reseed":
                    other = replace(sampling, seed=seed_after(sampling.seed, 1 + number))
                    done = tried("reseed", painter.paint(prompt, other, attend=attend), other)
                elif rung == "attention":
                    cure, scale = ladder.cure, ladder.scale
                    if len(wanted) == 1 and cure != ALONE:
                        notes.append(f"One object has no other to be parted from; in place of {cure}, {ALONE} guides.")
                        cure, scale = ALONE, SCALE
                    guide, said = steering(painter, prompt, cure, objects=wanted, scale=scale)
                    notes.extend(said)
                    if guide is not None:
                        done = tried(
                            "attention", painter.paint(prompt, sampling, guide=guide, attend=attend), cure=cure
                        )
                else:
                    painted = _placed(painter, _best(attempts, ladder.threshold), sampling, ladder, number)
                    done = tried("place", painted)
    best = _best(attempts, ladder.threshold)
    return Repaired(best, attempts, wanted, best.there(ladder.threshold) == len(wanted), notes)


def _best(attempts: Sequence[Attempt], threshold: float) -> Attempt:
    """Most objects there; of equals the surer one, of equals again the first."""
    return max(attempts, key=lambda one: (one.there(threshold), one.sure()))


def _placed(painter: Painter, attempt: Attempt, sampling: Sampling, ladder: Ladder, number: int) -> Painted:
    """The surest missing object drawn into the largest free place of a picture; all else stays as it is."""
    name = min(attempt.known, key=lambda one: attempt.found[one].probability)
    height, width = attempt.image.shape[:2]
    taken = [one.box for one in attempt.found.values() if one.box is not None and one.probability >= ladder.threshold]
    left, top, right, bottom = free_place(taken, height, width)
    latents = painter.encode(attempt.image, height, width)
    rows, columns = latents.shape[-2:]
    mask = torch.zeros(1, 1, rows, columns, device=latents.device, dtype=latents.dtype)
    mask[
        ...,
        round(top / height * rows) : round(bottom / height * rows),
        round(left / width * columns) : round(right / width * columns),
    ] = 1
    generator = torch.Generator().manual_seed(seed_after(sampling.seed, 1000 + number))
    noise = torch.randn(latents.shape, generator=generator).to(latents)

    def blended(moment: Moment) -> Tensor:
        """Outside of the place the picture under as much noise as the step expects."""
        known = moment.scheduler.add_noise(latents, noise, moment.timestep.reshape(1))
        return mask * moment.latents + (1 - mask) * known

    seen: list[Frame] = []
    drawn = painter.paint(
        article(name),
        replace(sampling, strength=ladder.share, seed=seed_after(sampling.seed, number), height=height, width=width),
        start=attempt.image,
        guide=blended,
        watch=seen.append,
    )
    # What was not to be drawn stays pixel for pixel: the autoencoder would have blurred it.
    share = torch.nn.functional.interpolate(mask.float().cpu(), (height, width), mode="bilinear")[0, 0].numpy()[
        ..., None
    ]
    image = (share * drawn.image + (1 - share) * attempt.image).round().astype(np.uint8)
    return replace(drawn, image=image)


def free_place(taken: Sequence[Box], height: int, width: int, *, least: float = 0.4) -> Box:
    """The square of at least `least` of the shorter side that covers least of the boxes; larger of equals.

    In pixels. Tried on a grid of sixteenths.
    """
    shorter = min(height, width)
    best: tuple[float, float, Box] | None = None
    for share in np.arange(least, 0.76, 1 / 16):
        side = float(share * shorter)
        for top in np.linspace(0, height - side, 9):
            for left in np.linspace(0, width - side, 9):
                box = (float(left), float(top), float(left) + side, float(top) + side)
                covered = sum(_shared(box, one) for one in taken)
                if best is None or (covered, -side) < best[:2]:
                    best = (covered, -side, box)
    if best is None:
        raise RizbinError(f"A picture of {width}x{height} pixels has no place; give a larger one.")
    return best[2]


def _shared(one: Box, other: Box) -> float:
    """Area that two boxes share, pixels."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
