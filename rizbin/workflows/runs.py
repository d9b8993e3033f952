"""Runs a training from settings to a run folder, and opens such a folder again."""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rizbin import zoo
from rizbin.core import checkpoint, parallel, precision, random
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.core.runs import RunFolder
from rizbin.core.settings import from_dict, to_dict
from rizbin.data.loader import MOST_REFUSED_SHARE
from rizbin.data.open import notices_of, open_source
from rizbin.data.order import index_at
from rizbin.data.sample import Refused, Source
from rizbin.detection.detector import Detector
from rizbin.detection.train import GroundingDINOTraining
from rizbin.models.published import is_published, keep_origin, save_published
from rizbin.nets.adapters import save_adapters
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import (
    can_export,
    is_encoder,
    load_encoder,
    load_pair,
    save_open_clip,
    save_timm,
    timm_refuses,
)
from rizbin.nets.image import ImageEncoder
from rizbin.nets.lora import has_adapters, merged
from rizbin.nets.weights import Shape, check_fit, refusing_bad_settings, shapes_of
from rizbin.training.method import Method, Work
from rizbin.training.replay import Replay
from rizbin.training.replay import replay as make_again
from rizbin.training.trackers import TrackerName
from rizbin.training.trainer import Trainer, load_method, sweep
from rizbin.workflows.catalogue import find
from rizbin.workflows.diagnostics import CollapseDiagnostics
from rizbin.workflows.presets import Training, names, preset, view_size
from rizbin.workflows.starts import ORIGIN, begun, from_origin

LOOKS = 20
"""How often a run without captions is looked at for collapse and by its nearest neighbors."""
CALIBRATION_PLACES = 10
"""Places in the run at which a budget in minutes times two steps each; two more before them warm the caches."""
FORETOLD_PLACES, FORETOLD_FROM = 5, 500
"""Places at which a run of a given number of steps times one each, for the time left, as a method may do more later;
and the steps from which that is worth its time: one percent of the run or less."""
SIZES_LOOKED_AT = 5
"""Number of images from whose sizes that of all is estimated."""
OPENED_TWICE = 100_000
"""Data with more images are not opened again to see how large they are."""
COARSE = 2
"""Images of so many times the side that they are trained at have lost three quarters of their pixels and more."""


@dataclass(frozen=True)
class LoadedRun:
    """A run folder, opened."""

    folder: Path
    training: Training[Any]
    method: Method
    """The method in evaluation mode, with the weights of its newest checkpoint, or of the one that was asked for."""
    step: int
    """How many steps that checkpoint has."""
    validation_data: str = ""
    """Images that it is measured on; empty: the test part of what it was trained on."""

    @property
    def encoder(self) -> ImageTextPair | ImageEncoder:
        """The encoder that the method trained. Raises RizbinError for what is none."""
        encoder = self.method.encoder
        if not isinstance(encoder, ImageTextPair | ImageEncoder):
            kind = "is a detector" if isinstance(self.method, GroundingDINOTraining) else "draws"
            raise RizbinError(f"{self.folder} {kind}; this is done with encoders of images.")
        return encoder

    @property
    def detector(self) -> Detector | None:
        """The detector that was taught, ready for use; None where the method trains an encoder."""
        return self.method.detector() if isinstance(self.method, GroundingDINOTraining) else None

    @property
    def pair(self) -> ImageTextPair:
        """The image-text pair that the method trained."""
        if not isinstance(self.method.encoder, ImageTextPair):
            raise RizbinError(f"{self.training.method} in {self.folder} trains no image-text pair.")
        return self.method.encoder


