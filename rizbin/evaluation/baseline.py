"""The numbers of random weights, kept in the user's cache: they depend on the architecture and the data alone.

What decides them makes the name of the file: the network's settings and device, the evaluation's settings, both
sources, this code and torch. Only networks of Rizbin and scenes are kept: of files the fingerprint knows names and
sizes and not the pixels. A cache that cannot be read or written costs time and nothing else.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from rizbin.data.sample import Source
from rizbin.data.scenes import Scenes
from rizbin.data.scenes.sprites import cache_folder
from rizbin.models.protocol import FeatureExtractor

_DECIDE = ("core", "data", "evaluation", "models", "nets")
"""Folders whose code decides the numbers."""


class CachedNumbers:
    """Where the numbers of a network with random weights on certain data are kept."""

    def __init__(self, encoder: FeatureExtractor, source: Source, train: Source | None, settings: Any) -> None:
        self.path: Path | None = None
        """None where what decides the numbers cannot be spelled out, so that nothing is kept."""
        sources = [given for given in (source, train) if given is not None]
        if encoder.architecture is None or not all(isinstance(given, Scenes) for given in sources):
            return
        spelled = [*encoder.architecture, encoder.device.type, asdict(settings)]
        spelled += [[[given.name, given.fingerprint] for given in sources], torch.__version__, _code()]
        with suppress(TypeError, ValueError):
            text = json.dumps(spelled, sort_keys=True)
            self.path = cache_folder() / "random" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def read(self) -> dict[str, float] | None:
        """The numbers by name; None where there are none, or not whole ones."""
        if self.path is None:
            return None
        try:
            numbers = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        whole = isinstance(numbers, dict) and all(
            type(value) is float and math.isfinite(value) for value in numbers.values()
        )
        return numbers if whole else None

    def write(self, numbers: dict[str, float]) -> None:
        """Keeps them, whole or not at all."""
        if self.path is None or not all(math.isfinite(value) for value in numbers.values()):
            return
        waiting = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            waiting.write_text(json.dumps({name: float(value) for name, value in numbers.items()}), encoding="utf-8")
            os.replace(waiting, self.path)
        except OSError:
            with suppress(OSError):
                waiting.unlink(missing_ok=True)


@cache
def _code() -> str:
    """A hash of the code that decides the numbers, so that none outlives a change of it."""
    digest = hashlib.sha256()
    for path in _files(Path(__file__).parent.parent):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for folder in _DECIDE:
        yield from sorted((root / folder).rglob("*.py"))
