"""Writes what is made from the code: tables of methods, from their own files, and the course's questions with answers.

    make docs

Each stands between `<!-- make docs: NAME -->` and `<!-- end -->`. The rows of tables are the methods of
`rizbin/methods`: what one is comes from the first line of its docstring, its paper from `arxiv`, its presets from
`presets()`. A method that has no section of its own in docs/methods.md gets one, made of its docstring. Questions are
those of `rizbin/studies/course`, their verdicts those of the pages in docs/studies where these carry one. A test fails
where a page is not as this writes it.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rizbin import methods
from rizbin.studies import course
from rizbin.training.method import Method
from rizbin.training.settings import ImageTextSettings, Training

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/methods.md", "docs/questions.md", "docs/questions.fa.md")
MARKED = re.compile(r"(<!-- make docs: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def docstring(method: type[Method]) -> str:
    """That of the method's file."""
    return inspect.getdoc(sys.modules[method.__module__]) or ""


def reads_captions(method: type[Method]) -> bool:
    return issubclass(method.Settings, ImageTextSettings)


def all_methods() -> list[type[Method]]:
    return [methods.find(name) for name in methods.names()]


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(cells)} |\n" for cells in (head, *rows)]
    return "".join([lines[0], "|" + "---|" * len(head) + "\n", *lines[1:]])


def paper(method: type[Method]) -> str:
    return f"[arXiv {method.arxiv}](https://arxiv.org/abs/{method.arxiv})"


def what_it_is(method: type[Method]) -> str:
    return docstring(method).split("\n", 1)[0]


def methods_table(_: str) -> str:
    """All methods, those that read captions first."""
    chosen = sorted(all_methods(), key=lambda method: (not reads_captions(method), method.name))
    rows = (
        (f"`{method.name}`", what_it_is(method), "yes" if reads_captions(method) else "no", paper(method))
        for method in chosen
    )
    return table(("method", "what it is", "captions", "paper"), rows)


def table_of(captions: bool) -> str:
    rows = (
        (f"`{method.name}`", what_it_is(method), paper(method), ", ".join(f"`{name}`" for name in method.presets()))
        for method in all_methods()
        if reads_captions(method) == captions
    )
    return table(("method", "what it is", "paper", "presets"), rows)


