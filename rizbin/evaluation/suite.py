"""All measurements of a network on one source, beside those of the same network with random weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import Advance, MakeBar, advancing
from rizbin.data.sample import Source
from rizbin.data.views import normalize
from rizbin.evaluation import (
    attention,
    collapse,
    frequency,
    grounding,
    knn,
    probe,
    reconstruction,
    retrieval,
    segmentation,
    sizes,
    tokens,
    zero_shot,
)
from rizbin.evaluation.baseline import Kept as _Kept
from rizbin.evaluation.embed import (
    Embedded,
    Encoder,
    Pair,
    Pictures,
    Seen,
    embed,
    embed_texts,
    pick_patches,
    read,
)

Found = tuple[list[Measurement], list[tuple[str, str]]]
"""Measurements, and (name, reason) of what was left out."""


First = Callable[[list[Measurement]], None]
"""Is told the first numbers while the others are still being measured."""
_READING, _EMBEDDING, _NUMBERS = 0.05, 1.0, 1.0
"""What an image costs in each stage beside the others, for the time left: of detailclip-mini on 1,000 scenes."""


class TooFew(RizbinError):
    """There are too few images for numbers that mean anything."""

    def __init__(self, sentence: str, images: int, least: int, source: Source | None = None) -> None:
        super().__init__(sentence)
        self.images, self.least, self.source = images, least, source
        """Images that there are, and that there would have to be; and whose they are."""


class Evaluation:
    """Measures image-text pairs and image encoders under fixed settings."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        images: int = 1000
        """Pictures to measure on; 1,000 put the standard error of a share at 1.6 points or less."""
        train_images: int = 2000
        """Most pictures of the training source for k-NN, probes and the background threshold; at most twice as many as
        are measured on, so that time follows `images`."""
        least_images: int = 10
        """Data with fewer images than this are refused: of three captions each finds its image almost by itself, and a
        share of ten images has a standard error of up to 16 points."""
        batch: int = 100
        """Pictures embedded at once; changes speed and memory only."""
        seed: int = 0
        """Decides which pictures of a finite source are taken, the held-out fifth, and the random weights."""
        templates: zero_shot.TemplateSet = "scenes"
        """Prompts of a category: "scenes" (as the embedded world's captions), "plain" (7 of CLIP's) or "openai80"."""
        k: int = 20
        """Neighbors that vote (DINO, arXiv 2104.14294)."""
        temperature: float = 0.07
        """Temperature of the neighbors' weights (DINO)."""
        decays: tuple[float, ...] = (0.1, 0.01, 0.001, 0.0001)
        """Weight decays that the probes choose from, as a factor of |weight|^2 / 2."""
        probe_steps: int = 40
        """Most L-BFGS iterations of a probe; the loss then moves by less than a percent."""
        probe_patches: int = 8
        """Patches of each training picture that the segmentation probe learns from, at random."""
        threshold_images: int = 300
        """Most training pictures on which the background threshold is chosen; at most as many as are measured on."""
        dense_images: int = 300
        """Most images, of the test and of the training ones, that the dense head sees: it takes five passes of
        the network, the plain one takes one. 0 leaves it out."""
        size_edges: tuple[float, float] = (0.02, 0.10)
        """An object is small under the first, large from the second, as shares of the picture's area."""
        keep_ratio: float = 0.5
        """Share of blocks that the token filter keeps (DetailCLIP, A-CLIP: 0.5)."""
        block: int = 2
        """Side in patches of the squares that the token filter keeps or removes whole; 1 for single patches."""
        mass: float = 0.6
        """Share of a head's attention in its mask, over 0 to 1 (DINO's figure 4)."""
        bands: tuple[float, ...] = (0.25, 0.5)
        """Where frequency bands end, as shares of the Nyquist frequency; the last band has no end."""
        boundary_width: int = 2
        """Pixels from a boundary that boundary IoU looks at; the paper's 2 percent of the diagonal at 64 pixels (arXiv
        2103.16562)."""
        low_resolutions: tuple[int, ...] = (2, 4)
        """Factors by which images are shrunk for methods that reconstruct detail from a lower resolution."""
        baseline: bool = True
        """Measure the same network with random weights too; doubles the time, once: the numbers are kept for the next
        network of the same architecture on the same data."""

    def __init__(self, settings: Settings) -> None:
        _check(settings)
        self.settings = settings

    @torch.no_grad()
    def __call__(
        self,
        pair: Encoder,
        source: Source,
        *,
        train_source: Source | None = None,
        look: frequency.Looker | None = None,
        reconstruct: reconstruction.Reconstructor | None = None,
        bar: MakeBar | None = None,
        first: First | None = None,
    ) -> Report:
        """See `evaluate`."""
        settings = self.settings
        counts = [_available(source, settings.images), 0]
        self._check_count(counts[0], source, "")
        if train_source is not None:
            counts[1] = _available(train_source, min(settings.train_images, 2 * counts[0]))
        kept = _Kept(pair, source, train_source, settings, _device(pair)) if settings.baseline else None
        known = None if kept is None else kept.read()
        networks = 2 if settings.baseline and known is None else 1
        # Each image is read, and by each network embedded and measured.
        every = sum(counts)
        costs = [(every, _READING), *[(every, _EMBEDDING), (every, _NUMBERS)] * networks]
        with advancing(bar, every * (1 + 2 * networks), "measuring", costs) as advance:
            seen, refused = read(source, counts[0], pair.image_size, seed=settings.seed, advance=advance)
            reason = f" (the first reason: {refused[0][1]})" if refused else ""
            if not seen:
                raise RizbinError(
                    f"The source '{source.name}' gave no picture to measure on{reason}; "
                    "point the evaluation at other data."
                )
            self._check_count(len(seen), source, reason)
            train_seen: list[Seen] = []
            if train_source is not None:
                train_seen, more = read(train_source, counts[1], pair.image_size, seed=settings.seed, advance=advance)
                refused += more
            categories = source.categories or tuple(sorted({name for one in seen + train_seen for name in one.names}))
            test, train = (Pictures.of(some, categories, pair.image_size, pair.grid) for some in (seen, train_seen))
            found, left_out = self._measure(pair, test, train, categories, look, reconstruct, advance, first)
            if kept is not None:
                if known is None:
                    other = random_like(pair, settings.seed)
                    random, _ = self._measure(other, test, train, categories, None, None, advance, None)
                    known = {one.name: one.value for one in random}
                    kept.write(known)
                found = [replace(one, baseline=known.get(one.name)) for one in found]
        return Report(
            measurements=tuple(found),
            left_out=tuple(left_out),
            images=len(test),
            source=source.name,
            refused=tuple(refused),
        )

    def _measure(
        self,
        pair: Encoder,
        test: Pictures,
        train: Pictures,
        categories: tuple[str, ...],
        look: frequency.Looker | None,
        reconstruct: reconstruction.Reconstructor | None,
        advance: Advance,
        first: First | None,
    ) -> Found:
        """Every measurement that the pictures allow, of one network; those of whole images are told to `first`."""
        settings = self.settings
        with _resting(pair) as device:
            at = {"batch": settings.batch, "device": device}
            words = texts = None
            if isinstance(pair, Pair):
                words = zero_shot.embed_categories(pair, categories, settings.templates, **at)
                texts = embed_texts(pair, test.captions, **at) if _captioned(test) else None
            at["windows"] = settings.dense_images
            test_seen = embed(pair, test, words, dense=len(test.masked), heads_too=True, advance=advance, **at)
            if first is not None and words is not None:
                first(self._with_words(test, test_seen, words, texts)[0])
            rows, columns = pair.grid
            picked = pick_patches(len(train.masked), rows * columns, settings.probe_patches, seed=settings.seed)
            dense = min(settings.threshold_images, len(train.masked), len(test.masked))
            train_seen = (
                embed(pair, train, words, dense=dense, picked=picked, advance=advance, **at) if len(train) else None
            )
        told, every = 0, len(test) + len(train)
        parts: list[Found] = []
        # In the order of the report; the shares are those of the time that each took on 1,000 images of 64 pixels.
        for share, part in (
            (0.1, lambda: self._whole_pictures(test, test_seen, train, train_seen, words, texts)),
            (0.8, lambda: self._patches(test, test_seen, train, train_seen, picked)),
            (0.82, lambda: self._grounding(test, test_seen, words)),
            (0.84, lambda: self._sizes(test, test_seen, words)),
            (0.85, lambda: self._attended(test, test_seen)),
            (1.0, lambda: self._looked(test, test_seen, look, reconstruct, device)),
        ):
            parts.append(part())
            if len(parts) == 1 and first is not None and words is None:
                first(parts[0][0])
            advance(round(share * every) - told)
            told = round(share * every)
        return [one for found, _ in parts for one in found], [one for _, left_out in parts for one in left_out]

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

    def _with_words(self, test: Pictures, seen: Embedded, words: Tensor | None, texts: Tensor | None) -> Found:
        """What an image and texts decide alone: zero-shot classification and retrieval."""
        found: list[Measurement] = []
        left_out: list[tuple[str, str]] = []
        if words is None:
            return found, [(room, "The network reads no text.") for room in ("zero_shot", "retrieval")]
        if _named(test):
            found += zero_shot.measure(seen.images, words, test.right, self.settings.templates)
        else:
            left_out.append(("zero_shot", "The source does not name two or more categories."))
        if texts is not None:
            found += retrieval.measure(seen.images, texts, test.captions)
        else:
            left_out.append(("retrieval", "The pictures do not all have captions, or all the same one."))
        return found, left_out

    def _whole_pictures(
        self,
        test: Pictures,
        seen: Embedded,
        train: Pictures,
        train_seen: Embedded | None,
        words: Tensor | None,
        texts: Tensor | None,
    ) -> Found:
        """Zero-shot classification, retrieval, k-NN, linear probe."""
        settings = self.settings
        found, left_out = self._with_words(test, seen, words, texts)
        if not _named(test):
            left_out += [(room, "The source does not name two or more categories.") for room in ("knn", "probe")]
        elif train_seen is None:
            left_out += [(room, "There are no training images beside those measured on.") for room in ("knn", "probe")]
        elif train.right.any(dim=1).sum() < 10:
            left_out += [
                (room, "There are not 10 training pictures with these categories.") for room in ("knn", "probe")
            ]
        else:
            both = seen.pooled, test.right, train_seen.pooled, train.right
            found += knn.measure(*both, k=settings.k, temperature=settings.temperature)
            found += probe.measure(*both, decays=settings.decays, steps=settings.probe_steps, seed=settings.seed)
            if words is None:
                found += _pixels(test, train, k=settings.k, temperature=settings.temperature)
        if words is None and len(seen.pooled) > 1:
            found += collapse.measure(seen.pooled)
        return found, left_out

    def _patches(
        self, test: Pictures, seen: Embedded, train: Pictures, train_seen: Embedded | None, picked: Tensor
    ) -> Found:
        """Segmentation: zero-shot from both dense heads, and by a linear layer."""
        settings = self.settings
        if not len(test.masked) or test.right.shape[1] < 2:
            return [], [
                ("segmentation", "The source does not know the objects' exact masks in two or more categories.")
            ]
        found: list[Measurement] = []
        left_out: list[tuple[str, str]] = []
        classes, grid = 1 + test.right.shape[1], (seen.attention.shape[1], seen.attention.shape[2])
        heads = segmentation.HEADS if len(seen.scores["plain"]) else {}
        shares = segmentation.patch_shares(test.labels, grid, classes)
        taught = train_seen is not None and len(train.masked) >= 10
        for room, how in heads.items():
            scores = seen.scores[how]
            if not len(scores):
                left_out.append((f"segmentation/{room}", "The evaluation's dense_images is 0."))
                continue
            labels, images = test.labels[: len(scores)], _guides(test, len(scores), how)
            if taught and train_seen is not None:
                train_scores = train_seen.scores[how]
                found += segmentation.zero_shot_segmentation(
                    scores,
                    labels,
                    train_scores,
                    train.labels[: len(train_scores)],
                    room,
                    how,
                    boundary_width=settings.boundary_width,
                    images=images,
                    train_images=_guides(train, len(train_scores), how),
                )
            found.append(segmentation.objects_miou(scores, labels, room, how, images=images))
            found += segmentation.patch_accuracy(F.adaptive_avg_pool2d(scores, grid), shares[: len(scores)], room, how)
        if not taught or train_seen is None:
            return found, left_out + [
                (f"segmentation/{room}/{name}", "There are not 10 training pictures with exact masks.")
                for room in (*heads, "linear")
                for name in ("miou", "boundary_iou")
            ]
        targets = segmentation.patch_shares(train.labels, grid, classes)
        targets = targets.gather(1, picked.unsqueeze(-1).expand(-1, -1, classes)).flatten(0, 1)
        features = train_seen.patches.float().flatten(0, 1)
        layer = probe.choose_and_fit(
            features, targets, "one", decays=settings.decays, steps=settings.probe_steps, seed=settings.seed
        )
        said = (
            f"that was fitted to the class shares of {picked.shape[1]} random patches of each of {len(picked)} "
            f"training pictures by L-BFGS in at most {settings.probe_steps} iterations"
        )
        found += segmentation.linear_segmentation(
            layer, seen.patches, test.labels, grid, taught=said, boundary_width=settings.boundary_width
        )
        return found, left_out

    def _grounding(self, test: Pictures, seen: Embedded, words: Tensor | None) -> Found:
        """Which of the words present stands where, by both dense heads."""
        if words is None:
            return [], [("grounding", "The network reads no text.")]
        if not len(test.objects.picture):
            return [], [("grounding", "The source does not know the objects' exact masks.")]
        found: list[Measurement] = []
        left_out: list[tuple[str, str]] = []
        for room, head in segmentation.HEADS.items():
            scores = seen.scores[head]
            count = len(scores)
            if not count:
                left_out.append((f"grounding/{room}", "The evaluation's dense_images is 0."))
                continue
            masked = test.masked[:count]
            more, apart = grounding.measure(
                scores,
                test.labels[:count],
                test.objects.among(masked),
                masked,
                room,
                head,
                images=_guides(test, count, head),
            )
            found += more
            left_out += apart
        return found, left_out

    def _sizes(self, test: Pictures, seen: Embedded, words: Tensor | None) -> Found:
        """Recall by object size."""
        if words is None:
            return [], [("sizes", "The network reads no text.")]
        if not len(test.objects.picture):
            return [], [("sizes", "The source does not know the objects' exact masks.")]
        return sizes.measure(
            seen.images, words, test.right, test.objects, test.masked, seen.scores["plain"], self.settings.size_edges
        )

    def _attended(self, test: Pictures, seen: Embedded) -> Found:
        """Whether the heads of the last layer look at objects."""
        if not len(test.masked):
            return [], [("attention", "The source does not know the objects' exact masks.")]
        if len(seen.heads) != len(test.masked):
            return [], [("attention", "The network has no CLS token that attends to patches.")]
        return attention.measure(seen.heads, test.labels, mass=self.settings.mass), []

    def _looked(
        self,
        test: Pictures,
        seen: Embedded,
        look: frequency.Looker | None,
        reconstruct: reconstruction.Reconstructor | None,
        device: torch.device,
    ) -> Found:
        """Object pixels kept and hidden, and reconstruction; the method's look is taken once for all of them."""
        settings = self.settings
        looks: list[tuple[Tensor, Tensor] | None] = []

        def looked(look: frequency.Looker) -> Iterator[tuple[Tensor, frequency.Look | None]]:
            for some in test.pixels.split(settings.batch):
                images = normalize(some.to(device))
                shown = look(images)
                looks.append(None if shown is None else (shown.attention.float().cpu(), shown.removed.cpu()))
                yield images, shown

        measurements = frequency.measure(looked(look), settings.bands) if look is not None else []
        shown = [each for each in looks if each is not None]
        whole = len(shown) == len(looks) and bool(looks)  # the method shows something of every batch
        attention, removed = (torch.cat(parts) for parts in zip(*shown, strict=True)) if whole else (None, None)
        found, left_out = self._tokens(test, seen, attention, removed)
        apart: list[tuple[str, str]] = []
        if reconstruct is not None and len(test.masked):
            more, apart = reconstruction.measure(
                reconstruct,
                test.pixels[test.masked],
                test.labels,
                (seen.attention.shape[1], seen.attention.shape[2]),
                block=settings.block,
                seed=settings.seed,
                factors=settings.low_resolutions,
                batch=settings.batch,
                device=device,
            )
            measurements += more
        if measurements:
            left_out += apart
            if reconstruct is not None and not len(test.masked):
                left_out.append(("reconstruction/hidden", "The source does not know the objects' exact masks."))
        else:
            left_out.append(
                ("reconstruction", "The method does not reconstruct removed patches, or only its encoder is here.")
            )
        return found + measurements, left_out

    def _tokens(self, test: Pictures, seen: Embedded, attention: Tensor | None, removed: Tensor | None) -> Found:
        """Object pixels on the patches that attention keeps, and on those that the method hides."""
        settings = self.settings
        rows, columns = seen.attention.shape[1:]
        if not len(test.masked):
            return [], [("tokens", "The source does not know the objects' exact masks.")]
        found, left_out = [], []
        if len(seen.attention) != len(test.masked):
            left_out.append(("tokens/object_pixels_kept", "The network has no CLS token whose attention could choose."))
        elif rows % settings.block or columns % settings.block:
            reason = (
                f"A grid of {rows}x{columns} patches does not divide into blocks of {settings.block}x{settings.block}."
            )
            left_out.append(("tokens/object_pixels_kept", reason))
        else:
            chosen, whose = seen.attention, "the image encoder's CLS attention (mean of all layers and heads)"
            if attention is not None and attention.shape[1:] == (rows, columns):
                chosen = attention[test.masked]
                whose = "the attention that the method shows (its teacher's where it has one)"
            found.append(
                tokens.measure(chosen, test.labels, keep_ratio=settings.keep_ratio, block=settings.block, whose=whose)
            )
        if removed is not None and bool(removed.any()):
            found.append(tokens.measure_hidden(removed[test.masked], test.labels))
        else:
            left_out.append(
                ("tokens/object_pixels_hidden", "The method hides no patches, or only its encoder is here.")
            )
        return found, left_out


