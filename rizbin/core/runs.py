"""The folder of one run: settings, environment, results, and a lock for writing into it."""

import fcntl
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rizbin.core import environment, progress
from rizbin.core.bounded import parse_json, read_json
from rizbin.core.errors import RizbinError
from rizbin.core.settings import differences

_LISTED = 8
"""Differing settings that a message names; more would bury the sentence."""

_HELD: dict[str, int] = {}
"""Locks of this process: path of the lock file -> descriptor. Kept here, since closing any descriptor of the file would
give the lock away, and since a process may open its own run again."""


class RunFolder:
    """A folder with `settings.json`, `environment.json`, `metrics.jsonl`, `refused.jsonl`, `checkpoints/`, `model/`,
    `report.html`, and `finished.json` once all steps are made.

    Making the object touches nothing. Reading needs no lock; before anything is written, `create_or_resume` takes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.metrics = Records(self.path / "metrics.jsonl", self.warn)
        self._refused = Records(self.path / "refused.jsonl", self.warn)
        self._refused_names: set[str] | None = None
        self._main = True

    @property
    def checkpoints(self) -> Path:
        """Where `rizbin.core.checkpoint` saves."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Where the exported encoder goes."""
        return self.path / "model"

    @property
    def report(self) -> Path:
        """The report, one file."""
        return self.path / "report.html"

    @property
    def refused_list(self) -> Path:
        """Where the samples that could not be used are listed."""
        return self._refused.path

    @property
    def exists(self) -> bool:
        """True once a run was begun here."""
        return (self.path / "settings.json").is_file()

    @property
    def is_finished(self) -> bool:
        """True when all steps were made."""
        return self.finished_steps() is not None

    def create_or_resume(
        self, settings: Mapping[str, Any], as_now: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> bool:
        """Begins a run with these settings, or goes on with the one here; True when it goes on.

        as_now: gives stored settings of an older version the fields that came later, so that its runs go on.

        Takes the run's lock until the process ends, however it ends, or until `release`. Under several processes all
        call it: the main one works and all get the same answer.
        Raises RizbinError when another process writes here, when the folder holds a run with other settings or things
        that are no run, and when it cannot be written.
        """
        from rizbin.core import parallel  # here: it loads torch, which reading a run does not need

        self._main = parallel.is_main()
        plain, answer = json.loads(json.dumps(settings)), ""
        if self._main:
            try:
                answer = "resumed" if self._begin(plain, as_now or dict) else "begun"
            except RizbinError as error:
                answer = f"refused {error}"
            except OSError as error:
                answer = (
                    f"refused The run folder {self.path} cannot be written ({error.strerror or error}); free space, "
                    "allow writing there or name another folder."
                )
        answer = parallel.broadcast_text(answer)
        if answer.startswith("refused "):
            raise RizbinError(answer.removeprefix("refused "))
        return answer == "resumed"

    def release(self) -> None:
        """Gives the lock back before the process ends."""
        descriptor = _HELD.pop(str(self._lock_path()), None)
        if descriptor is not None:
            os.close(descriptor)

    def read_settings(self) -> dict[str, Any]:
        """What settings.json holds. Raises RizbinError when there is no run here or the file is damaged."""
        if not self.exists:
            raise RizbinError(
                f"{self.path} is no run folder (there is no settings.json in it); give the folder of a run."
            )
        return self._object("settings.json")

    def recorded_steps(self) -> int | None:
        """The number of steps that the run was begun with; None when there is no run here."""
        steps = self.read_settings().get("steps") if self.exists else None
        return steps if isinstance(steps, int) else None

    def finished_steps(self) -> int | None:
        """The number of steps of a finished run; None when it is not finished."""
        if not (self.path / "finished.json").is_file():
            return None
        steps = self._object("finished.json").get("steps")
        if not isinstance(steps, int):
            raise RizbinError(
                f"{self.path / 'finished.json'} is damaged; remove it and start the run again to finish it."
            )
        return steps

    def saved_steps(self) -> list[int]:
        """The steps whose checkpoints are there, in order; whether one is whole shows when it is read."""
        matches = (re.fullmatch(r"step_(\d{9,})", path.name) for path in self.checkpoints.glob("step_*"))
        return sorted(int(match[1]) for match in matches if match)

    def mark_finished(self, steps: int) -> None:
        """Notes that all steps are made."""
        try:
            _replace(self.path / "finished.json", _spelled({"steps": steps}))
        except OSError as error:
            self.warn(
                f"{self.path / 'finished.json'} could not be written ({error.strerror or error}); start the run "
                "again to mark it as finished."
            )

    def note_refused(self, refused: Iterable[tuple[str, str]]) -> None:
        """Adds (name of the sample, reason) to refused.jsonl, each name once."""
        for name, reason in refused:
            if self._refused_names is None:
                self._refused_names = {str(record.get("sample")) for record in self._refused.read()}
            if name not in self._refused_names:
                self._refused_names.add(name)
                self._refused.append({"sample": name, "reason": reason})

    def read_refused(self) -> list[tuple[str, str]]:
        """(name of the sample, reason) of all samples that could not be used."""
        return [(str(record.get("sample")), str(record.get("reason"))) for record in self._refused.read()]

    def warn(self, text: str) -> None:
        """Prints a line that must be seen, from the main process only."""
        if self._main:
            progress.warn(text)

    def _begin(self, settings: dict[str, Any], as_now: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
        self._refuse_other_files()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock()
        now = environment.describe()
        if not self.exists:
            _replace(self.path / "environment.json", _spelled(now))
            _replace(self.path / "settings.json", _spelled(settings))  # last: from here on it is a run
            return False
        changed = differences(as_now(self.read_settings()), settings)
        if changed:
            more = f" and {len(changed) - _LISTED} more" if len(changed) > _LISTED else ""
            raise RizbinError(
                f"The folder {self.path} holds a run with other settings ({'; '.join(changed[:_LISTED])}{more}); "
                "start it with its own settings or name another folder."
            )
        self._compare_environment(now)
        return True

    def _refuse_other_files(self) -> None:
        """A folder that holds anything but a run is somebody's: nothing is written into it."""
        if self.path.exists() and not self.path.is_dir():
            raise RizbinError(f"{self.path} is a file; name a folder for the run.")
        if self.model.is_symlink():
            raise RizbinError(f"{self.model} is a link, and nothing is written through links; remove it.")
        if self.path.is_dir() and not self.exists:
            ours = {"lock", "environment.json"}
            others = sorted(
                p.name for p in self.path.iterdir() if p.name not in ours and not p.name.startswith(".tmp-")
            )
            if others:
                raise RizbinError(
                    f"The folder {self.path} holds no run but other things ({others[0]}{', ...' * (len(others) > 1)}); "
                    "name a new folder."
                )

    def _lock_path(self) -> Path:
        return self.path.resolve() / "lock"

    def _lock(self) -> None:
        """A POSIX record lock: the kernel frees it when the process ends, SIGKILL included, and a forked loader worker
        that outlives its parent does not hold it (as it would hold an flock)."""
        place = self._lock_path()
        if str(place) in _HELD:
            return
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise RizbinError(
                f"The run in {self.path} is being written by another process{f' ({holder})' if holder else ''}; wait "
                "until it ends, stop it or name another folder."
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        _HELD[str(place)] = descriptor
        with suppress(OSError):  # the number only helps the reader of the message above
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def _compare_environment(self, now: dict[str, Any]) -> None:
        """Says when the run goes on with something that may change its last bits."""
        try:
            before = self._object("environment.json")
        except (RizbinError, OSError):
            return
        changed = differences(before, now)
        if changed and self.finished_steps() is None:  # a finished one is only read
            self.warn(
                f"The run in {self.path} goes on with other conditions ({'; '.join(changed)}); "
                "its numbers may differ from an uninterrupted run's."
            )

    def _object(self, name: str) -> dict[str, Any]:
        try:
            content = read_json(self.path / name)
        except (OSError, ValueError) as error:
            raise RizbinError(
                f"{self.path / name} cannot be read ({error}); restore it or name another folder."
            ) from error
        if not isinstance(content, dict):
            raise RizbinError(f"{self.path / name} holds no group of names; restore it or name another folder.")
        return content


class Records:
    """A file of JSON lines that never stops a run: when the disk refuses, it warns once and drops what does not fit."""

    def __init__(self, path: Path, warn: Any) -> None:
        self.path = path
        self._warn = warn
        self._warned = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one line, all of it or nothing. What is not finite is written as null, since JSON has no name for it."""
        line = json.dumps({name: _json(value) for name, value in record.items()}, ensure_ascii=True) + "\n"
        try:
            self._append(line.encode())
        except OSError as error:
            self._failed(error)

    def read(self) -> list[dict[str, Any]]:
        """All records in order; empty when there is no file. A line torn by a kill or a full disk is left out."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RizbinError(f"{self.path} cannot be read ({error.strerror or error}); allow reading it.") from error
        return [record for line in lines if (record := _parsed(line)) is not None]

    def truncate_after(self, step: int) -> None:
        """Removes the records of later steps, which a resumed run makes again, and torn lines."""
        records = self.read()
        remaining = [record for record in records if not isinstance(record.get("step"), int) or record["step"] <= step]
        if self.path.exists():
            text = "".join(json.dumps(record, ensure_ascii=True) + "\n" for record in remaining)
            try:
                _replace(self.path, text.encode())
            except OSError as error:
                self._failed(error)

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # the line before was torn
            try:
                rest = line
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _failed(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"{self.path} cannot be written ({error.strerror or error}); the run goes on without such records."
            )


def time_spent(history: Sequence[Mapping]) -> tuple[int, int, float]:
    """(steps, images, seconds) of a whole run. The clock of the records starts anew whenever a run was resumed."""
    steps = images = 0
    seconds = last = 0.0
    for record in history:
        steps, images = max(steps, int(record.get("step", 0))), max(images, int(record.get("images", 0)))
        now = float(record.get("seconds", last))
        seconds += now - last if now >= last else now
        last = now
    return steps, images, seconds


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = parse_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _json(value: Any) -> Any:
    if isinstance(value, str | bool | int | list | dict) or value is None:
        return value
    number = float(value)  # numpy's and torch's numbers too
    return number if math.isfinite(number) else None


def _spelled(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=True) + "\n").encode()


def _replace(path: Path, content: bytes) -> None:
    """Puts a file in place whole: after a kill there is the old one or the new one."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # never through a link
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