def train(
    training: Training[Any],
    run: Path,
    *,
    minutes: float | None = None,
    epochs: float = 0.0,
    device: str = "best",
    tolerate: float = MOST_REFUSED_SHARE,
    validation_data: str = "",
    quiet: bool = False,
    silent: bool = False,
    track: Sequence[TrackerName] = (),
) -> Path:
    """Runs `training` in the folder `run`, or goes on with it there; returns the folder.

    track: trackers beside metrics.jsonl. silent: say neither cautions nor alarms (they are recorded all the same).
    minutes: a budget that a short calibration turns into steps, once; the run keeps the number, so that resuming stays
    exact. epochs: passes over the data instead of `steps`; 0: by steps. device: as `rizbin.core.parallel.start` takes
    it. tolerate: share of the images that may be unusable. validation_data: images that the run is measured on, so that
    all of `training.data` is trained on; empty: its test part is kept for that.
    Raises RizbinError for settings or data that cannot be used, and when the folder holds another run; Stopped after a
    signal.
    """
    parallel.start(device)
    training = begun(training)
    _check(training)
    if validation_data:
        validation_source(validation_data, view_size(training.settings))  # missing data are refused before the work
    source = training_source(training, validation_data)
    training = replace(training, settings=find(training.method).completed(training.settings, source.categories))
    training, costs = _with_length(training, source, Path(run), minutes, epochs, quiet)
    folder = RunFolder(Path(run))
    recorded = {**to_dict(training), "data_fingerprint": source.fingerprint}
    folder.create_or_resume(recorded | ({"validation_data": validation_data} if validation_data else {}), as_now)
    if _was_finished(folder, quiet):
        return folder.path
    method = build(training)
    _keep_origin(method, folder.path / ORIGIN)
    trainer = _trainer(training, tolerate)
    if parallel.is_main() and not silent:
        _warn_before(training, method, source, folder)
    watching = _watching(training, method, silent, validation_data)
    if watching is not None and watching.unseen and not silent:
        folder.warn(watching.unseen)
    costs = costs or ([] if quiet else _foretold(trainer, training, source))
    trainer.fit(
        method,
        source,
        folder,
        quiet=quiet,
        watch=watching,
        watch_every=max(training.steps // LOOKS, 1),
        costs=costs,
        track=track,
    )
    if parallel.is_main():
        _finish(training, method, source, folder)
    parallel.barrier()
    return folder.path


def _with_length(
    training: Training[Any], source: Source, run: Path, minutes: float | None, epochs: float, quiet: bool
) -> tuple[Training[Any], list[float]]:
    """The training with the steps that epochs or minutes ask for, and the costs of steps where they were measured."""
    if epochs:
        training = replace(training, steps=_steps_of(epochs, training, source, quiet))
    if minutes is None:
        return training, []
    steps, costs = _steps_within(minutes, training, source, run, quiet)
    return replace(training, steps=steps), costs


def _was_finished(folder: RunFolder, quiet: bool) -> bool:
    """Whether the run was finished before; what a kill may have left is then removed, and it is said."""
    if (finished := folder.finished_steps()) is None:
        return False
    if parallel.is_main():
        sweep(folder)  # a kill inside the last removal of a checkpoint leaves its remains
    if parallel.is_main() and not quiet:
        print(f"{folder.path} is finished: {finished} steps; give more --steps in another folder to train longer.")
    return True


def _keep_origin(method: Method, target: Path) -> None:
    """Writes what a published network needs to be built again, once."""
    if parallel.is_main() and is_published(method.encoder) and not target.is_dir():
        keep_origin(method.encoder, target)


def _warn_before(training: Training[Any], method: Method, source: Source, folder: RunFolder) -> None:
    """Warns about what limits the run: notices of the data, coarse images, and the method's own cautions."""
    endless = training.steps * training.batch
    images = endless if source.endless else min(len(source), endless)
    cautions = method.cautions(Work(images, training.batch, training.steps))
    slow = precision.slow_precision(training.trainer.precision, parallel.device().type)
    for sentence in (*notices_of(source), *_coarse(training, source), *slow, *cautions):
        folder.warn(sentence)


def _finish(training: Training[Any], method: Method, source: Source, folder: RunFolder) -> None:
    """Reports the images that could not be used, exports the trained model and marks the run as finished."""
    if refused := folder.read_refused():
        of_all = "" if source.endless else f" of the {len(source)}"
        folder.warn(
            f"{len(refused)}{of_all} images could not be used; {folder.refused_list} lists them with the reasons."
        )
    _keep_model(method, folder.path)
    folder.mark_finished(training.steps)


def _keep_model(method: Method, folder: Path) -> None:
    """Writes what was trained into the folder of the run, in the form that other software loads."""
    encoder, target = method.encoder, folder / "model"
    if is_published(encoder):
        save_published(encoder, target)
        if has_adapters(encoder):
            save_adapters(encoder.origin.network, folder / "adapter", base=encoder.origin.name)
    elif isinstance(encoder, ImageEncoder) and not timm_refuses(encoder.settings):
        save_timm(encoder, target)
    elif isinstance(encoder, ImageTextPair) and not can_export(encoder.settings):
        save_open_clip(encoder, target)
    method.save(target)


def training_source(training: Training[Any], validation_data: str = "") -> Source:
    """What the run learns from: all of its data where others are there to measure on, else their training part."""
    split = "all" if validation_data else "train"
    return open_source(training.data, split=split, size=view_size(training.settings), seed=0)


def validation_source(spec: str, size: int) -> Source:
    """All images of `spec`, to measure on; of scenes, which have no end, the test part."""
    source = open_source(spec, split="all", size=size)
    return open_source(spec, split="test", size=size) if source.endless else source


def _watching(
    training: Training[Any], method: Method, silent: bool, validation_data: str
) -> CollapseDiagnostics | None:
    """Diagnostics of a self-supervised method during training; None with captions, whose loss is a measure itself."""
    if not isinstance(method.encoder, ImageEncoder) or training.trainer.sharding == "fsdp" or not parallel.is_main():
        return None
    size = view_size(training.settings)
    train = training_source(training, validation_data)
    if validation_data:
        test = validation_source(validation_data, size)
    else:
        test = open_source(training.data, split="test", size=size)
    return CollapseDiagnostics(
        build(training), train, test, warmup=training.trainer.warmup, steps=training.steps, silent=silent
    )


def seconds_a_step(training: Training[Any]) -> float:
    """What a step of this training costs on this process, from a few of them."""
    source = open_source(training.data, split="train", size=view_size(training.settings))
    return _trainer(training).time_steps(build(training), source, warm=1, places=2)


def build(training: Training[Any]) -> Method:
    """The method with its first weights, which follow from the seed and, where one is named, from the start."""
    torch.manual_seed(random.key(training.seed, "weights"))
    settings = training.settings
    if getattr(settings, "start", "") in zoo.names():
        settings = replace(settings, start=str(zoo.folder_of(settings.start)))
    method = find(training.method)(settings)
    if training.start:
        method.begin_with(merged(_encoder_of(training.start)).state_dict(), training.start)
    return method


def _encoder_of(start: str) -> torch.nn.Module:
    """The encoder of a run, of an exported model or of a bundled one. Raises RizbinError when there is none."""
    folder = zoo.folder_of(start) if start in zoo.names() and not Path(start).is_dir() else Path(start)
    if not folder.is_dir():
        raise RizbinError(
            f"There is neither a folder {start} nor a model of that name to start from; give a run folder, an exported "
            f"model, or one of {', '.join(zoo.names())}."
        )
    if (folder / "settings.json").is_file() and (folder / "checkpoints").is_dir():
        return load_run(folder).encoder
    return load_encoder(folder) if is_encoder(folder) else load_pair(folder)


def _nothing_fetched(settings: Any) -> Any:
    """The settings, those inside them too, with `pretrained` off."""
    changes: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            changes[field.name] = _nothing_fetched(value)
        elif field.name == "pretrained":
            changes[field.name] = False
    return replace(settings, **changes)


def _shapes_without_memory(training: Training[Any]) -> dict[str, Shape] | None:
    """Names and shapes of the method's tensors without allocating them; None where only a built method has them."""
    if getattr(training.settings, "start", ""):
        return None
    try:
        with torch.device("meta"):
            return shapes_of(build(training).state_dict())
    except RizbinError:
        raise
    except Exception:  # a scheduler computes with its numbers; and what cannot be built at all shows when it is
        return None


def load_run(folder: Path, step: int | None = None) -> LoadedRun:
    """The run in `folder` at its newest good checkpoint, or at that of `step`. Raises RizbinError where none is."""
    stored = RunFolder(Path(folder)).read_settings()
    training = training_from(stored)
    validation_data = validation_data_of(stored)
    loaded = checkpoint.load(Path(folder) / "checkpoints", step)
    if loaded is None:
        raise RizbinError(f"{folder} has no good checkpoint yet; train it first.")
    # The checkpoint has all weights: none are fetched, nor taken from where training began.
    bare = replace(training, start="", settings=_nothing_fetched(from_origin(training.settings, Path(folder))))
    stored, advice = shapes_of(loaded.tensors["method"]), "restore settings.json as the run wrote it"
    with refusing_bad_settings(folder):
        if (expected := _shapes_without_memory(bare)) is not None:
            check_fit(expected, stored, folder, advice)
        method = build(bare)
    check_fit(shapes_of(method.state_dict()), stored, folder, advice)
    load_method(method, loaded.tensors["method"])
    return LoadedRun(Path(folder), training, method.eval(), loaded.step, validation_data)


def replay(folder: Path) -> Replay:
    """Makes the failed step of the run in `folder` again. Raises RizbinError when the run kept none."""
    run = RunFolder(Path(folder))
    stored = run.read_settings()
    training = training_from(stored)
    source = training_source(training, validation_data_of(stored))
    return make_again(build(training), _trainer(training), source, run)


def training_from(stored: dict[str, Any]) -> Training[Any]:
    """Complete settings from the content of settings.json."""
    stored = {name: value for name, value in stored.items() if name not in ("data_fingerprint", "validation_data")}
    name = stored.get("method", "")
    return from_dict(Training[find(str(name)).Settings], stored, where="settings.json")


def validation_data_of(stored: dict[str, Any]) -> str:
    """The validation data that settings.json names; empty: the test part of its data."""
    spec = stored.get("validation_data", "")
    return spec if isinstance(spec, str) else ""


def _trainer(training: Training[Any], tolerate: float = MOST_REFUSED_SHARE) -> Trainer:
    return Trainer(
        training.trainer,
        batch=training.batch,
        steps=training.steps,
        checkpoint_every=training.checkpoint_every,
        seed=training.seed,
        tolerate=tolerate,
    )


def _check(training: Training[Any]) -> None:
    for name in ("steps", "batch"):
        if getattr(training, name) < 1:
            raise RizbinError(f"{name} is {getattr(training, name)}; it must be 1 or more.")
    least = find(training.method).least_batch
    if training.batch < least:
        raise RizbinError(
            f"batch is {training.batch}; {training.method} compares the images of a batch with each other, so it needs "
            f"{least} or more."
        )


def _steps_of(epochs: float, training: Training[Any], source: Source, quiet: bool) -> int:
    """How many steps the passes over the data are, the last one filled up."""
    if not 0 < epochs < math.inf:
        raise RizbinError(f"epochs is {epochs:g}; give a positive number.")
    steps = max(math.ceil(epochs * len(source) / training.batch), 1)
    if parallel.is_main() and not quiet:
        nominal = " (they have no end; so many are called an epoch)" if source.endless else ""
        counted = f"{epochs:g} epoch{'s' * (epochs != 1)} of {len(source):,} images{nominal}"
        Bar(1, "").say(f"{counted}: {steps:,} steps of {training.batch}.")
    return steps


def _coarse(training: Training[Any], source: Source) -> list[str]:
    """A sentence where images are trained at much less than their own size; none of scenes, drawn at the right one."""
    own = view_size(training.settings)
    if source.endless:
        return []
    # With a size of 0 images come at their own one; large data are not opened twice for a sentence.
    whole = open_source(training.data, split="all", size=0) if len(source) <= OPENED_TWICE else source
    sides: list[tuple[int, int]] = []
    for place in range(min(SIZES_LOOKED_AT, len(whole))):
        with suppress(Refused):
            height, width = whole[index_at(0, place, len(whole))].image.shape[:2]
            sides.append((width, height))
    if not sides:
        return []
    width, height = sorted(sides, key=min)[len(sides) // 2]
    if min(width, height) < COARSE * own:
        return []
    sentence = f"The images have about {width}x{height} pixels and are trained at {own}x{own}, without their detail"
    larger = {name: view_size(preset(training.method, name).settings) for name in names(training.method)}
    for name, side in sorted(larger.items(), key=lambda item: item[1]):
        if side > own and name.startswith("vit"):
            return [f"{sentence}; --preset {name} trains at {side}x{side}, on a GPU."]
    if hasattr(training.settings, "image_size"):
        return [f"{sentence}; --method.image-size takes another size."]
    return [f"{sentence}."]


def _foretold(trainer: Trainer, training: Training[Any], source: Source) -> list[float]:
    """Seconds of a step at places over the run, for the time left; empty where finding out would cost too much."""
    if training.steps < FORETOLD_FROM or training.trainer.compile or training.trainer.sharding == "fsdp":
        return []
    return trainer.place_costs(build(training), source, warm=1, places=FORETOLD_PLACES, repeats=1)


def _steps_within(
    minutes: float, training: Training[Any], source: Source, run: Path, quiet: bool
) -> tuple[int, list[float]]:
    """How many steps fit into `minutes`, and what a step costs at places spread over the run.

    Those the run recorded when it began, else from timing a few on weights thrown away.
    """
    if minutes <= 0:
        raise RizbinError(f"minutes is {minutes}; give a positive number.")
    begun = RunFolder(run).recorded_steps()
    if begun is not None:
        return begun, []
    begin = time.perf_counter()
    trainer = _trainer(training)  # without a folder: nothing of the calibration stays
    costs = trainer.place_costs(build(training), source, warm=2, places=CALIBRATION_PLACES)
    seconds = sum(costs) / len(costs)
    left = minutes * 60 - (time.perf_counter() - begin)
    steps = max(int(left / seconds), 1)
    agreed = int(parallel.broadcast_text(str(steps)))  # one clock for all processes
    if parallel.is_main() and not quiet:
        with Bar(1, "", quiet=True) as bar:
            bar.say(f"{seconds * 1000:.0f} ms a step: {agreed} steps of {training.batch} fit into {minutes:g} minutes.")
    return agreed, costs


def as_now(stored: dict[str, Any]) -> dict[str, Any]:
    """The content of a settings.json with the fields that came after it was written, each with its value of then."""
    with suppress(RizbinError):  # settings that this version does not know are compared as they are
        stored = {**stored, **to_dict(training_from(stored))}
    return stored
