"""What a study found, as one of three words that code chooses from the numbers, with its reason and its check."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rizbin.core import outputs
from rizbin.pages.page import Page

Kind = Literal["shown", "refuted here", "not testable here"]
SHOWN: Kind = "shown"
REFUTED: Kind = "refuted here"
NOT_TESTABLE: Kind = "not testable here"
KINDS: tuple[Kind, ...] = (SHOWN, REFUTED, NOT_TESTABLE)
_TONES: dict[str, Literal["yes", "no", "open"]] = {SHOWN: "yes", REFUTED: "no", NOT_TESTABLE: "open"}


@dataclass(frozen=True)
class StudyVerdict:
    """The answer of a study."""

    kind: Kind
    """shown: the claim holds beyond chance, by a treatment that arrived. refuted here: it does not hold, where it could
    have been seen. not testable here: the treatment did not arrive, or nothing was learned that it could change."""
    reason: str
    """The first sentence of the page: the numbers that decide, and for what is not testable, why."""
    delivered: str
    """Whether the treatment arrived, with the number that says so, as a sentence."""
    sentences: tuple[str, ...] = ()
    """What else follows from the numbers."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no verdict; there are {', '.join(KINDS)}.")
        if not self.reason or not self.delivered:
            raise ValueError("A verdict needs its reason and the check of its treatment.")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: verdict, reason, delivered, sentences."""
        plain = asdict(self)
        return {"verdict": plain.pop("kind"), **plain, "sentences": list(self.sentences)}

    def show(self, page: Page, *, small: str = "") -> None:
        """Adds it to a page as what is read first. small: says that the study ran at a small size."""
        page.verdict(self.kind, _TONES[self.kind], self.reason)
        if small:
            page.warning(small)
        page.text(self.delivered)
        for sentence in self.sentences:
            page.text(sentence)


def publish(page: Page, verdict: StudyVerdict, target: Path, *, small: str = "") -> Path:
    """Writes the page, and beside it a JSON file of the same name with question and verdict; returns the page's path.

    Raises RizbinError when they cannot be written.
    """
    written = page.write(target)
    record = {"question": page.title, **verdict.to_dict(), "small": small}
    outputs.write(written.with_suffix(".json"), json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return written
