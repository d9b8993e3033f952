"""All measurements of a network on one source, beside those of the same network with random weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import Advance, MakeBar, advancing
from rizbin.data.sample import Source
from rizbin.evaluation import frequency, reconstruction, zero_shot
from rizbin.evaluation.baseline import CachedNumbers
from rizbin.evaluation.embed import LabeledImages, PreparedImage, embed, embed_texts, pick_patches, read, without_masks
from rizbin.evaluation.sections import SectionResult, Sections, captioned
from rizbin.evaluation.settings import EvaluationSettings, check
from rizbin.models.protocol import FeatureExtractor
from rizbin.models.wrap import AnyEncoder, extractor

First = Callable[[list[Measurement]], None]
"""Called with the first measurements while the others are still being made."""
_READING, _EMBEDDING, _NUMBERS = 0.05, 1.0, 1.0
"""What an image costs in each stage beside the others, for the time left: of detailclip-mini on 1,000 scenes."""


class TooFew(RizbinError):
    """There are too few images for numbers that mean anything."""

    def __init__(self, sentence: str, images: int, least: int, source: Source | None = None) -> None:
        super().__init__(sentence)
        self.images, self.least, self.source = images, least, source
        """Images that there are, and that there would have to be; and whose they are."""


class Evaluation:
    """Measures encoders under fixed settings."""

    Settings = EvaluationSettings

    def __init__(self, settings: EvaluationSettings) -> None:
        check(settings)
        self.settings = settings
        self.sections = Sections(settings)

    @torch.no_grad()
    def __call__(
        self,
        encoder: AnyEncoder,
        source: Source,
        *,
        train_source: Source | None = None,
        look: frequency.Looker | None = None,
        reconstruct: reconstruction.Reconstructor | None = None,
        bar: MakeBar | None = None,
        first: First | None = None,
    ) -> Report:
        """See `evaluate`."""
        settings, pair = self.settings, extractor(encoder)
        counts = [_available(source, settings.images), 0]
        self._check_count(counts[0], source, "")
        if train_source is not None:
            counts[1] = _available(train_source, min(settings.train_images, 2 * counts[0]))
        cached = CachedNumbers(pair, source, train_source, settings) if settings.baseline else None
        known = None if cached is None else cached.read()
        networks = 2 if settings.baseline and known is None else 1
        # Each image is read, and by each network embedded and measured.
        every = sum(counts)
        costs = [(every, _READING), *[(every, _EMBEDDING), (every, _NUMBERS)] * networks]
        with advancing(bar, every * (1 + 2 * networks), "measuring", costs) as advance:
            test, train, categories, refused = self._read(pair, source, train_source, counts, advance)
            if refusal := _no_patches(pair):
                test, train = without_masks(test, refusal), without_masks(train, refusal)
            measurements, left_out = self._measure(pair, test, train, categories, look, reconstruct, advance, first)
            if cached is not None:
                if known is None:
                    other, known = pair.untrained(settings.seed), {}
                    if other is None:
                        left_out.append(("random weights", f"{pair.name} cannot be built without its weights."))
                    else:
                        random, _ = self._measure(other, test, train, categories, None, None, advance, None)
                        known = {measurement.name: measurement.value for measurement in random}
                    cached.write(known)
                measurements = [
                    replace(measurement, baseline=known.get(measurement.name)) for measurement in measurements
                ]
        return Report(
            measurements=tuple(measurements),
            left_out=tuple(left_out),
            images=len(test),
            source=source.name,
            refused=tuple(refused),
        )

    def _read(
        self,
        pair: FeatureExtractor,
        source: Source,
        train_source: Source | None,
        counts: Sequence[int],
        advance: Advance,
    ) -> tuple[LabeledImages, LabeledImages, tuple[str, ...], list[tuple[str, str]]]:
        """Test images, training images (none without such a source), the categories of both, and what was refused."""
        seed = self.settings.seed
        prepared, refused = read(source, counts[0], pair.image_size, seed=seed, advance=advance)
        reason = f" (the first reason: {refused[0][1]})" if refused else ""
        if not prepared:
            raise RizbinError(
                f"The source '{source.name}' gave no image to measure on{reason}; point the evaluation at other data."
            )
        self._check_count(len(prepared), source, reason)
        train_prepared: list[PreparedImage] = []
        if train_source is not None:
            train_prepared, more = read(train_source, counts[1], pair.image_size, seed=seed, advance=advance)
            refused += more
        images = prepared + train_prepared
        categories = source.categories or tuple(sorted({name for image in images for name in image.names}))
        test = LabeledImages.of(prepared, categories, pair.image_size, pair.grid)
        train = LabeledImages.of(train_prepared, categories, pair.image_size, pair.grid)
        return test, train, categories, refused

    def _measure(
        self,
        pair: FeatureExtractor,
        test: LabeledImages,
        train: LabeledImages,
        categories: tuple[str, ...],
        look: frequency.Looker | None,
        reconstruct: reconstruction.Reconstructor | None,
        advance: Advance,
        first: First | None,
    ) -> SectionResult:
        """Every measurement that the images allow, of one network; those of whole images are told to `first`."""
        settings, sections = self.settings, self.sections
        with _resting(pair.network):
            at: dict[str, Any] = {"batch": settings.batch}
            words = texts = None
            if pair.reads_text:
                words = zero_shot.embed_categories(pair, categories, settings.templates, **at)
                texts = embed_texts(pair, test.captions, **at) if captioned(test) else None
            at["windows"] = settings.dense_images
            test_seen = embed(pair, test, words, dense=len(test.masked), heads_too=True, advance=advance, **at)
            if first is not None and words is not None:
                first(self.sections.with_words(test, test_seen, words, texts)[0])
            rows, columns = pair.grid
            picked = pick_patches(len(train.masked), rows * columns, settings.probe_patches, seed=settings.seed)
            dense = min(settings.threshold_images, len(train.masked), len(test.masked))
            train_seen = (
                embed(pair, train, words, dense=dense, picked=picked, advance=advance, **at) if len(train) else None
            )
        reported, every = 0, len(test) + len(train)
        parts: list[SectionResult] = []
        # In the order of the report; the shares are those of the time that each took on 1,000 images of 64 pixels.
        for share, part in (
            (0.1, lambda: sections.whole_images(test, test_seen, train, train_seen, words, texts)),
            (0.8, lambda: sections.patches(test, test_seen, train, train_seen, picked)),
            (0.82, lambda: sections.grounding(test, test_seen, words)),
            (0.84, lambda: sections.sizes(test, test_seen, words)),
            (0.85, lambda: sections.attended(test, test_seen)),
            (1.0, lambda: sections.looked(test, test_seen, look, reconstruct, pair.device)),
        ):
            parts.append(part())
            if len(parts) == 1 and first is not None and words is None:
                first(parts[0][0])
            advance(round(share * every) - reported)
            reported = round(share * every)
        return [item for measurements, _ in parts for item in measurements], [
            item for _, left_out in parts for item in left_out
        ]

    def _check_count(self, images: int, source: Source, reason: str) -> None:
        """Refuses data with so few images that their numbers would say nothing."""
        least = min(self.settings.least_images, self.settings.images)
        if images < least:
            raise TooFew(
                f"{source.name} has {images} image{'s' * (images != 1)} to measure on{reason}, fewer than {least}, so "
                "its numbers would say nothing; give more images.",
                images,
                least,
                source,
            )


def evaluate(
    encoder: AnyEncoder,
    source: Source,
    *,
    train_source: Source | None = None,
    settings: Evaluation.Settings = Evaluation.Settings(),
    look: frequency.Looker | None = None,
    reconstruct: reconstruction.Reconstructor | None = None,
    bar: MakeBar | None = None,
    first: First | None = None,
) -> Report:
    """Everything that can be measured of `encoder` on `source`; what cannot is named with the reason.

    `encoder` is an adapter of any library (`rizbin.models`) or one of Rizbin's own networks. Of an image encoder
    nothing with words can be measured, and of one without patches nothing with masks.

    `train_source` (images that are not in `source`) is what k-NN, probes and the background threshold learn from.
    `look` is a method's `look`: normalized images in, attention, removed patches and reconstruction out.
    `reconstruct` is a method's `reconstruct`: pixels predicted with given patches hidden. `bar` makes a progress bar
    from (total images, label); `first` is told the numbers of whole images with words as soon as they are known,
    without random weights beside them. Images are the central squares at the encoder's size. Leaves the network in
    the mode (train or eval) it came in. Raises TooFew when the source has fewer than `least_images`, RizbinError when
    no image can be used, or embeddings or reconstructions are not finite.
    """
    return Evaluation(settings)(
        encoder, source, train_source=train_source, look=look, reconstruct=reconstruct, bar=bar, first=first
    )


@contextmanager
def _resting(network: nn.Module) -> Iterator[None]:
    """Puts the network into evaluation mode, and back afterwards."""
    modules = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        # One by one: a frozen part may rest in a network that trains.
        for module, training in modules:
            module.training = training


def _no_patches(encoder: FeatureExtractor) -> str:
    """Why patches cannot be measured against masks; empty where they can."""
    if not encoder.has_patches:
        return "The network gives no features of patches."
    rows, columns = encoder.grid
    if encoder.image_size % rows or encoder.image_size % columns:
        side = encoder.image_size
        return f"Images of {side}x{side} pixels do not divide into the network's {rows}x{columns} patches."
    return ""


def _available(source: Source, count: int) -> int:
    return count if source.endless else min(count, len(source))
