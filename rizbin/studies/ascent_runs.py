"""Images of the study of gradient ascent and their measurements: made once, kept in the run folder, measured again."""

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rizbin.core import outputs
from rizbin.core.progress import Bar
from rizbin.data.sample import Source
from rizbin.evaluation.stills import HARMS, spectrum_slope, total_variation
from rizbin.generation.ascent.ascend import as_floats, ascend
from rizbin.generation.ascent.settings import AscentSettings
from rizbin.generation.ascent.targets import ImageTarget, TextTarget, Wish
from rizbin.generation.diffusion.repair import Verifier
from rizbin.generation.film import Pixels
from rizbin.models.protocol import Embedder
from rizbin.pages.pieces import PageImage


@dataclass(frozen=True)
class Question:
    """One prompt, with a real image of the same objects."""

    text: str
    names: tuple[str, ...]
    real: Pixels


@dataclass(frozen=True, kw_only=True)
class AscentVariant:
    """One variant of gradient ascent."""

    name: str
    settings: AscentSettings
    prompts: int
    """Number of prompts that it draws: slow variants draw few."""
    seeds: int


@dataclass(frozen=True)
class AscentImage:
    """The images of one variant: seeds one after the other, each with its prompts in order."""

    variant: AscentVariant
    images: list[Pixels]
    which: list[int]
    """The prompt of each image."""
    climbed: list[float]
    """Final score of each image, as the ascent computed it on its copies."""
    frames: list[tuple[int, list[Pixels]]]
    """(steps made, images of the first seed) on the way."""
    seconds: float
    """Seconds of processor time for one image."""


@dataclass(frozen=True)
class Judged:
    """Cosines and verdicts of one encoder on images."""

    right: Bool[np.ndarray, " images"]
    """Whether the own prompt is the nearest of all."""
    cosine: Float[np.ndarray, " images"]


@dataclass(frozen=True)
class Measured:
    """All measurements of one variant's images."""

    own: Judged
    """Verdict of the encoder that made them, on the images as written."""
    held_out: Judged
    harmed: dict[str, float]
    """Percent right by the held-out judge after each of `HARMS`."""
    detected: float
    """Percent of named objects that the detector finds."""
    slope: float
    variation: float


@dataclass(frozen=True)
class Rebuilt:
    """Images drawn again from nothing but their embedding."""

    encoder: str
    images: list[PageImage]
    likeness: Float[np.ndarray, " images"]
    """Correlation of eight by eight squares with the original, of each."""
    blind: float
    """Mean cosine with the originals by an encoder without words that drew none of them."""
    other: float
    """The same by the encoder that did not draw."""
    detected: float
    """Percent of the originals' objects that the detector finds."""


def percent(seen: Judged) -> float:
    """Percent right."""
    return 100 * float(seen.right.mean())


def margin(seen: Judged) -> float:
    """Half the 95 percent interval of percent right, by the normal approximation of Agresti and Coull (1998)."""
    count = len(seen.right) + 4
    share = (seen.right.sum() + 2) / count
    return 196 * float((share * (1 - share) / count) ** 0.5)


def gap(climbed: Measured, real: Measured) -> float:
    """How far the cosine of the encoder exceeds that of the held-out judge, less the same for real images."""
    excess = float(climbed.own.cosine.mean() - climbed.held_out.cosine.mean())
    return excess - float(real.own.cosine.mean() - real.held_out.cosine.mean())


def questions(source: Source, count: int) -> list[Question]:
    """Captions of one or two objects, no two of the same objects, each with its scene."""
    chosen: list[Question] = []
    taken: set[frozenset[str]] = set()
    for number in range(100 * count):
        sample = source[number]
        if len(sample.objects) == len(sample.names) <= 2 and sample.names not in taken and sample.caption:
            taken.add(sample.names)
            chosen.append(Question(sample.caption, tuple(sorted(sample.names)), sample.image))
        if len(chosen) == count:
            break
    return chosen


def draw_variant(
    encoder: Embedder,
    variant: AscentVariant,
    wishes: Sequence[Wish],
    folder: Path,
    *,
    autoencoder: Any = None,
    quiet: bool = False,
    batch: int = 50,
) -> AscentImage:
    """The variant's images, from the folder where they were made before. autoencoder: of diffusers, for latents."""
    spelled_targets = [[_spelled(target) for target in wish] for wish in wishes[: variant.prompts]]
    identity = {
        **asdict(variant.settings),
        "chunk": 0,
        "seeds": variant.seeds,
        "wishes": spelled_targets,
        "encoder": encoder.name,
    }
    if variant.settings.parametrization == "latent":
        identity["autoencoder"] = _fingerprint(autoencoder)
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{name}.npz"
    if path.is_file():
        with np.load(path) as archive:
            arrays = {key: archive[key] for key in archive.files}
        frames = [(int(step), list(arrays[f"frame{n}"])) for n, step in enumerate(arrays["steps"])]
        which, climbed = arrays["which"].tolist(), arrays["climbed"].tolist()
        return AscentImage(variant, list(arrays["pictures"]), which, climbed, frames, float(arrays["seconds"]))
    made = _climb(encoder, variant, wishes[: variant.prompts], folder, autoencoder, quiet, batch)
    table: dict[str, Any] = {f"frame{n}": np.stack(shown) for n, (_, shown) in enumerate(made.frames)}
    table |= {"pictures": np.stack(made.images), "steps": np.array([step for step, _ in made.frames])}
    table |= {name: np.array(getattr(made, name)) for name in ("which", "climbed", "seconds")}
    held = io.BytesIO()
    np.savez_compressed(held, **table)
    outputs.write(path, held.getvalue())
    outputs.remove_folder(folder / "state")
    return made


