"""Image files as vectors: threads read and cut while the network works, so that it seldom waits."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.image_io import read_image, read_size
from rizbin.data.listing import ENOUGH
from rizbin.data.sample import Refused
from rizbin.data.views import whole
from rizbin.models.encoder import Encoder
from rizbin.vectors.parts import Rows

AHEAD = 3
"""Batches that are read before the network asks for them."""
MOST_WORKERS = 8
"""Threads that read; more of them wait for Python's lock."""


Region = tuple[float, float, float, float]
"""Left, top, right, bottom of a part of an image, as shares of its width and height, 0 to 1."""


@dataclass(frozen=True)
class Square:
    """One image as the network gets it."""

    pixels: UInt8[np.ndarray, "side side 3"]
    size: tuple[int, int]
    """Width and height of the whole image."""


@dataclass
class Clock:
    """Seconds that the network itself took."""

    network: float = 0.0


def default_workers() -> int:
    """A thread for each available core, up to `MOST_WORKERS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def read_square(
    path: Path, name: str, side: int, *, reduced: bool = False, region: Region | None = None
) -> Square | str:
    """The central square of an image file, as evaluation sees it; or the sentence why it cannot be used.

    region: of a part of the image, see `around`.
    """
    try:
        pixels = read_image(path, name=name, enough=ENOUGH * side if reduced else 0)
        pixels = pixels if region is None else around(pixels, region)
        size = read_size(path) if reduced else (pixels.shape[1], pixels.shape[0])
    except Refused as refusal:
        return str(refusal)
    return Square(whole(pixels, side), size)


def around(pixels: UInt8[np.ndarray, "_ _ 3"], region: Region) -> UInt8[np.ndarray, "_ _ 3"]:
    """The smallest square of the image that holds the region; the region itself where none fits into the image.

    Raises RizbinError for a region that is none.
    """
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise RizbinError(
            f"The region {left:g} {top:g} {right:g} {bottom:g} is none; give its left, top, right and bottom as shares "
            "of the image from 0 to 1, left before right and top before bottom."
        )
    sides = pixels.shape[1], pixels.shape[0]
    cuts = []
    low, high = (left, top), (right, bottom)
    spans = [max(round((high[axis] - low[axis]) * sides[axis]), 1) for axis in (0, 1)]
    for axis, length in enumerate(sides):
        span = max(spans) if max(spans) <= min(sides) else spans[axis]
        middle = (low[axis] + high[axis]) / 2 * length
        start = min(max(round(middle - span / 2), 0), length - span)
        cuts.append(slice(start, start + span))
    return np.ascontiguousarray(pixels[cuts[1], cuts[0]])


def encoded(
    encoder: Encoder,
    batches: Iterable[Sequence[tuple[Path, str]]],
    *,
    patches: bool = False,
    reduced: bool = False,
    workers: int = 1,
    clock: Clock | None = None,
) -> Iterator[Rows]:
    """The rows of each batch of (path, name), in order.

    A batch is one pass of the network, whatever could not be read in it left out. Rows of other batches differ by what
    a sum in another order does: at most 1e-5 in a component (tests).
    Raises RizbinError where the network gives what is no number.
    """
    waiting: deque[list[Future[Square | str]]] = deque()
    source = iter(batches)
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="read") as pool:

        def submit() -> None:
            batch = next(source, None)
            if batch is not None:
                side = encoder.image_size
                waiting.append([pool.submit(read_square, *file, side, reduced=reduced) for file in batch])

        try:
            for _ in range(AHEAD):
                submit()
            while waiting:
                squares = [future.result() for future in waiting.popleft()]
                submit()
                yield embed_squares(encoder, squares, patches=patches, clock=clock)
        finally:
            for future in (future for batch in waiting for future in batch):
                future.cancel()


@torch.inference_mode()
def embed_squares(
    encoder: Encoder, squares: Sequence[Square | str], *, patches: bool = False, clock: Clock | None = None
) -> Rows:
    """The rows of one batch."""
    usable = [(place, square) for place, square in enumerate(squares) if isinstance(square, Square)]
    unusable = tuple(square for square in squares if isinstance(square, str))
    if not usable:
        nothing = np.zeros((0, *encoder.grid, 0), np.float16) if patches else None
        return Rows(np.zeros(0, np.int64), np.zeros((0, 0), np.float32), np.zeros((0, 2), np.int32), unusable, nothing)
    began = time.perf_counter()
    batch = encoder.normalized(torch.from_numpy(np.stack([square.pixels for _, square in usable])).to(encoder.device))
    vectors = encoder.embeddings(batch).float().cpu()
    cells = patch_vectors(encoder, batch).half().cpu().numpy() if patches else None
    if clock is not None:
        clock.network += time.perf_counter() - began
    if not bool(torch.isfinite(vectors).all()) or (cells is not None and not np.isfinite(cells).all()):
        raise RizbinError(f"{encoder.name} gives vectors that are not finite numbers; choose another checkpoint of it.")
    return Rows(
        positions=np.array([place for place, _ in usable], np.int64),
        vectors=vectors.numpy(),
        sizes=np.array([square.size for _, square in usable], np.int32),
        unusable=unusable,
        patches=cells,
    )


def patch_vectors(encoder: Encoder, batch: torch.Tensor) -> torch.Tensor:
    """Unit vectors of patches [batch rows columns dim]: in the space of the texts where patches meet them."""
    if encoder.localizes:
        return encoder.dense(batch)
    return F.normalize(encoder.patches(batch), dim=-1)


def fingerprint(encoder: Encoder) -> str:
    """A checksum of all weights and buffers of a network, by name: the same network under any name and in any place."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.network.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            numbers: Any = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(numbers)
    return digest.hexdigest()


def preprocessing(encoder: Encoder, *, reduced: bool = False) -> dict[str, Any]:
    """What is done to an image before the network sees it, for the record."""
    return {
        "image_size": encoder.image_size,
        "crop": "central square",
        "resize": "area where it shrinks, bicubic where it grows",
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "decode": "JPEGs at a half, a quarter or an eighth" if reduced else "full",
    }