def evaluate(
    pair: Encoder,
    source: Source,
    *,
    train_source: Source | None = None,
    settings: Evaluation.Settings = Evaluation.Settings(),
    look: frequency.Looker | None = None,
    reconstruct: reconstruction.Reconstructor | None = None,
    bar: MakeBar | None = None,
    first: First | None = None,
) -> Report:
    """Everything that can be measured of `pair` on `source`; what cannot is named with the reason.

    `pair` is an image-text pair, or an image encoder, of which nothing with words can be measured.

    `train_source` (pictures that are not in `source`) is what k-NN, probes and the background threshold learn from.
    `look` is a method's `look`: normalized pictures in, attention, removed patches and reconstruction out.
    `reconstruct` is a method's `reconstruct`: pixels predicted with given patches hidden. `bar` makes a progress bar
    from (total pictures, label); `first` is told the numbers of whole images with words as soon as they are known,
    without random weights beside them. Pictures are the central squares at the pair's size. Leaves the pair in the mode
    (train or eval) it came in. Raises TooFew when the source has fewer than `least_images`, RizbinError when no picture
    can be used, or embeddings or reconstructions are not finite.
    """
    return Evaluation(settings)(
        pair, source, train_source=train_source, look=look, reconstruct=reconstruct, bar=bar, first=first
    )


