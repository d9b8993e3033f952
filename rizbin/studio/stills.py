"""Images of a run at its checkpoints, as files: made once, and there still when the run keeps the checkpoint no more.

`stills/KEY/STEP/`: KEY stands for the run's settings, from which the same weights follow at each step. Nothing here
imports torch before images are made.
"""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from rizbin.core.bounded import parse_json
from rizbin.core.runs import RunFolder
from rizbin.studio.places import NotHere, Places, new_name, read_below

RECORD = "stills.json"
"""What the images of a step are of; it is written last."""


def key_of(run: Path) -> str:
    """Name of the folder of a run's images."""
    return sha256(read_below(run, ["settings.json"], most=1 << 22)).hexdigest()[:16]


def steps_shown(places: Places, run: Path) -> list[int]:
    """The steps of which there are checkpoints or images, and 0 where there is any."""
    folder = places.stills / key_of(run)
    made = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()] if folder.is_dir() else []
    saved = RunFolder(run).saved_steps()
    return sorted({*made, *saved, 0}) if made or saved else []


def stills(places: Places, run: Path, step: int) -> dict[str, Any]:
    """The images of a step by the names of their files, made where they are not there yet.

    Raises RizbinError where the run has no such checkpoint.
    """
    key = key_of(run)
    target = places.stills / key / str(step)
    if (record := _record(target)) is None:
        _make(places, run, step, target)
        record = _record(target) or {}
    return {"path": f"stills/{key}/{step}", **record}


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        held = parse_json(read_below(folder, [RECORD], most=1 << 20))
    except (NotHere, ValueError):
        return None
    return held if isinstance(held, dict) else None


def _make(places: Places, run: Path, step: int, target: Path) -> None:
    from rizbin.generation.film import png
    from rizbin.workflows.checkpoints import images_at, own_data

    data = own_data(run)
    seen = images_at(run, step, data)
    draft = places.stills / f"draft-{new_name()}"
    draft.mkdir(mode=0o700, parents=True)
    try:
        kinds = [image.caption for image in seen.images[0]]
        for number, row in enumerate(seen.images):
            for image in row:
                (draft / f"{number}-{image.caption.lower()}.png").write_bytes(png(image.image))
        record = {"step": step, "data": data, "captions": seen.captions, "kinds": [kind.lower() for kind in kinds]}
        (draft / RECORD).write_text(json.dumps(record), encoding="utf-8")
        target.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
