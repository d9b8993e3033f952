"""The course: its questions in a list, and each of them answered at a small size within minutes, ending in its page."""

import textwrap
import webbrowser
from dataclasses import KW_ONLY, dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

from rizbin.core.commands import Argument, Place, job
from rizbin.core.errors import RizbinError
from rizbin.studies import course

MOST = 10.0
"""Minutes on two cores within which a small size has to end; less is planned, since measuring takes longer at times."""


@dataclass(frozen=True)
class Learn:
    """Answer a question of a course on deep learning by a small experiment, or list the questions."""

    name: Annotated[str, Argument(positional=True, metavar="NAME")] = ""
    """Which question: byol-collapse. None: list them all."""
    _: KW_ONLY
    minutes: float = 8.0
    """How long it may take on two cores; what trains takes as many steps as fit."""
    open: bool = False
    """Show the page in the browser."""
    run: Place | None = None
    """Folder of the experiment, which also holds the page. None: runs/learn-NAME. The same command goes on there."""
    language: Literal["en", "fa"] = "en"
    """Language of the list: English or Persian."""
    quiet: bool = False
    """Show no progress bar."""


@job(Learn)
def learn(settings: Learn) -> Path | str:
    """Answers a question of the course at a small size and returns its page; without a name the list of questions."""
    if not settings.name:
        return listed(settings.language)
    if settings.minutes <= 0:
        raise RizbinError(f"{settings.minutes:g} minutes are too few; give 8, or what there is.")
    lesson = course.find(settings.name)
    folder = Path(settings.run or f"runs/learn-{lesson.name}")
    # Imported when it is run: the list needs no torch.
    small = getattr(import_module("rizbin.studies.small"), lesson.job)
    page: Path = small(folder, settings.minutes, settings.quiet, _says(lesson), **lesson.settings)
    if settings.open:
        webbrowser.open(page.resolve().as_uri())
    return page


def _says(lesson: course.Lesson) -> str:
    """The sentence of a small size's page."""
    how = f": {lesson.small}" if lesson.small else ""
    return f"this is a small size, which answers within minutes{how}. The whole study is `{lesson.command}`."


def listed(language: Literal["en", "fa"] = "en") -> str:
    """All questions, by group."""
    lines = []
    for group in course.groups():
        lines += ["", f"{group.number}. {getattr(group.title, language)}"]
        for lesson in group.lessons:
            lines += _entry(lesson, language)
    named = {lesson.name for group in course.groups() for lesson in group.lessons}
    others = [lesson for lesson in course.lessons() if lesson.name not in named]
    if others:
        lines += ["", "Also asked" if language == "en" else "پرسش‌های دیگر"]
        for lesson in others:
            lines += _entry(lesson, language)
    ends = {
        "en": "`rizbin learn NAME` answers one within minutes and ends in its page; docs/questions.md has the answers.",
        "fa": "دستور rizbin learn NAME به یکی از آن‌ها در چند دقیقه پاسخ می‌دهد؛ پاسخ‌ها در docs/questions.fa.md است.",
    }
    return "\n".join([*lines[1:], "", ends[language]])


def _entry(lesson: course.Lesson, language: Literal["en", "fa"]) -> list[str]:
    question = getattr(lesson.question, language)
    return textwrap.wrap(f"   {lesson.name:<18}{question}", 100, subsequent_indent=" " * 21)