def random_like(pair: Encoder, seed: int) -> Encoder:
    """The same network with random weights from `seed`, on the same device; the caller's random state stays."""
    settings = pair.settings
    if not hasattr(settings, "vision"):
        settings = replace(settings, pretrained=False)
    elif settings.vision.pretrained:
        settings = replace(settings, vision=replace(settings.vision, pretrained=False))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        other = type(pair)(settings)  # pyright: ignore[reportCallIssue] (a Protocol says nothing of construction)
    return other.to(_device(pair)) if isinstance(other, nn.Module) else other


def _pixels(test: Pictures, train: Pictures, *, k: int, temperature: float) -> list[Measurement]:
    """k-NN on raw pixels: what needs no network at all."""
    pixels = (part.pixels.flatten(1).float() for part in (test, train))
    queries, memory = (part - part.mean(dim=1, keepdim=True) for part in pixels)
    found = knn.measure(queries, test.right, memory, train.right, k=k, temperature=temperature)
    first = next(one for one in found if one.name == "knn/top1")
    said = first.protocol.replace("pooled features before the projection", "raw pixels less each picture's mean")
    return [replace(first, name="knn/pixels_top1", protocol=said)]


def _guides(pictures: Pictures, count: int, how: str) -> Tensor | None:
    """The images whose colors guide the upsampling, the first with known objects; None for a head without."""
    return pictures.pixels[pictures.masked[:count]] if how == "windows" else None


