"""Does word order matter: the captions of COCO and Flickr30k against four permutations (ARO, arXiv 2210.01936).

The order of nouns and adjectives, of all other words, of the words within each three, and of the threes. The first two
need the tagger that ARO used, so they are read from a file that holds the permutations; from captions alone the last
two are made here.

Differs: words are parted by a regular expression here, where ARO takes NLTK's tokenizer (for captions they agree but
for rare abbreviations), and chance is drawn from a fixed seed. A permutation that came out as the caption itself is no
wrong caption and left out; ARO's argmax lets the right one win there, which is the same. Other ties are wrong.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import MakeBar, advancing
from rizbin.core.random import generator
from rizbin.data.image_io import read_image
from rizbin.data.listing import leads_out
from rizbin.evaluation.benchmarks.classification import texts_embedded
from rizbin.evaluation.benchmarks.protocol import Benchmark, BenchmarkOptions, embed_images, first, json_of, missing
from rizbin.evaluation.benchmarks.protocol import report as benchmark_report
from rizbin.models.encoder import Encoder

PERMUTATIONS = ("nouns_and_adjectives", "all_but_nouns_and_adjectives", "within_trigrams", "trigrams")
"""In ARO's order."""
MOST_WORDS = 30
"""Of a caption, as ARO cuts it."""
_HARD = tuple(f"hard_text_{number}" for number in range(1, 5))
_LAYOUT = (
    "{data}_order.json (cases with image and caption_options, the right one first; or with correct_caption and "
    "hard_text_1 to 4), or {captions} (image and caption), from which two of the four permutations are made; and the "
    "images under the paths that it names"
)
_CAPTIONS = {"coco": "coco_karpathy_test.json", "flickr30k": "flickr30k_test.json"}
_WORD = re.compile(r"\w+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w(?:[\w./-]*\w)?|[^\w\s]")


@dataclass(frozen=True)
class OrderCase:
    """A caption of an image and its permutations."""

    image: str
    right: str
    wrong: tuple[str, ...]
    """One for each of the `PERMUTATIONS` that there are; empty where it is none (equal to the caption)."""


def clean(caption: str) -> str:
    """A caption as ARO gives it to a model: small letters, most signs dropped, at most 30 words."""
    text = re.sub(r"[.!\"()*#:;~]", " ", caption.lower())
    text = re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:MOST_WORDS])


def within_trigrams(caption: str, number: int) -> str:
    """The caption with the words of each three in another order; `number` decides which."""
    random = generator(0, "aro-order", "within", number)
    return " ".join(words[place] for words in _threes(caption) for place in random.permutation(len(words)))


def trigrams(caption: str, number: int) -> str:
    """The caption with its threes in another order; `number` decides which."""
    threes = _threes(caption)
    order = generator(0, "aro-order", "whole", number).permutation(len(threes))
    return " ".join(word for place in order for word in threes[place])


def _threes(caption: str) -> list[list[str]]:
    words = _WORD.findall(caption)
    return [words[start : start + 3] for start in range(0, len(words), 3)]


def read_order(root: Path, data: str) -> tuple[list[OrderCase], tuple[str, ...]]:
    """The cases of "coco" or "flickr30k" and the permutations that they have, in order."""
    ready, captions = root / f"{data}_order.json", root / _CAPTIONS[data]
    if ready.is_file():
        return [_ready(record, ready) for record in _records(ready)], PERMUTATIONS
    if not captions.is_file():
        raise missing(f"aro-{data}-order", ready, _layout(data))
    cases = []
    for record in _records(captions):
        texts = record.get("caption")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise RizbinError(f"A case of {captions} has no caption; get it again.")
        for text in texts:
            number, right = len(cases), clean(text)
            wrong = (clean(within_trigrams(text, number)), clean(trigrams(text, number)))
            cases.append(_case(record, right, wrong, captions))
    return cases, PERMUTATIONS[2:]


def _records(file: Path) -> list[dict[str, Any]]:
    content = json_of(file)
    if not isinstance(content, list) or not content or not all(isinstance(record, dict) for record in content):
        raise RizbinError(f"{file} is no list of cases; get it again.")
    return content


