"""The questions of a course on deep learning that Rizbin answers by experiment: one file a group, discovered.

Each file defines a `GROUP`. A question of `rizbin/studies/questions` that no lesson names is a lesson by itself, so
that a new question appears without another file. Nothing here imports torch: the list is there at once.
"""

import ast
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rizbin.core.errors import RizbinError


@dataclass(frozen=True)
class Bilingual:
    """The same words in English and in Persian."""

    en: str
    fa: str


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A question, why one asks it, and what shows it."""

    name: str
    """The NAME that `rizbin learn NAME` takes."""
    question: Bilingual
    reason: Bilingual
    """Two sentences: the mechanism that is asked about."""
    command: str
    """What answers it at its whole size."""
    page: str = ""
    """File in docs/studies that answers it; empty: none is shipped."""
    number: Bilingual = Bilingual("", "")
    """What the page says; its figures stand there word for word, which a test holds."""
    verdict: str = ""
    """That of the shipped page: one of `rizbin.studies.verdict.KINDS`."""
    job: str = "study"
    """Function of `rizbin.studies.small` that answers it at a small size."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What that function is given."""
    small: str = ""
    """How the small size is smaller, for its page: "two of 18 variants"."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Questions that belong together, and the notebook in which they are tried."""

    number: int
    """Place in the course, from 1."""
    title: Bilingual
    notebook: str
    """File in docs/notebooks."""
    lessons: tuple[Lesson, ...]


def groups() -> list[Group]:
    """All groups, in the order of the course."""
    files = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return sorted(
        (importlib.import_module(f"{__name__}.{name}").GROUP for name in files), key=lambda group: group.number
    )


def lessons() -> list[Lesson]:
    """All lessons in the order of the course, then questions that no lesson names."""
    listed = [lesson for group in groups() for lesson in group.lessons]
    return [*listed, *_others(listed)]


def find(name: str) -> Lesson:
    """The lesson of that name. Raises RizbinError when there is none."""
    known = {lesson.name: lesson for lesson in lessons()}
    if name not in known:
        raise RizbinError(f"There is no question {name!r} in the course; there are {', '.join(known)}.")
    return known[name]


_PERSIAN = {
    "batches": "SimCLR و BYOL چقدر به اندازهٔ دسته وابسته‌اند؟",
    "crops": "برش‌های کوچک به چه کار می‌آیند و آیا باید یکدیگر را برانند؟",
}
"""Questions that no lesson names, in Persian; of a newer one the English words stand."""


def _others(listed: list[Lesson]) -> list[Lesson]:
    """Lessons of questions that were written since: their files are asked for their question alone."""
    named = {lesson.settings.get("study") for lesson in listed}
    return [
        Lesson(
            name=name,
            question=Bilingual(question, _PERSIAN.get(name, question)),
            reason=Bilingual("", ""),
            command=f"rizbin study {name} --seeds 3 --precision bf16",
            page=f"{name}.html",
            settings={"study": name},
            small="all variants, as few steps as the minutes allow",
        )
        for name, question in _asked().items()
        if name not in named
    ]


def _asked() -> dict[str, str]:
    """Every file of `rizbin/studies/questions` with the question of its `STUDY`, read without importing it."""
    places = {}
    for path in sorted((Path(__file__).parent.parent / "questions").glob("[a-z]*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Study":
                words = [word.value for word in node.keywords if word.arg == "question"]
                places[path.stem] = str(words[0].value) if words and isinstance(words[0], ast.Constant) else path.stem
    return places
