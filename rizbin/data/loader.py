"""The loader: batches of views and tokens, each a pure function of the seed and its position.

Nothing is remembered from one batch to the next, so resuming costs nothing, and neither the number of workers nor the
number of processes changes a pixel.
"""

import math
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rizbin.core.errors import RizbinError
from rizbin.core.random import generator, key
from rizbin.data.order import index_at, positions_of
from rizbin.data.phrases import phrases as phrases_of
from rizbin.data.sample import Named, Refused, Sample, Source
from rizbin.data.tokens import Tokenizer
from rizbin.data.views import View, ViewSpec

MOST_REFUSED_IN_A_ROW = 100
"""More than this and the run stops: such a source is broken, not blemished."""
MOST_REFUSED_SHARE = 0.05
"""More than this share of the images looked at so far and the run stops; a flag tolerates more."""
FEW_REFUSED = 20
"""Up to this number, refused files stop nothing unless they are more than half of all: each can be looked at by eye."""
_PREFETCH = 2
"""Batches that each worker prepares ahead."""


@dataclass(frozen=True)
class LoadedBatch:
    """This process's part of one step's samples."""

    views: list[UInt8[Tensor, "batch _ _ 3"]]
    """One [batch, size, size, 3] for each view asked for; RGB, 0 to 255, channels last."""
    crops: Float[Tensor, "views batch 4"]
    """Left, top, right, bottom of each view as shares of the image's sides."""
    flips: Bool[Tensor, "views batch"]
    """Whether the view is mirrored left and right."""
    texts: Int[Tensor, "batch length"] | None
    """Tokens, trimmed to the last end token of this part; None without a tokenizer."""
    positions: list[int]
    """Where these samples stand in the run: step * batch and on."""
    refused: list[tuple[str, str]]
    """Position and reason of every sample that could not be used; others stand in their places."""
    objects: list[tuple[Named, ...]]
    """The objects of each sample's whole image, where the source knows them."""
    phrases: Int[Tensor, "batch most words"] | None = None
    """Tokens of each caption's noun phrases, trimmed alike, rows of zeros where it has fewer; None where none are
    wanted."""


@dataclass
class _Part:
    """What a worker hands over. No exception crosses from a worker: torch would bury its sentence under a traceback."""

    batch: LoadedBatch | None
    """None when the samples of a position could not be replaced."""
    refused: list[tuple[str, str]]
    drawn: int
    """Samples asked for, replacements not counted."""
    failure: str = ""
    """The sentence of a `RizbinError` that stops the run."""


