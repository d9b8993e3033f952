"""Measures a text-to-image model: a detector verifies the objects of its prompts, single ones and pairs.

A detector makes mistakes, so every share stands beside what the same detector reports where the truth is known: for
objects in true scenes, and for objects that no prompt names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rizbin.core import random
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import MakeBar, advancing
from rizbin.data.sample import Sample, Source
from rizbin.data.scenes.captions import article
from rizbin.generation.diffusion.repair import Verifier
from rizbin.generation.diffusion.text_to_image import Sampling, TextToImage

DATA = "scenes:drawn,categories=16"
"""Data on which a diffusers folder is measured by default."""
FIRST_SEED = 10_000
"""First seed of the measured images: far from the small numbers with which settings are chosen."""


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings:
    """How a text-to-image model is measured."""

    seeds: int = 3
    """Images of each name alone."""
    pairs: int = 60
    """Prompts of two names, one image each; a share of 0.5 of them has a standard error of 6.5 points."""
    scenes: int = 60
    """True images on which the judge and the autoencoder are measured."""
    steps: int = 25
    """Denoising steps, by the model's own scheduler."""
    guidance_scale: float = 4.0
    """Scale of classifier-free guidance: how strictly the image follows the prompt."""
    judge: str = "detector-mini"
    """The detector that verifies the objects."""
    threshold: float = 0.5
    """Probability from which an object counts as there."""


def measure(
    text_to_image: TextToImage,
    source: Source,
    verifier: Verifier,
    *,
    settings: DiffusionSettings = DiffusionSettings(),
    bar: MakeBar | None = None,
) -> Report:
    """All numbers of a text-to-image model.

    Args:
        text_to_image: The model that is measured.
        source: Images of the kind that the model was trained on, but not those; the prompts are made of their names.
        verifier: Verifies the objects; it is asked for all names at once.
        settings: See `DiffusionSettings`.
        bar: Makes a progress bar.

    Raises RizbinError for a source without names.
    """
    names = source.categories
    if len(names) < 2:
        raise RizbinError(f"The source '{source.name}' has not two names to ask for; draw from scenes of several.")
    alone = [(name,) for name in names for _ in range(settings.seeds)]
    pairs = list(combinations(names, 2))
    chosen = random.generator("pairs to draw", len(names)).permutation(len(pairs))[: settings.pairs]
    queries = [*alone, *(pairs[place] for place in chosen)]
    verdicts: list[np.ndarray] = []
    with advancing(bar, len(queries), "drawing and verifying") as advance:
        for number, objects in enumerate(queries):
            prompt = " and ".join(article(name) for name in objects)
            sampling = Sampling(steps=settings.steps, guidance_scale=settings.guidance_scale, seed=FIRST_SEED + number)
            verdicts.append(_there(verifier, text_to_image.paint(prompt, sampling).image, names, settings.threshold))
            advance(1)
    samples = [source[index] for index in range(settings.scenes)]
    known = [_there(verifier, sample.image, names, settings.threshold) for sample in samples]
    how = (
        f"drawn in {settings.steps} steps with guidance scale {settings.guidance_scale:g}, verified by "
        f"{settings.judge} among {len(names)} names, there from a probability of {settings.threshold:g}"
    )
    error = float(np.mean([_lost(text_to_image, sample) for sample in samples]))
    drawings = _measured_drawings(
        _Counted.of(alone, verdicts[: len(alone)], names),
        _Counted.of(queries[len(alone) :], verdicts[len(alone) :], names),
        settings.seeds,
        how,
    )
    checks = _measured_checks(
        _Counted.of([tuple(sample.names) for sample in samples], known, names),
        _Counted.of(queries, verdicts, names),
        error,
        settings.judge,
        how,
    )
    return Report(measurements=drawings + checks, left_out=(), images=len(queries), source=source.name)


def _measured_drawings(single: "_Counted", both: "_Counted", seeds: int, how: str) -> tuple[Measurement, ...]:
    """The measurements of what was drawn: single objects, and pairs of them."""
    return (
        Measurement(
            name="drawing/single",
            value=single.present,
            protocol=f"Share of {len(single.rows)} images of one name, {seeds} seeds each, with that object; "
            f"{how}. Chance: of the objects not asked for.",
            chance=single.false,
        ),
        Measurement(
            name="drawing/pairs_whole",
            value=both.whole,
            protocol=f"Share of {len(both.rows)} images of two names with both objects; {how}.",
        ),
        Measurement(
            name="drawing/pairs_things",
            value=both.present,
            protocol=f"Share of the objects of {len(both.rows)} images of two names; {how}. Chance: of the objects "
            "not asked for.",
            chance=both.false,
        ),
    )


def _measured_checks(
    true: "_Counted", drawn: "_Counted", error: float, judge: str, how: str
) -> tuple[Measurement, ...]:
    """The measurements that the others are read against: the judge on true images, and the autoencoder."""
    return (
        Measurement(
            name="judge/true_things",
            value=true.present,
            protocol=f"Share of the objects in {len(true.rows)} true images that {judge} finds: what a model that "
            "draws without fault would reach. Chance: of the objects that are not there.",
            chance=true.false,
        ),
        Measurement(
            name="drawing/unasked",
            value=drawn.false,
            protocol=f"Share of names not asked for that are found in the {len(drawn.rows)} images; {how}.",
            higher_is_better=False,
            chance=true.false,
        ),
        Measurement(
            name="autoencoder/error",
            value=error,
            protocol=f"Mean |difference| of {len(true.rows)} images and their reconstructions by the autoencoder, in "
            "percent of the range.",
            higher_is_better=False,
        ),
    )


@dataclass(frozen=True)
class _Counted:
    """Which names of the prompts, and which others, were found in several images."""

    rows: list[tuple[np.ndarray, np.ndarray]]
    """For each image: verdicts on the names of its prompt, and on all other names."""

    @classmethod
    def of(cls, queries: Sequence[tuple[str, ...]], there: Sequence[np.ndarray], names: Sequence[str]) -> "_Counted":
        rows = []
        for some, present in zip(queries, there, strict=True):
            queried = np.array([name in some for name in names])
            rows.append((present[queried], present[~queried]))
        return cls(rows)

    @property
    def present(self) -> float:
        """Percent of the objects of the prompts that were found."""
        return _percent(np.concatenate([queried for queried, _ in self.rows])) if self.rows else 0.0

    @property
    def false(self) -> float:
        """Percent of the other names that were found."""
        return _percent(np.concatenate([others for _, others in self.rows])) if self.rows else 0.0

    @property
    def whole(self) -> float:
        """Percent of the images with all objects of their prompt."""
        return _percent(np.array([queried.all() for queried, _ in self.rows])) if self.rows else 0.0


def _percent(share: np.ndarray) -> float:
    return 100 * float(share.mean()) if len(share) else 0.0


def _there(verifier: Verifier, image: np.ndarray, names: Sequence[str], threshold: float) -> np.ndarray:
    return np.array([presence.probability >= threshold for presence in verifier(image, names)])


def _lost(text_to_image: TextToImage, sample: Sample) -> float:
    """Mean absolute error of the autoencoder's reconstruction, in percent of the range."""
    reconstruction = text_to_image.decode(text_to_image.encode(sample.image, *sample.image.shape[:2]))
    return 100 * float(np.abs(reconstruction.astype(float) - sample.image.astype(float)).mean()) / 255
