"""Results of jobs, readable at a prompt: rows as dicts, as a pandas table, as HTML in a notebook."""

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from csv import DictWriter
from html import escape
from importlib import import_module
from typing import Any

from rizbin.core.errors import RizbinError

Row = Mapping[str, Any]
_MOST_SHOWN = 200
"""Rows that a notebook shows."""


class Table(ABC):
    """A result that is a table of rows."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """One dict a row, all with the same keys, of plain values."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, ready for JSON."""
        return {"rows": self.rows()}

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame. Raises RizbinError where pandas is not installed."""
        return frame(self.rows())

    def _repr_html_(self) -> str:
        """The rows as an HTML table, for notebooks."""
        return html_table(self.rows())


def text_of(rows: Sequence[Row], ending: str) -> str:
    """Rows as the text of a file: ".csv", or ".json" with a list of objects. Raises RizbinError for another ending."""
    if ending == ".json":
        return json.dumps([dict(row) for row in rows], indent=1, ensure_ascii=False) + "\n"
    if ending != ".csv":
        raise RizbinError(f"A table is not written as {ending or 'a file without ending'}; give a .csv or .json.")
    held = io.StringIO()
    writer = DictWriter(held, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return held.getvalue()


def frame(rows: Sequence[Row]) -> Any:
    """Rows as a pandas DataFrame. Raises RizbinError where pandas is not installed."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise RizbinError("A table needs pandas, which is not installed: pip install pandas brings it.") from error
    return pandas.DataFrame.from_records(list(rows))


def html_table(rows: Sequence[Row]) -> str:
    """Rows as an HTML table, numbers with four digits, the first `_MOST_SHOWN` of many."""
    if not rows:
        return "<p>no rows</p>"
    heads = "".join(f"<th>{escape(str(name))}</th>" for name in rows[0])
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_shown(value))}</td>' for value in row.values())}</tr>"
        for row in rows[:_MOST_SHOWN]
    )
    more = f"<p>and {len(rows) - _MOST_SHOWN} more rows</p>" if len(rows) > _MOST_SHOWN else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{more}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
