"""Writes the tables of methods into README.md and docs/methods.md, from the methods' own files.

    make docs

A table stands between `<!-- make docs: NAME -->` and `<!-- end -->`. Its rows are the methods of `rizbin/methods`: what
one is comes from the first line of its docstring, its paper from `arxiv`, its presets from `presets()`. A method that
has no section of its own in docs/methods.md gets one, made of its docstring. A test fails where a page is not as this
writes it.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rizbin import methods
from rizbin.training.method import Method
from rizbin.training.settings import ImageTextSettings, Training

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/methods.md")
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


TABLES: dict[str, Callable[[str], str]] = {
    "methods": methods_table,
    "captions": lambda _: table_of(captions=True),
    "images": lambda _: table_of(captions=False),
    "presets": presets_table,
    "sections": sections,
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
