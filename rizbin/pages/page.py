"""Report pages: a plain sequence of calls makes one HTML file that opens anywhere, without network or script.

```python
page = Page("What it learned")
page.heading("Curves")
page.curves("Loss", [Series(name="loss", x=steps, y=losses)])
page.write(Path("report.html"))
```

All text is escaped. The page asks nobody for anything: style and images are inside the file, and its content
security policy allows nothing else. The small script adds comfort (values under the pointer, sorting, enlarging) and
is not needed to read the page.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from rizbin.core import outputs
from rizbin.core.errors import RizbinError
from rizbin.pages.charts import COLORS, Mark, Series, clean, line_chart
from rizbin.pages.pieces import (
    BarCell,
    Cell,
    Fact,
    Number,
    PageImage,
    Part,
    Score,
    Swatch,
    cell_html,
    figure_html,
    legend_html,
    parts_html,
    scores_html,
)

MOST_COLUMNS = 9
"""Most columns of one table: at 1,200 pixels, without a scroll bar, each then has the 100 that "12.3 ± 4.5" and a
heading take."""


@cache
def _asset(name: str) -> str:
    """A file that lies beside this one, as it goes into the page."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The text's name in a content security policy."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


class Page:
    """A page under construction: each call adds what comes next."""

    def __init__(self, title: str, *, subtitle: str = "", language: str = "en"):
        """Starts a page.

        Args:
            title: The first line and the name of the browser's tab.
            subtitle: A quiet line under it: what, when, where.
            language: Of the text, as in BCP 47: "en".
        """
        self.title, self.subtitle, self.language = title, subtitle, language
        self._blocks: list[tuple[str, str]] = []
        self._sections: list[str] = []
        self._credits: list[str] = []

    def _add(self, html: str, kind: str = "") -> None:
        self._blocks.append((kind, html))

    def heading(self, text: str, *, level: int = 2) -> None:
        """Opens a section (level 2, listed at the top of the page) or a part of one (level 3)."""
        if level == 2:
            self._sections.append(text)
            self._add(f'<h2 id="s{len(self._sections)}">{clean(text)}</h2>')
        else:
            self._add(f"<h3>{clean(text)}</h3>")

    def text(self, *parts: Part) -> None:
        """Adds a paragraph."""
        self._add(f'<p dir="auto">{parts_html(parts)}</p>')

    def lead(self, *parts: Part) -> None:
        """Adds the paragraph that says it all, in larger type."""
        self._add(f'<p class="lead">{parts_html(parts)}</p>')

    def verdict(self, tag: str, tone: Literal["yes", "no", "open"], *parts: Part) -> None:
        """Adds the answer to the page's question: a tag of few words, told apart by sign and color, and the reason."""
        sign = {"yes": "✓", "no": "✗", "open": "?"}[tone]
        self._add(
            f'<p class="verdict tone-{tone}" data-verdict="{clean(tag)}"><strong><span aria-hidden="true">{sign}</span>'
            f" {clean(tag)}</strong> {parts_html(parts)}</p>"
        )

    def note(self, *parts: Part) -> None:
        """Adds a paragraph that is set apart: how to read something."""
        self._add(f'<p class="note">{parts_html(parts)}</p>')

    def warning(self, *parts: Part) -> None:
        """Adds a paragraph that should not be missed."""
        self._add(f'<p class="warning"><strong>Note well:</strong> {parts_html(parts)}</p>')

    def facts(self, facts: Sequence[Fact]) -> None:
        """Adds a row of big numbers."""
        tiles = "".join(
            f"<div><dt>{clean(fact.label)}</dt><dd><b>{clean(fact.value)}</b>"
            + (f"<small>{clean(fact.detail)}</small></dd></div>" if fact.detail else "</dd></div>")
            for fact in facts
        )
        if facts:
            self._add(f'<dl class="facts">{tiles}</dl>')

    def explained(self, entries: Sequence[tuple[str, str]]) -> None:
        """Adds a list of names, each with a sentence."""
        rows = "".join(f"<div><dt>{clean(name)}</dt><dd>{clean(text)}</dd></div>" for name, text in entries)
        if entries:
            self._add(f'<dl class="explained">{rows}</dl>')

    def details(self, summary: str, entries: Sequence[tuple[str, str]]) -> None:
        """Adds a list of names with sentences that opens on a click."""
        rows = "".join(f"<div><dt>{clean(name)}</dt><dd>{clean(text)}</dd></div>" for name, text in entries)
        self._add(f'<details><summary>{clean(summary)}</summary><dl class="explained">{rows}</dl></details>')

    def curves(
        self,
        title: str,
        series: Sequence[Series],
        *,
        log: bool = False,
        marks: Sequence[Mark] = (),
        x_label: str = "step",
    ) -> None:
        """Adds a chart with its legend. Charts that follow each other stand side by side where there is room."""
        keys = "".join(
            f'<li><svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">'
            f'<line class="line s{index % COLORS}" x1="0" x2="10" y1="5" y2="5"/></svg>{clean(line.name)}</li>'
            for index, line in enumerate(series)
        )
        legend = f'<ul class="legend">{keys}</ul>' if len(series) > 1 else ""
        chart = line_chart(series, title=title, log=log, marks=marks, x_label=x_label)
        scale = " <small>logarithmic</small>" if log else ""
        self._add(f"<figure><figcaption>{clean(title)}{scale}</figcaption>{chart}{legend}</figure>", "charts")

    def table(
        self,
        columns: Sequence[str],
        groups: Sequence[tuple[str, Sequence[Sequence[Cell]]]],
        *,
        caption: str = "",
        legend: Sequence[str] = (),
    ) -> None:
        """Adds a table; on a narrow screen each row becomes a card.

        One with more columns than fit on a page comes as several under each other, each with the first column.

        Args:
            columns: Their names. A click on one sorts within the groups where scripts run.
            groups: (heading, rows); an empty heading draws none. Rows have as many cells as there are columns.
            caption: Above the table.
            legend: What the ticks of the rows' bars stand for, in the order of `BarCell.ticks`.
        """
        rows = [row for _, members in groups for row in members]
        for row in rows:
            if len(row) != len(columns):
                raise RizbinError(f"A row of {len(row)} cells does not fit a table of {len(columns)} columns.")
        if len(columns) > MOST_COLUMNS:
            self._in_parts(columns, groups, caption, legend)
            return
        head = ""
        for index, column in enumerate(columns):
            kinds = {type(row[index]) for row in rows}
            kind = "bars" if BarCell in kinds else "number" if kinds and kinds <= {int, float, Number} else ""
            head += f'<th scope="col" class="{kind}">{clean(column)}</th>'
        body = ""
        for heading, members in groups:
            body += "<tbody>"
            if heading:
                body += f'<tr><th class="group" scope="rowgroup" colspan="{len(columns)}">{clean(heading)}</th></tr>'
            for row in members:
                cells = (cell_html(cell, column) for cell, column in zip(row, columns, strict=True))
                body += f"<tr>{''.join(cells)}</tr>"
            body += "</tbody>"
        keys = "".join(
            f'<li><svg class="swatch bar" viewBox="0 0 10 14" aria-hidden="true">'
            f'<line class="t{index}" x1="5" x2="5" y1="0" y2="14"/></svg>{clean(name)}</li>'
            for index, name in enumerate(legend)
        )
        title = f"<caption>{clean(caption)}</caption>" if caption else ""
        below = f'<ul class="legend">{keys}</ul>' if keys else ""
        self._add(
            f'<div class="table" role="region" aria-label="{clean(caption or "Table")}" tabindex="0"><table>{title}'
            f"<thead><tr>{head}</tr></thead>{body}</table></div>{below}"
        )

    def _in_parts(
        self,
        columns: Sequence[str],
        groups: Sequence[tuple[str, Sequence[Sequence[Cell]]]],
        caption: str,
        legend: Sequence[str],
    ) -> None:
        """Adds a wide table as several of equally many columns, the first one in all of them."""
        others = len(columns) - 1
        parts = -(-others // (MOST_COLUMNS - 1))
        edges = [1 + others * part // parts for part in range(parts + 1)]
        for number, (start, stop) in enumerate(pairwise(edges), 1):
            some = [(heading, [[row[0], *row[start:stop]] for row in members]) for heading, members in groups]
            title = f"{caption or columns[0]} ({number} of {parts})"
            keys = legend if any(isinstance(cell, BarCell) for _, rows in some for row in rows for cell in row) else ()
            self.table([columns[0], *columns[start:stop]], some, caption=title, legend=keys)

    def pictures(self, images: Sequence[PageImage]) -> None:
        """Adds images side by side, as many in a row as fit."""
        if images:
            self._add(f'<div class="pictures">{"".join(map(figure_html, images))}</div>')

    def drawing(self, svg: str) -> None:
        """Adds a drawing, SVG text whose words are escaped and which says by `aria-label` what it shows."""
        self._add(f'<figure class="drawing">{svg}</figure>')

    def steps(self, frames: Sequence[tuple[str, Sequence[PageImage]]]) -> None:
        """Adds (words, images) of each step of something, one at a time behind a slider; all where no script runs."""
        shown = "".join(
            f'<div class="step"><h4>{clean(words)}</h4>'
            f'<div class="pictures">{"".join(map(figure_html, images))}</div></div>'
            for words, images in frames
        )
        if frames:
            self._add(f'<section class="steps card">{shown}</section>')

    def sheets(self, images: Sequence[PageImage]) -> None:
        """Adds images one under the other, each at its own width up to the page's: contact sheets, strips."""
        if images:
            self._add(f'<div class="sheets">{"".join(map(figure_html, images))}</div>')

    def card(
        self,
        title: str,
        images: Sequence[PageImage],
        *,
        small: str = "",
        legend: Sequence[Swatch] = (),
        scores: Sequence[Score] = (),
    ) -> None:
        """Adds one case: its title, images side by side, a legend of colors and a small ranking."""
        quiet = f"<small>{clean(small)}</small>" if small else ""
        top = f'<div><h4 dir="auto">{clean(title)}{quiet}</h4>{legend_html(legend)}</div>'
        self._add(
            f'<article class="card"><div class="top">{top}'
            f'{scores_html(scores)}</div><div class="pictures">{"".join(map(figure_html, images))}</div></article>'
        )

    def credits(self, *parts: Part) -> None:
        """Adds a line to the foot of the page."""
        self._credits.append(f"<p>{parts_html(parts)}</p>")

    def html(self) -> str:
        """The whole page."""
        style, script = _asset("page.css"), _asset("page.js")
        policy = (
            f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
            "base-uri 'none'; form-action 'none'"
        )
        body: list[str] = []
        for index, (kind, html) in enumerate(self._blocks):
            before = self._blocks[index - 1][0] if index else ""
            after = self._blocks[index + 1][0] if index + 1 < len(self._blocks) else ""
            body.append(f'<div class="{kind}">' if kind and kind != before else "")
            body.append(html)
            body.append("</div>" if kind and kind != after else "")
            body.append("\n")
        links = "".join(f'<a href="#s{i}">{clean(name)}</a>' for i, name in enumerate(self._sections, 1))
        nav = f'<nav aria-label="Sections">{links}</nav>' if len(self._sections) > 1 else ""
        subtitle = f"<p>{clean(self.subtitle)}</p>" if self.subtitle else ""
        footer = f"<footer>{''.join(self._credits)}</footer>" if self._credits else ""
        return (
            f'<!doctype html>\n<html lang="{clean(self.language)}">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
            f"<title>{clean(self.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
            f'<header><h1 dir="auto">{clean(self.title)}</h1>'
            f"{subtitle}</header>\n"
            f"{nav}\n"
            f"<main>\n{''.join(body)}</main>\n"
            f"{footer}\n"
            f"<script>{script}</script>\n</body>\n</html>\n"
        )

    def write(self, path: Path) -> Path:
        """Writes the page and returns its path; an older page there stays whole until the new one is.

        Where the path belongs to a file that Rizbin did not make, the page has another name (`rizbin.core.outputs`).

        Raises:
            RizbinError: The file cannot be written.
        """
        return outputs.write(path, self.html())
