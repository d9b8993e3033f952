"""Presets by name: complete settings for a method, by the size of the work. Each method's file holds its own.

Most have small, vits16, vitb16 and paper, and nano where no captions are read (`rizbin.training.presets` says what they
are). The detector has small, from nothing on the embedded world, and finetune, a published one on boxes of your own.
"""

from typing import Any

from rizbin.core.errors import RizbinError
from rizbin.training.settings import Presets, Sized
from rizbin.training.settings import Training as Training
from rizbin.workflows.catalogue import find


def names(method: str) -> tuple[str, ...]:
    """The presets that `method` has, its default first. Raises RizbinError when it has none."""
    return tuple(_presets(method))


def preset(method: str, name: str = "small") -> Training[Any]:
    """Complete settings of `method` for the work that `name` stands for. Raises RizbinError naming the choices."""
    presets = _presets(method)
    if name not in presets:
        raise RizbinError(f"{method} has no preset '{name}'; choose one of {', '.join(presets)}.")
    return presets[name]


def small(method: str) -> Training[Any]:
    """For the embedded world on two cores; see docs/methods.md for what each method reached with it."""
    return preset(method)


def view_size(settings: Sized) -> int:
    """Side in pixels of the images that the network with these settings learns from."""
    return settings.image_size


def _presets(method: str) -> Presets:
    presets = find(method).presets()
    if not presets:
        raise RizbinError(f"{method} has no presets to start from; give the class of the method a `presets`.")
    return presets
