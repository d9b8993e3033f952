"""The images that are looked at: a folder, files, a pattern of names, or any data that training takes, ready for a
network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from rizbin.core.errors import RizbinError
from rizbin.data.files import image_files
from rizbin.data.image_io import read_image
from rizbin.data.open import notices_of, open_source
from rizbin.data.sample import Refused, Sample
from rizbin.data.scenes.source import CREDIT
from rizbin.models.protocol import FeatureExtractor
from rizbin.visualization.colors import AnySizeImage

MOST_PATCHES = 16_384
"""Most patches of one image: time grows with their square, and 2048 x 2048 pixels in patches of 16 take minutes."""
ENDLESS = 16
"""Number of images taken from endless data where no limit is given."""


@dataclass(frozen=True)
class ShownImage:
    """One image at the size at which the network sees it."""

    name: str
    image: AnySizeImage
    objects: tuple[tuple[str, Bool[np.ndarray, "height width"]], ...] = ()
    """Name and mask of the objects in it, back to front, where the truth is known."""
    caption: str = ""

    @property
    def truth(self) -> Bool[np.ndarray, "height width"] | None:
        """The pixels of all objects together; None where the truth is not known."""
        return np.any([mask for _, mask in self.objects], axis=0) if self.objects else None


@dataclass(frozen=True)
class ReadImages:
    """What was read."""

    shown: list[ShownImage]
    skipped: list[str]
    """A sentence for each image that could not be used, and for what else the data hold that is left out."""
    left_out: int
    """Number of images beyond the limit; 0 for endless data."""
    credit: str = ""
    """What the licence of the images asks to be shown with them."""


def read_images(
    where: str | Sequence[str], encoder: FeatureExtractor, *, size: int = 0, limit: int = 0, masks: str | Path = ""
) -> ReadImages:
    """The images as the network can take them: the shorter side at `size`, both cut to whole patches.

    where: folders, files, patterns ("frames/*.png"), or data as training takes it ("scenes:easy", a table, COCO JSON),
    one or several. Files of a folder come in the order of their names, "frame 10" after "frame 9"; scenes are those of
    the test split.
    size: the shorter side in pixels, rounded to whole patches; 0 for the network's own. A network that takes one size
    only gets the central square.
    limit: the first so many; 0 for all, and `ENDLESS` of what has no end.
    masks: a folder with the truth of image files: DIR/photo.png for photo.jpg, as `read_mask` takes it; images
        without one stay without truth. Empty: only data that bring masks along have them.
    Raises RizbinError when there is nothing to read or nothing of it can be read.
    """
    spelled = [where] if isinstance(where, str) else list(where)
    if not spelled:
        raise RizbinError("There are no images to look at; name a folder, files, or scenes.")
    if size < 0 or 0 < size < encoder.patch_size:
        raise RizbinError(
            f"A size of {size} pixels is less than one patch of {encoder.patch_size}; choose a larger one."
        )
    side = max(1, round((size or encoder.image_size) / encoder.patch_size)) * encoder.patch_size
    if not encoder.any_size and side != encoder.image_size:
        raise RizbinError(
            f"This network takes images of {encoder.image_size} pixels only, not {side}; leave the size out."
        )
    if masks and not Path(masks).is_dir():
        raise RizbinError(f"There is no folder {masks}; name one that holds a PNG for each image.")
    shown: list[ShownImage] = []
    skipped: list[str] = []
    left_out, drawn = 0, False
    for text in spelled:
        reading = _opened(text, side)
        drawn |= text.partition(":")[0] == "scenes"
        remaining = limit - len(shown) if limit else ENDLESS if reading.endless else reading.count
        number = 0
        while number < reading.count and remaining > 0 and not (reading.endless and len(skipped) >= _ENOUGH_SKIPPED):
            try:
                shown_image = _fitted(reading.read(number), side, encoder)
                shown.append(_with_truth(shown_image, Path(masks), encoder) if masks else shown_image)
                remaining -= 1
            except Refused as refusal:
                skipped.append(str(refusal))
            number += 1
        left_out += 0 if reading.endless else reading.count - number
        skipped += reading.notices
    if not shown:
        raise RizbinError(f"None of the images in {', '.join(spelled)} can be used; the first: {skipped[0]}")
    return ReadImages(shown, skipped, left_out, CREDIT if drawn else "")


def check_images(where: str | Sequence[str], *, masks: str | Path = "") -> None:
    """Raises RizbinError where there are no images, before a network is loaded."""
    for text in [where] if isinstance(where, str) else where:
        _opened(text, ENDLESS)
    if masks and not Path(masks).is_dir():
        raise RizbinError(f"There is no folder {masks}; name one that holds a PNG for each image.")


def _with_truth(shown_image: ShownImage, masks: Path, encoder: FeatureExtractor) -> ShownImage:
    """The image with the mask of its name, where there is one."""
    path = masks / f"{Path(shown_image.name).stem}.png"
    if not path.is_file():
        return shown_image
    numbers = read_mask(path, shown_image, encoder)
    return replace(
        shown_image,
        objects=tuple((f"object {number}", numbers == number) for number in np.unique(numbers[numbers > 0])),
    )


def read_mask(path: str | Path, like: ShownImage, encoder: FeatureExtractor) -> UInt8[np.ndarray, "height width"]:
    """The numbers of objects in a PNG, brought to the size of the image that it belongs to.

    Each gray value or color other than black is an object, numbered from 1 in the order of its color, so that DAVIS'
    masks serve as they are. Raises RizbinError when it cannot be read or has another shape.
    """
    pixels = read_image(path)
    colors, numbers = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colors) > _MOST_THINGS:
        raise RizbinError(
            f"{path} has {len(colors)} colors, so it is no mask; give a PNG with a flat color for each object, "
            "black elsewhere."
        )
    order = np.cumsum(colors.any(axis=1)) * colors.any(axis=1)
    mask = order[numbers.ravel()].reshape(pixels.shape[:2]).astype(np.uint8)
    side = min(like.image.shape[:2])
    fitted = _cut(mask, side, encoder, cv2.INTER_NEAREST)
    if fitted.shape != like.image.shape[:2]:
        raise RizbinError(f"{path} has another shape than {like.name}; give the mask of that image.")
    return fitted


_ENOUGH_SKIPPED = 100
"""Unusable scenes after which no more are drawn."""
_MOST_THINGS = 64
"""Most objects in one mask; a photograph given by mistake has thousands of colors."""


@dataclass(frozen=True)
class _Reading:
    """Something that gives samples by number."""

    count: int
    read: Callable[[int], Sample]
    endless: bool = False
    notices: tuple[str, ...] = ()
    """What the data hold that is no sample."""


def _opened(text: str, side: int) -> _Reading:
    """What one word of the command line names."""
    kind = text.partition(":")[0]
    path = Path(text).expanduser()
    if kind in ("scenes", "cutouts", "shards") or path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".json"):
        source = open_source(text, split="test" if kind in ("scenes", "cutouts") else "all", size=side)
        return _Reading(len(source), source.__getitem__, source.endless, notices_of(source))
    named = image_files(text)
    files = list(named)
    # Twice the side: what is decoded at a quarter of its size still has more pixels than are needed.
    return _Reading(len(files), lambda number: _sample(files[number], named[files[number]], 2 * side))


def _sample(file: Path, name: str, enough: int) -> Sample:
    return Sample(name, read_image(file, enough=enough), "")


def _fitted(sample: Sample, side: int, encoder: FeatureExtractor) -> ShownImage:
    """The sample at the size at which it is looked at."""
    image = _cut(sample.image, side, encoder)
    count = image.shape[0] * image.shape[1] // encoder.patch_size**2
    if count > MOST_PATCHES:
        raise Refused(f"{sample.key} makes {count} patches, more than {MOST_PATCHES}; choose a smaller size.")
    objects = tuple(
        (instance.name, _cut(instance.mask.astype(np.uint8), side, encoder, cv2.INTER_NEAREST).astype(bool))
        for instance in sample.objects
    )
    return ShownImage(sample.key, image, objects, sample.caption)


def _cut(pixels: np.ndarray, side: int, encoder: FeatureExtractor, how: int | None = None) -> np.ndarray:
    """Resized so that the shorter side is `side`, then the middle of it in whole patches; aspect is never changed."""
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    new = max(side, round(height * scale)), max(side, round(width * scale))
    if new != (height, width):
        how = (cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC) if how is None else how
        pixels = cv2.resize(pixels, new[::-1], interpolation=how)
    cropped = [length // encoder.patch_size * encoder.patch_size if encoder.any_size else side for length in new]
    top, left = (new[0] - cropped[0]) // 2, (new[1] - cropped[1]) // 2
    return np.ascontiguousarray(pixels[top : top + cropped[0], left : left + cropped[1]])
