"""What an evaluation gives: numbers that say how they were made and what they stand beside."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rizbin.core.results import Table

HEADLINES = (
    "zero_shot/top1",
    "retrieval/image_to_text/r1",
    "knn/top1",
    "probe/top1",
    "grounding/zero_shot/pair_objects",
    "segmentation/zero_shot/objects_miou",
    "boxes/ap50",
    "collapse/rank",
)
"""What a line of a few numbers shows, as far as it was measured."""
UNSURE = 200
"""Images under which the standard error of a share is said: 3.5 points at most from there on."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number with its protocol and the numbers it must be read against."""

    name: str
    """A stable path: "zero_shot/top1"."""
    value: float
    """Value in `unit`."""
    protocol: str
    """One sentence that says exactly how the value came about, made from the settings used."""
    unit: Literal["percent", "rank", "relative", "decibel", "number"] = "percent"
    """Percent is 0 to 100, a rank starts at 1, a relative error is 0 when perfect; a number is what its protocol
    says."""
    higher_is_better: bool | None = True
    """None where neither is: the number says what was done, not how well."""
    baseline: float | None = None
    """The same for the same network with random weights; None where it was not or cannot be measured."""
    chance: float | None = None
    """The exact expectation of guessing, or of a simple rule where the protocol names one; None where unknown."""
    references: tuple[tuple[str, float], ...] = ()
    """(name, value) of simple rules where there are several; `chance` is then the best of them."""
    images: int | None = None
    """Images behind the number; None where it is all of its report's."""
    items: str = ""
    """What was counted in them, where that is not images: "523 objects"."""

    @property
    def worse_than_chance(self) -> bool | None:
        """Whether chance is strictly better; None where chance is unknown or neither direction is better."""
        if self.chance is None or self.higher_is_better is None or not math.isfinite(self.chance):
            return None
        return self.value < self.chance if self.higher_is_better else self.value > self.chance


@dataclass(frozen=True, kw_only=True, repr=False)
class Report(Table):
    """The measurements of one network on one source."""

    measurements: tuple[Measurement, ...]
    left_out: tuple[tuple[str, str], ...]
    """(what was not measured, why not in a sentence)."""
    images: int
    """Images of the source that were measured on."""
    source: str
    """The source's name."""
    refused: tuple[tuple[str, str], ...] = ()
    """(key or index, reason) of images that could not be used; others took their place where there were others."""

    def __getitem__(self, name: str) -> Measurement:
        """The measurement called `name`; KeyError when it was left out."""
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(measurement.name == name for measurement in self.measurements)

    def behind(self, measurement: Measurement) -> str:
        """What the number was measured on: "1,000 images", "523 objects in 400 images"."""
        images = self.images if measurement.images is None else measurement.images
        counted = f"{images:,} image{'s' * (images != 1)}"
        return f"{measurement.items} in {counted}" if measurement.items else counted

    def __str__(self) -> str:
        return self.table()

    def to_json(self) -> str:
        """Everything as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return asdict(self)

    def __repr__(self) -> str:
        return f"Report({len(self.measurements)} measurements on {self.images} images of {self.source})"

    def rows(self) -> list[dict[str, Any]]:
        """A row for each number: its name, value, unit, random weights, chance, and what it was measured on."""
        return [
            {
                "name": m.name,
                "value": m.value,
                "unit": m.unit,
                "random": m.baseline,
                "chance": m.chance,
                "measured on": self.behind(m),
            }
            for m in self.measurements
        ]

    def table(self, *, protocols: bool = False) -> str:
        """A plain-text table; with `protocols`, each number's sentence under it."""
        width = max([len(m.name) for m in self.measurements], default=4)
        lines = [self.on()]
        lines += [f"{'':{width}}  {'value':>8}  {'random':>8}  {'chance':>8}  measured on"]
        for m in self.measurements:
            numbers = "  ".join(_shown(number, m.unit) for number in (m.value, m.baseline, m.chance))
            lines.append(f"{m.name:{width}}  {numbers}  {self.behind(m)}")
            if protocols:
                lines.append(f"    {m.protocol}")
        lines += [f"{name}: not measured. {reason}" for name, reason in self.left_out]
        if self.refused:
            lines.append(f"{len(self.refused)} images could not be used; the first reason: {self.refused[0][1]}")
        return "\n".join(lines)

    def on(self) -> str:
        """What was measured on, in a sentence, and how unsure so few images are."""
        sentence = f"On {self.images:,} image{'s' * (self.images != 1)} of {self.source}."
        if 0 < self.images < UNSURE:
            sentence += f" A share of so few has a standard error of up to {50 / self.images**0.5:.0f} points."
        return sentence

    def headlines(self) -> str:
        """The numbers of `HEADLINES` in a line, each with the one beside it: "zero_shot/top1 81.6 (random 4.0)"."""
        parts = []
        for name in HEADLINES:
            if name in self:
                measurement = self[name]
                beside = (
                    ""
                    if measurement.baseline is None
                    else f" (random {_shown(measurement.baseline, measurement.unit).strip()})"
                )
                parts.append(f"{name} {_shown(measurement.value, measurement.unit).strip()}{beside}")
        return ", ".join(parts)


def _shown(number: float | None, unit: str) -> str:
    if number is None:
        return f"{'-':>8}"
    return f"{number:8.3f}" if unit in ("relative", "number") else f"{number:8.1f}"
