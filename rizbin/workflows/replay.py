"""Pictures made again from the record that lies beside them, and whether they came out the same to the bit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

from rizbin.core import outputs
from rizbin.core.commands import Argument, Place, job
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.data.image_io import read_image
from rizbin.generation.diffusion import drawing
from rizbin.generation.diffusion import repair as room
from rizbin.generation.diffusion.attention_guidance import GUIDANCE_KINDS, steering
from rizbin.generation.diffusion.text_to_image import Sampling, TextToImage, fingerprint
from rizbin.generation.film import Pixels, write_png
from rizbin.training.replay import Replay
from rizbin.workflows.generate import REPAIRED, attended, versions
from rizbin.workflows.load import load_text_to_image
from rizbin.workflows.runs import replay as replay_step
from rizbin.workflows.verifier import DetectorVerifier, judge_by

RECORDS = (drawing.RECORD, REPAIRED)
"""Names of the records that can be replayed."""
_LARGEST = 64 << 20
"""Bytes of a record; one picture takes about a thousand."""
Kind = TypeVar("Kind", Sampling, room.RepairStrategy)


@dataclass(frozen=True)
class Replayed:
    """One picture made again."""

    file: Path
    prompt: str
    same: bool
    """Whether all pixels are those that the record tells of."""
    note: str = ""
    """Why they may not be."""


def record_in(path: Path) -> Path | None:
    """The record that a path names: the file itself, or the one in a folder; None where there is none."""
    if path.is_file():
        return path if path.suffix == ".json" else None
    return next((path / name for name in RECORDS if (path / name).is_file()), None)


@dataclass(frozen=True)
class ReplaySettings:
    """Make again the step of a run whose loss or gradient was not finite, or the images of a record.

    Of a run it says where the first such number came from. Of a record it says of each image whether it came out the
    same to the bit; exit code 1 when one did not.
    """

    run: Annotated[Place, Argument(positional=True, metavar="RUN|RECORD", check="path")]
    """The folder of the run that stopped; or the drawn.json or repaired.json of drawn images, or the folder that it
    lies in."""
    output: Annotated[Place, Argument(short=("-o",))] = "replayed"
    """Folder for the images."""
    quiet: bool = False
    """Show no progress bar."""


@job(ReplaySettings)
def replay(settings: ReplaySettings) -> Replay | list[Replayed]:
    """What the failed step of a run shows, or the images of a record, made again.

    Raises RizbinError for a file that is no such record or lacks what is needed, and for a start image that is no
    longer what it was.
    """
    if not (Path(settings.run) / "settings.json").is_file():
        record = record_in(Path(settings.run))
        if record is not None:
            return _images_again(record, settings.output, settings.quiet)
    return replay_step(Path(settings.run))


def _images_again(record: Path, to: Place, quiet: bool) -> list[Replayed]:
    """All images of the record, into the folder `to`."""
    told = _read(Path(record))
    made: list[Replayed] = []
    painters: dict[tuple[object, ...], TextToImage] = {}
    judges: dict[tuple[object, ...], DetectorVerifier] = {}
    with outputs.reading([record]), Bar(len(told), "making again", quiet=quiet) as bar:
        for number, one in enumerate(told):
            key = (one["model"], one["device"], one["half"], one["offload"])
            if key not in painters:
                model, device, half, offload = key
                painters[key] = load_text_to_image(model, device=device, half=half, offload=offload)
            image = _again(one, painters[key], judges)
            file = write_png(image, Path(to) / Path(str(one["file"])).name)
            same = fingerprint(image) == one["pixels"]
            made.append(Replayed(file, str(one["prompt"]), same, "" if same else _why(one)))
            bar.update(number + 1)
    return made


def _again(one: Mapping[str, Any], painter: TextToImage, judges: dict[tuple[object, ...], DetectorVerifier]) -> Pixels:
    attend = attended(painter, bool(one["film"]))
    if "ladder" in one:
        key = (one["judge"], tuple(one["among"]), one["device"])
        if key not in judges:
            judges[key] = judge_by(one["judge"], among=one["among"], device=one["device"])
        ladder = _of(room.RepairStrategy, {**one["ladder"], "rungs": tuple(one["ladder"]["rungs"])})
        sampling = _of(Sampling, one["sampling"])
        repaired = room.repair(
            painter,
            one["prompt"],
            judges[key],
            sampling=sampling,
            ladder=ladder,
            objects=one["objects"],
            attend=attend,
        )
        return repaired.best.image
    if one["guidance"] not in GUIDANCE_KINDS:
        raise RizbinError(f"The record asks for a guidance {one['guidance']!r}, which there is none of.")
    start = None
    if one.get("start"):
        start = read_image(one["start"])
        if fingerprint(start) != one["start_pixels"]:
            raise RizbinError(f"{one['start']} is no longer the picture that {one['file']} was drawn from.")
    guide, _ = steering(painter, one["prompt"], one["guidance"], objects=one["objects"], scale=one["update_scale"])
    sampling = _of(Sampling, {field.name: one[field.name] for field in fields(Sampling)})
    return painter.paint(one["prompt"], sampling, start=start, guide=guide, attend=attend).image


def _read(record: Path) -> list[dict[str, Any]]:
    try:
        if record.stat().st_size > _LARGEST:
            raise RizbinError(f"{record} is too large for a record of pictures.")
        told = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RizbinError(
            f"{record} cannot be read as a record ({error}); give a drawn.json or repaired.json."
        ) from error
    if not isinstance(told, list) or not told or not all(isinstance(one, dict) for one in told):
        raise RizbinError(f"{record} is no record of pictures; give a drawn.json or repaired.json.")
    for one in told:
        needed = {"file", "prompt", "model", "device", "half", "offload", "film", "objects", "pixels"}
        needed |= {"judge", "among", "sampling"} if "ladder" in one else {"guidance", "update_scale"}
        if lacking := sorted(needed - set(one)):
            raise RizbinError(
                f"{record} does not tell all that is needed ({', '.join(lacking)}); it was written by an older Rizbin."
            )
    return told


def _of(kind: type[Kind], told: Any) -> Kind:
    try:
        return kind(**told)
    except TypeError as error:
        raise RizbinError(f"The record does not fit this Rizbin ({error}).") from error


def _why(one: Mapping[str, Any]) -> str:
    """What may have changed since."""
    then, now = one.get("versions"), versions()
    if isinstance(then, dict):
        changed = [f"{name} {then.get(name)} then, {now.get(name)} now" for name in now if then.get(name) != now[name]]
        if changed:
            return "; ".join(changed)
    return "the model, the processor or its number of threads may be another"