def presets_table(_: str) -> str:
    """How each preset trains, methods whose rows are equal in one."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for method in all_methods():
        for name, training in method.presets().items():
            rows.setdefault((f"`{name}`", *facts(training)), []).append(method.name)
    # In the order of the methods that have most of them.
    most = sorted(all_methods(), key=lambda method: -len(method.presets()))
    order = list(dict.fromkeys(name for method in most for name in method.presets()))
    rows = dict(sorted(rows.items(), key=lambda row: order.index(row[0][0].strip("`"))))
    head = ("preset", "methods", "network", "data", "batch", "steps", "optimizer", "learning rate", "weight decay")
    return table(head, ((key[0], ", ".join(names), *key[1:]) for key, names in rows.items()))


def facts(training: Training[Any]) -> tuple[str, ...]:
    """Of one preset: network, data, batch, steps, optimizer, learning rate, weight decay."""
    settings, trainer = training.settings, training.trainer
    vision = settings.pair.vision if isinstance(settings, ImageTextSettings) else settings.encoder
    decay = f"{trainer.weight_decay:g}"
    if trainer.weight_decay_growth != 1:
        decay += f" to {trainer.weight_decay * trainer.weight_decay_growth:g}"
    return (
        f"{vision.name}, {settings.image_size} px",
        f"`{training.data}`",
        f"{training.batch:,}",
        f"{training.steps:,}",
        trainer.optimizer,
        f"{trainer.learning_rate:g}",
        decay,
    )


def as_markdown(text: str) -> str:
    """With an empty line before and after what is indented, which is then a block of code: the equations."""
    text = re.sub(r"^(\S.*)\n(?=    )", r"\1\n\n", text, flags=re.MULTILINE)
    return re.sub(r"^(    .*)\n(?=\S)", r"\1\n\n", text, flags=re.MULTILINE)


def sections(page: str) -> str:
    """A section for each method that has none written by hand."""
    by_hand = set(re.findall(r"^## (\w+)$", MARKED.sub("", page), re.MULTILINE))
    missing = [method for method in all_methods() if method.name not in by_hand]
    texts = [f"## {method.name}\n\n{as_markdown(docstring(method))}\n" for method in missing]
    return "\n".join(texts)


VERDICTS_FA = {
    "shown": "نشان داده شد",
    "refuted here": "در این‌جا رد شد",
    "not testable here": "در این‌جا آزمودنی نیست",
}
PERSIAN = str.maketrans("0123456789.", "۰۱۲۳۴۵۶۷۸۹٫")
TAGGED = re.compile(r'<p class="verdict[^"]*" data-verdict="([^"]+)"')


def verdict_of(lesson: course.Lesson) -> tuple[str, bool]:
    """The verdict of a lesson's page, and whether the page carries it; else what the lesson read in its sentences.

    A page that answers several lessons has one verdict over all of them, which is none of theirs.
    """
    page = ROOT / "docs/studies" / lesson.page
    alone = sum(other.page == lesson.page for other in course.lessons()) == 1
    tag = TAGGED.search(page.read_text(encoding="utf-8")) if alone and lesson.page and page.is_file() else None
    return (tag[1], True) if tag else (lesson.verdict, False)


def in_persian(text: str) -> str:
    """With Persian digits and a true minus, the sign on the left of its number as in formulas; names keep theirs."""

    def number(match: re.Match[str]) -> str:
        sign = {"-": "\N{MINUS SIGN}", "+": "+", "": ""}[match[1]]
        mark = "\N{LEFT-TO-RIGHT MARK}" if sign else ""
        return f"{mark}{sign}{match[2].translate(PERSIAN)}{mark}"

    parts = text.split("`")  # commands keep theirs
    parts[::2] = [re.sub(r"(?<![\w.])([-+]?)(\d+(?:\.\d+)?)(?![\w])", number, part) for part in parts[::2]]
    return "`".join(parts)


def questions(_: str) -> str:
    """Every question of the course with its answer."""
    lines = []
    for group in course.groups():
        lines.append(f"\n## {group.number}. {group.title.en}\n")
        for lesson in group.lessons:
            verdict, computed = verdict_of(lesson)
            source = "" if computed else " (read from the sentences of its page)"
            lines += [
                f"### {lesson.question.en}\n",
                f"{lesson.reason.en}\n",
                f"**{verdict.capitalize()}**{source}. {lesson.number.en}\n",
                f"- In minutes: `rizbin learn {lesson.name}`",
                f"- Whole: `{lesson.command}`",
                f"- Page: [{lesson.page}](studies/{lesson.page})\n",
            ]
        lines.append(f"Notebook: [{group.notebook}](notebooks/{group.notebook})")
    others = unnamed()
    lines += ["\n## Also asked\n"] if others else []
    for lesson in others:
        verdict, computed = verdict_of(lesson)
        says = f" **{verdict.capitalize()}**, says [its page](studies/{lesson.page})." if computed else ""
        lines.append(f"- {lesson.question.en} `rizbin learn {lesson.name}`, or `{lesson.command}`.{says}")
    return "\n".join(lines).lstrip("\n") + "\n"


def unnamed() -> list[course.Lesson]:
    """Questions that no group of the course names."""
    named = {lesson.name for group in course.groups() for lesson in group.lessons}
    return [lesson for lesson in course.lessons() if lesson.name not in named]


def questions_fa(_: str) -> str:
    """The same in Persian, written from right to left."""
    lines = []
    for group in course.groups():
        lines.append(f"\n## {in_persian(str(group.number))}. {group.title.fa}\n")
        for lesson in group.lessons:
            verdict, computed = verdict_of(lesson)
            source = "" if computed else " (برگرفته از جمله‌های صفحهٔ آن)"
            lines += [
                f"### {lesson.question.fa}\n",
                f"{in_persian(lesson.reason.fa)}\n",
                f"**{VERDICTS_FA[verdict]}**{source}. {in_persian(lesson.number.fa)}\n",
                f"- در چند دقیقه: `rizbin learn {lesson.name}`",
                f"- کامل: `{lesson.command}`",
                f"- صفحه: [{lesson.page}](studies/{lesson.page})\n",
            ]
        lines.append(f"دفترچه: [{group.notebook}](notebooks/{group.notebook})")
    others = unnamed()
    lines += ["\n## پرسش‌های دیگر\n"] if others else []
    for lesson in others:
        verdict, computed = verdict_of(lesson)
        says = f" **{VERDICTS_FA[verdict]}**، به گفتهٔ [صفحهٔ آن](studies/{lesson.page})." if computed else ""
        lines.append(f"- {lesson.question.fa} `rizbin learn {lesson.name}` یا `{lesson.command}`.{says}")
    return "\n".join(lines).lstrip("\n") + "\n"


TABLES: dict[str, Callable[[str], str]] = {
    "methods": methods_table,
    "captions": lambda _: table_of(captions=True),
    "images": lambda _: table_of(captions=False),
    "presets": presets_table,
    "sections": sections,
    "questions": questions,
    "questions_fa": questions_fa,
}


def written(page: str) -> str:
    """The text of a page with its tables as the methods give them."""
    return MARKED.sub(lambda marked: marked[1] + TABLES[marked[2]](page) + marked[3], page)


def main() -> None:
    for name in PAGES:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = written(before)
        path.write_text(after, encoding="utf-8")
        print(f"{name}: {'as it was' if after == before else 'written'}")


if __name__ == "__main__":
    main()
