"""A second judge that no way of drawing ever asks: image-text encoders, calibrated where the truth is known.

They may read an image in three ways, and the one that decides best on true scenes is taken: words against the whole
image, words against its places, or a linear layer on their frozen features that was fitted to true scenes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from rizbin.core.errors import RizbinError
from rizbin.data.sample import Sample, Source
from rizbin.data.views import normalize, whole
from rizbin.detection.presence import calibrate, matthews
from rizbin.generation.film import Pixels
from rizbin.nets.dual import ImageTextPair
from rizbin.reports.examples import BATCH, first_samples
from rizbin.visualization.words import embedded

FITTED, CHECKED = 2400, 800
"""True scenes that it learns from, and others on which it is measured. Encoding them takes each encoder ten seconds of
one core."""
STIFFNESS = 10.0
"""Ridge of the linear layer on standardized features. Of 10 and 100, ten was right more often, on true scenes."""


@dataclass(frozen=True)
class Accuracy:
    """A judge on scenes whose truth is known."""

    name: str
    matthews: float
    recall: float
    """Percent of the objects that are there."""
    invented: float
    """Percent of the objects that are not."""
    whole: float
    """Percent of the scenes of which it says that all their objects are there."""
    crowded: float
    """The same of scenes with as many objects as the prompts name, or more; nan without such a scene."""
    scenes: int
    crowded_scenes: int
    """How many there were of each."""


def accuracy(
    name: str,
    verdicts: Bool[np.ndarray, "images names"],
    truth: Bool[np.ndarray, "images names"],
    *,
    objects: int = 2,
) -> Accuracy:
    """How a judge's verdicts stand to the truth. objects: of a prompt."""
    complete = np.asarray((verdicts | ~truth).all(axis=1))
    crowded = complete[truth.sum(axis=1) >= objects]
    return Accuracy(
        name,
        matthews(verdicts.ravel(), truth.ravel()),
        100 * float(verdicts[truth].mean()),
        100 * float(verdicts[~truth].mean()),
        100 * float(complete.mean()),
        100 * float(crowded.mean()) if len(crowded) else math.nan,
        len(truth),
        len(crowded),
    )


def truth_of(samples: Sequence[Sample], names: Sequence[str]) -> Bool[np.ndarray, "images names"]:
    """Which names each sample holds."""
    return np.array([[name in sample.names for name in names] for sample in samples], bool)


@dataclass(frozen=True)
class Encoded:
    """What each of the encoders makes of images."""

    whole: tuple[Float[np.ndarray, "images _"], ...]
    places: tuple[Float[np.ndarray, "images _ _ _"], ...]

    @property
    def pooled(self) -> Float[np.ndarray, "images embedding"]:
        """All of them as one unit vector for each image."""
        return np.concatenate(self.whole, axis=1) / len(self.whole) ** 0.5


