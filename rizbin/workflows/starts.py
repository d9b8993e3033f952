"""What a training begins with, where that is another library's: its towers, in the place of the settings' own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import timm

from rizbin import zoo
from rizbin.core.errors import RizbinError
from rizbin.models.origins import library_of, open_origin
from rizbin.training.settings import ImageSettings, ImageTextSettings, Training

ORIGIN = "origin"
"""Folder of a run in which all of a published network lies but its weights, which the checkpoints have."""


def begun(training: Training[Any], *, sized: bool = False) -> Training[Any]:
    """The settings with the network of their start in them, where that is another library's; else as they are.

    sized: the images have the size that the settings say; else that which the network was made for.
    Raises RizbinError for a method that trains no encoder.
    """
    start = training.start
    if start and (Path(start) / ORIGIN).is_dir():  # of a run that began so itself: what it became, in its own form
        start = str(Path(start) / "model")
    if not start or library_of(start) is None:
        return training
    settings: Any = training.settings
    if not isinstance(settings, ImageSettings | ImageTextSettings):
        raise RizbinError(f"{training.method} trains no encoder, so it cannot begin with {start}.")
    # A name stands in settings.json as it was given; a folder shall be found from wherever the run goes on.
    start = str(Path(start).resolve()) if Path(start).is_dir() else start
    origin = open_origin(start, pretrained=False)
    size = settings.image_size if sized else origin.image_size
    if isinstance(settings, ImageSettings):
        encoder = replace(settings.encoder, published=start, pretrained=True, image_size=size)
        return replace(training, start="", settings=replace(settings, encoder=encoder))
    vision = replace(settings.pair.vision, image_size=size, pretrained=False)
    pair = replace(settings.pair, published=start, pretrained=True, vision=vision)
    if origin.reads_text:
        sigmoid = getattr(origin.network, "logit_bias", None) is not None
        pair = replace(pair, contrast="sigmoid" if sigmoid else "softmax")
    return replace(training, start="", settings=replace(settings, pair=pair))


def spelled(model: str) -> str:
    """A model's name as a start has it: with its library before the colon, where `rizbin.load` needs none."""
    if library_of(model) is not None or Path(model).is_dir() or model in zoo.names():
        return model
    if timm.is_model(model.partition(".")[0]):
        return f"timm:{model}"
    on_hub = model.count("/") == 1 and not model.startswith((".", "/", "~")) and not Path(model).parent.is_dir()
    return f"{'timm' if model.startswith('timm/') else 'hf'}:{model}" if on_hub else model


def from_origin(settings: Any, run: Path) -> Any:
    """The settings of a run with its own copy of what its network came from, where there is one."""
    folder = run / ORIGIN
    if not folder.is_dir():
        return settings
    if isinstance(settings, ImageSettings):
        return replace(settings, encoder=replace(settings.encoder, published=str(folder)))
    return replace(settings, pair=replace(settings.pair, published=str(folder)))
