"""What all benchmarks share: the layout they ask for, images embedded from anywhere, a report."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rizbin.core.bounded import parse_json, read_regular
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import Advance, MakeBar
from rizbin.data.sample import Refused
from rizbin.data.views import whole
from rizbin.models.encoder import Encoder

MOST_JSON = 2**30
"""Bytes of a benchmark's file; Karpathy's COCO has 145 million."""
MOST_TEXT = 2**22
"""Bytes of a list of names or templates."""
Image = Callable[[], UInt8[np.ndarray, "_ _ 3"]]
"""Reads one image. Raises Refused where it cannot be used."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """How a benchmark is run."""

    batch: int = 100
    """Images in a pass; changes speed and memory only."""
    limit: int | None = None
    """Only the first so many images, for a quick look; the report says so. None: all."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One published measurement."""

    name: str
    about: str
    """What is measured, in a line."""
    layout: str
    """What the folder must hold, as it is handed out."""
    source: str
    """Where the protocol is published."""
    run: Callable[[Any, Path, BenchmarkOptions, MakeBar | None], Report]
    """Measures an encoder, or a detector."""
    detects: bool = False
    """Whether it measures detectors."""


def missing(name: str, what: Path, layout: str) -> RizbinError:
    """The sentence about a piece that is not there."""
    return RizbinError(f"{name} needs {what}, which is not there; its folder holds {layout}.")


def lines_of(path: Path) -> list[str]:
    """The lines of a small text file, without white space around them."""
    try:
        return [line.strip() for line in read_regular(path, MOST_TEXT).decode("utf-8-sig").splitlines()]
    except (OSError, UnicodeError) as error:
        raise RizbinError(f"{path} cannot be read ({error}); get it again.") from error


def json_of(path: Path) -> Any:
    """What a JSON file holds."""
    try:
        return parse_json(read_regular(path, MOST_JSON))
    except (OSError, ValueError) as error:
        raise RizbinError(f"{path} cannot be read as JSON ({error}); get it again.") from error


def first(items: Sequence[Any], limit: int | None) -> Sequence[Any]:
    """The first `limit` of them."""
    return items if limit is None else items[:limit]


@dataclass(frozen=True)
class EmbeddedBatch:
    """Embeddings of the images that could be used."""

    positions: list[int]
    """Which of the images each row is of."""
    vectors: Float[Tensor, "rows dim"]
    """Unit length, on the CPU."""
    refused: tuple[tuple[str, str], ...]
    """(position, reason) of the others."""


@torch.no_grad()
def embed_images(encoder: Encoder, images: Sequence[Image], batch: int, advance: Advance) -> EmbeddedBatch:
    """Embeds images as the evaluation sees them: central squares at the encoder's size.

    Raises RizbinError where none can be used.
    """
    positions: list[int] = []
    vectors: list[Tensor] = []
    refused: list[tuple[str, str]] = []

    def square(position: int) -> np.ndarray | str:
        try:
            return whole(images[position](), encoder.image_size)
        except Refused as reason:
            return str(reason)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(images), batch):
            some = range(start, min(start + batch, len(images)))
            squares = list(zip(some, pool.map(square, some), strict=True))
            refused += [(str(place), text) for place, text in squares if isinstance(text, str)]
            usable = [(place, pixels) for place, pixels in squares if not isinstance(pixels, str)]
            if usable:
                pixels = torch.from_numpy(np.stack([pixels for _, pixels in usable])).to(encoder.device)
                vectors.append(encoder.embeddings(encoder.normalized(pixels)).float().cpu())
                positions += [place for place, _ in usable]
            advance(len(some))
    if not vectors:
        reason = f" The first reason: {refused[0][1]}" if refused else ""
        raise RizbinError(f"No image of {len(images)} could be used.{reason}")
    return EmbeddedBatch(positions, torch.cat(vectors), tuple(refused))


def report(
    name: str, measurements: Sequence[Measurement], images: int, refused: Sequence[tuple[str, str]], limit: int | None
) -> Report:
    """The report of a benchmark; one on fewer images than there are says so."""
    left_out = ()
    if limit is not None:
        left_out = (("all images", f"Only the first {limit:,} were asked for (--limit)."),)
    return Report(
        measurements=tuple(measurements), left_out=left_out, images=images, source=name, refused=tuple(refused)
    )