def _climb(
    encoder: Embedder,
    variant: AscentVariant,
    wishes: Sequence[Wish],
    folder: Path,
    autoencoder: Any,
    quiet: bool,
    batch: int,
) -> AscentImage:
    images: list[Pixels] = []
    climbed: list[float] = []
    frames: dict[int, list[Pixels]] = {}
    began = time.process_time()
    for seed in range(variant.seeds):
        for first in range(0, len(wishes), batch):
            made = ascend(
                [encoder],
                wishes[first : first + batch],
                settings=replace(variant.settings, seed=seed),
                autoencoder=autoencoder,
                folder=outputs.claim_folder(folder / "state"),
                bar=lambda total, label: Bar(total, f"{label}: {variant.name}", quiet=quiet),
            )
            images += made.images
            climbed += made.scores[-1]
            for frame in made.frames if seed == 0 else ():
                frames.setdefault(frame.step, []).extend(frame.images)
    seconds = (time.process_time() - began) / len(images)
    which = list(range(len(wishes))) * variant.seeds
    return AscentImage(variant, images, which, climbed, sorted(frames.items()), seconds)


def measured(
    drawn: AscentImage, prompts: Sequence[Question], own: Embedder, judge: Embedder, detector: Verifier, *, harms: bool
) -> Measured:
    """What the encoder, the judge, the detector and the statistics say of the images."""
    texts = [question.text for question in prompts]
    judged = _asker(judge, texts)
    harmed = {}
    if harms:
        for name, harm in HARMS.items():
            harmed[name] = 100 * float(judged([harm(image) for image in drawn.images], drawn.which).right.mean())
    return Measured(
        own=_asker(own, texts)(drawn.images, drawn.which),
        held_out=judged(drawn.images, drawn.which),
        harmed=harmed,
        detected=detected_percent(drawn.images, [prompts[prompt].names for prompt in drawn.which], detector),
        slope=float(np.mean([spectrum_slope(image) for image in drawn.images])),
        variation=float(np.mean([total_variation(image) for image in drawn.images])),
    )


def judged_by(encoder: Embedder, images: Sequence[Pixels], which: Sequence[int], prompts: Sequence[Question]) -> Judged:
    """Cosines with the own prompt, and whether it is the nearest of all prompts."""
    return _asker(encoder, [question.text for question in prompts])(images, which)


def _asker(encoder: Embedder, texts: list[str]) -> Callable[[Sequence[Pixels], Sequence[int]], Judged]:
    words = encoder.encode_text(texts)

    def ask(images: Sequence[Pixels], which: Sequence[int]) -> Judged:
        cosines = embedded(encoder, images) @ words.T
        own = torch.tensor(which)
        right = cosines.argmax(dim=1) == own
        return Judged(right.numpy(), cosines[torch.arange(len(own)), own].double().numpy())

    return ask


@torch.no_grad()
def embedded(encoder: Embedder, images: Sequence[Pixels]) -> Float[Tensor, "images dim"]:
    """Unit vectors of images, some at a time."""
    parts = [images[first : first + 64] for first in range(0, len(images), 64)]
    return torch.cat([encoder.encode_image(torch.stack([as_floats(image) for image in part])) for part in parts])


def detected_percent(images: Sequence[Pixels], names: Sequence[Sequence[str]], detector: Verifier) -> float:
    """Percent of the named objects that the detector finds."""
    hits = [
        presence.probability > 0.5
        for image, phrases in zip(images, names, strict=True)
        for presence in detector(image, list(phrases))
    ]
    return 100 * float(np.mean(hits))


def _fingerprint(module: torch.nn.Module) -> str:
    """Hash of all weights: another autoencoder draws other images."""
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _spelled(target: object) -> list:
    """A target as JSON tells it apart."""
    if isinstance(target, ImageTarget):
        return ["image", hashlib.sha256(target.image.numpy().tobytes()).hexdigest(), target.weight]
    assert isinstance(target, TextTarget)
    return ["text", target.text, target.weight]
