"""Zero-shot segmentation on published validation sets: the protocol of SCLIP (arXiv 2312.01597), mmseg's metric.

The image is resized so that its shorter side is 1.5 times the network's (Cityscapes: 2.5 times), squares of the
network's size with half of it between them are looked at, their cosines with the names are upsampled bilinearly and
averaged, then upsampled to the image. A pixel takes the class of its greatest score. Where background is a class, it
has names of scenery of its own, and a pixel is background too where no name has a probability of 0.1. Intersection and
union are pooled over all pixels of all images, but for those that the labels leave out, and averaged over classes.

Differs from SCLIP's settings: names are those of the data sets, not chosen by hand; small regions of VOC are not taken
for background; patches come from `Encoder.dense`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import MakeBar, advancing
from rizbin.data.image_io import read_image, read_indices
from rizbin.data.listing import leads_out
from rizbin.data.sample import Refused
from rizbin.evaluation import zero_shot
from rizbin.evaluation.benchmarks import names
from rizbin.evaluation.benchmarks.classification import texts_embedded
from rizbin.evaluation.benchmarks.protocol import Benchmark, BenchmarkOptions, first, lines_of, missing, report
from rizbin.evaluation.segmentation import confusion
from rizbin.models.encoder import Encoder

IGNORED = 255
"""Label of pixels that do not count, in all of these data sets."""
LEAST_PROBABILITY = 0.1
"""Under which no name stands out, and a pixel is background where that is a class."""
_NAMES_AT_ONCE = 32
"""Names whose scores are brought to an image's size at once: 40 MB for 640x480 pixels."""


@dataclass(frozen=True, kw_only=True)
class DenseSet:
    """One data set as it is handed out."""

    name: str
    about: str
    classes: tuple[str, ...]
    """Without background."""
    background: bool = False
    """Whether background is a class, which is then number 0."""
    zero: Literal["class", "ignored"] = "ignored"
    """What label 0 of the files is: the first class (or background), or left out, all others being one less."""
    enlarged: float = 1.5
    """Shorter side of the image that is looked at, as a factor of the network's."""
    scale: float = 40.0
    """What cosines are multiplied by before the softmax, as SCLIP chose for the data set."""
    images: str
    """Folder of the images."""
    labels: str
    """Folder of the labels."""
    listed: str = ""
    """File with the names of the images, without ending; empty: all in the folder."""
    endings: tuple[str, str] = (".jpg", ".png")
    """The end of an image's name, and what replaces it in the name of its label file."""
    note: str = ""
    """What else a person has to know of the layout."""

    @property
    def layout(self) -> str:
        """What its folder holds."""
        listed = f"{self.listed}, " if self.listed else ""
        return f"{listed}{self.images}/NAME{self.endings[0]} and {self.labels}/NAME{self.endings[1]}{self.note}"

    @property
    def words(self) -> list[tuple[str, int]]:
        """(name, class) of all that is compared with an image."""
        if not self.background:
            return [(name, number) for number, name in enumerate(self.classes)]
        ground = [(name, 0) for name in names.BACKGROUND if name not in self.classes]
        return ground + [(name, number) for number, name in enumerate(self.classes, 1)]


def pairs_of(data: DenseSet, root: Path) -> list[tuple[Path, Path]]:
    """(image, labels) of all images. Raises RizbinError for what is not there."""
    images, labels = root / data.images, root / data.labels
    for folder in (images, labels):
        if not folder.is_dir():
            raise missing(data.name, folder, data.layout)
    if data.listed:
        file = root / data.listed
        if not file.is_file():
            raise missing(data.name, file, data.layout)
        paths = [images / f"{line}{data.endings[0]}" for line in lines_of(file) if line]
    else:
        paths = sorted(images.rglob(f"*{data.endings[0]}"))
    if not paths:
        raise missing(data.name, images / f"NAME{data.endings[0]}", data.layout)
    pairs = []
    for path in paths:
        if leads_out(path, root):
            raise RizbinError(f"{path} lies outside of {root}; get the data again.")
        inside = path.relative_to(images).as_posix().removesuffix(data.endings[0])
        pairs.append((path, labels / f"{inside}{data.endings[1]}"))
    return pairs


def read_labels(data: DenseSet, path: Path) -> UInt8[np.ndarray, "height width"]:
    """The labels of an image: classes from 0, `IGNORED` elsewhere. Raises Refused for numbers that are no class."""
    labels = read_indices(path).copy()
    if data.zero == "ignored":
        labels = np.where((labels == 0) | (labels == IGNORED), IGNORED, labels - 1).astype(np.uint8)
    count = len(data.classes) + data.background
    if (strange := labels[(labels >= count) & (labels != IGNORED)]).size:
        raise Refused(f"{path} has the label {int(strange[0])}, and there are {count} classes; get the data again.")
    return labels


