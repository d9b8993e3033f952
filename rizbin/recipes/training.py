"""Runs a training from settings to a run folder, and opens such a folder again."""

import time
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rizbin import zoo
from rizbin.core import checkpoint, parallel, random
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.core.runs import RunFolder
from rizbin.core.settings import from_dict, to_dict
from rizbin.data.open import notices_of, open_source
from rizbin.data.sample import Source
from rizbin.detect.detector import Detector
from rizbin.detect.teach import Teaching
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
from rizbin.nets.weights import Shape, check_fit, shapes_of, told
from rizbin.recipes.catalogue import find
from rizbin.recipes.presets import Training, view_size
from rizbin.recipes.watch import Watching
from rizbin.train.method import Method, Work
from rizbin.train.replay import Replay
from rizbin.train.replay import replay as make_again
from rizbin.train.trainer import Trainer, load_method, sweep

LOOKS = 20
"""How often a run without captions is looked at for collapse and by its nearest neighbors."""
CALIBRATION_PLACES = 10
"""Places in the run at which a budget in minutes times two steps each; two more before them warm the caches."""


@dataclass(frozen=True)
class LoadedRun:
    """A run folder, opened."""

    folder: Path
    training: Training[Any]
    method: Method
    """In evaluation mode, with the weights of its newest checkpoint."""
    step: int
    """How many steps that checkpoint has."""

    @property
    def encoder(self) -> ImageTextPair | ImageEncoder:
        """The encoder that the method trained. Raises RizbinError for what is none."""
        encoder = self.method.encoder
        if not isinstance(encoder, ImageTextPair | ImageEncoder):
            kind = "is a detector" if isinstance(self.method, Teaching) else "draws"
            raise RizbinError(f"{self.folder} {kind}; this is done with encoders of pictures.")
        return encoder

    @property
    def detector(self) -> Detector | None:
        """The detector that was taught, ready for use; None where the method trains an encoder."""
        return self.method.detector() if isinstance(self.method, Teaching) else None

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
    quiet: bool = False,
    silent: bool = False,
) -> Path:
    """Runs `training` in the folder `run`, or goes on with it there; returns the folder.

    silent: say neither cautions nor alarms (they are recorded all the same): for experiments that want a collapse.
    minutes: a budget that a short calibration turns into steps, once; the run keeps the number, so that resuming stays
    exact. Raises RizbinError for settings or data that cannot be used, and when the folder holds another run; Stopped
    after a signal.
    """
    parallel.start()
    _check(training)
    source = open_source(training.data, split="train", size=view_size(training.settings), seed=0)
    completed = find(training.method).completed(training.settings, source.categories)
    training = replace(training, settings=completed)
    if minutes is not None:
        training = replace(training, steps=_steps_within(minutes, training, source, Path(run), quiet))
    # Created on all processes alike; only the main one writes.
    folder = RunFolder(Path(run))
    folder.create_or_resume({**to_dict(training), "data_fingerprint": source.fingerprint})
    finished = folder.finished_steps()
    if finished is not None:
        if parallel.is_main():
            sweep(folder)  # a kill inside the last removal of a checkpoint leaves its remains
        if parallel.is_main() and not quiet:
            print(f"{run} is finished: {finished} steps; give more --steps in another folder to train longer.")
        return folder.path
    method = build(training)
    trainer = _trainer(training)
    if parallel.is_main() and not silent:
        endless = training.steps * training.batch
        pictures = endless if source.endless else min(len(source), endless)
        for sentence in (*notices_of(source), *method.cautions(Work(pictures, training.batch, training.steps))):
            folder.warn(sentence)
    watching = _watching(training, method, silent)
    trainer.fit(method, source, folder, quiet=quiet, watch=watching, watch_every=max(training.steps // LOOKS, 1))
    if parallel.is_main():
        encoder = method.encoder
        if isinstance(encoder, ImageEncoder) and not timm_refuses(encoder.settings):
            save_timm(encoder, folder.path / "model")
        elif isinstance(encoder, ImageTextPair) and not can_export(encoder.settings):
            save_open_clip(encoder, folder.path / "model")
        method.save(folder.path / "model")
        folder.mark_finished(training.steps)
    parallel.barrier()
    return folder.path


def _watching(training: Training[Any], method: Method, silent: bool) -> Watching | None:
    """What looks at a self-supervised method while it trains; captions have their own measure in the loss."""
    if not isinstance(method.encoder, ImageEncoder) or training.trainer.sharding == "fsdp" or not parallel.is_main():
        return None
    size = view_size(training.settings)
    train, test = (open_source(training.data, split=part, size=size) for part in ("train", "test"))
    return Watching(build(training), train, test, warmup=training.trainer.warmup, steps=training.steps, silent=silent)


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
        method.begin_with(_encoder_of(training.start).state_dict(), training.start)
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
    """What the method's tensors are like, found without making them; None where only a real one can say."""
    if getattr(training.settings, "start", ""):
        return None
    try:
        with torch.device("meta"):
            return shapes_of(build(training).state_dict())
    except RizbinError:
        raise
    except Exception:  # a scheduler computes with its numbers; and what cannot be built at all shows when it is
        return None


def load_run(folder: Path) -> LoadedRun:
    """The run in `folder` at its newest good checkpoint. Raises RizbinError when there is none."""
    kept = RunFolder(Path(folder)).read_settings()
    training = training_from(kept)
    found = checkpoint.load(Path(folder) / "checkpoints")
    if found is None:
        raise RizbinError(f"{folder} has no good checkpoint yet; train it first.")
    # The checkpoint has all weights: none are fetched, nor taken from where training began.
    bare = replace(training, start="", settings=_nothing_fetched(training.settings))
    kept, advice = shapes_of(found.tensors["method"]), "restore settings.json as the run wrote it"
    with told(folder):
        if (wanted := _shapes_without_memory(bare)) is not None:
            check_fit(wanted, kept, folder, advice)
        method = build(bare)
    check_fit(shapes_of(method.state_dict()), kept, folder, advice)
    load_method(method, found.tensors["method"])
    return LoadedRun(Path(folder), training, method.eval(), found.step)


def replay(folder: Path) -> Replay:
    """Makes the failed step of the run in `folder` again. Raises RizbinError when the run kept none."""
    run = RunFolder(Path(folder))
    training = training_from(run.read_settings())
    source = open_source(training.data, split="train", size=view_size(training.settings), seed=0)
    return make_again(build(training), _trainer(training), source, run)


def training_from(kept: dict[str, Any]) -> Training[Any]:
    """Complete settings from what settings.json holds."""
    kept = {name: value for name, value in kept.items() if name != "data_fingerprint"}
    name = kept.get("method", "")
    return from_dict(Training[find(str(name)).Settings], kept, where="settings.json")


def _trainer(training: Training[Any]) -> Trainer:
    return Trainer(
        training.trainer,
        batch=training.batch,
        steps=training.steps,
        checkpoint_every=training.checkpoint_every,
        seed=training.seed,
    )


def _check(training: Training[Any]) -> None:
    for name in ("steps", "batch"):
        if getattr(training, name) < 1:
            raise RizbinError(f"{name} is {getattr(training, name)}; it must be 1 or more.")
    if training.batch < 2:
        raise RizbinError("batch is 1; a contrastive method needs at least 2 pictures to tell apart.")


def _steps_within(minutes: float, training: Training[Any], source: Source, run: Path, quiet: bool) -> int:
    """How many steps fit into `minutes`.

    Those the run recorded when it began, else from timing a few on weights thrown away.
    """
    if minutes <= 0:
        raise RizbinError(f"minutes is {minutes}; give a positive number.")
    begun = RunFolder(run).recorded_steps()
    if begun is not None:
        return begun
    begin = time.perf_counter()
    # Without a folder: nothing of the calibration stays.
    trainer = _trainer(training)
    seconds = trainer.time_steps(build(training), source, warm=2, places=CALIBRATION_PLACES)
    left = minutes * 60 - (time.perf_counter() - begin)
    steps = max(int(left / seconds), 1)
    agreed = int(parallel.broadcast_text(str(steps)))  # one clock for all processes
    if parallel.is_main() and not quiet:
        with Bar(1, "", quiet=True) as bar:
            bar.say(f"{seconds * 1000:.0f} ms a step: {agreed} steps of {training.batch} fit into {minutes:g} minutes.")
    return agreed
