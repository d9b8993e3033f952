"""Turns Debian's openclipart-png package into a table of captions and small images, as an example of real data.

    apt-get download openclipart-png && dpkg -x openclipart-png_*.deb package
    python benchmarks/openclipart.py package/usr/share/openclipart/png clipart

The drawings are in the public domain. Their only words are the names of files and folders, mostly English, some
Italian or French, often followed by the artist's name. No claim is measured here: the script makes data to measure on.
It writes captions.csv (file_name, caption, label), the folder images, and refused.csv with the reasons.
"""

import argparse
import csv
import re
import sys
from collections import Counter, defaultdict
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from rizbin.core.errors import RizbinError
from rizbin.data.image_io import read_image
from rizbin.data.sample import Refused

SIDE = 128
"""Pixels of the longer side at most: twice what the small preset looks at, so that crops of it are still sharp."""
PER_FOLDER = 100
"""Images of one folder at most: one of them holds 1,378 stars that differ in the number of their points only."""
MOST = 4000
"""Images in all."""
UNNAMED = ("unsorted", "special")
"""Top folders whose name says nothing about what is in them."""
_NAMES = """
aj alex andrew anthony ashton balin benji bogdan brill bucu buculei cedric celso charles cheng costea dan daniel
dave dietrich enrique erwan francesco frouke fudriot ganson gates ger gera geral gerald gerhard gerhards gino
guillaume jakob james jarno jean joel jon jonadab jonathan juliane jure krug kurt liekens linda luiz lumen marcelo
matthew mauro meijer meza michael mike mimooh mitchell montes nicu nurbldoff olivo omic patricia peterm petri
phillips rollandin sergio shandy steele stefan susan toh vasama vasamaa yves zazou
"""
ARTISTS = frozenset(_NAMES.split())
"""Names that often stand behind a title, some cut short, found by counting the words of all file names."""


def title_of(name: str) -> str:
    """The words of a file's name: without ending, numbers, single letters and artist. Empty when nothing is left.

    `purple_hat_nicu_buculei_01.png` is "purple hat".
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.rsplit(".", 1)[0]).lower()
    words = [word.rstrip("0123456789") for word in re.split(r"[\W_]+", apart)]
    words = [word for word in words if word and not re.search(r"\d", word)]
    end = next((at for at, word in enumerate(words) if at and _is_artist(word)), len(words))
    return " ".join(word for word in words[:end] if len(word) > 1)


def _is_artist(word: str) -> bool:
    """The artist of 189 drawings signs as "architetto", which file names of limited length often cut short."""
    return word in ARTISTS or (len(word) > 4 and "architetto".startswith(word))


def caption_of(place: Path) -> str:
    """What an image's place says of it.

    `people/clothing/hats/purple_hat_nicu_buculei_01.png` is "a drawing of purple hat, hats, clothing, people": without
    an article, since many titles are names or plurals, and the innermost folder first, since long captions are cut.
    Raises Refused when the name has no words.
    """
    title = title_of(place.name)
    if not title:
        raise Refused(f"{place} has no words in its name.")
    folders = [re.sub(r"[\W_]+", " ", part).strip() for part in reversed(place.parts[:-1])]
    return ", ".join([f"a drawing of {title}", *dict.fromkeys(folders)])


def chosen(root: Path, per_folder: int, most: int) -> list[Path]:
    """Images below `root`, as paths relative to it: the lowest hashes of each folder, then of all.

    Links and unnamed folders are left out. The choice depends on names alone, so it is the same on every machine and
    hardly changes when images are added.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in root.rglob("*.png"):
        place = path.relative_to(root)
        if not path.is_symlink() and len(place.parts) > 1 and place.parts[0] not in UNNAMED:
            folders[place.parent].append(place)
    chosen_places = [place for places in folders.values() for place in sorted(places, key=_hash)[:per_folder]]
    return sorted(sorted(chosen_places, key=_hash)[:most])


def _hash(place: Path) -> str:
    return blake2b(place.as_posix().encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def small_square(path: Path, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The image on white, its longer side at most `side`, in the middle of a square, as evaluation cuts squares.

    Raises Refused when the file cannot be used, or when nothing is to be seen on white.
    """
    image = read_image(path)
    scale = min(1.0, side / max(image.shape[:2]))
    if scale < 1:
        size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if int(image.max()) - int(image.min()) < 16:  # white ink, or none
        raise Refused(f"{path} shows nothing on white.")
    height, width = image.shape[:2]
    square = np.full((max(height, width),) * 2 + (3,), 255, np.uint8)
    top, left = (len(square) - height) // 2, (len(square) - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def convert(
    root: Path, out: Path, *, side: int = SIDE, per_folder: int = PER_FOLDER, most: int = MOST
) -> tuple[int, Counter[str]]:
    """Writes images and tables into the new folder `out`; returns how many, and how many were refused and why.

    Raises RizbinError when `root` has no images in folders or `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise RizbinError(f"{out} is not empty; name a new folder.")
    places = chosen(root, per_folder, most)
    if not places:
        raise RizbinError(f"{root} holds no PNGs in folders; give the package's usr/share/openclipart/png.")
    (out / "pictures").mkdir(parents=True)
    seen: set[bytes] = set()
    rows: list[tuple[str, str, str]] = []
    refused: list[tuple[str, str]] = []
    reasons: Counter[str] = Counter()
    for place in places:
        try:
            caption = caption_of(place)
            image = small_square(root / place, side)
            content = blake2b(image.tobytes(), digest_size=16).digest()
            if content in seen:
                raise Refused(f"{place} is a copy of another picture.")
        except Refused as error:
            text = str(error).replace(str(root / place), str(place)).replace(str(place), "it", 1)
            refused.append((place.as_posix(), text))
            reasons[text] += 1
            continue
        seen.add(content)
        name = f"pictures/{_hash(place)}.png"
        cv2.imwrite(str(out / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        rows.append((name, caption, place.parts[0].replace("_", " ")))
    _write(out / "captions.csv", [("file_name", "caption", "label"), *rows])
    _write(out / "refused.csv", [("source", "reason"), *refused])
    return len(rows), reasons


def _write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def main() -> int:
    """Converts what the command line names; without arguments it says how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the package's folder usr/share/openclipart/png")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--most", type=int, default=MOST, help=f"pictures at most ({MOST})")
    parser.add_argument("--side", type=int, default=SIDE, help=f"pixels of the longer side at most ({SIDE})")
    if len(sys.argv) == 1:  # as `make bench` runs it
        parser.print_help()
        return 0
    given = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        written, reasons = convert(given.package, given.out, side=given.side, most=given.most)
    except RizbinError as error:
        print(f"openclipart: {error}", file=sys.stderr)
        return 2
    print(f"{written} pictures in {given.out}; {sum(reasons.values())} refused, listed in {given.out / 'refused.csv'}")
    for reason, number in reasons.most_common(8):
        print(f"{number:>6}  {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