def windows_of(height: int, width: int, side: int) -> Iterator[tuple[int, int]]:
    """Top and left of the squares, half a side apart, the last ones moved back inside."""
    step = side // 2
    for row in range(max(height - side + step - 1, 0) // step + 1):
        for column in range(max(width - side + step - 1, 0) // step + 1):
            yield max(min(row * step + side, height) - side, 0), max(min(column * step + side, width) - side, 0)


@torch.inference_mode()
def score_map(
    encoder: Encoder,
    image: UInt8[np.ndarray, "_ _ 3"],
    words: Float[Tensor, "words dim"],
    *,
    enlarged: float,
    batch: int,
) -> Float[Tensor, "words rows columns"]:
    """Cosines at the size that the image is looked at, the mean over the squares that hold a pixel."""
    side = encoder.image_size
    shorter = round(enlarged * side)
    factor = shorter / min(image.shape[:2])
    size = (max(side, round(image.shape[1] * factor)), max(side, round(image.shape[0] * factor)))
    large = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    height, width = large.shape[:2]
    total = torch.zeros(len(words), height, width)
    counts = torch.zeros(height, width)
    places = list(windows_of(height, width, side))
    for start in range(0, len(places), batch):
        some = places[start : start + batch]
        squares = np.stack([large[top : top + side, left : left + side] for top, left in some])
        cells = encoder.dense(encoder.normalized(torch.from_numpy(squares).to(encoder.device))).float().cpu()
        scores = (cells @ words.T).permute(0, 3, 1, 2)
        for (top, left), window_scores in zip(some, scores, strict=True):
            part = F.interpolate(window_scores[None], size=(side, side), mode="bilinear", align_corners=False)[0]
            total[:, top : top + side, left : left + side] += part
            counts[top : top + side, left : left + side] += 1
    return total / counts


def classes_at(
    scores: Float[Tensor, "words rows columns"],
    numbers: Int[Tensor, "words"],
    size: tuple[int, int],
    *,
    scale: float,
    background: bool,
) -> Int[Tensor, "height width"]:
    """The class of each pixel of an image of that size; see the module."""
    best = torch.full(size, -torch.inf)
    summed = torch.full(size, -torch.inf)
    chosen = torch.zeros(size, dtype=torch.long)
    for start in range(0, len(scores), _NAMES_AT_ONCE):
        part = scores[None, start : start + _NAMES_AT_ONCE]
        pixels = scale * F.interpolate(part, size=size, mode="bilinear", align_corners=False)[0]
        value, word = pixels.max(dim=0)
        chosen = torch.where(value > best, numbers[start + word], chosen)
        best = torch.maximum(best, value)
        summed = torch.logaddexp(summed, pixels.logsumexp(dim=0))
    if background:
        chosen[(best - summed).exp() < LEAST_PROBABILITY] = 0
    return chosen


def measure(data: DenseSet, encoder: Encoder, root: Path, options: BenchmarkOptions, bar: MakeBar | None) -> Report:
    """mIoU, mean class accuracy and pixel accuracy, as mmseg counts them."""
    if not encoder.localizes:
        raise RizbinError(
            f"{encoder.name} has no patches that can be compared with words, so {data.name} cannot be measured; give "
            "an image-text encoder with a linear image projection, such as detailclip-mini."
        )
    pairs = first(pairs_of(data, root), options.limit)
    templates = zero_shot.templates("openai80")
    texts = [template.replace("{}", name) for name, _ in data.words for template in templates]
    words = zero_shot.ensemble(texts_embedded(encoder, texts).unflatten(0, (len(data.words), len(templates))))
    numbers = torch.tensor([number for _, number in data.words])
    count = len(data.classes) + data.background
    counts = torch.zeros(count, count, dtype=torch.long)
    refused: list[tuple[str, str]] = []
    with advancing(bar, len(pairs), data.name) as advance:
        for path, labels_path in pairs:
            try:
                labels, image = read_labels(data, labels_path), read_image(path)
                if labels.shape != image.shape[:2]:
                    raise Refused(f"{labels_path} and its image are not of one size; get the data again.")
            except Refused as reason:
                refused.append((path.name, str(reason)))
                advance(1)
                continue
            scores = score_map(encoder, image, words, enlarged=data.enlarged, batch=options.batch)
            size = (labels.shape[0], labels.shape[1])
            chosen = classes_at(scores, numbers, size, scale=data.scale, background=data.background)
            truth = torch.from_numpy(labels.astype(np.int64))
            known = truth != IGNORED
            counts += confusion(truth[known], chosen[known], count)
            advance(1)
    if len(refused) == len(pairs):
        raise RizbinError(f"No image of {len(pairs)} could be used. The first reason: {refused[0][1]}")
    return report(
        data.name, _numbers(data, counts, len(pairs) - len(refused)), len(pairs) - len(refused), refused, options.limit
    )


def _numbers(data: DenseSet, counts: Int[Tensor, "classes classes"], images: int) -> list[Measurement]:
    """mmseg's mIoU, mAcc and aAcc of a confusion matrix whose rows are the truth."""
    both, truth = counts.diagonal().double(), counts.sum(dim=1).double()
    union = truth + counts.sum(dim=0) - both
    ground = " and background" if data.background else ""
    under = f", background under a probability of {LEAST_PROBABILITY:g}" if data.background else ""
    how = (
        f"over {len(data.classes)} classes{ground}, pooled over the labeled pixels of {images:,} images at their own "
        f"size: shorter side {data.enlarged:g} times the network's, squares half a side apart, 80 prompts a name, "
        f"cosines upsampled bilinearly{under}"
    )
    return [
        Measurement(
            name=f"{data.name}/miou",
            value=100 * (both[union > 0] / union[union > 0]).mean().item(),
            protocol=f"Mean intersection over union {how}.",
        ),
        Measurement(
            name=f"{data.name}/mean_accuracy",
            value=100 * (both[truth > 0] / truth[truth > 0]).mean().item(),
            protocol=f"Mean share of a class's pixels that are right {how}.",
        ),
        Measurement(
            name=f"{data.name}/pixel_accuracy",
            value=100 * (both.sum() / truth.sum()).item(),
            protocol=f"Share of pixels that are right {how}.",
        ),
    ]


_VOC: dict[str, Any] = {
    "images": "JPEGImages",
    "labels": "SegmentationClass",
    "listed": "ImageSets/Segmentation/val.txt",
}
_CONTEXT: dict[str, Any] = {
    "images": "JPEGImages",
    "labels": "SegmentationClassContext",
    "listed": "ImageSets/SegmentationContext/val.txt",
    "note": " (labels as mmseg's converter writes them)",
}
SETS = (
    DenseSet(name="voc20", about="PASCAL VOC 2012 without background", classes=names.VOC, **_VOC),
    DenseSet(
        name="voc21",
        about="PASCAL VOC 2012 with background",
        classes=names.VOC,
        background=True,
        zero="class",
        scale=65.0,
        **_VOC,
    ),
    DenseSet(name="context59", about="PASCAL-Context without background", classes=names.CONTEXT, **_CONTEXT),
    DenseSet(
        name="context60",
        about="PASCAL-Context with background",
        classes=names.CONTEXT,
        background=True,
        zero="class",
        scale=50.0,
        **_CONTEXT,
    ),
    DenseSet(
        name="coco-stuff",
        about="COCO-Stuff 164k, 171 classes",
        classes=(*names.COCO, *names.STUFF),
        zero="class",
        images="images/val2017",
        labels="annotations/val2017",
        endings=(".jpg", "_labelTrainIds.png"),
        note=" (labels as mmseg's converter writes them)",
    ),
    DenseSet(
        name="coco-object",
        about="COCO's 80 objects with background",
        classes=names.COCO,
        background=True,
        zero="class",
        scale=50.0,
        images="images/val2017",
        labels="annotations/val2017",
        endings=(".jpg", "_instanceTrainIds.png"),
        note=" (0 background, objects from 1)",
    ),
    DenseSet(
        name="ade20k",
        about="ADE20K, 150 classes (SceneParse150)",
        classes=names.ADE20K,
        images="images/validation",
        labels="annotations/validation",
    ),
    DenseSet(
        name="cityscapes",
        about="Cityscapes, 19 classes",
        classes=names.CITYSCAPES,
        zero="class",
        enlarged=2.5,
        images="leftImg8bit/val",
        labels="gtFine/val",
        endings=("_leftImg8bit.png", "_gtFine_labelTrainIds.png"),
    ),
)
BENCHMARKS = tuple(
    Benchmark(
        name=data.name,
        about=f"Zero-shot segmentation on {data.about}.",
        layout=data.layout,
        source="arXiv 2312.01597; mmseg's IoUMetric",
        run=partial(measure, data),
    )
    for data in SETS
)
