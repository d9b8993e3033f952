"""Draws docs/architecture.svg: the floors of the package with their rooms, from the import rules in pyproject.toml.

    make docs

The first sentence of each room is the docstring of its `__init__.py`. A test fails where the picture is stale.
"""

import ast
import re
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIAGRAM = ROOT / "docs/architecture.svg"
WIDTH, ROW, LINE, GAP = 1000, 26, 17, 10
"""Of the picture, pixels: its width, a room's name, a line of its sentence, the space between floors."""


def floors() -> list[list[str]]:
    """The rooms of each floor, top to bottom, as the import rules have them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(rule["layers"] for rule in project["tool"]["importlinter"]["contracts"] if rule["type"] == "layers")
    return [[re.sub(r"[()\s]", "", room) for room in layer.split("|")] for layer in layers]


def sentence(room: str) -> str:
    """What a room is, in its own words."""
    folder, file = ROOT / "rizbin" / room / "__init__.py", ROOT / "rizbin" / f"{room}.py"
    text = ast.get_docstring(ast.parse((folder if folder.is_file() else file).read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n", 1)[0].split()).split(". ", 1)[0].rstrip(".")


def diagram() -> str:
    """The whole SVG."""
    parts, top = [], GAP
    for rooms in floors():
        columns = min(len(rooms), 3)
        wide = (WIDTH - GAP * (columns + 1)) // columns
        rows = [rooms[start : start + columns] for start in range(0, len(rooms), columns)]
        for row in rows:
            texts = [textwrap.wrap(sentence(room), int(wide / 6.7)) for room in row]
            high = ROW + LINE * max(map(len, texts)) + 8
            for place, (room, lines) in enumerate(zip(row, texts, strict=True)):
                left = GAP + place * (wide + GAP)
                parts.append(f'<rect class="room" x="{left}" y="{top}" width="{wide}" height="{high}" rx="4"/>')
                parts.append(f'<text class="name" x="{left + 10}" y="{top + 19}">{escape(room)}</text>')
                parts += [
                    f'<text x="{left + 10}" y="{top + ROW + 11 + LINE * number}">{escape(line)}</text>'
                    for number, line in enumerate(lines)
                ]
            top += high + GAP
    style = (
        "text{font:12px system-ui,sans-serif;fill:#222}.name{font:600 14px ui-monospace,monospace}"
        ".room{fill:#f4f6fa;stroke:#8a94a6}rect.ground{fill:#fff}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">'
    ground = f'<rect class="ground" width="{WIDTH}" height="{top}"/>'
    return "\n".join([head, f"<style>{style}</style>", ground, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    DIAGRAM.write_text(diagram(), encoding="utf-8")
