"""How each model of the zoo is made: its settings, its training, its card.

`rizbin zoo NAME --build RUN` runs this and leaves the finished folder in RUN/published; what ships is that folder, put
into rizbin/zoo/NAME.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from rizbin import zoo
from rizbin.core.bounded import read_json
from rizbin.core.checksums import write_sums
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement
from rizbin.core.runs import RunFolder, time_spent
from rizbin.core.settings import to_dict
from rizbin.data.open import open_source
from rizbin.data.scenes.source import CREDIT
from rizbin.data.scenes.vocabulary import HELD_OUT
from rizbin.data.views import View
from rizbin.detection import measure as detection
from rizbin.detection.detector import Detector
from rizbin.detection.models import pieces
from rizbin.evaluation.suite import Evaluation
from rizbin.workflows import evaluate_diffusion as drawn
from rizbin.workflows.bundle import publish
from rizbin.workflows.evaluate import measured
from rizbin.workflows.load import Loaded, of_run, open_model
from rizbin.workflows.presets import Training, preset, small, view_size
from rizbin.workflows.runs import LoadedRun, load_run, train


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a model of the zoo is and how it is trained."""

    is_a: str
    training: Callable[[], Training[Any]]
    measured_on: tuple[str, ...]
    """Data of the card's figures, as `--data` takes it; its test split."""


def detailclip_mini() -> Training[Any]:
    """DetailCLIP of the demo, on all categories of the embedded world and for longer."""
    training = small("detailclip")
    return replace(
        training,
        data="scenes:easy,categories=0",
        # More categories need more images, and more images of others in a batch to be told from.
        steps=4500,
        batch=64,
        checkpoint_every=100,
        trainer=replace(training.trainer, learning_rate=7e-4, precision="bf16"),
    )


_ROUGH = View.Settings(
    size=64,
    crop_area=(0.6, 1.0),
    crop_ratio=(0.9, 1.1),
    jitter=0.8,
    contrast=0.7,
    saturation=0.4,
    hue=0.03,
    blur=0.4,
    blur_sigma=(0.1, 1.5),
    noise=0.6,
    noise_sigma=(0.005, 0.12),
)
"""Augmentation against unlike images: an encoder trained on clean scenes alone names 6 percent of them right in noise
of 0.1 and 7 percent at half their contrast, and cannot judge generated images (docs/LOG.md). Hues hardly change,
because colors are names here."""


def clip_mini() -> Training[Any]:
    """A plain CLIP with another image tower, text tower, pool and seed: a judge of what tecoa-mini or a pipeline draws.

    Two networks of one kind share what fools them; these share nothing but the embedded world.
    """
    training = small("clip")
    pair = training.settings.pair
    return replace(
        training,
        data="scenes:easy,categories=0",
        steps=8000,
        batch=64,
        seed=7,
        checkpoint_every=100,
        # 16 bits halve a step of this mostly convolutional network on processors with AMX.
        trainer=replace(training.trainer, learning_rate=7e-4, precision="bf16"),
        settings=replace(
            training.settings,
            view=_ROUGH,
            pair=replace(
                pair,
                vision=replace(pair.vision, name="rizbin_vit_mini_patch16_64"),
                text=replace(pair.text, width=96, layers=2),
                embedding=96,
                pool="mean",
            ),
        ),
    )


def tecoa_mini() -> Training[Any]:
    """A CLIP that is robust to adversarial changes: gradient ascent on it gives objects, not grain."""
    training = small("tecoa")
    return replace(
        training,
        data="scenes:easy,categories=0",
        steps=6000,
        batch=64,
        seed=3,
        checkpoint_every=100,
        trainer=replace(training.trainer, learning_rate=7e-4, precision="bf16"),
        settings=replace(training.settings, view=_ROUGH, change=8 / 255),
    )


def dino_mini() -> Training[Any]:
    """DINO of the small preset on all drawings, each alone on white; its CLS attends to objects after 100 steps."""
    return replace(small("dino"), data="scenes:single,categories=0", steps=1500, checkpoint_every=100)


def detector_mini() -> Training[Any]:
    """A Grounding DINO of 1.3 million parameters on all training categories; it can be asked for the held-out ones."""
    training = preset("detector")
    # Its tokenizer knows the held-out names' words, but nothing ever taught it what they mean.
    words = sorted({word for name in HELD_OUT for word in pieces(name)})
    return replace(
        training,
        data="scenes:several,categories=0",
        steps=7000,
        checkpoint_every=100,
        trainer=replace(training.trainer, learning_rate=1.5e-3),
        # Lists of names as long as a text holds come up in use, and some of them in training; so do single questions,
        # which are the harder ones: no other name is there to take the box.
        settings=replace(training.settings, words=tuple(words), negatives=40, alone=0.35),
    )


def diffusion_mini() -> Training[Any]:
    """A Stable Diffusion of 8.9 million parameters on sixteen drawings, alone and in pairs."""
    return replace(preset("diffusion"), steps=10_000)


def _at(size: int, data: str) -> str:
    """Data of a card's figures whose scenes are drawn at another size than the network sees."""
    return f"{data} at {size} px"


