"""What all sources of real images share: a list of entries, its split into train and test, its fingerprint."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal, TypeVar

from rizbin.core.bounded import read_regular
from rizbin.core.errors import RizbinError, printable
from rizbin.data.image_io import read_image
from rizbin.data.sample import Refused, Sample

Split = Literal["train", "test", "all"]

TEST_SHARE = 0.05
"""Share of the images in the test split."""
ENOUGH = 4
"""Times the size asked for: large JPEGs are decoded at no more than they need to be, and a crop of a sixteenth of the
area, smaller than any method here takes, still has all its pixels."""
MOST_CAPTION = 2**20
"""Bytes of a caption file; a long novel has as many, and the text tower reads 77 words."""
NAMED = 3
"""How many of the rows, files or ids that are left out a notice names."""
_LONGEST = 200
"""Characters of a name in a notice."""


@dataclass(frozen=True)
class ListingEntry:
    """One image that a source has found, not yet read."""

    key: str
    """Names it in messages, and decides its split: its path inside the source."""
    path: Path
    captions: tuple[str, ...] = ()
    text: Path | None = None
    """A file with the caption, read when the sample is."""
    label: str = ""
    problem: str = ""
    """The sentence of the refusal, when it is known beforehand that the entry cannot be used."""
    part: Literal["", "train", "test"] = ""
    """The split that the data themselves give it, where they do."""


Keyed = TypeVar("Keyed")


class Listing:
    """A finite source: the entries of one split, each image read by `rizbin.data.image_io` when it is needed."""

    endless = False
    notices: tuple[str, ...] = ()
    """What its files hold that is left out, each in a sentence; for whoever begins to work with it."""

    def __init__(
        self,
        name: str,
        entries: Sequence[ListingEntry],
        *,
        split: Split,
        size: int = 0,
        root: Path | None = None,
        notices: Sequence[str] = (),
    ):
        """`size` is the side of the views to come; with 0 every image is decoded at full size. `root` is the folder
        that caption files must lie in."""
        chosen = choose([(entry.key, entry) for entry in entries], split)
        if split != "all" and {"train", "test"} <= {entry.part for entry in entries}:
            chosen = [entry for entry in entries if (entry.part or "train") == split]
        self.name = f"{printable(name)}, {split}"
        self.categories: tuple[str, ...] = tuple(sorted({entry.label for entry in entries} - {""}))
        self.fingerprint = fingerprint(_facts(entries), split)
        self.notices = tuple(printable(notice) for notice in notices)
        self._entries = chosen
        self._enough = ENOUGH * size
        self._root = root

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[index]
        if entry.problem:
            raise Refused(entry.problem)
        captions = (read_caption(entry.text, inside=self._root),) if entry.text else entry.captions
        image = read_image(entry.path, enough=self._enough)
        return Sample(printable(entry.key), image, captions[0] if captions else "", entry.label, captions=captions)


def choose(keyed: Sequence[tuple[str, Keyed]], split: Split) -> list[Keyed]:
    """The entries of one split, in order: a hash of the key puts 5 percent into "test" and the others into "train".

    The same key goes to the same side on every machine and whatever else is there; but each side gets one at least,
    as soon as there are two keys. "all" is both.
    """
    if split == "all":
        return [entry for _, entry in keyed]
    shares = {key: _share(key) for key, _ in keyed}
    test = {key for key, share in shares.items() if share < TEST_SHARE}
    if len(shares) > 1:
        ordered = sorted(shares, key=lambda key: (shares[key], key))
        test = (test | {ordered[0]}) - {ordered[-1]}
    return [entry for key, entry in keyed if (key in test) == (split == "test")]


def read_caption(path: Path, *, inside: Path | None = None) -> str:
    """The text of a caption file.

    Raises `Refused` when it is missing, empty, not UTF-8, no regular file, larger than `MOST_CAPTION`, or when a link
    leads from it to a file that is not in `inside`: a folder from elsewhere must not make captions of what else is on
    this machine.
    """
    if inside is not None and leads_out(path, inside):
        raise Refused(f"{path} is a link that leads out of {inside}; put a copy of the caption in its place.")
    try:
        return check_caption(read_regular(path, MOST_CAPTION), str(path))
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}); write the image's caption into it.") from error


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a link on the way from the folder to the file leads out of the folder."""
    try:
        return not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, names that no file can have
        return True


def check_caption(text: str | bytes, name: str) -> str:
    """The caption without white space around it. Raises `Refused` when it is empty or not UTF-8."""
    try:
        caption = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        caption.encode("utf-8")  # bytes that were no UTF-8 have become lone surrogates
    except UnicodeError as error:
        raise Refused(f"the caption of {name} is not UTF-8; save it as UTF-8.") from error
    if not (caption := caption.replace("\0", " ").strip()):
        raise Refused(f"the caption of {name} is empty; write one.")
    return caption


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8; half of a surrogate pair, which JSON may hold, cannot."""
    try:
        text.encode("utf-8")
    except UnicodeError:
        return False
    return True


def located(folder: Path, name: str) -> Path:
    """The file of that name in the folder, as other systems may have written the name.

    Windows separates by backslashes; macOS takes letters with accents apart (NFD), where most tables have them whole
    (NFC). The name as it stands goes first, and is what comes back when there is no such file at all.
    """
    exact = folder / name
    if name.isascii() and "\\" not in name:  # nothing to spell otherwise: most tables have such names alone
        return exact
    slashed = name.replace("\\", "/") if not re.match(r"[A-Za-z]:|\\\\", name) else name
    spellings = (name, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")))
    return next((folder / spelled for spelled in dict.fromkeys(spellings) if _is_there(folder / spelled)), exact)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # names that are too long or that no file can have
        return False


def counted(number: int, what: str, many: str = "") -> str:
    """The beginning of a notice: "1 row is", "2 rows are"."""
    return f"{number:,} {what} is" if number == 1 else f"{number:,} {many or what + 's'} are"


def such_as(names: Sequence[str]) -> str:
    """ ", such as a, b, c": the first few names, each cut to a length that a sentence bears."""
    return ", such as " + ", ".join(
        name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..." for name in names[:NAMED]
    )


def fingerprint(facts: Iterable[str], split: Split) -> str:
    """A hash of the facts about the samples (names, sizes, captions; no times, so a copy has the same)."""
    digest = blake2b(digest_size=16)
    for fact in (split, *facts):
        digest.update(_encoded(fact) + b"\n")
    return digest.hexdigest()


def check_any(entries: Sequence[ListingEntry], place: str) -> None:
    """Raises `RizbinError` when there is no entry at all."""
    if not entries:
        raise RizbinError(f"{place} holds no images; give one that has some (JPEG, PNG, WebP, BMP, GIF).")


def _share(key: str) -> float:
    """A number from 0 to 1 that depends on the key alone."""
    return int.from_bytes(blake2b(_encoded(key), digest_size=8).digest()) / 2**64


def _encoded(text: str) -> bytes:
    """Any text as bytes: names of files as they are on the disk, and lone surrogates of JSON somehow."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeError:
        return text.encode("utf-8", "surrogatepass")


def _facts(entries: Sequence[ListingEntry]) -> Iterable[str]:
    for entry in entries:
        text = _bytes(entry.text) if entry.text else ""
        yield f"{entry.key}\t{_bytes(entry.path)}\t{text}\t{entry.captions}\t{entry.label}"


def _bytes(path: Path) -> int:
    """The size of a file; -1 when it is missing."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1
