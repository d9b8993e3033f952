"""Training: a method, its settings and data in; the folder of a run out."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from rizbin.core.commands import Argument, Flag, Place, build, flags_of
from rizbin.core.devices import BEST
from rizbin.core.errors import RizbinError
from rizbin.core.results import frame
from rizbin.core.runs import RunFolder
from rizbin.core.settings import from_dict, to_dict
from rizbin.data.loader import MOST_REFUSED_SHARE
from rizbin.training.trackers import TrackerName
from rizbin.workflows import presets
from rizbin.workflows.presets import Training
from rizbin.workflows.runs import train as run_training
from rizbin.workflows.starts import begun


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training run besides its settings: how it runs, not what is trained."""

    epochs: float | None = None
    """Passes over the data in place of --steps."""
    minutes: float | None = None
    """A budget of time in place of --steps; measured once and turned into a number of steps."""
    learning_rate: Annotated[float | None, Argument(short=("--lr",))] = None
    """Peak of the learning rate, short for --trainer.learning-rate. None: the preset's."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    validation_data: Annotated[str, Argument(check="data")] = ""
    """Images that the model is measured on, as for --data; all of --data is then trained on. Empty: one image of twenty
    is kept apart for that."""
    tolerate: float = MOST_REFUSED_SHARE
    """Share of the images, 0 to 1, that may be unusable before the run stops; 20 always may, up to half of all."""
    images: Annotated[str | None, Argument(check="path")] = None
    """Folder of the images that a COCO or ODVG file in --data names. None: beside the file."""
    run: Annotated[Place | None, Argument(short=("-o",))] = None
    """Folder of the run. None: a name under runs/ made from the settings."""
    preset: str = "small"
    """Settings to start from; other flags change them."""
    report: bool = True
    """Measure the model at the end and write report.html."""
    track: tuple[TrackerName, ...] = ()
    """Trackers beside metrics.jsonl: csv, tensorboard, wandb, trackio, or several. None of them can stop a run."""
    quiet: bool = False
    """Show no progress bar."""


@dataclass(frozen=True)
class Trained:
    """A finished run: a path, and what was written on the way."""

    folder: Path
    method: str
    steps: int
    metrics: Sequence[Mapping[str, Any]] = field(repr=False)
    """One record a step that was logged: step, loss, its parts, learning rate, seconds."""

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"folder": str(self.folder), "method": self.method, "steps": self.steps, "metrics": list(self.metrics)}

    def to_pandas(self) -> Any:
        """The metrics as a pandas DataFrame, one row a record."""
        return frame(self.metrics)


def train(
    method: str | Training[Any],
    *,
    preset: str = "",
    run: Place | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    device: str = BEST,
    tolerate: float = MOST_REFUSED_SHARE,
    validation_data: str = "",
    track: Sequence[TrackerName] = (),
    quiet: bool = False,
    **changes: str | int | float | Mapping[str, Any] | None,
) -> Trained:
    """Trains a method, or goes on with the run that lies in the folder.

    method: a name ("detailclip") or complete settings, as `rizbin.workflows.presets.preset` gives them.
    preset: the settings that a name starts from; empty: the method's first.
    run: its folder; None: `folder_of` the settings.
    minutes: a budget of time; once measured, it takes the place of `steps`. epochs: passes over the data, in the place
        of `steps`.
    device: best (a GPU where there is one), cpu, cuda, cuda:1.
    tolerate: share of the images, 0 to 1, that may be unusable before the run stops; 20 always may, up to half of all.
    validation_data: what the run is measured on, so that all of its data are trained on; empty: their test part.
    track: trackers beside metrics.jsonl: "csv", "tensorboard", "wandb", "trackio".
    changes: fields of the settings: data, steps, batch, seed, ...; a group takes a dict: settings={"keep_ratio": 0.3}.
    Raises RizbinError when something of this cannot be.
    """
    if isinstance(method, str):
        method = presets.preset(method, preset or presets.names(method)[0])
    training = begun(_changed(method, changes), sized=_names_size(changes))
    around: dict[str, Any] = {"epochs": epochs or 0.0, "validation_data": validation_data}
    given = {name: value for name, value in around.items() if value}
    folder = run_training(
        training,
        Path(run) if run else folder_of(training, minutes, **given),
        minutes=minutes,
        device=device,
        tolerate=tolerate,
        quiet=quiet,
        track=track,
        **around,
    )
    done = RunFolder(folder)
    return Trained(folder, training.method, done.finished_steps() or 0, list(done.metrics.read()))


def flags(method: str, preset: str) -> list[Flag]:
    """The flags of one training: the options, then every setting, those of the method as `--method.NAME`."""
    default = presets.preset(method, preset)
    own = flags_of(Training[type(default.settings)], default)
    own = [_checked(flag) for flag in own if flag.name != "method"]
    short = [flag for flag in own if "." not in flag.name]
    around = flags_of(TrainOptions, replace(TrainOptions(), preset=preset))
    text = f" One of {', '.join(presets.names(method))}."
    around = [replace(flag, help=flag.help + text) if flag.name == "preset" else flag for flag in around]
    nested = sorted((flag for flag in own if "." in flag.name), key=lambda flag: not flag.name.startswith("settings."))
    return [*short, *around, *nested]


def _checked(flag: Flag) -> Flag:
    """The flag as it is typed: the settings of the method are looked for under --method."""
    if flag.name == "data":
        return replace(flag, check="data")
    if flag.name.startswith("settings."):
        return replace(flag, flag=f"method.{flag.flag.removeprefix('settings.')}")
    return flag


def from_flags(method: str, given: Mapping[str, Any]) -> tuple[Training[Any], TrainOptions]:
    """The settings and options that flags ask for. Raises RizbinError where they contradict each other."""
    around = {item.name for item in fields(TrainOptions)}
    options = build(TrainOptions, {name: value for name, value in given.items() if name in around})
    default = presets.preset(method, given.get("preset") or presets.names(method)[0])
    training = build(Training, {name: value for name, value in given.items() if name not in around}, default)
    if options.images:
        training = replace(training, data=f"{training.data}@{options.images}")
    if options.learning_rate is not None:
        if not 0 < options.learning_rate < math.inf:
            raise RizbinError(f"--learning-rate is {options.learning_rate:g}; give a positive number.")
        training = replace(training, trainer=replace(training.trainer, learning_rate=options.learning_rate))
    sized = {"settings.pair.vision.image_size", "settings.encoder.image_size"} & set(given)
    training = begun(training, sized=bool(sized))
    if options.minutes is not None and not options.minutes > 0:
        raise RizbinError(f"--minutes is {options.minutes:g}; give a positive number of minutes.")
    return training, options


def run_options(training: Training[Any], options: TrainOptions) -> Trained:
    """Trains as flags ask for."""
    return train(
        training,
        run=options.run,
        minutes=options.minutes,
        epochs=options.epochs,
        device=options.device,
        tolerate=options.tolerate,
        validation_data=options.validation_data,
        track=options.track,
        quiet=options.quiet,
    )


def folder_of(training: Training[Any], minutes: float | None, **more: Any) -> Path:
    """runs/METHOD-HASH: the same settings find their run again, other settings get a folder of their own."""
    spelled = json.dumps([to_dict(training), minutes, *([more] if more else [])], sort_keys=True)
    return Path("runs") / f"{training.method}-{hashlib.sha256(spelled.encode()).hexdigest()[:8]}"


def _changed(training: Training[Any], changes: Mapping[str, Any]) -> Training[Any]:
    """The settings with some fields replaced, types and names checked."""
    if not changes:
        return training
    return from_dict(Training[type(training.settings)], _merged(to_dict(training), changes))


def _names_size(changes: Mapping[str, Any]) -> bool:
    """Whether the changes say how large the images are."""
    settings = changes.get("settings") or {}
    groups = [settings.get("encoder") or {}, (settings.get("pair") or {}).get("vision") or {}]
    return any("image_size" in group for group in groups)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new` laid over `old`, groups merged into groups."""
    both = {name: (old[name], value) for name, value in new.items() if isinstance(value, Mapping) and name in old}
    return {**old, **new, **{name: _merged(before, after) for name, (before, after) in both.items()}}
