"""The report of an encoder: its numbers, examples and training curves, in one file that opens without a network."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import nn

from rizbin.core import bounded
from rizbin.core.measurement import Report
from rizbin.core.runs import time_spent
from rizbin.data.sample import Source
from rizbin.evaluation.zero_shot import TemplateSet
from rizbin.models.protocol import FeatureExtractor
from rizbin.models.wrap import AnyEncoder, extractor
from rizbin.pages.charts import Mark, Series
from rizbin.pages.page import Page
from rizbin.pages.pieces import Link, PageImage, Part, Score
from rizbin.reports.cards import token_images, word_images
from rizbin.reports.examples import TEMPLATES, Pool, ask, embedded, first_samples, looks
from rizbin.reports.image_encoder import images_of
from rizbin.reports.numbers import label, numbers
from rizbin.training.method import Method, MethodView
from rizbin.visualization import pca, words

SHOWN = 12
"""Images shown in full: the first of the data, never chosen."""
FAILED = 6
"""Failures shown in full: the surest."""
SEARCHED = 256
"""Images in which failures are sought and captions are searched for."""
CAPTIONS = 4
"""Captions shown with the images they find."""

OPENMOJI: tuple[Part, ...] = (
    "The drawings in the scenes are by ",
    Link("OpenMoji", "https://openmoji.org"),
    ", the open-source emoji and icon project, licensed ",
    Link("CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0/"),
    "; the images of scenes on this page are adaptations under the same licence.",
)
"""The credit that the scenes' licence asks for."""

_CURVES = {
    "loss": "Loss, all terms",
    "contrast": "Contrast of images and captions",
    "cls": "Distillation of the whole image (CLS)",
    "patch": "Distillation of removed patches",
    "visible": "Distillation of visible patches",
    "pixels": "Reconstruction of removed pixels",
    "scale": "Scale of the similarities",
    "knn": "k-NN: right names by the nearest images, percent",
    "projection_std": "Spread of the projections: 1 even, 0 constant",
    "projection_rank": "Effective directions of the projections",
    "feature_std": "Spread of the features: 1 even, 0 constant",
    "feature_rank": "Effective directions of the features",
    "alignment": "Distance between two views of an image",
    "uniformity": "Unevenness of the projections on the sphere (0: all in one place)",
    "lidar": "Directions that tell images apart, not their views (LiDAR)",
    "teacher_entropy": "Entropy of the teacher's code",
    "kl": "What the student does not yet say of it",
    "code_entropy": "Entropy of the teacher's mean code",
    "top_share": "Share of images in the most common prototype",
    "learning_rate": "Learning rate",
    "gradient_norm": "Norm of the gradient",
}
"""Titles of known records, in the order of their charts; others follow under their own names."""
_BESIDE_KNN = {"knn_random": "random weights", "knn_pixels": "raw pixels"}
"""Records that stay the same, drawn into the chart of k-NN."""
_CLOCK = ("step", "images", "seconds")


def write_report(
    folder: Path,
    target: Path,
    *,
    pair: AnyEncoder,
    method: Method | None = None,
    source: Source,
    evaluation: Report,
    history: list[dict],
    templates: TemplateSet = TEMPLATES,
    also: Callable[[Page], object] | None = None,
    credits: Sequence[Sequence[Part]] = (),
) -> Path:
    """Writes the report and returns its path.

    Args:
        folder: Of the run or model; `settings.json` and `environment.json` are read from it where they exist.
        target: The file to write.
        pair: The encoder of any library, or one of Rizbin's own networks.
        method: The method with its teacher, for the token images; None, or one without `look`, leaves them out.
        source: Samples that were not trained on.
        evaluation: The measured numbers.
        history: Lines of metrics.jsonl.
        templates: Prompts of a category in the cards: those that the evaluation used.
        also: Adds more to the page before it is told how all was made; None: nothing.
        credits: Lines for the foot of the page; the OpenMoji credit is added by itself when the data are scenes.

    Raises:
        RizbinError: The file cannot be written.
    """
    settings, machine = read_json(folder / "settings.json"), read_json(folder / "environment.json")
    encoder = extractor(pair)
    with _evaluating(encoder.network, method):
        samples = first_samples(source, SEARCHED)
        pool = ask(encoder, samples, source.categories, templates) if samples and encoder.reads_text else None
        page = Page(f"{_title(method, settings)} on {source.name}", subtitle=subtitle(history, machine))
        numbers(page, evaluation)
        if pool is not None:
            _images(page, pool, encoder, method, source, templates)
        elif samples:
            images_of(page, encoder, samples, SHOWN)
        curves(page, history)
    if also is not None:
        also(page)
    how_made(page, settings, machine)
    if source.name.startswith("scenes"):
        page.credits(*OPENMOJI)
    for line in credits:
        page.credits(*line)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return page.write(target)


