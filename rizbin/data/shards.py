"""Webdataset tars as a source (img2dataset's layout): read in place, by an index of offsets, never unpacked.

A sample is the members of one name before the first dot: `000000017.jpg`, `000000017.txt`, `000000017.json`. Where that
name has no image of its own, or the rest up to the last dot has a caption of its own, a dot is part of the name:
`img_1.5x.jpg`, `img_1.5x.txt`. Only regular files count; links, devices, absolute names and names with ".." are passed
over, of members of one name the first counts, and all that is left out is counted in `notices`. The index stands beside
each tar as `NAME.tar.index.json`, so that only the first opening reads the tar through.

Objects come along in two members more, as `rizbin data render` writes them: `.masks.png`, an 8-bit image of numbers (0
background, n the n-th object), and in the `.json` the list `objects`, each with `name` and, where it is no answer,
`distractor: true`; `relations` may hold [subject, "left of", object] by position among the objects that are none.
"""

import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from rizbin.core.bounded import parse_json, read_regular
from rizbin.core.errors import RizbinError, printable
from rizbin.data import remote, tars
from rizbin.data.image_io import ENDINGS, MOST_BYTES, UNREAD, read_image, read_indices
from rizbin.data.listing import ENOUGH, Split, check_caption, choose, counted, fingerprint, is_text, such_as
from rizbin.data.sample import LabeledObject, Refused, Sample

MOST_TEXT_BYTES = 2**20
"""Most bytes of a caption or JSON member."""
_TEXTS = (".txt", ".caption", ".json")
"""Members that hold the caption, the first that is there; of JSON the field caption, text or title."""
_LABEL = ".cls"
MASKS = ".masks.png"
"""The member with the objects' masks."""
HEADER = ".rizbin.json"
"""A member that says how a shard was made, and of which categories; its name hides it from other readers."""
_INDEX_VERSION = 3  # 1 knew no masks, 2 nothing of what is left out.
_MOST_INDEX = 2**30
"""Bytes of an index: a shard of ten million samples has as many. It is never twice as large as its tar, either, where
each member takes a kilobyte."""
_IMAGES = (*ENDINGS, *UNREAD)
_KNOWN = (*_IMAGES, *_TEXTS, _LABEL, MASKS)

Member = tuple[int, int]
"""Offset and bytes inside the tar."""


@dataclass(frozen=True)
class _Packed:
    """One sample of a shard: its members by ending."""

    shard: Path
    key: str
    members: dict[str, Member]


class Shards:
    """A finite source: the samples of all shards that a pattern names, in order of shard and place."""

    endless = False

    def __init__(self, pattern: str, *, split: Split, size: int = 0):
        """`pattern` may hold *, ? and braces: data/{00000..00012}.tar, s3://bucket/*.tar (see `rizbin/data/remote.py`).

        Raises `RizbinError` when nothing is there.
        """
        paths = find_shards(pattern)
        shards = [_index(path) for path in paths]
        members = [packed for path, shard in zip(paths, shards, strict=True) for packed in shard.packed(path)]
        self.notices: tuple[str, ...] = tuple(printable(notice) for shard in shards for notice in shard.notices)
        if not any(set(packed.members) & set(_IMAGES) for packed in members):
            why = f" ({self.notices[0].rstrip('.')})" if self.notices else ""
            raise RizbinError(f"the shards {pattern} hold no images{why}; give tars with .jpg and .txt members.")
        keyed = [(f"{packed.shard.name}/{packed.key}", packed) for packed in members]
        self._samples = choose(keyed, split)
        self._enough = ENOUGH * size
        self.name = f"shards:{pattern}, {split}"
        names = {name for shard in shards for name in shard.categories}
        self.categories: tuple[str, ...] = tuple(sorted((names | {_label(packed) for packed in members}) - {""}))
        facts = (f"{key} {sorted((end, size) for end, (_, size) in packed.members.items())}" for key, packed in keyed)
        self.fingerprint = fingerprint(facts, split)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        packed = self._samples[index]
        key = printable(f"{packed.shard.name}/{packed.key}")
        member = next((packed.members[ending] for ending in _IMAGES if ending in packed.members), None)
        if member is None:
            raise Refused(f"{key} has no image among its members; leave it out of the shard.")
        if member[1] > MOST_BYTES:
            raise Refused(f"{key} has {member[1]} bytes, more than {MOST_BYTES}; make it smaller.")
        label = _label(packed)
        record = _record(packed, key) if MASKS in packed.members else {}
        rows = record.get("objects")
        # Masks fit the image in full size only.
        enough = 0 if rows is not None else self._enough
        image = read_image(_bytes(packed.shard, member, key), name=key, enough=enough)
        caption = _caption(packed, key, label)
        if rows is None:
            return Sample(key, image, caption, label)
        masks = read_indices(_bytes(packed.shard, packed.members[MASKS], key), name=f"{key}{MASKS}")
        if masks.shape != image.shape[:2]:
            raise Refused(f"the masks of {key} are {masks.shape}, its image {image.shape[:2]}; write them in one size.")
        objects, distractors = _objects(rows, masks, key)
        relations = _relations(record.get("relations", []), len(objects), key)
        return Sample(key, image, caption, label, objects=objects, relations=relations, distractors=distractors)


