"""What runs in the process of one job: the command that was asked for, by the same functions as at a terminal."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from rizbin.core import outputs, progress
from rizbin.core.bounded import read_json
from rizbin.core.commands import build
from rizbin.core.errors import RizbinError
from rizbin.studio.jobs import identity

STOPPED = 75
"""Exit status of a training that was stopped with everything saved."""
Say = Callable[[dict[str, Any]], None]


def main(folder: Path) -> int:
    """Runs the job in the folder and writes how it ended."""
    try:
        os.close(os.open(folder / "begun", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return 0  # a server that was killed had it begun already, and the next one had it begun again
    outputs.write(folder / "process.json", json.dumps(identity()))
    begin = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        state, message, code = _run(folder)
    except KeyboardInterrupt:
        state, message, code = "stopped", "It was stopped; what it had written is kept.", 130
    except RizbinError as error:
        state, message, code = "failed", " ".join(str(error).split()), 2
    except Exception as error:
        traceback.print_exc()
        state, message, code = (
            "failed",
            f"A fault of Rizbin ({type(error).__name__}: {error}); the log has its trace.",
            1,
        )
    end = {"state": state, "message": message, "seconds": round(time.monotonic() - begin, 2)}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    outputs.write(folder / "done.json", json.dumps(end))
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(folder: Path) -> tuple[str, str, int]:
    """State, sentence and exit status."""
    if (folder / "stop").exists():
        raise KeyboardInterrupt
    job: Any = read_json(folder / "job.json")
    events = os.open(folder / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)

    def say(event: dict[str, Any]) -> None:
        os.write(events, (json.dumps(event) + "\n").encode())

    last = 0.0

    def heard(label: str, done: int, total: int, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.1 or done == total or text:
            last = now
            say({"kind": "warning" if text else "progress", "label": label, "done": done, "total": total, "text": text})

    with progress.listening(heard):
        if job["words"][0] in ("generate", "edit", "repair", "ascend"):
            return _draw(job, folder, say)
        from rizbin import cli

        code = cli.main(job["words"])
    if code == STOPPED:
        return "stopped", "It was stopped with everything saved; it goes on where it was.", code
    if code not in (0, 1, 3):
        return "failed", _last_line(folder), code
    return "done", "", code


def _last_line(folder: Path) -> str:
    """What the command said last, without its name in front."""
    with suppress(OSError):
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        messages = [line.removeprefix("rizbin: ") for line in lines if line.strip()]
        return messages[-1][:500] if messages else "It failed."
    return "It failed."


def _draw(request: dict[str, Any], folder: Path, say: Say) -> tuple[str, str, int]:
    """A drawing, each step of which is shown as it is made."""
    from rizbin.cli.parsing import parse
    from rizbin.cli.table import COMMANDS, loaded
    from rizbin.studio.steps import AscentSteps, Steps
    from rizbin.studio.words import command_of

    name, *words = request["words"]
    job = loaded(COMMANDS[name].job)
    given = parse(command_of(name), words)
    watch: Any = Steps(folder, say)
    if name == "ascend":
        watch = AscentSteps(folder, say, given.get("count", 1), given.get("prompts") or [""])
    made = job.run(build(job.settings, given | {"watch": watch}))
    results = []
    for image in made:
        shown = {"file": f"drawn/{Path(image.file).name}"}
        if name == "ascend":
            shown |= {"prompt": image.prompt, "seed": image.seed, "score": round(image.score, 4)}
        elif name == "repair":
            tried = image.record(0.5)
            shown |= {"prompt": request.get("title", ""), "whole": image.whole, "tried": tried, "notes": image.notes}
        else:
            shown |= {"prompt": image.prompt, "seed": image.sampling.seed, "notes": image.painted.notes}
        results.append(shown)
    say({"kind": "images", "images": results})
    sys.stdout.flush()
    return "done", "", 0
