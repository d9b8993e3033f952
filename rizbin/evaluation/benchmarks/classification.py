"""Zero-shot classification on folders of classes and on clip_benchmark's webdatasets (CLIP, arXiv 2103.00020, 3.1).

Class embeddings are re-normalized means of the unit embeddings of their prompts, templates taken as they are published
(no article is mended). Numbers equal clip_benchmark's on the same images (tests).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import MakeBar, advancing
from rizbin.data.files import image_files
from rizbin.data.image_io import read_image
from rizbin.evaluation import zero_shot
from rizbin.evaluation.benchmarks.protocol import (
    Benchmark,
    BenchmarkOptions,
    Image,
    embed_images,
    first,
    lines_of,
    missing,
    report,
)
from rizbin.evaluation.ranks import best_rank
from rizbin.models.encoder import TEXTS_AT_ONCE, Encoder

_SPLITS = ("val", "validation", "test")
IMAGENET = "val/WORDNET_ID/*.JPEG, a folder a class such as val/n01440764 (or these folders themselves)"
FOLDERS = (
    "a folder a class, called by its name (or val/ with these); where there is a classnames.txt, its lines are the "
    "names of the sorted folders, and zeroshot_classification_templates.txt holds prompts with {c}"
)


@dataclass(frozen=True)
class ClassifiedImages:
    """Images with the right class of each."""

    images: list[Image]
    labels: list[int]
    names: list[str]
    """Names of the classes."""
    templates: list[str]
    """Sentences with {c} in the place of the name."""
    about: str
    """Which classes and prompts, for the protocol."""


def measure(
    name: str, data: ClassifiedImages, encoder: Encoder, options: BenchmarkOptions, bar: MakeBar | None
) -> Report:
    """Top-1, top-5 and mean per-class recall."""
    images = first(data.images, options.limit)
    texts = [template.replace("{c}", text) for text in data.names for template in data.templates]
    words = zero_shot.ensemble(texts_embedded(encoder, texts).unflatten(0, (len(data.names), len(data.templates))))
    with advancing(bar, len(images), name) as advance:
        seen = embed_images(encoder, images, options.batch, advance)
    labels = torch.tensor([data.labels[place] for place in seen.positions])
    numbers = accuracies(seen.vectors @ words.T, labels, name, data.about)
    return report(name, numbers, len(labels), seen.refused, options.limit)


def texts_embedded(encoder: Encoder, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
    """Unit embeddings of texts, on the CPU."""
    return torch.cat(
        [
            encoder.encode_text(list(texts[start : start + TEXTS_AT_ONCE])).float().cpu()
            for start in range(0, len(texts), TEXTS_AT_ONCE)
        ]
    )


def accuracies(
    scores: Float[Tensor, "images classes"], labels: Int[Tensor, "images"], name: str, about: str
) -> list[Measurement]:
    """Shares of images whose class is among the best scored; ties are wrong."""
    classes = scores.shape[1]
    right = torch.nn.functional.one_hot(labels, classes).bool()
    ranks = best_rank(scores, right)
    measurements = [
        Measurement(
            name=f"{name}/top{k}",
            value=100 * (ranks <= k).double().mean().item(),
            chance=100 * k / classes,
            protocol=f"Share of images whose class is among the {k} of the greatest cosine (ties are wrong); {about}.",
        )
        for k in (1, 5)
        if k == 1 or classes > 5
    ]
    present = labels.unique()
    recalls = torch.stack([(ranks[labels == label] == 1).double().mean() for label in present])
    measurements.append(
        Measurement(
            name=f"{name}/mean_class_recall",
            value=100 * recalls.mean().item(),
            chance=100 / classes,
            protocol=f"Mean over the {len(present)} classes that have images of the share of theirs that are right; "
            f"{about}.",
        )
    )
    return measurements


def read_imagenet(root: Path) -> ClassifiedImages:
    """Images in folders that are called by WordNet's ids, all 1,000 of them or fewer (ImageNet-A and -R: 200)."""
    from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES  # here: importing it costs a second
    from timm.data.imagenet_info import ImageNetInfo

    folders = class_folders("imagenet", root, IMAGENET)
    numbers = {identity: number for number, identity in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    if strange := [folder.name for folder in folders if folder.name not in numbers]:
        raise RizbinError(
            f"{folders[0].parent} has the folder {strange[0]}, which is no WordNet id of ImageNet-1k; its folder holds "
            f"{IMAGENET}, and folders of other names are measured by --benchmark folders."
        )
    names = [IMAGENET_CLASSNAMES[numbers[folder.name]] for folder in folders]
    templates = [template("{c}") for template in OPENAI_IMAGENET_TEMPLATES]
    about = f"{len(names)} classes of ImageNet-1k by open_clip's names, the 80 prompts of CLIP"
    return _in_folders(folders, names, templates, about)


def read_folders(root: Path) -> ClassifiedImages:
    """Images in folders that are called by the names of their classes."""
    folders = class_folders("folders", root, FOLDERS)
    names = [folder.name.replace("_", " ") for folder in folders]
    if (root / "classnames.txt").is_file():
        names = [line for line in lines_of(root / "classnames.txt") if line]
        if len(names) != len(folders):
            raise RizbinError(
                f"{root / 'classnames.txt'} has {len(names)} names for {len(folders)} folders; give one a folder."
            )
    templates, prompts = templates_of(root)
    return _in_folders(folders, names, templates, f"{len(names)} classes, {prompts}")


def templates_of(root: Path) -> tuple[list[str], str]:
    """The prompts that lie in a folder, or those of `zero_shot.PLAIN`; and what they are."""
    file = root / "zeroshot_classification_templates.txt"
    if not file.is_file():
        return [template.replace("{}", "{c}") for template in zero_shot.PLAIN], f"{len(zero_shot.PLAIN)} plain prompts"
    templates = [line for line in lines_of(file) if line]
    if not templates or not all("{c}" in template for template in templates):
        raise RizbinError(f"{file} has a prompt without {{c}}, where the name belongs; mend that line.")
    return templates, f"{len(templates)} prompts of {file.name}"


def class_folders(name: str, root: Path, layout: str) -> list[Path]:
    """The folders of the classes, sorted."""
    place = next((root / split for split in _SPLITS if (root / split).is_dir()), root)
    folders = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        raise missing(name, place / "CLASS", layout)
    return folders


def _in_folders(folders: Sequence[Path], names: list[str], templates: list[str], about: str) -> ClassifiedImages:
    images: list[Image] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        for path in image_files(str(folder)):
            images.append(partial(read_image, path))
            labels.append(label)
    return ClassifiedImages(images, labels, names, templates, about)


def _imagenet(encoder: Encoder, root: Path, options: BenchmarkOptions, bar: MakeBar | None) -> Report:
    return measure("imagenet", read_imagenet(root), encoder, options, bar)


def _folders(encoder: Encoder, root: Path, options: BenchmarkOptions, bar: MakeBar | None) -> Report:
    return measure("folders", read_folders(root), encoder, options, bar)


BENCHMARKS = (
    Benchmark(
        name="imagenet",
        about="Zero-shot classification on ImageNet-1k and its variants (V2, A, R, Sketch).",
        layout=IMAGENET,
        source="arXiv 2103.00020, section 3.1",
        run=_imagenet,
    ),
    Benchmark(
        name="folders",
        about="Zero-shot classification on any folders of classes.",
        layout=FOLDERS,
        source="arXiv 2103.00020, section 3.1",
        run=_folders,
    ),
)
