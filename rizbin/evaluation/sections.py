"""The sections of an evaluation: each a group of measurements, and the reasons for those that it leaves out."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.measurement import Measurement
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
from rizbin.evaluation.embed import Embedded, LabeledImages
from rizbin.evaluation.settings import EvaluationSettings

SectionResult = tuple[list[Measurement], list[tuple[str, str]]]
"""Measurements, and (name, reason) of what was left out."""


class Sections:
    """The sections of an evaluation under the same settings."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self.settings = settings

    def with_words(
        self, test: LabeledImages, embedded: Embedded, words: Tensor | None, texts: Tensor | None
    ) -> SectionResult:
        """Measurements from whole images and texts: zero-shot classification and retrieval."""
        measurements: list[Measurement] = []
        left_out: list[tuple[str, str]] = []
        if words is None:
            return measurements, [(room, "The network reads no text.") for room in ("zero_shot", "retrieval")]
        if named(test):
            measurements += zero_shot.measure(embedded.images, words, test.right, self.settings.templates)
        else:
            left_out.append(("zero_shot", "The source does not name two or more categories."))
        if texts is not None:
            measurements += retrieval.measure(embedded.images, texts, test.captions)
        else:
            left_out.append(("retrieval", "The images do not all have captions, or all the same one."))
        return measurements, left_out

    def whole_images(
        self,
        test: LabeledImages,
        embedded: Embedded,
        train: LabeledImages,
        train_seen: Embedded | None,
        words: Tensor | None,
        texts: Tensor | None,
    ) -> SectionResult:
        """Zero-shot classification, retrieval, k-NN, linear probe."""
        settings = self.settings
        measurements, left_out = self.with_words(test, embedded, words, texts)
        if not named(test):
            left_out += [(room, "The source does not name two or more categories.") for room in ("knn", "probe")]
        elif train_seen is None:
            left_out += [(room, "There are no training images beside those measured on.") for room in ("knn", "probe")]
        elif train.right.any(dim=1).sum() < 10:
            left_out += [(room, "There are not 10 training images with these categories.") for room in ("knn", "probe")]
        else:
            both = embedded.pooled, test.right, train_seen.pooled, train.right
            measurements += knn.measure(*both, k=settings.k, temperature=settings.temperature)
            measurements += probe.measure(*both, decays=settings.decays, steps=settings.probe_steps, seed=settings.seed)
            if words is None:
                measurements += _pixels(test, train, k=settings.k, temperature=settings.temperature)
        if words is None and len(embedded.pooled) > 1:
            measurements += collapse.measure(embedded.pooled)
        return measurements, left_out

    def patches(
        self, test: LabeledImages, embedded: Embedded, train: LabeledImages, train_seen: Embedded | None, picked: Tensor
    ) -> SectionResult:
        """Segmentation: zero-shot from both dense heads, and by a linear layer."""
        settings = self.settings
        if not len(test.masked) or test.right.shape[1] < 2:
            return [], [("segmentation", no_masks(test, " in two or more categories"))]
        measurements: list[Measurement] = []
        left_out: list[tuple[str, str]] = []
        classes, grid = 1 + test.right.shape[1], (embedded.attention.shape[1], embedded.attention.shape[2])
        heads = segmentation.HEADS if len(embedded.scores["plain"]) else {}
        if embedded.unscored:
            left_out += [(f"segmentation/{room}", embedded.unscored) for room in segmentation.HEADS]
        shares = segmentation.patch_shares(test.labels, grid, classes)
        taught = train_seen is not None and len(train.masked) >= 10
        for room, how in heads.items():
            scores = embedded.scores[how]
            if not len(scores):
                left_out.append((f"segmentation/{room}", "The evaluation's dense_images is 0."))
                continue
            labels, images = test.labels[: len(scores)], _guides(test, len(scores), how)
            if taught and train_seen is not None:
                train_scores = train_seen.scores[how]
                measurements += segmentation.zero_shot_segmentation(
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
            measurements.append(segmentation.objects_miou(scores, labels, room, how, images=images))
            measurements += segmentation.patch_accuracy(
                F.adaptive_avg_pool2d(scores, grid), shares[: len(scores)], room, how
            )
        if not taught or train_seen is None:
            return measurements, left_out + [
                (f"segmentation/{room}/{name}", "There are not 10 training images with exact masks.")
                for room in (*heads, "linear")
                for name in ("miou", "boundary_iou")
            ]
        targets = segmentation.patch_shares(train.labels, grid, classes)
        targets = targets.gather(1, picked.unsqueeze(-1).expand(-1, -1, classes)).flatten(0, 1)
        features = train_seen.patches.float().flatten(0, 1)
        layer = probe.choose_and_fit(
            features, targets, "one", decays=settings.decays, steps=settings.probe_steps, seed=settings.seed
        )
        trained_on = (
            f"that was fitted to the class shares of {picked.shape[1]} random patches of each of {len(picked)} "
            f"training images by L-BFGS in at most {settings.probe_steps} iterations"
        )
        measurements += segmentation.linear_segmentation(
            layer, embedded.patches, test.labels, grid, taught=trained_on, boundary_width=settings.boundary_width
        )
        return measurements, left_out

    def grounding(self, test: LabeledImages, embedded: Embedded, words: Tensor | None) -> SectionResult:
        """Grounding of the words present in each image, by both dense heads."""
        if words is None:
            return [], [("grounding", "The network reads no text.")]
        if not len(test.objects.image):
            return [], [("grounding", no_masks(test))]
        if embedded.unscored:
            return [], [("grounding", embedded.unscored)]
        measurements: list[Measurement] = []
        left_out: list[tuple[str, str]] = []
        for room, head in segmentation.HEADS.items():
            scores = embedded.scores[head]
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
            measurements += more
            left_out += apart
        return measurements, left_out

    def sizes(self, test: LabeledImages, embedded: Embedded, words: Tensor | None) -> SectionResult:
        """Recall by object size."""
        if words is None:
            return [], [("sizes", "The network reads no text.")]
        if not len(test.objects.image):
            return [], [("sizes", no_masks(test))]
        measurements, left_out = sizes.measure(
            embedded.images,
            words,
            test.right,
            test.objects,
            test.masked,
            embedded.scores["plain"],
            self.settings.size_edges,
        )
        return measurements, left_out + ([("sizes/localized", embedded.unscored)] if embedded.unscored else [])

    def attended(self, test: LabeledImages, embedded: Embedded) -> SectionResult:
        """Overlap of the last layer's attention heads with objects."""
        if not len(test.masked):
            return [], [("attention", no_masks(test))]
        if len(embedded.heads) != len(test.masked):
            return [], [("attention", "The network has no CLS token that attends to patches.")]
        return attention.measure(embedded.heads, test.labels, mass=self.settings.mass), []

    def looked(
        self,
        test: LabeledImages,
        embedded: Embedded,
        look: frequency.Looker | None,
        reconstruct: reconstruction.Reconstructor | None,
        device: torch.device,
    ) -> SectionResult:
        """Object pixels kept and hidden, and reconstruction; the method's look is taken once for all of them."""
        settings = self.settings
        looks: list[tuple[Tensor, Tensor] | None] = []

        def diagnosed(look: frequency.Looker) -> Iterator[tuple[Tensor, frequency.Reconstructed | None]]:
            for some in test.pixels.split(settings.batch):
                images = normalize(some.to(device))
                shown = look(images)
                looks.append(None if shown is None else (shown.attention.float().cpu(), shown.removed.cpu()))
                yield images, shown

        measurements = frequency.measure(diagnosed(look), settings.bands) if look is not None else []
        shown = [each for each in looks if each is not None]
        whole = len(shown) == len(looks) and bool(looks)  # the method shows something of every batch
        attention, removed = (torch.cat(parts) for parts in zip(*shown, strict=True)) if whole else (None, None)
        on_tokens, left_out = self.tokens(test, embedded, attention, removed)
        apart: list[tuple[str, str]] = []
        if reconstruct is not None and len(test.masked):
            more, apart = reconstruction.measure(
                reconstruct,
                test.pixels[test.masked],
                test.labels,
                (embedded.attention.shape[1], embedded.attention.shape[2]),
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
                left_out.append(("reconstruction/hidden", no_masks(test)))
        else:
            left_out.append(
                ("reconstruction", "The method does not reconstruct removed patches, or only its encoder is here.")
            )
        return on_tokens + measurements, left_out

    def tokens(
        self, test: LabeledImages, embedded: Embedded, attention: Tensor | None, removed: Tensor | None
    ) -> SectionResult:
        """Object pixels on the patches that attention keeps, and on those that the method hides."""
        settings = self.settings
        rows, columns = embedded.attention.shape[1:]
        if not len(test.masked):
            return [], [("tokens", no_masks(test))]
        measurements, left_out = [], []
        if len(embedded.attention) != len(test.masked):
            left_out.append(("tokens/object_pixels_kept", "The network has no CLS token whose attention could choose."))
        elif rows % settings.block or columns % settings.block:
            reason = (
                f"A grid of {rows}x{columns} patches does not divide into blocks of {settings.block}x{settings.block}."
            )
            left_out.append(("tokens/object_pixels_kept", reason))
        else:
            chosen, whose = embedded.attention, "the image encoder's CLS attention (mean of all layers and heads)"
            if attention is not None and attention.shape[1:] == (rows, columns):
                chosen = attention[test.masked]
                whose = "the attention that the method shows (its teacher's where it has one)"
            measurements.append(
                tokens.measure(chosen, test.labels, keep_ratio=settings.keep_ratio, block=settings.block, whose=whose)
            )
        if removed is not None and bool(removed.any()):
            measurements.append(tokens.measure_hidden(removed[test.masked], test.labels))
        else:
            left_out.append(
                ("tokens/object_pixels_hidden", "The method hides no patches, or only its encoder is here.")
            )
        return measurements, left_out


def _pixels(test: LabeledImages, train: LabeledImages, *, k: int, temperature: float) -> list[Measurement]:
    """k-NN on raw pixels, a baseline without a network."""
    pixels = (part.pixels.flatten(1).float() for part in (test, train))
    queries, memory = (part - part.mean(dim=1, keepdim=True) for part in pixels)
    neighbors = knn.measure(queries, test.right, memory, train.right, k=k, temperature=temperature)
    first = next(measurement for measurement in neighbors if measurement.name == "knn/top1")
    protocol = first.protocol.replace("pooled features before the projection", "raw pixels less each image's mean")
    return [replace(first, name="knn/pixels_top1", protocol=protocol)]


def _guides(images: LabeledImages, count: int, how: str) -> Tensor | None:
    """The images whose colors guide the upsampling, the first with known objects; None for a head without."""
    return images.pixels[images.masked[:count]] if how == "windows" else None


def named(images: LabeledImages) -> bool:
    """Whether two or more categories are known, and one of them is in an image."""
    return bool(images.right.any()) and images.right.shape[1] > 1


def captioned(images: LabeledImages) -> bool:
    return all(images.captions) and len({caption.lower() for caption in images.captions}) > 1


def no_masks(images: LabeledImages, more: str = "") -> str:
    """Why nothing is measured that needs exact masks."""
    return images.unmasked or f"The source does not know the objects' exact masks{more}."