class Loader:
    """Iterates the `LoadedBatch`es of the steps from `start_step` to `steps` - 1, for one process of `world`.

    `batch` samples make a step over all processes together; process `rank` gets the contiguous slice of positions
    step * batch + rank * batch / world and on, so that batches gathered in order of rank equal a single process's.
    Endless sources are read by position, finite ones in a new order each epoch (`index_at`). A sample that is refused
    is replaced by another that the seed, the position and nothing else decides, and is listed in `LoadedBatch.refused`.
    `phrases` is the most noun phrases of a caption that are wanted as tokens besides; a caption without any is one
    phrase. `workers` processes prepare batches ahead; with 0 this process makes each one when it is asked for.

    Raises `RizbinError` when the batch cannot be shared evenly, when no sample or none of a hundred in a row can be
    used, or when too many different samples of those that this process looked at were refused: more than the share
    `tolerate`, and more than 20 or than half of all that the source has.
    """

    def __init__(
        self,
        source: Source,
        views: ViewSpec,
        tokenizer: Tokenizer | None,
        *,
        seed: int,
        batch: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        start_step: int = 0,
        steps: int,
        phrases: int = 0,
        tolerate: float = MOST_REFUSED_SHARE,
    ):
        if batch < 1 or batch % world:
            raise RizbinError(
                f"a batch of {batch} cannot be shared evenly by {world} processes; give a multiple of {world}."
            )
        if len(source) < 1:
            raise RizbinError(f"{source.name} holds no samples; give another source or split.")
        self._steps = range(start_step, steps)
        self._workers = workers
        self._parts = _Parts(source, views, tokenizer, seed, batch, rank, world, phrases)
        if not 0 <= tolerate <= 1:
            raise RizbinError(f"The share of unusable images to tolerate is {tolerate:g}; give one from 0 to 1.")
        self._source, self._tolerate = source, tolerate
        self._drawn = 0
        self._refused: set[str] = set()
        """Different samples, by name."""

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[LoadedBatch]:
        for part in self._read():
            if part.batch is None:
                raise RizbinError(part.failure)
            self._judge(part)
            yield part.batch

    def _read(self) -> Iterator[_Part]:
        if self._workers == 0:
            yield from (self._parts[step] for step in self._steps)
            return
        yield from DataLoader(
            self._parts,
            batch_size=None,
            sampler=self._steps,
            num_workers=min(self._workers, max(1, len(self._steps))),
            prefetch_factor=_PREFETCH,
            worker_init_fn=_quiet_worker,
            # torch draws a base seed for its workers; from the global generator it would change the training.
            generator=torch.Generator(),
        )

    def _judge(self, part: _Part) -> None:
        """Stops the run when too many different samples of those looked at were refused."""
        before = len(self._refused)
        self._drawn += part.drawn
        self._refused.update(name for name, _ in part.refused)
        if len(self._refused) == before:
            return
        endless, bad = self._source.endless, len(self._refused)
        # An epoch takes every sample once, and replacements come on top: so many different ones were looked at.
        looked_at = self._drawn + bad if endless else min(self._drawn + bad, len(self._source))
        few = FEW_REFUSED if endless else min(FEW_REFUSED, len(self._source) // 2)
        if bad > max(self._tolerate * looked_at, few):
            of_all = "" if endless or looked_at == len(self._source) else f" looked at, of {len(self._source)} in all,"
            raise RizbinError(
                f"{bad} of the {looked_at} images of {self._source.name}{of_all} cannot be used, so look at the data; "
                # With room, for what was looked at so far is a sample of all.
                f"--tolerate {min(10, math.ceil(10 * bad / looked_at + 0.5)) / 10:g} trains on the others. The last "
                f"reason: {part.refused[-1][1]}"
            )


class _Parts(Dataset):
    """The part of every step that one process gets, by step."""

    def __init__(
        self,
        source: Source,
        views: ViewSpec,
        tokenizer: Tokenizer | None,
        seed: int,
        batch: int,
        rank: int,
        world: int,
        phrases: int,
    ):
        self._source = source
        self._views = [View(settings) for settings in views]
        self._tokenizer = tokenizer
        self._seed = seed
        self._batch = batch
        self._share = batch // world
        self._rank, self._world = rank, world
        self._phrases = phrases

    def __getitem__(self, step: int) -> _Part:
        positions = list(positions_of(step, self._batch, self._rank, self._world))
        refused: list[tuple[str, str]] = []
        count = len(self._views)
        views = [np.empty((self._share, view.settings.size, view.settings.size, 3), np.uint8) for view in self._views]
        crops = np.empty((count, self._share, 4), np.float32)
        flips = np.empty((count, self._share), np.bool_)
        captions: list[str] = []
        objects: list[tuple[Named, ...]] = []
        try:
            for row, position in enumerate(positions):
                sample = self._sample(position, refused)
                random = generator(self._seed, "views", position)
                captions.append(_caption(sample, random.random()))
                objects.append(sample.named)
                for number, view in enumerate(self._views):
                    views[number][row], crops[number, row], flips[number, row] = view(sample.image, random)
        except RizbinError as error:
            return _Part(None, refused, len(captions), str(error))
        texts = self._tokenizer.trim(self._tokenizer.encode(captions)) if self._tokenizer else None
        batch = LoadedBatch(
            [torch.from_numpy(view) for view in views],
            torch.from_numpy(crops),
            torch.from_numpy(flips),
            texts,
            positions,
            refused,
            objects,
            self._phrase_tokens(captions) if self._phrases else None,
        )
        return _Part(batch, refused, self._share)

    def _phrase_tokens(self, captions: list[str]) -> Int[Tensor, "batch most words"]:
        assert self._tokenizer is not None  # a method that wants phrases reads captions
        split = [(phrases_of(caption) or [caption])[: self._phrases] for caption in captions]
        tokens = torch.zeros(len(split), self._phrases, self._tokenizer.settings.context, dtype=torch.long)
        for row, parts in enumerate(split):
            tokens[row, : len(parts)] = self._tokenizer.encode(parts)
        return tokens[:, :, : max(int((tokens != 0).any(dim=0).any(dim=0).sum()), 1)]

    def _sample(self, position: int, refused: list[tuple[str, str]]) -> Sample:
        """The sample at this position, or the first usable of the replacements that the seed and the position give."""
        endless, length = self._source.endless, len(self._source)
        index = position if endless else index_at(self._seed, position, length)
        bad: dict[int, str] = {}
        while len(bad) <= MOST_REFUSED_IN_A_ROW:
            try:
                return self._usable(self._source[index])
            except Refused as error:
                bad[index] = str(error)
                refused.append((f"sample {index}", str(error)))
            if not endless and len(bad) == length:
                raise RizbinError(
                    f"None of the {length} images of {self._source.name} can be used, so look at the data; the first "
                    f"reason: {next(iter(bad.values()))}"
                )
            index = self._replacement(position, bad)
        raise RizbinError(
            f"{len(bad)} images of {self._source.name} in a row cannot be used, so look at the data; the last reason: "
            f"{next(reversed(bad.values()))}"
        )

    def _replacement(self, position: int, bad: dict[int, str]) -> int:
        """The next sample to take for the one at this position, none of those that were refused."""
        if self._source.endless:
            return int(generator(self._seed, "replacement", position, len(bad)).integers(2**62))
        # An order of its own, in which every sample comes once: none is tried twice, and none is left out.
        order = key(self._seed, "replacement", position)
        return next(
            index
            for place in range(len(self._source))
            if (index := index_at(order, place, len(self._source))) not in bad
        )

    def _usable(self, sample: Sample) -> Sample:
        if self._tokenizer and not sample.caption.strip():
            raise Refused(f"{sample.key} has no caption; give it one, or train without text.")
        return sample


def _caption(sample: Sample, draw: float) -> str:
    """One of the sample's captions, by a random number from 0 to 1."""
    captions = sample.captions or (sample.caption,)
    return captions[int(draw * len(captions))]


def _quiet_worker(_: int) -> None:
    """Leaves Ctrl-C to the main process, which saves; a worker that is told to end just ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