def find_shards(pattern: str) -> list[Path]:
    """The tars that a pattern names, sorted; of object storage where they lie in the cache.

    Raises `RizbinError` when there are none.
    """
    if remote.is_remote(pattern):
        return remote.fetch_all(list(_braces(pattern)), pattern)
    matches = sorted({Path(path) for part in _braces(pattern) for path in glob.glob(part, recursive=True)})
    paths = [path for path in matches if path.is_file() and path.suffix.lower() == ".tar"]
    if not paths:
        raise RizbinError(f"no .tar file is named by {pattern}; give a pattern such as shards:data/*.tar.")
    return paths


def _braces(pattern: str) -> Iterator[str]:
    """The patterns that {00000..00012} and {a,b} stand for."""
    opened = re.search(r"\{([^{}]*)\}", pattern)
    if not opened:
        yield pattern
        return
    span = re.fullmatch(r"(\d+)\.\.(\d+)", opened[1])
    if span:
        first, last = int(span[1]), int(span[2])
        if abs(last - first) >= 1_000_000:
            raise RizbinError(f"{{{opened[1]}}} names over a million shards; give a smaller range.")
        choices = [f"{number:0{len(span[1])}d}" for number in range(first, last + 1)]
    else:
        choices = opened[1].split(",")
    for choice in choices:
        yield from _braces(pattern[: opened.start()] + choice + pattern[opened.end() :])


class _Index(NamedTuple):
    """What is known of a shard before a sample is read."""

    samples: dict[str, dict[str, Member]]
    """Members by ending by key, in order."""
    categories: list[str]
    """Categories of the objects whose masks it holds, and of the source that it was rendered from."""
    notices: tuple[str, ...] = ()
    """What is left out, each in a sentence."""

    def packed(self, path: Path) -> list[_Packed]:
        return [_Packed(path, key, members) for key, members in self.samples.items()]


@dataclass
class _Left:
    """Names of members that are left out, by why."""

    twice: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    broken: str = ""

    def notices(self, tar: str) -> tuple[str, ...]:
        """What is said of them."""
        reasons = (
            (self.twice, "names stand in it twice, and the first of a name counts"),
            (self.images, "names have an image in another format, which is taken"),
            (self.unread, "endings are not read"),
            (self.odd, "links, devices, absolute names and names with '..' or a backslash are not read"),
        )
        sentences = [
            f"{tar}: {counted(len(names), 'member')} left out, for {why}{such_as(names)}."
            for names, why in reasons
            if names
        ]
        if self.broken:
            sentences.append(
                f"{tar}: what follows its last whole member is left out, for {self.broken}; fetch it again."
            )
        return tuple(sentences)


def _index(path: Path) -> _Index:
    """The samples of a shard, from the index beside it when that fits, else from the tar itself."""
    try:
        facts = path.stat()
        stamp = [_INDEX_VERSION, facts.st_size, facts.st_mtime_ns]
        sidecar = path.with_name(f"{path.name}.index.json")
        index = _read_index(sidecar, stamp)
        if index is None:
            index = _scan(path)
            _write_index(sidecar, stamp, index)
    except OSError as error:
        raise RizbinError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    return index