def _ready(record: dict[str, Any], file: Path) -> OrderCase:
    options = record.get("caption_options", [record.get(name) for name in ("correct_caption", *_HARD)])
    whole = isinstance(options, list) and len(options) == 5 and all(isinstance(text, str) for text in options)
    if not whole or not options[0].strip():
        raise RizbinError(f"A case of {file} has no five captions, the right one first; get it again.")
    return _case(record, options[0], tuple(options[1:]), file)


def _case(record: dict[str, Any], right: str, wrong: tuple[str, ...], file: Path) -> OrderCase:
    image = record.get("image")
    if not isinstance(image, str) or not image:
        raise RizbinError(f"A case of {file} has no image; get it again.")
    if leads_out(file.parent / image, file.parent):
        raise RizbinError(f"{image} lies outside of {file.parent}; get the file again.")
    return OrderCase(image, right, tuple("" if text == right else text for text in wrong))


def _run(data: str, encoder: Encoder, root: Path, options: BenchmarkOptions, bar: MakeBar | None) -> Report:
    name = f"aro-{data}-order"
    cases, permutations = read_order(root, data)
    images = first(list(dict.fromkeys(case.image for case in cases)), options.limit)
    with advancing(bar, len(images), name) as advance:
        files = [partial(read_image, root / image) for image in images]
        seen = embed_images(encoder, files, options.batch, advance)
    rows = {images[place]: row for row, place in enumerate(seen.positions)}
    chosen = [case for case in cases if case.image in rows]
    vectors = seen.vectors[[rows[case.image] for case in chosen]]
    scores, there = scores_of(encoder, vectors, chosen)
    numbers = _numbers(name, scores, there, permutations)
    whole = benchmark_report(name, numbers, len(seen.positions), seen.refused, options.limit)
    if permutations != PERMUTATIONS:
        why = f"Two permutations need a tagger; {data}_order.json with all four was not there."
        whole = replace(whole, left_out=(*whole.left_out, (f"{name}/precision_at_1", why)))
    return whole


def scores_of(
    encoder: Encoder, vectors: Float[Tensor, "cases dim"], cases: Sequence[OrderCase]
) -> tuple[Float[Tensor, "cases options"], Bool[Tensor, "cases options"]]:
    """Cosines of each case's image with its caption (first) and the permutations; and which of these there are."""
    columns = list(zip(*((case.right, *case.wrong) for case in cases), strict=True))
    scores = [(vectors * texts_embedded(encoder, [text or "." for text in texts])).sum(dim=1) for texts in columns]
    there = torch.tensor([[bool(text) for text in texts] for texts in columns])
    return torch.stack(scores, dim=1), there.T


def _numbers(
    name: str,
    scores: Float[Tensor, "cases options"],
    there: Bool[Tensor, "cases options"],
    permutations: Sequence[str],
) -> list[Measurement]:
    """Precision at 1 among all five where there are all, and against each permutation alone."""
    won = (scores[:, :1] > scores[:, 1:]) | ~there[:, 1:]
    numbers = []
    if tuple(permutations) == PERMUTATIONS:
        numbers.append(
            Measurement(
                name=f"{name}/precision_at_1",
                value=100 * won.all(dim=1).double().mean().item(),
                chance=100 * (1 / there.sum(dim=1)).double().mean().item(),
                protocol=f"Share of {len(won):,} captions with a greater cosine than all four permutations of their "
                "words, as ARO publishes it.",
                items=f"{len(won):,} captions",
            )
        )
    for column, permutation in enumerate(permutations):
        counted = there[:, 1 + column]
        if not counted.any():
            continue
        numbers.append(
            Measurement(
                name=f"{name}/{permutation}",
                value=100 * won[counted, column].double().mean().item(),
                chance=50.0,
                protocol=f"Share of {int(counted.sum()):,} captions with a greater cosine than with the order of "
                f"{permutation.replace('_', ' ')} changed.",
                items=f"{int(counted.sum()):,} captions",
            )
        )
    return numbers


def _layout(data: str) -> str:
    return _LAYOUT.format(data=data, captions=_CAPTIONS[data])


BENCHMARKS = tuple(
    Benchmark(
        name=f"aro-{data}-order",
        about=f"Are the caption's words in their order? ({title} Order of ARO)",
        layout=_layout(data),
        source="arXiv 2210.01936",
        run=partial(_run, data),
    )
    for data, title in (("coco", "COCO"), ("flickr30k", "Flickr30k"))
)
