"""Trained models that come with Rizbin: each a folder here with its weights and a card that says where they come from.

A name from here stands wherever a run or a folder may: `rizbin evaluate detailclip-mini`. How each was made, and the
command that makes it again, is `rizbin/workflows/bundled_models.py`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rizbin.core.bounded import read_json
from rizbin.core.errors import RizbinError

CARD = "card.json"
_PARTS = ("value", "random", "chance")
_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model is and what its numbers were; made when it was trained, never by hand."""

    name: str
    """Under which it is loaded."""
    is_a: str
    """One sentence for a person who looks for a model."""
    recipe: str
    """The command that makes it again."""
    method: str
    """What trained it."""
    data: str
    """What it was trained on, as `--data` takes it."""
    categories: int
    """How many names those images had; 0 where they had captions only."""
    seed: int
    """Seed of weights, order and every other draw."""
    steps: int
    """Updates made."""
    pictures: int
    """Images seen."""
    minutes: float
    """Minutes of training on the machine named here."""
    environment: dict[str, Any]
    """Machine, threads, versions and commit, as `rizbin.core.environment` gives them."""
    date: str
    """When it was finished, ISO 8601."""
    megabytes: float
    """Size of all its files together."""
    licence: str
    """Licence of the weights and of what they were trained on."""
    figures: dict[str, dict[str, dict[str, float | None]]]
    """Data measured on -> measurement -> value, random weights (the same network), chance; the weights measured are the
    16-bit ones that ship."""

    def text(self) -> str:
        """The card for a person to read."""
        machine = ", ".join(f"{name} {self.environment.get(name)}" for name in ("cpu", "threads", "torch", "commit"))
        lines = [
            f"{self.name}: {self.is_a}",
            "",
            f"made by    {self.recipe}",
            f"method     {self.method}, seed {self.seed}, {self.steps:,} steps, {self.pictures:,} images",
            f"data       {self.data} ({self.categories} categories)",
            f"took       {self.minutes:.0f} minutes ({machine}), {self.date}",
            f"size       {self.megabytes:.1f} MB",
            f"licence    {self.licence}",
        ]
        for data, numbers in self.figures.items():
            width = max(len(name) for name in numbers)
            lines += ["", f"{data:{width}}  {'value':>8}  {'random':>8}  {'chance':>8}"]
            for name, values in numbers.items():
                lines.append(f"{name:{width}}  {'  '.join(_shown(values[part], values['value']) for part in _PARTS)}")
        return "\n".join(lines)


def _shown(value: float | None, beside: float | None) -> str:
    """Percent with one digit; correlations and errors, which stay within 1, with three."""
    if value is None:
        return f"{'-':>8}"
    return f"{value:8.3f}" if beside is not None and 0 < abs(beside) < 1 else f"{value:8.1f}"


def names() -> tuple[str, ...]:
    """Every model that came with this installation."""
    return tuple(sorted(card.parent.name for card in _HERE.glob(f"*/{CARD}")))


def folder_of(name: str) -> Path:
    """Where a model's files are. Raises RizbinError when there is no such model."""
    if name not in names():
        raise RizbinError(f"There is no model {name!r} in the zoo; there are {', '.join(names()) or 'none'}.")
    return _HERE / name


def card_of(name: str) -> Card:
    """What a model's card says."""
    path = folder_of(name) / CARD
    try:
        return Card(**read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise RizbinError(f"The card {path} cannot be read ({error}); install Rizbin again.") from error


def write_card(card: Card, folder: Path) -> None:
    """Puts the card beside the weights."""
    (folder / CARD).write_text(json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