def _device(pair: Encoder) -> torch.device:
    first = next(pair.parameters(), None) if isinstance(pair, nn.Module) else None
    return first.device if first is not None else torch.device("cpu")


@contextmanager
def _resting(pair: Encoder) -> Iterator[torch.device]:
    """The pair in evaluation mode, and back; gives its device."""
    modules = [(module, module.training) for module in pair.modules()] if isinstance(pair, nn.Module) else []
    if isinstance(pair, nn.Module):
        pair.eval()
    try:
        yield _device(pair)
    finally:
        # One by one: a frozen part may rest in a network that trains.
        for module, training in modules:
            module.training = training


def _available(source: Source, wanted: int) -> int:
    return wanted if source.endless else min(wanted, len(source))


def _named(pictures: Pictures) -> bool:
    """Whether two or more categories are known, and one of them is in an image."""
    return bool(pictures.right.any()) and pictures.right.shape[1] > 1


def _captioned(pictures: Pictures) -> bool:
    return all(pictures.captions) and len({caption.lower() for caption in pictures.captions}) > 1


def _check(settings: Evaluation.Settings) -> None:
    """Refuses settings that nothing can be measured with."""
    for name, least in (
        ("images", 1),
        ("train_images", 0),
        ("least_images", 1),
        ("batch", 1),
        ("k", 1),
        ("probe_steps", 1),
        ("probe_patches", 1),
        ("threshold_images", 1),
        ("dense_images", 0),
        ("block", 1),
        ("boundary_width", 1),
    ):
        if (value := getattr(settings, name)) < least:
            raise RizbinError(f"The evaluation's {name} is {value}; give {least} or more.")
    if settings.temperature <= 0:
        raise RizbinError(f"The evaluation's temperature is {settings.temperature}; give a number above 0.")
    if not 0 < settings.mass <= 1:
        raise RizbinError(f"The evaluation's mass is {settings.mass}; give a share above 0, up to 1.")
    if not 0 < settings.keep_ratio <= 1:
        raise RizbinError(f"The evaluation's keep_ratio is {settings.keep_ratio}; give a share above 0, up to 1.")
    if not settings.decays or min(settings.decays) < 0:
        raise RizbinError(f"The evaluation's decays are {settings.decays}; give one or more numbers from 0 on.")
    if any(factor < 2 for factor in settings.low_resolutions):
        raise RizbinError(f"The evaluation's low_resolutions are {settings.low_resolutions}; give factors from 2 on.")
    for name in ("size_edges", "bands"):
        edges = getattr(settings, name)
        if not edges or edges[0] <= 0 or sorted(set(edges)) != list(edges):
            raise RizbinError(f"The evaluation's {name} are {edges}; give rising numbers above 0.")
