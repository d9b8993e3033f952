"""COCO's JSON as a source: captions of images, and the objects in them with box and mask where they are given.

Format: cocodataset.org, "Data format"; Lin et al., Microsoft COCO, arXiv 1405.0312.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rizbin.data.coco_file import (
    FIELDS,
    Id,
    Record,
    each_once,
    id_of,
    image_folder,
    named_otherwise,
    partner_of,
    read_file,
    sides_of,
    spelled,
    whole,
)
from rizbin.data.coco_masks import Unfit, box_of, object_of
from rizbin.data.listing import NAMED, Listing, ListingEntry, Split, check_any, check_caption, counted, located, such_as
from rizbin.data.records import PackedRecords
from rizbin.data.sample import Refused, Sample

MOST_MASKS = 768 * 2**20
"""Bytes of all masks of one image, one a pixel: 64 objects in 12 million pixels, 2,600 in COCO's 640 x 480."""


def open_coco(path: Path, *, split: Split, size: int = 0, folder: Path | None = None) -> Listing:
    """The images of a captions or instances file, each with all its captions and the objects known.

    Beside `captions_val2017.json` the file `instances_val2017.json` is read too when it is there, and the other way
    round. Images are in `folder`, or else looked for beside the file, in `images/` there, and in COCO's own layout:
    `../val2017/` and `../images/val2017/` for `annotations/captions_val2017.json`. Crowds are no objects. The listing's
    notices count what is left out: annotations of images or categories that the file does not list, or lists twice,
    those without an area or outside of their image, and captions that cannot be used. Images with one id or one
    name are refused, since nobody knows whose the annotations are. Raises `RizbinError` when the file is no COCO JSON.
    """
    file = read_file(path)
    where, notices = path.name, []
    if (partner := partner_of(path)) is not None:
        more = read_file(partner)
        if other := named_otherwise(file.images, more.images):
            notices.append(
                f"{partner.name} is left out, for its images have other names by the same ids{such_as(other)}."
            )
        else:
            file, where = file.with_more(more), f"{path.name} with {partner.name}"
    images, problems, repeated = each_once(file.images)
    if repeated:
        notices.append(f"{where}: {counted(len(repeated), 'image')} listed more than once{such_as(repeated)}.")
    sizes = {id_of(image, "id"): sides_of(image) for image in images}
    sizes.pop(None, None)
    placed = _Sorted(where)
    # An instances file alone has no captions, which is enough for methods without text and for measuring.
    has_captions = False
    for annotation in file.annotations.drained():
        has_captions |= isinstance(annotation.get("caption"), str)
        placed.put(annotation, sizes, file.names, file.ambiguous)
    folder = folder or image_folder(path, images)
    entries, unusable = [], []
    for number, image in enumerate(images):
        problem = problems.get(number, "")
        texts = placed.captions[id_of(image, "id")] if has_captions else None
        entries.append(_entry(image, folder, texts, problem, unusable))
    check_any(entries, str(path))
    truths = {
        entry.key: ImageTruth(image, objects)
        for entry, image in zip(entries, images, strict=True)
        if (objects := placed.objects[id_of(image, "id")])
    }
    listing = Known(path.name, entries, truths, file.names, split=split, size=size)
    if unusable:
        notices.append(f"{where}: {counted(len(unusable), 'caption')} left out{such_as(unusable)}.")
    listing.notices = (*placed.notices(), *notices)
    return listing