RECIPES = {
    "detailclip-mini": Recipe(
        is_a="a small DetailCLIP trained on all 172 training categories of the embedded world; 64 pixels, 8x8 patches",
        training=detailclip_mini,
        measured_on=("scenes:easy,categories=0", "scenes:easy", "scenes:hard,categories=0"),
    ),
    "clip-mini": Recipe(
        is_a="a small CLIP trained on all 172 training categories of the embedded world, of another architecture and "
        "seed than tecoa-mini, to judge what that one draws; 64 pixels, 16x16 patches",
        training=clip_mini,
        measured_on=("scenes:easy,categories=0", "scenes:easy", "scenes:hard,categories=0"),
    ),
    "tecoa-mini": Recipe(
        is_a="a small CLIP taught against worst-case changes on all 172 training categories of the embedded world, to "
        "draw by climbing its gradient; 64 pixels, 8x8 patches",
        training=tecoa_mini,
        measured_on=("scenes:easy,categories=0", "scenes:easy", "scenes:hard,categories=0"),
    ),
    "dino-mini": Recipe(
        is_a="a small DINO, trained without words on all 172 training drawings, each alone on white, whose attention "
        "shows objects; 64 pixels, 8x8 patches",
        training=dino_mini,
        measured_on=("scenes:single,categories=0", "scenes:single", "scenes:easy", "scenes:hard"),
    ),
    "detector-mini": Recipe(
        is_a="a Grounding DINO (MM) of 1.3 million parameters that finds the 172 training drawings by name, with a "
        "calibration for verdicts; 96 pixels",
        training=detector_mini,
        measured_on=(
            "scenes:several,categories=0",
            "scenes:several",
            _at(64, "scenes:several"),
            _at(128, "scenes:several"),
            "scenes:several,categories=0,split=pairs",
            "scenes:hard,categories=0",
            "scenes:several,split=heldout",
        ),
    ),
    "diffusion-mini": Recipe(
        is_a="a Stable Diffusion of 8.9 million parameters that draws sixteen objects, alone and in pairs; 64 pixels, "
        "a pipeline folder of diffusers",
        training=diffusion_mini,
        measured_on=(drawn.DATA,),
    ),
}


SETTINGS = Evaluation.Settings()
"""How the card's figures are measured: as `rizbin evaluate` does."""
DETECTION = detection.DetectionSettings(images=500)
"""The same of a detector."""
DRAWING = drawn.DiffusionSettings(seeds=6, pairs=110, scenes=200)
"""And of what draws."""


def rebuild(name: str, run: Path) -> Path:
    """Trains the model in the folder `run`, or goes on with it there, and returns run/published with its card."""
    if name not in RECIPES:
        raise RizbinError(f"There is no recipe for a model {name!r}; there are {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    train(recipe.training(), run)
    target = run / "published"
    made = load_run(run)
    if (text_to_image := of_run(made).text_to_image) is not None:
        text_to_image.pipeline.to(torch.float16).save_pretrained(target)
        _keep_settings(made, target)
    elif (detector := made.detector) is not None:
        detector.save(target, half=True)
        _keep_settings(made, target)
        # Fitted to training scenes that no step saw: the figures below are of others.
        fresh = open_source(f"{made.training.data},seed=1", split="train", size=made.training.settings.image_size)
        detection.calibrated(Detector.from_pretrained(target), fresh).save(target / "calibration.json")
    else:
        publish(made, target)
    # What ships is measured: the weights in 16 bits, read from their files.
    zoo.write_card(_card(name, recipe, made, run, target), target)
    write_sums(target)
    return target


def _keep_settings(made: LoadedRun, target: Path) -> None:
    """Writes the run's settings beside weights in a form of other software."""
    (target / "settings.json").write_text(json.dumps(to_dict(made.training), indent=2) + "\n", encoding="utf-8")


def _card(name: str, recipe: Recipe, made: LoadedRun, run: Path, target: Path) -> zoo.Card:
    training = made.training
    history = RunFolder(run).metrics.read()
    return zoo.Card(
        name=name,
        is_a=recipe.is_a,
        recipe=f"rizbin zoo {name} --build RUN",
        method=training.method,
        data=training.data,
        categories=len(open_source(training.data, split="test", size=view_size(training.settings)).categories),
        seed=training.seed,
        steps=made.step,
        pictures=made.step * training.batch,
        minutes=round(time_spent(history)[2] / 60, 1),
        # What trained it, not what writes its card: commits may have been made since.
        environment=read_json(run / "environment.json"),
        date=datetime.now(UTC).date().isoformat(),
        megabytes=round(sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6, 2),
        licence=f"Weights: Apache-2.0, as far as they are ours. {CREDIT}",
        figures={data: _figures(target, data) for data in recipe.measured_on},
    )


def _figures(folder: Path, data: str) -> dict[str, dict[str, float | None]]:
    """Every number of what ships, beside random weights and chance; of an encoder those in percent."""
    loaded = open_model(folder)
    settings = {"encoder": SETTINGS, "detector": DETECTION, "painter": DRAWING}[_kind(loaded)]
    spec, _, size = data.removesuffix(" px").partition(" at ")
    numbers, _ = measured(loaded, spec, settings, quiet=False, size=int(size or 0))
    encoder = settings is SETTINGS
    return {
        measurement.name: _parts(measurement)
        for measurement in numbers.measurements
        if measurement.unit == "percent" or not encoder
    }


def _kind(loaded: Loaded) -> str:
    if loaded.text_to_image is not None:
        return "painter"
    return "encoder" if loaded.detector is None else "detector"


def _parts(measurement: Measurement) -> dict[str, float | None]:
    """A measurement as a card holds it: percent to two digits, other numbers to four."""
    digits = 2 if measurement.unit == "percent" else 4

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, digits)

    return {
        "value": rounded(measurement.value),
        "random": rounded(measurement.baseline),
        "chance": rounded(measurement.chance),
    }