def _scan(path: Path) -> _Index:
    """What a shard holds. What lies beyond the end of a tar that was cut short is left out and said."""
    samples: dict[str, dict[str, Member]] = {}
    dotted: list[tuple[str, str, str, Member]] = []
    header: Member | None = None
    left = _Left()
    try:
        for member in tars.members(path):
            place = (member.offset, member.size)
            named = _place(member.name) if member.kind == "file" else None
            if member.kind == "folder":
                continue
            if member.name == HEADER and member.kind == "file":
                header = header or place
            elif PurePosixPath(member.name).name.startswith("."):  # hidden: macOS' copies of attributes, "._a.jpg"
                continue
            elif named is None:
                left.odd.append(member.name)
            elif named[1] in _KNOWN:
                _add(samples, *named, place, member.name, left.twice)
            else:
                dotted.append((*named, member.name, place))
    except tars.Damaged as error:
        if not samples and not dotted:
            raise RizbinError(f"{path} is no plain tar ({error}); compressed shards must be unpacked once.") from error
        left.broken = str(error)
    _sort_in(dotted, samples, left)
    for key, members in samples.items():
        left.images += [f"{key}{ending}" for ending in [ending for ending in _IMAGES if ending in members][1:]]
    return _Index(samples, _categories(path, samples, header), left.notices(path.name))


def _add(
    samples: dict[str, dict[str, Member]], key: str, ending: str, place: Member, name: str, twice: list[str]
) -> None:
    members = samples.setdefault(key, {})
    if ending in members:
        twice.append(name)
    else:
        members[ending] = place


def _sort_in(
    dotted: Sequence[tuple[str, str, str, Member]], samples: dict[str, dict[str, Member]], left: _Left
) -> None:
    """Members with more than one dot: samples of a dotted name, or fields of a sample that are not read."""
    parted: dict[tuple[str, str], dict[str, tuple[str, Member]]] = {}
    for key, ending, name, place in dotted:
        last = MASKS if ending.endswith(MASKS) else f".{ending.rpartition('.')[2]}"
        middle = ending.removesuffix(last)
        if last not in _KNOWN:
            left.unread.append(name)
        elif last in (members := parted.setdefault((key, f"{key}{middle}"), {})):
            left.twice.append(name)
        else:
            members[last] = (name, place)
    pictured = {key for key, members in samples.items() if members.keys() & set(_IMAGES)}
    for (key, whole), members in parted.items():
        has_image, has_words = (bool(members.keys() & set(kind)) for kind in (_IMAGES, (*_TEXTS, _LABEL)))
        if has_image and (has_words or key not in pictured):
            for ending, (name, place) in members.items():
                _add(samples, whole, ending, place, name, left.twice)
        else:
            left.unread += [name for name, _ in members.values()]


def _categories(path: Path, samples: dict[str, dict[str, Member]], header: Member | None) -> list[str]:
    """The names of the objects, and those of the header. What cannot be read here is refused with its sample."""
    names: set[str] = set()
    if header and header[1] <= MOST_TEXT_BYTES:
        with suppress(ValueError, AttributeError, Refused):
            record = parse_json(_bytes(path, header, HEADER))
            names.update(name for name in record.get("categories", []) if isinstance(name, str) and is_text(name))
    for key, members in samples.items():
        if MASKS in members:
            with suppress(Refused):
                objects = _record(_Packed(path, key, members), key).get("objects") or []
                names.update(row["name"] for row in objects if _is_object(row) and not row.get("distractor"))
    return sorted(names)


def _place(name: str) -> tuple[str, str] | None:
    """Key and ending of a member by its name; None where it may not be read."""
    path = PurePosixPath(name)
    if "\\" in name or "\0" in name or path.is_absolute() or ".." in path.parts or path.name.startswith("."):
        return None
    stem, _, ending = path.name.partition(".")
    return str(path.with_name(stem)), f".{ending.lower()}"