class SecondJudge:
    """Says of images which names they show.

    accuracies: of every reading, on scenes that it was not fitted to; the best is `reading`. pooled: embeddings of the
    true scenes with `objects` or more, which images may be compared with.
    """

    def __init__(self, pairs: Sequence[ImageTextPair], source: Source, *, objects: int = 2) -> None:
        """One encoder or several, which share the verdict; objects: of a prompt.

        Raises RizbinError for a source whose truth is not known.
        """
        self.pairs, self.names = [pair.eval() for pair in pairs], tuple(source.categories)
        samples = first_samples(source, FITTED + CHECKED)
        if not self.names or len(samples) < 8 or not any(sample.names for sample in samples):
            raise RizbinError(f"{source.name} does not say what its images hold, so no second judge can be fitted.")
        encoded = self.encode([sample.image for sample in samples])
        truth = truth_of(samples, self.names)
        self._words = [embedded(pair, self.names) for pair in self.pairs]
        fitted = np.arange(len(samples)) < len(samples) * FITTED // (FITTED + CHECKED)
        self._fit_linear(encoded, truth, fitted)
        readings = self.readings(encoded)
        self._scales, self._thresholds, self.accuracies = {}, {}, list[Accuracy]()
        for name, scores in readings.items():
            mean, spread = scores[fitted].mean(axis=0), scores[fitted].std(axis=0) + 1e-9
            self._scales[name] = mean, spread
            # `calibrate` reads scores of 0 to 1.
            flat = _squeezed((scores[fitted] - mean) / spread).ravel()
            self._thresholds[name] = calibrate(flat, truth[fitted].ravel()).threshold
            judged = self._verdicts(name, scores[~fitted])
            self.accuracies.append(accuracy(name, judged, truth[~fitted], objects=objects))
        self.accuracies.sort(key=lambda measured: -measured.matthews)
        self.reading = self.accuracies[0].name
        several = truth.sum(axis=1) >= objects
        self.scenes = [sample.image for sample, some in zip(samples, several, strict=True) if some]
        self.pooled = encoded.pooled[several]

    def encode(self, images: Sequence[Pixels]) -> Encoded:
        """Images of any sizes."""
        pooled, places = zip(*(_encoded(pair, images) for pair in self.pairs), strict=True)
        return Encoded(pooled, places)

    def __call__(self, encoded: Encoded) -> Bool[np.ndarray, "images names"]:
        """Which names each image shows, by the best reading."""
        return self._verdicts(self.reading, self.readings(encoded)[self.reading])

    def _verdicts(self, name: str, scores: Float[np.ndarray, "images names"]) -> Bool[np.ndarray, "images names"]:
        mean, spread = self._scales[name]
        return _squeezed((scores - mean) / spread) >= self._thresholds[name]

    def readings(self, encoded: Encoded) -> dict[str, Float[np.ndarray, "images names"]]:
        """What each of the three ways of reading says of each name: higher, more likely there."""
        against_whole = [features @ words.T for features, words in zip(encoded.whole, self._words, strict=True)]
        maps = [features @ words.T for features, words in zip(encoded.places, self._words, strict=True)]
        # What is close to all words alike is ground.
        against_places = [(scores - scores.mean(axis=-1, keepdims=True)).max(axis=(1, 2)) for scores in maps]
        # A mean of cosines: of several encoders the one whose cosines spread more has more to say.
        return {
            "words against the whole image": np.mean(against_whole, axis=0),
            "words against places": np.mean(against_places, axis=0),
            "a linear layer on frozen features": self._features(encoded) @ self._weights,
        }

    def _fit_linear(
        self, encoded: Encoded, truth: Bool[np.ndarray, "images names"], fitted: Bool[np.ndarray, " images"]
    ) -> None:
        """Ridge regression of each name's presence, in closed form."""
        self._standard = None
        raw = self._features(encoded)
        self._standard = raw[fitted].mean(axis=0), raw[fitted].std(axis=0) + 1e-6
        x = self._features(encoded)[fitted]
        gram = x.T @ x + STIFFNESS * np.eye(x.shape[1])
        self._weights = np.linalg.solve(gram, x.T @ (2.0 * truth[fitted] - 1))

    def _features(self, encoded: Encoded) -> Float[np.ndarray, "images features"]:
        most, mean = ([how(features, axis=(1, 2)) for features in encoded.places] for how in (np.max, np.mean))
        features = np.concatenate([*encoded.whole, *most, *mean], axis=1).astype(np.float64)
        if self._standard is None:
            return features
        middle, spread = self._standard
        return np.concatenate([(features - middle) / spread, np.ones((len(features), 1))], axis=1)


@torch.no_grad()
def _encoded(
    pair: ImageTextPair, images: Sequence[Pixels]
) -> tuple[Float[np.ndarray, "images dim"], Float[np.ndarray, "images rows columns dim"]]:
    """The unit vectors of images and of their places."""
    size, device = pair.image_size, next(pair.parameters()).device
    pooled, places = [], []
    for start in range(0, len(images), BATCH):
        some = np.stack([whole(image, size) for image in images[start : start + BATCH]])
        normalized = normalize(torch.from_numpy(some).to(device))
        pooled.append(pair.encode_images(normalized).float().cpu().numpy())
        places.append(pair.dense(normalized).float().cpu().numpy())
    return np.concatenate(pooled), np.concatenate(places)


def _squeezed(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def kernel_distance(ours: Float[np.ndarray, "images embedding"], true: Float[np.ndarray, "scenes embedding"]) -> float:
    """How far a set of embeddings is from another, 0 for the same kind (it may fall a little below), without bias.

    Squared maximum mean discrepancy with the kernel (x.y / dim + 1)^3 of unit vectors times the root of their length.
    Source: kernel inception distance, Binkowski et al., arXiv 1801.01401. Differs: the features are the judge's.
    """
    dim = ours.shape[1]
    a, b = (embeddings.astype(np.float64) * dim**0.5 for embeddings in (ours, true))

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / dim + 1) ** 3

    def inside(x: np.ndarray) -> float:
        table = kernel(x, x)
        return float((table.sum() - np.trace(table)) / (len(x) * (len(x) - 1)))

    if len(a) < 2 or len(b) < 2:
        return float("nan")
    return inside(a) + inside(b) - 2 * float(kernel(a, b).mean())


def variation(images: Sequence[Pixels]) -> float:
    """Mean absolute difference of neighboring pixels, 0 to 255, down and across: edges, and noise."""
    differences = []
    for image in images:
        values = image.astype(np.float32)
        differences.append(float(np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean()) / 2)
    return float(np.mean(differences)) if differences else float("nan")
