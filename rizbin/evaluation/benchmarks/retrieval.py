"""Retrieval with several captions an image, on Karpathy's splits of COCO and Flickr30k.

Recall at k is the share of queries with a right answer among the first k, as in CLIP's paper (arXiv 2103.00020, table
13); splits are those of Karpathy and Fei-Fei (arXiv 1412.2306). Numbers equal clip_benchmark's on the same images
(tests).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import MakeBar, advancing
from rizbin.data.image_io import read_image
from rizbin.data.listing import leads_out
from rizbin.evaluation.benchmarks.classification import texts_embedded
from rizbin.evaluation.benchmarks.protocol import (
    Benchmark,
    BenchmarkOptions,
    Image,
    embed_images,
    first,
    json_of,
    missing,
    report,
)
from rizbin.evaluation.ranks import best_rank, chance_within
from rizbin.models.encoder import Encoder

MOST_CAPTIONS = 5
"""Captions of an image that count; some of COCO have six or seven, and published numbers are of 25,000."""
_ROWS = 1000
"""Queries ranked at once: 25,000 answers then cost 100 MB."""
COCO = "dataset_coco.json (Karpathy's), and the images in val2014/ beside it"
FLICKR = "dataset_flickr30k.json (Karpathy's), and the images in flickr30k-images/ (or images/) beside it"


@dataclass(frozen=True)
class CaptionedImages:
    """Images with their captions."""

    images: list[Image]
    captions: list[list[str]]
    about: str


def measure(
    name: str, data: CaptionedImages, encoder: Encoder, options: BenchmarkOptions, bar: MakeBar | None
) -> Report:
    """Recall at 1, 5 and 10, both ways."""
    images = first(data.images, options.limit)
    with advancing(bar, len(images), name) as advance:
        seen = embed_images(encoder, images, options.batch, advance)
    texts = [caption for place in seen.positions for caption in data.captions[place]]
    owner = [row for row, place in enumerate(seen.positions) for _ in data.captions[place]]
    if not texts:
        raise RizbinError(f"None of the {len(images)} images of {name} has a caption, so nothing can be found by one.")
    numbers = recalls(seen.vectors, texts_embedded(encoder, texts), torch.tensor(owner), name, data.about)
    return report(name, numbers, len(seen.positions), seen.refused, options.limit)


def recalls(
    images: Float[Tensor, "images dim"],
    texts: Float[Tensor, "texts dim"],
    owner: Int[Tensor, "texts"],
    name: str,
    about: str,
) -> list[Measurement]:
    """`owner` is the row of the image that each text is of; ties are wrong."""
    measurements = []
    ways = {
        "image_to_text": (images, texts, torch.arange(len(images)), owner),
        "text_to_image": (texts, images, owner, torch.arange(len(images))),
    }
    for way, (queries, answers, query_owner, answer_owner) in ways.items():
        ranks, counts = [], []
        for start in range(0, len(queries), _ROWS):
            right = query_owner[start : start + _ROWS, None] == answer_owner[None]
            scores, held = queries[start : start + _ROWS] @ answers.T, right.any(dim=1)
            ranks.append(best_rank(scores[held], right[held]))
            counts.append(right[held].sum(dim=1))
        rank, count = torch.cat(ranks), torch.cat(counts)
        measurements += [
            Measurement(
                name=f"{name}/{way}/r{k}",
                value=100 * (rank <= k).double().mean().item(),
                chance=100 * chance_within(count, len(answers), k),
                protocol=f"Share of {len(rank):,} {'images' if way == 'image_to_text' else 'captions'} with a right "
                f"answer among the first {k} of {len(answers):,} by cosine, no prompt, ties are wrong; {about}.",
                items=f"{len(rank):,} queries",
            )
            for k in (1, 5, 10)
            if k < len(answers)
        ]
    return measurements


def read_karpathy(name: str, file: Path, folders: Sequence[str], layout: str) -> CaptionedImages:
    """The test split of a file of Karpathy's."""
    if not file.is_file():
        raise missing(name, file, layout)
    content = json_of(file)
    records = content.get("images") if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise RizbinError(f"{file} has no list of images; its folder holds {layout}.")
    test = [record for record in records if isinstance(record, dict) and record.get("split") == "test"]
    if not test:
        raise RizbinError(f"{file} has no image whose split is test; its folder holds {layout}.")
    images: list[Image] = []
    captions: list[list[str]] = []
    for record in test:
        path = _path(name, file.parent, record, folders, layout)
        images.append(partial(read_image, path))
        sentences = record.get("sentences", [])
        captions.append([str(sentence["raw"]) for sentence in sentences if "raw" in sentence][:MOST_CAPTIONS])
    return CaptionedImages(images, captions, f"Karpathy's test split, the first {MOST_CAPTIONS} captions of an image")


def _path(name: str, root: Path, record: dict[str, Any], folders: Sequence[str], layout: str) -> Path:
    """Where an image lies. Raises RizbinError where none of the folders is there, or the name leads out of them."""
    filename, places = str(record.get("filename", "")), [str(record.get("filepath", "")), *folders]
    for place in places:
        if place and (root / place).is_dir():
            path = root / place / filename
            if leads_out(path, root):
                raise RizbinError(f"{filename} lies outside of {root}; get the file again.")
            return path
    raise missing(name, root / next(place for place in places if place), layout)


def _coco(encoder: Encoder, root: Path, options: BenchmarkOptions, bar: MakeBar | None) -> Report:
    data = read_karpathy("coco-retrieval", root / "dataset_coco.json", ("val2014",), COCO)
    return measure("coco-retrieval", data, encoder, options, bar)


def _flickr(encoder: Encoder, root: Path, options: BenchmarkOptions, bar: MakeBar | None) -> Report:
    folders = ("flickr30k-images", "images")
    data = read_karpathy("flickr30k", root / "dataset_flickr30k.json", folders, FLICKR)
    return measure("flickr30k", data, encoder, options, bar)


BENCHMARKS = (
    Benchmark(
        name="coco-retrieval",
        about="Image-text retrieval on COCO, Karpathy's test split of 5,000 images.",
        layout=COCO,
        source="arXiv 1412.2306; arXiv 2103.00020, table 13",
        run=_coco,
    ),
    Benchmark(
        name="flickr30k",
        about="Image-text retrieval on Flickr30k, Karpathy's test split of 1,000 images.",
        layout=FLICKR,
        source="arXiv 1412.2306; arXiv 2103.00020, table 13",
        run=_flickr,
    ),
)