def _read_index(sidecar: Path, stamp: list[int]) -> _Index | None:
    """The index, or None when it is missing, for another tar, or not what we write."""
    try:
        index = parse_json(read_regular(sidecar, min(_MOST_INDEX, 2**16 + 2 * stamp[1])))
        if index["tar"] != stamp:
            return None
        samples = {
            str(key): {str(ending): (int(offset), int(length)) for ending, (offset, length) in members.items()}
            for key, members in index["samples"].items()
        }
        categories = [str(name) for name in index["categories"]]
        notices = tuple(str(notice) for notice in index["notices"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    ends = (offset + length for members in samples.values() for offset, length in members.values())
    starts = (min(member) for members in samples.values() for member in members.values())
    fits = min(starts, default=0) >= 0 and max(ends, default=0) <= stamp[1]
    return _Index(samples, categories, notices) if fits else None


def _write_index(sidecar: Path, stamp: list[int], index: _Index) -> None:
    """Leaves the index beside the tar, whole or not at all; a folder that may not be written to does without.

    A file of that name that is no index of ours stays as it is.
    """
    draft = sidecar.with_name(f".{sidecar.name}.{os.getpid()}")
    try:
        if os.path.lexists(sidecar) and not _is_index(sidecar):
            return
        draft.unlink(missing_ok=True)
        with draft.open("x", encoding="utf-8") as file:
            file.write(json.dumps({"tar": stamp, **index._asdict()}))
        draft.replace(sidecar)
    except OSError:
        draft.unlink(missing_ok=True)


def _is_index(sidecar: Path) -> bool:
    if sidecar.is_symlink():
        return False
    try:
        index = parse_json(read_regular(sidecar, _MOST_INDEX))
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and {"tar", "samples"} <= index.keys()


def _bytes(shard: Path, member: Member, key: str) -> bytes:
    offset, length = member
    try:
        with shard.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise Refused(f"{key} cannot be read ({error.strerror}); check {shard}.") from error
    if len(data) != length:
        raise Refused(f"{key} is cut short; fetch {shard} again.")
    return data


def _label(packed: _Packed) -> str:
    """The text of the `.cls` member; empty without one."""
    member = packed.members.get(_LABEL)
    if member is None or member[1] > MOST_TEXT_BYTES:
        return ""
    return _bytes(packed.shard, member, packed.key).decode("utf-8", "replace").strip()


def _caption(packed: _Packed, key: str, label: str) -> str:
    """The caption; the label where there is no member for one."""
    ending = next((ending for ending in _TEXTS if ending in packed.members), None)
    if ending is None:
        return check_caption(label, key)
    member = packed.members[ending]
    if member[1] > MOST_TEXT_BYTES:
        raise Refused(f"the caption of {key} has {member[1]} bytes; keep it under {MOST_TEXT_BYTES}.")
    data = _bytes(packed.shard, member, key)
    if ending != ".json":
        return check_caption(data, key)
    try:
        record = parse_json(data)
    except ValueError as error:
        raise Refused(f"the JSON of {key} is broken; write a .txt with the caption instead.") from error
    texts = [record.get(name) for name in ("caption", "text", "title")] if isinstance(record, dict) else []
    return check_caption(next((text for text in texts if isinstance(text, str)), ""), key)


def _record(packed: _Packed, key: str) -> dict[str, Any]:
    """The `.json` member; empty when there is none or it is no object. Raises `Refused` when it cannot be read."""
    member = packed.members.get(".json")
    if member is None:
        return {}
    if member[1] > MOST_TEXT_BYTES:
        raise Refused(f"the JSON of {key} has {member[1]} bytes; keep it under {MOST_TEXT_BYTES}.")
    try:
        record = parse_json(_bytes(packed.shard, member, key))
    except ValueError as error:
        raise Refused(f"the JSON of {key} is broken; write the objects anew.") from error
    return record if isinstance(record, dict) and isinstance(record.get("objects", []), list) else {}


def _is_object(row: object) -> bool:
    name = row.get("name") if isinstance(row, dict) else None
    return isinstance(name, str) and bool(name.strip()) and is_text(name)


def _objects(
    rows: list[Any], masks: UInt8[np.ndarray, "height width"], key: str
) -> tuple[tuple[LabeledObject, ...], tuple[LabeledObject, ...]]:
    """The objects and the distractors, boxes around their pixels."""
    if masks.max(initial=0) > len(rows):
        raise Refused(f"the masks of {key} hold {masks.max()} objects, its JSON {len(rows)}; write both anew.")
    objects: list[LabeledObject] = []
    distractors: list[LabeledObject] = []
    for number, row in enumerate(rows, 1):
        mask = masks == number
        columns, lines = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if not _is_object(row) or not len(columns):
            raise Refused(f"object {number} of {key} has no name or no pixel; write JSON and masks anew.")
        box = (int(columns[0]), int(lines[0]), int(columns[-1]) + 1, int(lines[-1]) + 1)
        (distractors if row.get("distractor") else objects).append(LabeledObject(row["name"].strip(), box, mask))
    return tuple(objects), tuple(distractors)


def _relations(rows: Any, count: int, key: str) -> tuple[tuple[int, str, int], ...]:
    """The relations between `count` objects."""
    try:
        relations = tuple((int(first), str(word), int(second)) for first, word, second in rows)
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused(f"the relations of {key} are no list of [number, words, number]; write them anew.") from error
    if any(not 0 <= position < count for first, _, second in relations for position in (first, second)):
        raise Refused(f"the relations of {key} name objects that are not there; write them anew.")
    return relations
