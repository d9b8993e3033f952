"""Repeats generated images from their record and says whether each is the same to the bit."""

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
from rizbin.generation.diffusion import repair as repairing
from rizbin.generation.diffusion.attention_guidance import GUIDANCE_KINDS, steering
from rizbin.generation.diffusion.text_to_image import Sampling, TextToImage, fingerprint
from rizbin.generation.film import Pixels, write_png
from rizbin.training.replay import Replay
from rizbin.workflows.generate import REPAIRED, attended, versions
from rizbin.workflows.load import load_text_to_image
from rizbin.workflows.runs import replay as replay_step
from rizbin.workflows.verifier import Judge, judge_by

RECORDS = (drawing.RECORD, REPAIRED)
"""Names of the records that can be replayed."""
_LARGEST = 64 << 20
"""Bytes of a record; one image takes about a thousand."""
Kind = TypeVar("Kind", Sampling, repairing.RepairStrategy)


@dataclass(frozen=True)
class Replayed:
    """One image that was generated again from its record."""

    file: Path
    prompt: str
    same: bool
    """Whether all pixels are equal to the recorded ones."""
    note: str = ""
    """Why they may differ."""


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
    entries = _read(Path(record))
    made: list[Replayed] = []
    models: dict[tuple[object, ...], TextToImage] = {}
    judges: dict[tuple[object, ...], Judge] = {}
    with outputs.reading([record]), Bar(len(entries), "making again", quiet=quiet) as bar:
        for number, entry in enumerate(entries):
            key = (entry["model"], entry["device"], entry["half"], entry["offload"])
            if key not in models:
                model, device, half, offload = key
                models[key] = load_text_to_image(model, device=device, half=half, offload=offload)
            image = _again(entry, models[key], judges)
            file = write_png(image, Path(to) / Path(str(entry["file"])).name)
            same = fingerprint(image) == entry["pixels"]
            made.append(Replayed(file, str(entry["prompt"]), same, "" if same else _why(entry)))
            bar.update(number + 1)
    return made


def _again(entry: Mapping[str, Any], text_to_image: TextToImage, judges: dict[tuple[object, ...], Judge]) -> Pixels:
    attend = attended(text_to_image, bool(entry["film"]))
    if "strategy" in entry:
        key = (entry["judge"], tuple(entry["among"]), entry["device"])
        if key not in judges:
            judges[key] = judge_by(entry["judge"], among=entry["among"], device=entry["device"])
        strategy = _of(repairing.RepairStrategy, {**entry["strategy"], "stages": tuple(entry["strategy"]["stages"])})
        sampling = _of(Sampling, entry["sampling"])
        repaired = repairing.repair(
            text_to_image,
            entry["prompt"],
            judges[key],
            sampling=sampling,
            strategy=strategy,
            objects=entry["objects"],
            attend=attend,
        )
        return repaired.best.image
    if entry["guidance"] not in GUIDANCE_KINDS:
        raise RizbinError(
            f"The record asks for the attention guidance {entry['guidance']!r}, which this Rizbin does not have."
        )
    start = None
    if entry.get("start"):
        start = read_image(entry["start"])
        if fingerprint(start) != entry["start_pixels"]:
            raise RizbinError(f"{entry['start']} is no longer the image that {entry['file']} was drawn from.")
    guide, _ = steering(
        text_to_image, entry["prompt"], entry["guidance"], objects=entry["objects"], scale=entry["update_scale"]
    )
    sampling = _of(Sampling, {field.name: entry[field.name] for field in fields(Sampling)})
    return text_to_image.paint(entry["prompt"], sampling, start=start, guide=guide, attend=attend).image


def _read(record: Path) -> list[dict[str, Any]]:
    try:
        if record.stat().st_size > _LARGEST:
            raise RizbinError(f"{record} is too large for a record of images.")
        entries = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RizbinError(
            f"{record} cannot be read as a record ({error}); give a drawn.json or repaired.json."
        ) from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise RizbinError(f"{record} is no record of images; give a drawn.json or repaired.json.")
    entries = [_with_present_names(entry) for entry in entries]
    for entry in entries:
        needed = {"file", "prompt", "model", "device", "half", "offload", "film", "objects", "pixels"}
        needed |= {"judge", "among", "sampling"} if "strategy" in entry else {"guidance", "update_scale"}
        if lacking := sorted(needed - set(entry)):
            raise RizbinError(
                f"{record} does not tell all that is needed ({', '.join(lacking)}); it was written by an older Rizbin."
            )
    return entries


def _with_present_names(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry, its strategy under the present names; older records call it "ladder" and its stages "rungs"."""
    strategy = entry.get("ladder")
    if not isinstance(strategy, dict) or "rungs" not in strategy:
        return entry
    renamed = {"stages" if name == "rungs" else name: value for name, value in strategy.items()}
    return {**entry, "strategy": renamed}


def _of(kind: type[Kind], fields_of_kind: Any) -> Kind:
    try:
        return kind(**fields_of_kind)
    except TypeError as error:
        raise RizbinError(f"The record does not fit this Rizbin ({error}).") from error


def _why(entry: Mapping[str, Any]) -> str:
    """What may have changed since the record was written."""
    then, now = entry.get("versions"), versions()
    if isinstance(then, dict):
        changed = [f"{name} {then.get(name)} then, {now.get(name)} now" for name in now if then.get(name) != now[name]]
        if changed:
            return "; ".join(changed)
    return "the model, the processor or its number of threads may be another"
