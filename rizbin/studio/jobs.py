"""Jobs: what they are on disk, and the queue that starts, watches and ends them.

A job is a folder: `job.json` (what was asked), `process.json` (who works on it), `events.jsonl` (what happened),
`done.json` (how it ended), `log.txt` (what it printed), and its results. The folder alone says its state, so that a
server that was killed finds all jobs again, running or not. Each job leads a process group of its own, which is ended
whole.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rizbin.core import outputs
from rizbin.core.bounded import parse_json
from rizbin.core.errors import RizbinError
from rizbin.studio.places import NotHere, new_name, read_below

State = Literal["waiting", "running", "done", "failed", "stopped"]
GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL."""
SLOW = ("train", "study")
"""Families of commands that take minutes to hours: each device has a queue of its own for them, so that a drawing
does not wait for a training."""
MOST_WAITING = 500
"""Jobs in the queues."""
_LARGEST = 16 << 20


@dataclass
class StudioJob:
    """One job as its folder tells it."""

    folder: Path
    request: dict[str, Any]
    terminated: float = 0.0
    """When SIGTERM was sent; 0 for not yet."""
    started: float = 0.0
    """When the fork server was told to begin; 0 for not yet."""
    end: dict[str, Any] | None = None
    """What done.json holds, once it is there."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def lane(self) -> tuple[str, bool]:
        """The queue that it stands in: its device, and whether it is one of the slow ones."""
        return self.request.get("device", "cpu"), self.request["words"][0] in SLOW

    def record(self, name: str) -> dict[str, Any] | None:
        """A JSON file of its folder; None where there is none yet, or half of one."""
        try:
            held = parse_json(read_below(self.folder, [name], most=_LARGEST))
        except (NotHere, ValueError):
            return None
        return held if isinstance(held, dict) else None

    def state(self) -> State:
        if self.end is None:
            self.end = self.record("done.json")
        if self.end is not None:
            return self.end.get("state", "failed")
        return "running" if self.started else "waiting"

    def summary(self) -> dict[str, Any]:
        """What lists show of it."""
        end = self.end or {}
        shown = {
            "id": self.name,
            "state": self.state(),
            "message": end.get("message", ""),
            "seconds": end.get("seconds"),
        }
        return {
            **shown,
            **{name: self.request.get(name) for name in ("line", "words", "panel", "created", "title", "run", "given")},
        }

    def events(self, start: int) -> tuple[list[dict[str, Any]], int]:
        """Whole lines of events.jsonl from a byte on, and the byte after them."""
        try:
            with (self.folder / "events.jsonl").open("rb") as file:
                file.seek(start)
                data = file.read(4 << 20)
        except OSError:
            return [], start
        whole, newline, _ = data.rpartition(b"\n")
        lines = []
        for line in whole.splitlines() if newline else ():
            with suppress(ValueError):
                lines.append(json.loads(line))
        return lines, start + len(whole) + len(newline)


@dataclass
class Queue:
    """All jobs of a studio. `tick` is called some times a second; nothing here waits."""

    folder: Path
    begin: Callable[[Path], None]
    """Has a job begun in a process of its own (`rizbin.studio.forks`)."""
    jobs: dict[str, StudioJob] = field(default_factory=dict)
    listeners: int = 0
    version: int = 0
    """Grows with each change of a job's state."""

    def find_again(self) -> None:
        """Reads all jobs from the folder: after a start of the server, those that still run are watched again."""
        for place in sorted(self.folder.iterdir(), key=lambda path: path.name):
            if place.is_symlink() or not place.is_dir():
                continue
            job = StudioJob(place, {})
            record = job.record("job.json")
            if record is None or not isinstance(record.get("words"), list):
                continue
            job.request = record
            process = job.record("process.json")
            job.started = float(process["since"]) if process else 0.0
            job.state()
            self.jobs[job.name] = job
        self.jobs = dict(sorted(self.jobs.items(), key=lambda item: item[1].request.get("created", 0)))

    def add(self, request: dict[str, Any], *, name: str = "") -> StudioJob:
        """Puts a job into its queue. Raises RizbinError when too many wait."""
        if sum(job.state() == "waiting" for job in self.jobs.values()) >= MOST_WAITING:
            raise RizbinError(f"{MOST_WAITING} jobs wait already; let some of them end first.")
        folder = self.folder / (name or new_name())
        folder.mkdir(mode=0o700)
        job = StudioJob(folder, {**request, "created": time.time()})
        outputs.write(folder / "job.json", json.dumps(job.request))
        self.jobs[job.name] = job
        self.version += 1
        return job

    def get(self, name: str) -> StudioJob:
        if name not in self.jobs:
            raise NotHere("There is no such job.")
        return self.jobs[name]

    def cancel(self, name: str) -> None:
        """Ends a job: one that waits at once; one that runs by SIGTERM, and after `GRACE` by SIGKILL."""
        job = self.get(name)
        if job.state() == "waiting":
            self._end(job, "stopped", "It was stopped before it began.")
        elif job.state() == "running":
            (job.folder / "stop").touch()
            self._signal(job)

    def tick(self) -> None:
        """Ends what is to end, notes what has ended, and begins what waits."""
        busy: set[tuple[str, bool]] = set()
        for job in self.jobs.values():
            if job.end is not None and not job.started:
                continue
            if job.started and job.state() == "running":
                self._watch(job)
            elif job.started and job.end is not None:
                self._sweep(job)
            if job.started:
                busy.add(job.lane)
        for job in self.jobs.values():
            if not job.started and job.end is None and job.lane not in busy:
                busy.add(job.lane)
                job.started = time.time()
                self.version += 1
                self.begin(job.folder)

    @property
    def is_idle(self) -> bool:
        return not any(job.started or job.end is None for job in self.jobs.values())

    def _watch(self, job: StudioJob) -> None:
        process = job.record("process.json")
        if (job.folder / "stop").exists():
            self._signal(job)
        if process is None:
            if time.time() - job.started > 300:
                self._end(job, "failed", "It could not be begun; see the words of `rizbin studio` in its terminal.")
            return
        if not is_alive(process) and job.record("done.json") is None:
            stop_requested = (job.folder / "stop").exists()
            message = (
                "It was stopped."
                if stop_requested
                else "It ended without a word: it was killed, or memory did not suffice."
            )
            self._end(job, "stopped" if stop_requested else "failed", message)

    def _sweep(self, job: StudioJob) -> None:
        """After its end: once the leader is gone, what is left of its group goes too."""
        process = job.record("process.json")
        if process is not None and is_alive(process):
            if job.terminated == 0.0:
                job.terminated = time.time()
            if time.time() - job.terminated < GRACE:
                return
        if process is not None:
            _kill_group(process, signal.SIGKILL)
        job.started = 0.0
        self.version += 1

    def _signal(self, job: StudioJob) -> None:
        process = job.record("process.json")
        if process is None or not is_alive(process):
            return
        now = time.time()
        if job.terminated == 0.0:
            job.terminated = now
            _kill_group(process, signal.SIGTERM)
        elif now - job.terminated > GRACE:
            _kill_group(process, signal.SIGKILL)

    def _end(self, job: StudioJob, state: State, message: str) -> None:
        job.end = {"state": state, "message": message, "seconds": None}
        outputs.write(job.folder / "done.json", json.dumps(job.end))
        self.version += 1


def identity() -> dict[str, Any]:
    """Number and time of start of the calling process, as another process may get the same number."""
    return {"pid": os.getpid(), "start": _start_of(os.getpid()), "since": time.time()}


def is_alive(process: dict[str, Any]) -> bool:
    """Whether that process is there still, and no zombie."""
    start = _start_of(int(process["pid"]))
    return start is not None and start == process["start"]


def _start_of(pid: int) -> int | None:
    """When a process began, in ticks since the machine's (field 22 of /proc/PID/stat); None for none or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _kill_group(process: dict[str, Any], number: signal.Signals) -> None:
    """Signals the group that the process leads, if the number still stands for that group."""
    pid = int(process["pid"])
    start = _start_of(pid)
    if start is not None and start != process["start"]:
        return  # the number is another process's by now
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
