"""How well a model draws what it is asked for: single things and pairs, looked for by a detector that never taught it.

A detector is no judge without fault, so every share stands beside what the same detector says where the truth is known:
of things in true scenes, and of things that nobody asked for.
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
"""What a folder of diffusers is measured on where nothing is said."""
FIRST_SEED = 10_000
"""Of the pictures measured: far from the small numbers that people try first, and that settings are chosen by."""


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings:
    """How a model that draws is measured."""

    seeds: int = 3
    """Pictures of each name alone."""
    pairs: int = 60
    """Prompts of two names, one picture each; a share of 0.5 of them has a standard error of 6.5 points."""
    scenes: int = 60
    """True pictures that the judge is tried on, and the autoencoder."""
    steps: int = 25
    """Of the model's own scheduler."""
    guidance_scale: float = 4.0
    """How strictly it follows the words."""
    judge: str = "detector-mini"
    """The detector that looks."""
    threshold: float = 0.5
    """Probability from which a thing counts as there."""


def measure(
    painter: TextToImage,
    source: Source,
    verifier: Verifier,
    *,
    settings: DiffusionSettings = DiffusionSettings(),
    bar: MakeBar | None = None,
) -> Report:
    """All numbers of a model that draws.

    Args:
        painter: What is measured.
        source: Pictures like those that it learned from, which it did not; their names are asked for.
        verifier: Looks; it is asked for all the names at once.
        settings: See there.
        bar: Makes a progress bar.

    Raises RizbinError for a source without names.
    """
    names = source.categories
    if len(names) < 2:
        raise RizbinError(f"The source '{source.name}' has not two names to ask for; draw from scenes of several.")
    alone = [(name,) for name in names for _ in range(settings.seeds)]
    pairs = list(combinations(names, 2))
    chosen = random.generator("pairs to draw", len(names)).permutation(len(pairs))[: settings.pairs]
    asked = [*alone, *(pairs[place] for place in chosen)]
    told: list[np.ndarray] = []
    with advancing(bar, len(asked), "drawing and looking") as advance:
        for number, wanted in enumerate(asked):
            prompt = " and ".join(article(name) for name in wanted)
            sampling = Sampling(steps=settings.steps, guidance_scale=settings.guidance_scale, seed=FIRST_SEED + number)
            told.append(_there(verifier, painter.paint(prompt, sampling).image, names, settings.threshold))
            advance(1)
    samples = [source[index] for index in range(settings.scenes)]
    known = [_there(verifier, sample.image, names, settings.threshold) for sample in samples]
    drawn = _Counted.of(asked, told, names)
    single = _Counted.of(alone, told[: len(alone)], names)
    both = _Counted.of(asked[len(alone) :], told[len(alone) :], names)
    true = _Counted.of([tuple(sample.names) for sample in samples], known, names)
    how = (
        f"drawn in {settings.steps} steps with guidance {settings.guidance_scale:g}, looked for by {settings.judge} "
        f"among {len(names)} names, there from a probability of {settings.threshold:g}"
    )
    error = float(np.mean([_lost(painter, sample) for sample in samples]))
    return Report(
        measurements=(
            Measurement(
                name="drawing/single",
                value=single.found,
                protocol=f"Share of {len(alone)} pictures of one name, {settings.seeds} seeds each, with that thing; "
                f"{how}. Chance: of the things not asked for.",
                chance=single.false,
            ),
            Measurement(
                name="drawing/pairs_whole",
                value=both.whole,
                protocol=f"Share of {len(both.rows)} pictures of two names with both things; {how}.",
            ),
            Measurement(
                name="drawing/pairs_things",
                value=both.found,
                protocol=f"Share of the things of {len(both.rows)} pictures of two names; {how}. Chance: of the things "
                "not asked for.",
                chance=both.false,
            ),
            Measurement(
                name="judge/true_things",
                value=true.found,
                protocol=f"Share of the things in {len(samples)} true pictures that {settings.judge} finds: what a "
                "model that draws without fault would reach. Chance: of the things not there.",
                chance=true.false,
            ),
            Measurement(
                name="drawing/unasked",
                value=drawn.false,
                protocol=f"Share of names not asked for that are found in the {len(asked)} pictures; {how}.",
                higher_is_better=False,
                chance=true.false,
            ),
            Measurement(
                name="autoencoder/error",
                value=error,
                protocol=f"Mean |difference| of {len(samples)} pictures and the same through the autoencoder, in "
                "percent of the range.",
                higher_is_better=False,
            ),
        ),
        left_out=(),
        images=len(asked),
        source=source.name,
    )


@dataclass(frozen=True)
class _Counted:
    """Of several pictures, which wanted and which unwanted names were found."""

    rows: list[tuple[np.ndarray, np.ndarray]]
    """Of each picture: what is there of the wanted, what of the others."""

    @classmethod
    def of(cls, wanted: Sequence[tuple[str, ...]], there: Sequence[np.ndarray], names: Sequence[str]) -> "_Counted":
        rows = []
        for some, found in zip(wanted, there, strict=True):
            asked = np.array([name in some for name in names])
            rows.append((found[asked], found[~asked]))
        return cls(rows)

    @property
    def found(self) -> float:
        """Percent of the wanted things."""
        return _percent(np.concatenate([wanted for wanted, _ in self.rows])) if self.rows else 0.0

    @property
    def false(self) -> float:
        """Percent of the others."""
        return _percent(np.concatenate([others for _, others in self.rows])) if self.rows else 0.0

    @property
    def whole(self) -> float:
        """Percent of the pictures with all that was wanted."""
        return _percent(np.array([wanted.all() for wanted, _ in self.rows])) if self.rows else 0.0


def _percent(share: np.ndarray) -> float:
    return 100 * float(share.mean()) if len(share) else 0.0


def _there(verifier: Verifier, image: np.ndarray, names: Sequence[str], threshold: float) -> np.ndarray:
    return np.array([one.probability >= threshold for one in verifier(image, names)])


def _lost(painter: TextToImage, sample: Sample) -> float:
    """Percent of the range that the autoencoder changes."""
    kept = painter.decode(painter.encode(sample.image, *sample.image.shape[:2]))
    return 100 * float(np.abs(kept.astype(float) - sample.image.astype(float)).mean()) / 255