class _Sorted:
    """Annotations sorted by kind and image, and unusable ones by the reason."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.captions: dict[Id | None, list[str]] = defaultdict(list)
        self.objects: dict[Id | None, PackedRecords] = defaultdict(lambda: PackedRecords(FIELDS["annotations"]))
        self._unlisted = {kind: PackedRecords((kind,)) for kind in ("image_id", "category_id")}
        self._left: dict[str, list[str]] = defaultdict(list)

    def put(
        self,
        annotation: Record,
        sizes: dict[Id | None, tuple[int | None, int | None]],
        names: dict[Id, str],
        ambiguous: dict[Id, str],
    ) -> None:
        """Takes one annotation in, or counts it."""
        image, category = id_of(annotation, "image_id"), id_of(annotation, "category_id")
        if image not in sizes:
            self._unlisted["image_id"].append(annotation)
        elif isinstance(annotation.get("caption"), str):
            self.captions[image].append(annotation["caption"])
        elif category in ambiguous:
            self._left[f"category_id {category} stands for {ambiguous[category]}"].append(_call(annotation))
        elif category not in names:
            self._unlisted["category_id"].append(annotation)
        elif not _is_crowd(annotation):
            flaw = _flaw(annotation, sizes[image])
            if flaw == _THIN:
                self._left[_THIN].append(_call(annotation))
                annotation = {**annotation, "segmentation": None}
            elif flaw:
                self._left[flaw].append(_call(annotation))
                return
            self.objects[image].append(annotation)

    def notices(self) -> list[str]:
        """What is left out, each in a sentence."""
        sentences = [_unlisted(self.where, kind, some) for kind, some in self._unlisted.items() if some]
        for reason, some in self._left.items():
            if reason == _THIN:
                sentences.append(
                    f"{self.where}: {counted(len(some), 'object')} taken by the box, for {reason}{such_as(some)}."
                )
            else:
                sentences.append(
                    f"{self.where}: {counted(len(some), 'annotation')} left out, for {reason}{such_as(some)}."
                )
        return sentences


_THIN = "the outline has less than three corners"
_FLAT = "the box or outline has no area"
_OUTSIDE = "the object lies outside of its image"


def _call(annotation: Record) -> str:
    """What a notice calls an annotation."""
    named = [f"{name} {json.dumps(annotation.get(name))[:40]}" for name in ("id", "image_id") if name in annotation]
    return " of ".join(named)


def _flaw(annotation: Record, size: tuple[int | None, int | None]) -> str:
    """Why an annotation cannot be used as it stands; empty when it can, or when its image is to be refused for it."""
    try:
        box = box_of(annotation)
    except (ValueError, TypeError, KeyError, OverflowError):
        box = None
    shape = annotation.get("segmentation")
    if isinstance(shape, dict):
        return ""
    outlines = shape if isinstance(shape, list) and all(isinstance(outline, list) for outline in shape) else None
    if outlines:
        if all(len(outline) < 6 for outline in outlines):
            return "" if box is None else _FLAT if min(box[2:]) <= 0 else _THIN
        if box is not None and min(box[2:]) > 0:  # then an outline without an area is taken by the box when it is read
            return ""
        try:
            left, right = (pick(float(x) for outline in outlines for x in outline[::2]) for pick in (min, max))
            top, bottom = (pick(float(y) for outline in outlines for y in outline[1::2]) for pick in (min, max))
        except (ValueError, TypeError, OverflowError):
            return ""
        return _FLAT if right <= left or bottom <= top else ""
    if box is None:
        return ""
    if min(box[2:]) == 0:
        return _FLAT
    width, height = size
    outside = box[0] + box[2] <= 0 or box[1] + box[3] <= 0
    outside |= (width is not None and box[0] >= width) or (height is not None and box[1] >= height)
    return _OUTSIDE if outside and min(box[2:]) > 0 else ""


def _is_crowd(annotation: Record) -> bool:
    flag = annotation.get("iscrowd")
    return flag is True or whole(flag) not in (None, 0)


def _unlisted(file: str, kind: str, annotations: Sequence[Record]) -> str:
    """What is left out because the `kind` of id that it gives is not listed."""
    ids = list(dict.fromkeys(json.dumps(annotation.get(kind), ensure_ascii=False)[:40] for annotation in annotations))
    named = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
    listed = {"image_id": "images", "category_id": "categories"}[kind]
    return (
        f"{file}: {counted(len(annotations), 'annotation')} left out, for {kind} {named} "
        f"{'is' if len(ids) == 1 else 'are'} not among its {listed}."
    )


@dataclass(frozen=True)
class ImageTruth:
    """The objects of one image, as the file has them."""

    image: Record
    objects: Sequence[Record]


class Known(Listing):
    """A listing whose samples have objects, from records in COCO's form."""

    def __init__(
        self,
        name: str,
        entries: list[ListingEntry],
        truths: dict[str, ImageTruth],
        names: dict[Any, str],
        *,
        split: Split,
        size: int,
        notices: Sequence[str] = (),
    ):
        super().__init__(name, entries, split=split, size=size if not truths else 0, notices=notices)
        self.categories = tuple(sorted(set(names.values()))) if truths else ()
        self._truths = truths
        self._names = names

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        truth = self._truths.get(self._entries[index].key)
        if truth is None:
            return sample
        key, (height, width) = sample.key, sample.image.shape[:2]
        for side, recorded, real in zip(("width", "height"), sides_of(truth.image), (width, height), strict=True):
            if recorded is None and truth.image.get(side) is not None:
                raise Refused(f"{key} has the {side} {spelled(truth.image[side])} in its record; give whole pixels.")
            if recorded not in (None, real):
                stands = [truth.image.get(name) for name in ("width", "height")]
                raise Refused(
                    f"{key} is {width} x {height} pixels, its annotations are for {stands[0]} x {stands[1]}; bring "
                    "both to one size."
                )
        if len(truth.objects) * height * width > MOST_MASKS:
            raise Refused(
                f"{key} has {len(truth.objects)} objects in {width} x {height} pixels, whose masks would take more "
                f"than {MOST_MASKS // 2**20} MiB; make it smaller or cut it into tiles."
            )
        try:
            objects = tuple(object_of(record, self._names, height, width) for record in truth.objects)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            reason = f" ({error})" if isinstance(error, Unfit) else ""
            raise Refused(
                f"{key} has an annotation that is no polygon, run lengths or box{reason}; mend it."
            ) from error
        return Sample(key, sample.image, sample.caption, objects=objects, captions=sample.captions)


def _entry(image: Record, folder: Path, texts: list[str] | None, problem: str, unusable: list[str]) -> ListingEntry:
    """One image as an entry. Captions that are left out beside better ones are added to `unusable`."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        key = f"image {spelled(image.get('id'))}"
        return ListingEntry(key, folder, problem=f"{key} has no file_name; give it one.")
    path = located(folder, name)
    if texts is None or problem:
        return ListingEntry(name, path, problem=problem)
    captions: list[str] = []
    bad: list[str] = []
    for text in texts:
        try:
            captions.append(check_caption(text, name))
        except Refused as error:
            bad.append(str(error))
    if captions:
        unusable += [sentence.rstrip(".") for sentence in bad]
        return ListingEntry(name, path, tuple(captions))
    problem = bad[-1] if bad else f"{name} has no caption among the annotations; add one or remove the image."
    return ListingEntry(name, path, problem=problem)
