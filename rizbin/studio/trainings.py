"""Runs as the page shows them, and where a job's results go."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rizbin.core.bounded import parse_json
from rizbin.core.commands import Command
from rizbin.core.runs import RunFolder
from rizbin.studio.places import NotHere, Places, is_plain_file, new_name, read_below
from rizbin.studio.stills import steps_shown

POINTS = 1500
"""Points of a curve that are sent: more than a screen has pixels."""


@dataclass(frozen=True)
class Where:
    """Where the results of a job go."""

    job: str
    """Name of its folder."""
    given: dict[str, Any] = field(default_factory=dict)
    """What the command is told of it."""
    run: str = ""
    """Name of the run that a training writes."""


def where(places: Places, command: Command, given: Mapping[str, Any], *, resume: Any = None) -> Where:
    """A place of its own for each job, by a generated name. `resume` names a run that is to go on."""
    name = new_name()
    family = command.name.partition(" ")[0]
    folder = places.jobs / name
    if family == "train":
        run = places.run(resume).name if resume else f"{command.name.partition(' ')[2]}-{name[:8]}"
        return Where(name, {"run": str(places.runs / run)}, run)
    if family == "study":
        return Where(name, {"output": str(folder / "study.html"), "run": str(folder / "runs")})
    if family == "detect":
        return Where(name, {"output": str(folder / "found.json"), "draw": str(folder / "drawn")})
    return Where(name, {"output": str(folder / "drawn")})


def list_runs(places: Places) -> list[dict[str, Any]]:
    """All runs of the folder, those that changed last first."""
    runs: list[dict[str, Any]] = []
    if not places.runs.is_dir():
        return runs
    for path in places.runs.iterdir():
        try:
            folder = places.run(path.name)
            settings = parse_json(read_below(folder, ["settings.json"], most=1 << 22))
        except (NotHere, ValueError):
            continue
        metrics = folder / "metrics.jsonl"
        changed = metrics.lstat().st_mtime if is_plain_file(metrics) else (folder / "settings.json").lstat().st_mtime
        finished = _object(folder, "finished.json")
        runs.append(
            {
                "name": path.name,
                "method": settings.get("method", "") if isinstance(settings, dict) else "",
                "data": settings.get("data", "") if isinstance(settings, dict) else "",
                "steps": settings.get("steps") if isinstance(settings, dict) else None,
                "finished": bool(finished),
                "report": is_plain_file(folder / "report.html"),
                "changed": changed,
                "age": round(time.time() - changed),
            }
        )
    return sorted(runs, key=lambda run: -run["changed"])


class Runs:
    """Answers about runs."""

    def __init__(self, places: Places, token: str) -> None:
        self.places, self.token = places, token

    async def list(self, request: Request) -> Response:
        return JSONResponse({"runs": list_runs(self.places)})

    async def curves(self, request: Request) -> Response:
        """Numbers by step, alarms in words, settings; only those after step `after`, where that is given."""
        folder = self.places.run(request.path_params["name"])
        after = request.query_params.get("after", "-1")
        least = int(after) if after.lstrip("-").isdigit() and len(after) < 15 else -1
        records = RunFolder(folder).metrics.read() if is_plain_file(folder / "metrics.jsonl") else []
        steps, series = curves([record for record in records if int(record.get("step", 0)) > least])
        alarms = [{"step": record.get("step"), "text": record["alarm"]} for record in records if "alarm" in record]
        return JSONResponse(
            {
                "steps": steps,
                "series": series,
                "alarms": alarms[-8:],
                "checkpoints": steps_shown(self.places, folder),
                "settings": _object(folder, "settings.json"),
                "finished": bool(_object(folder, "finished.json")),
                "seconds": records[-1].get("seconds") if records else None,
            }
        )


def curves(records: list[dict[str, Any]]) -> tuple[list[int], dict[str, list[float | None]]]:
    """Steps, and for each number its values there (None where it was not measured); thinned to `POINTS`."""
    stride = max(1, len(records) // POINTS)
    # A number that is measured now and then must not be thinned away: lines that hold more names than usual stay.
    usual = min((len(record) for record in records), default=0)
    thin = [record for place, record in enumerate(records) if place % stride == 0 or len(record) > usual + 2]
    names = sorted({name for record in thin for name, value in record.items() if isinstance(value, int | float)})
    names = [name for name in names if name not in ("step", "images", "seconds")]
    steps = [int(record.get("step", 0)) for record in thin]
    return steps, {name: [_number(record.get(name)) for record in thin] for name in names}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _object(folder: Any, name: str) -> dict[str, Any]:
    try:
        held = parse_json(read_below(folder, [name], most=1 << 22))
    except (NotHere, ValueError, json.JSONDecodeError):
        return {}
    return held if isinstance(held, dict) else {}