@contextmanager
def _evaluating(*modules: nn.Module | None) -> Iterator[None]:
    """Modules in evaluation mode, and back in their own mode afterwards."""
    before = [(part, part.training) for module in modules if module is not None for part in module.modules()]
    try:
        for module in modules:
            if module is not None:
                module.eval()
        yield
    finally:
        for part, training in before:
            part.training = training


def read_json(path: Path) -> dict:
    """A JSON object, or an empty one when there is none: a report without it is better than no report."""
    try:
        content = bounded.read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _title(method: Method | None, settings: Mapping) -> str:
    if method is not None:
        return type(method).__name__
    name = settings.get("method")
    return name if isinstance(name, str) else "A trained model"


def subtitle(history: Sequence[Mapping], machine: Mapping) -> str:
    steps, images, seconds = time_spent(history)
    parts = []
    if steps:
        parts.append(f"{steps:,} steps")
    if images:
        parts.append(f"{images:,} images seen")
    if seconds > 0:
        parts.append(f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds")
        parts += [f"{images / seconds:,.0f} images a second"] if images else []
    known = {
        key: str(machine[key]) for key in ("gpu", "cpu", "threads") if machine.get(key) not in (None, "none", "unknown")
    }
    if "gpu" in known or "cpu" in known:
        parts.append(known.get("gpu") or known["cpu"])
    if "gpu" not in known and "threads" in known:
        parts.append(f"{known['threads']} thread{'s' * (known['threads'] != '1')}")
    return " · ".join(parts)


def _images(
    page: Page, pool: Pool, pair: FeatureExtractor, method: Method | None, source: Source, templates: TemplateSet
) -> None:
    """Everything that is seen rather than counted."""
    shown_first = list(range(min(SHOWN, len(pool.samples))))
    failed = pool.worst(FAILED)
    chosen = [*shown_first, *(index for index in failed if index not in shown_first)]
    look = looks(method, pool.images[chosen])

    def embedder(pair: FeatureExtractor, names: Sequence[str]) -> np.ndarray:
        return embedded(pair, names, templates)

    vocabulary = embedder(pair, source.categories) if source.categories else None

    def card(index: int) -> None:
        own = None if look is None else (look, chosen.index(index))
        _card(page, pool, index, pair, own, source.categories, vocabulary, embedder)

    page.heading("What it sees")
    page.text(f"The first {len(shown_first)} images of {source.name}, not chosen. Click an image to enlarge it.")
    page.explained(_columns(look, pool, pair.localizes))
    for index in shown_first:
        card(index)
    if pool.texts:
        page.heading("Where it fails")
        wrong = len(pool.worst(len(pool.samples)))
        page.text(
            f"Its first answer is wrong for {wrong} of {len(pool.samples)} images"
            + (f"; these are the {len(failed)} where it was surest of a wrong one." if failed else ".")
        )
        for index in failed:
            card(index)
    _search(page, pool)
    if pair.has_patches:
        _together(page, pool, pair, shown_first)


def _together(page: Page, pool: Pool, pair: FeatureExtractor, shown_first: Sequence[int]) -> None:
    """The colors of patches."""
    page.heading("What belongs together")
    page.text(
        "Each patch in the color of its features: their three main directions over all images shown here, as red, "
        "green and blue. Like colors mean like features; what the first direction sets apart as background is dark."
    )
    colored = pca.pca_of(pair, pool.images[shown_first])
    page.pictures(
        [
            PageImage(
                image=np.concatenate([pool.images[index], patch_colors]),
                alt=f"Image {index + 1} and under it the colors of its patches",
            )
            for index, patch_colors in zip(shown_first, colored, strict=True)
        ]
    )


def _columns(look: MethodView | None, pool: Pool, localizes: bool) -> list[tuple[str, str]]:
    """One plain sentence for each kind of image in a card."""
    entries = [("Image", "What the network is given.")]
    if look is not None:
        entries.append(
            ("Attention", "Where the summary token looks (the teacher's, if it has one): bright is much, dark little.")
        )
        if bool(look.removed.any()):
            share = 100 * float(look.removed.float().mean())
            entries.append(
                ("Removed", f"Hatched patches ({share:.0f} % here) are hidden from the student in training.")
            )
            if look.reconstruction is not None:
                entries.append(
                    (
                        "Reconstruction",
                        "The hatched patches as the student guesses them from the rest; each patch's brightness and "
                        "contrast are the image's own, since only the pattern within a patch is predicted.",
                    )
                )
    if localizes:
        entries.append(
            (
                "Words",
                "Each place in the color of the caption's word that its features are nearest to; gray where none is "
                "near. No place was ever named to it in training.",
            )
        )
    if localizes and any(sample.objects for sample in pool.samples):
        entries.append(("Truth", "The same words where they really are."))
    if pool.texts:
        among = f"{len(pool.texts)} names" if pool.named else f"the {len(pool.texts)} captions of these images"
        entries.append(("Answers", f"Its best three among {among}, with their probabilities; ✓ marks a right one."))
    return entries


def _card(
    page: Page,
    pool: Pool,
    index: int,
    pair: FeatureExtractor,
    own: tuple[MethodView, int] | None,
    categories: Sequence[str],
    vocabulary: np.ndarray | None,
    embedder: words.WordEmbedder,
) -> None:
    """One image with all that the network makes of it."""
    sample, image = pool.samples[index], pool.images[index]
    images = [PageImage(image=image, caption="Image", alt=sample.caption or sample.key)]
    if own is not None:
        images += token_images(image, *own)
    colored, legend = word_images(pair, sample, image, categories, vocabulary, embedder)
    page.card(
        sample.caption or "(no caption)",
        [*images, *colored],
        small=sample.key,
        legend=legend,
        scores=[
            Score(name=answer.text, value=answer.share, good=answer.right or None) for answer in pool.answers(index)
        ],
    )


def _search(page: Page, pool: Pool) -> None:
    """Captions with the images that they find."""
    queries = [index for index, sample in enumerate(pool.samples) if sample.caption][:CAPTIONS]
    if not queries or len(pool.samples) < 2:
        return
    page.heading("Finding images by words")
    page.text(
        f"The first captions, each with the five of {len(pool.samples)} images that it finds; ✓ and a frame mark the "
        "image it belongs to."
    )
    for index in queries:
        best, place = pool.retrieved(index)
        page.card(
            pool.samples[index].caption,
            [
                PageImage(
                    image=pool.images[neighbor],
                    caption=pool.samples[neighbor].caption,
                    alt=f"Number {rank}: {pool.samples[neighbor].caption}",
                    good=True if neighbor == index else None,
                )
                for rank, neighbor in enumerate(best, 1)
            ],
            small=f"Its own image comes at place {place} of {len(pool.samples)}",
        )


def curves(page: Page, history: Sequence[Mapping]) -> None:
    """A chart for every number that was recorded."""
    page.heading("How it learned")
    names = {key for record in history for key, value in record.items() if isinstance(value, int | float)} - {*_CLOCK}
    if not names:
        page.text("No records were kept of this run.")
        return
    names -= {*_BESIDE_KNN}
    order = [*(name for name in _CURVES if name in names), *sorted(names - {*_CURVES})]
    marks = [
        Mark(x=float(record.get("step", 0)), text=f"step {record.get('step', 0)}: {record['alarm']}")
        for record in history
        if isinstance(record.get("alarm"), str)
    ]
    page.text("The faint line is what was recorded, the strong one its running mean. Rest the pointer for values.")
    if marks:
        page.warning(f"Dashed red lines: {'; '.join(mark.text for mark in marks[:10])}.")
    for name in order:
        points = [
            (float(record.get("step", at)), float(record[name]))
            for at, record in enumerate(history)
            if _has(record, name)
        ]
        lines = [Series(name=name, x=[x for x, _ in points], y=[y for _, y in points])]
        if name == "knn":
            lines += [
                Series(name=title, x=[lines[0].x[0], lines[0].x[-1]], y=[float(record[other])] * 2)
                for other, title in _BESIDE_KNN.items()
                for record in [next((record for record in history if _has(record, other)), None)]
                if record is not None
            ]
        page.curves(_CURVES.get(name, label(name)), lines, marks=marks)


def _has(record: Mapping, name: str) -> bool:
    return isinstance(record.get(name), int | float)


def how_made(page: Page, settings: Mapping, machine: Mapping) -> None:
    """All that is needed to make the run again."""
    page.heading("How it was made")
    page.text("All that is needed to make the run again.")
    if settings:
        page.details("Settings", _flat(settings))
    if machine:
        page.details("Machine and versions", _flat(machine))


def _flat(value: Mapping, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text)."""
    out: list[tuple[str, str]] = []
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            out += _flat(inner, f"{name}.")
        else:
            out.append((name, inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)))
    return out
