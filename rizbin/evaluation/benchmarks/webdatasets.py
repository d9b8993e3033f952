"""clip_benchmark's webdatasets: tars with images and classes or captions, as its authors hand out some forty."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Report
from rizbin.core.progress import MakeBar
from rizbin.data.image_io import read_image
from rizbin.data.sample import Refused
from rizbin.data.tars import Damaged, Member, members
from rizbin.evaluation.benchmarks import classification, retrieval
from rizbin.evaluation.benchmarks.classification import ClassifiedImages, templates_of
from rizbin.evaluation.benchmarks.protocol import MOST_TEXT, Benchmark, BenchmarkOptions, Image, lines_of, missing
from rizbin.evaluation.benchmarks.retrieval import CaptionedImages
from rizbin.models.encoder import Encoder

LAYOUT = (
    "test/nshards.txt, test/0.tar, test/1.tar and so on; classnames.txt and zeroshot_classification_templates.txt for "
    "classification, or dataset_type.txt with the word retrieval"
)
_IMAGES = ("webp", "png", "jpg", "jpeg")


def _run(encoder: Encoder, root: Path, options: BenchmarkOptions, bar: MakeBar | None) -> Report:
    kind_file = root / "dataset_type.txt"
    kind = " ".join(lines_of(kind_file)).strip().lower() if kind_file.is_file() else "classification"
    if kind == "retrieval":
        return retrieval.measure("webdataset", read_captions(root), encoder, options, bar)
    if kind != "classification":
        raise RizbinError(f"{kind_file} says {kind!r}; classification and retrieval are measured.")
    return classification.measure("webdataset", read_classes(root), encoder, options, bar)


def read_classes(root: Path) -> ClassifiedImages:
    """Images with a .cls each."""
    names_file = root / "classnames.txt"
    if not names_file.is_file():
        raise missing("webdataset", names_file, LAYOUT)
    names = [line for line in lines_of(names_file) if line]
    templates, prompts = templates_of(root)
    images: list[Image] = []
    labels: list[int] = []
    for tar, key, parts in _samples(root):
        text = _text(tar, parts.get("cls"), key)
        if not text.strip().isdecimal() or int(text) >= len(names):
            raise RizbinError(f"{tar}: the class of {key} is {text.strip()[:20]!r}, and {names_file} has {len(names)}.")
        images.append(_image(tar, key, parts))
        labels.append(int(text))
    return ClassifiedImages(images, labels, names, templates, f"{len(names)} classes, {prompts}")


def read_captions(root: Path) -> CaptionedImages:
    """Images with a .txt each, a caption a line."""
    images: list[Image] = []
    captions: list[list[str]] = []
    for tar, key, parts in _samples(root):
        images.append(_image(tar, key, parts))
        captions.append(_text(tar, parts.get("txt"), key).splitlines())
    return CaptionedImages(images, captions, "all captions of each image")


def _samples(root: Path) -> Iterator[tuple[Path, str, dict[str, Member]]]:
    """(tar, key, ending -> member) of each sample, in order."""
    count_file = root / "test" / "nshards.txt"
    if not count_file.is_file():
        raise missing("webdataset", count_file, LAYOUT)
    text = " ".join(lines_of(count_file)).strip()
    if not text.isdecimal() or not 0 < int(text) < 100_000:
        raise RizbinError(f"{count_file} holds {text[:20]!r} and no number of tars; get it again.")
    for number in range(int(text)):
        tar = root / "test" / f"{number}.tar"
        if not tar.is_file():
            raise missing("webdataset", tar, LAYOUT)
        yield from ((tar, key, parts) for key, parts in _grouped(tar))


def _grouped(tar: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    key, parts = "", {}
    try:
        for member in members(tar):
            if member.kind != "file":
                continue
            folder, slash, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            if folder + slash + stem != key and parts:
                yield key, parts
                parts = {}
            key = folder + slash + stem
            parts[ending.lower()] = member
    except (Damaged, OSError) as error:
        raise RizbinError(f"{tar} cannot be read ({error}); get it again.") from error
    if parts:
        yield key, parts


def _bytes(tar: Path, member: Member) -> bytes:
    with tar.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def _text(tar: Path, member: Member | None, key: str) -> str:
    if member is None or member.size > MOST_TEXT:
        raise RizbinError(f"{tar} has no class or caption beside {key}; its folder holds {LAYOUT}.")
    try:
        return _bytes(tar, member).decode("utf-8")
    except UnicodeError as error:
        raise RizbinError(f"{tar}: the text of {key} is not UTF-8; get it again.") from error


def _image(tar: Path, key: str, parts: dict[str, Member]) -> Image:
    member = next((parts[ending] for ending in _IMAGES if ending in parts), None)
    return partial(_read, tar, key, member)


def _read(tar: Path, key: str, member: Member | None) -> np.ndarray:
    if member is None:
        raise Refused(f"{tar} has no image (webp, png, jpg) of {key}; get it again.")
    return read_image(_bytes(tar, member), name=f"{key} in {tar.name}")


BENCHMARKS = (
    Benchmark(
        name="webdataset",
        about="Zero-shot classification or retrieval on a webdataset of clip_benchmark.",
        layout=LAYOUT,
        source="LAION-AI/CLIP_benchmark",
        run=_run,
    ),
)
