"""What an evaluation gives: numbers that say how they were made and what they stand beside."""

import json
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number with its protocol and the numbers it must be read against."""

    name: str
    """A stable path: "zero_shot/top1"."""
    value: float
    """In `unit`."""
    protocol: str
    """One sentence that says exactly how the value came about, made from the settings used."""
    unit: Literal["percent", "rank", "relative", "number"] = "percent"
    """Percent is 0 to 100, a rank starts at 1, a relative error is 0 when perfect; a number is what its protocol
    says."""
    higher_is_better: bool = True
    baseline: float | None = None
    """The same for the same network with random weights; None where it was not or cannot be measured."""
    chance: float | None = None
    """The exact expectation of guessing, or of a simple rule where the protocol names one; None where unknown."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The measurements of one network on one source."""

    measurements: tuple[Measurement, ...]
    left_out: tuple[tuple[str, str], ...]
    """(what was not measured, why not in a sentence)."""
    images: int
    """Pictures of the source that were measured on."""
    source: str
    """The source's name."""
    refused: tuple[tuple[str, str], ...] = ()
    """(key or index, reason) of pictures that could not be used; others took their place where there were others."""

    def __getitem__(self, name: str) -> Measurement:
        """The measurement called `name`; KeyError when it was left out."""
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(measurement.name == name for measurement in self.measurements)

    def to_json(self) -> str:
        """Everything as JSON text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def table(self, *, protocols: bool = False) -> str:
        """A plain-text table; with `protocols`, each number's sentence under it."""
        width = max([len(m.name) for m in self.measurements], default=4)
        lines = [f"{'':{width}}  {'value':>8}  {'random':>8}  {'chance':>8}"]
        for m in self.measurements:
            numbers = "  ".join(_shown(number, m.unit) for number in (m.value, m.baseline, m.chance))
            lines.append(f"{m.name:{width}}  {numbers}")
            if protocols:
                lines.append(f"    {m.protocol}")
        lines += [f"{name}: not measured. {reason}" for name, reason in self.left_out]
        return "\n".join(lines)


def _shown(number: float | None, unit: str) -> str:
    if number is None:
        return f"{'-':>8}"
    return f"{number:8.3f}" if unit in ("relative", "number") else f"{number:8.1f}"
