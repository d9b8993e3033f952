"""Four hundred malformed tables, tars and JSON files: each is read as far as it goes, or one sentence; none hangs."""

import contextlib
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.data.open import notices_of, open_source
from tests.data.pictures import encode

SECONDS = 2.0
"""Of one core, for one file."""
MEMORY = 1e9
"""Bytes of the process that reads all of them."""


def table() -> bytes:
    rows = "".join(f'{n}.png,"number {n}, said ""twice""",cat\n' for n in range(4))
    return f"file_name,text,label\n{rows}".encode()


def lines() -> bytes:
    rows = [{"file_name": f"{n}.png", "text": [f"number {n}", "again"], "label": n} for n in range(4)]
    return "\n".join(map(json.dumps, rows)).encode()


def coco() -> bytes:
    images = [{"id": n, "file_name": f"{n}.png", "width": 12, "height": 12} for n in range(4)]
    shapes = [
        {"bbox": [1, 2, 3, 4]},
        {"segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]], "bbox": [1, 1, 8, 8]},
        {"segmentation": {"counts": [20, 30, 94], "size": [12, 12]}},
        {"segmentation": {"counts": "d0n0k2", "size": [12, 12]}, "bbox": [1, 1, 3, 3]},
    ]
    annotations = [{"image_id": n, "category_id": n % 2, "iscrowd": 0, **shape} for n, shape in enumerate(shapes)]
    annotations += [{"image_id": n, "caption": f"number {n}"} for n in range(4)]
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()


def odvg() -> bytes:
    rows = [
        {
            "filename": f"{n}.png",
            "height": 12,
            "width": 12,
            "detection": {"instances": [{"bbox": box, "category": "cat"}]},
        }
        for n, box in enumerate([[1, 2, 3, 4], [0, 0, 12, 12]])
    ]
    return "\n".join(map(json.dumps, rows)).encode()


def shard() -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for n in range(3):
            record = json.dumps({"objects": [{"name": "cat"}], "relations": []}).encode()
            masks = BytesIO()
            from PIL import Image

            Image.fromarray(np.pad(np.ones((4, 4), np.uint8), 4)).save(masks, "PNG")
            members = {".png": encode(n), ".txt": b"words", ".json": record, ".masks.png": masks.getvalue()}
            for ending, data in members.items():
                info = tarfile.TarInfo(f"{'x' * 120 if n == 1 else 'a'}{n}{ending}")
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
    return buffer.getvalue()


WHOLE = {"t.csv": table(), "t.jsonl": lines(), "t.json": coco(), "o.jsonl": odvg(), "s.tar": shard()}
TOKENS = [
    *(b'"', b"'", b",", b"\n", b"\r", b"\0", b"[", b"]", b"{", b"}", b"\\", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8"),
    *(
        b"null",
        b"true",
        b"-1",
        b"1e999",
        b"-1e999",
        b"NaN",
        b"Infinity",
        b"1.5",
        b"9" * 5000,
        b'"\\ud800"',
        b'"\\u0000"',
    ),
    *(
        b"[" * 2000,
        b'{"a":' * 2000,
        b'""""',
        b"../../",
        b"/etc/passwd",
        b"0.png",
        b'"id": 0,',
        b"0000000000",
        b"7777777",
    ),
]


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """One to four things that programs and people do to files."""
    for _ in range(int(random.integers(1, 5))):
        first, last = sorted(int(place) for place in random.integers(0, len(data) + 1, 2))
        token = TOKENS[int(random.integers(0, len(TOKENS)))]
        match int(random.integers(0, 6)):
            case 0:
                data = data[:first] + token + data[first:]
            case 1:
                data = data[:first] + token + data[min(last, first + 12) :]
            case 2:
                data = data[:first] + data[last:] if last - first < len(data) // 2 else data[:last]
            case 3:
                data = data[:last] + data[first:]
            case 4:
                data = data[:first] + bytes(random.integers(0, 256, 8, np.uint8)) + data[first + 8 :]
            case _:  # a number becomes something else
                digits = [place for place, byte in enumerate(data) if 48 <= byte < 58]
                if digits:
                    place = digits[int(random.integers(0, len(digits)))]
                    data = data[:place] + token + data[place + 1 :]
    return data


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def by_hand() -> Iterator[tuple[str, bytes]]:
    """Files that somebody made to do harm, or a program by mistake."""
    many = 20_000
    yield "t.csv", b"file_name,text\n" + b'0.png,"open\n' * many
    yield "t.csv", b"file_name,text\n" + b'0.png,a""b\n' * many + b'"'
    yield "t.csv", b"file_name,text\n" + b'"' * many
    yield "t.csv", b"file_name" + b",text" * many + b"\n0.png" + b",a" * many
    yield "t.csv", b"file_name,text\n0.png,x\n" * many
    yield "t.csv", b"file_name,text\n" + b"\n" * many * 10
    yield "t.csv", b"file_name,text\n0.png," + b"x" * 3_000_000
    yield "t.jsonl", b"[" * 1_000_000
    yield "t.jsonl", (b'{"file_name": "0.png", "text": ' + b"[" * 900 + b'"x"' + b"]" * 900 + b"}\n") * 50
    yield "t.jsonl", b'{"file_name": "0.png", "text": ["x"' + b', "y"' * many + b"]}"
    yield "t.json", b"[" * 1_000_000
    yield "t.json", b'{"images": ' + b'[{"a": ' * 100_000
    yield "t.json", b'{"images": [], "annotations": [' + b"{}," * many + b"{}]}"
    yield "t.json", b'{"images": [' + b"{}," * 20_000 + b'{}], "annotations": []}'
    same = b'{"id": 1, "file_name": "0.png"},' * many
    yield "t.json", b'{"images": [' + same + b'{}], "annotations": []}'
    image = b'{"images": [{"id": 1, "file_name": "0.png"}], "categories": [{"id": 1, "name": "a"}], "annotations": ['
    one = b'{"image_id": 1, "category_id": 1, '
    yield "t.json", image + one + b'"segmentation": [[' + b"1, 2, 9, 3, " * 100_000 + b"4, 5]]}]}"
    yield "t.json", image + one + b'"segmentation": {"size": [12, 12], "counts": [' + b"0, " * 500_000 + b"144]}}]}"
    yield "t.json", image + one + b'"segmentation": {"size": [12, 12], "counts": [99999999999999999999, 1]}}]}'
    yield "t.json", image + one + b'"segmentation": {"size": [12, 12], "counts": "' + b"o" * 500_000 + b'"}}]}'
    yield "t.json", image + (one + b'"bbox": [1, 1, 5, 5]},') * 5_000 + one + b'"bbox": [1, 1, 5, 5]}]}'
    yield "o.jsonl", b"[" * 2_000_000
    yield "o.jsonl", b'{"filename": "0.png", "detection": {"instances": [' + b"[" * 100_000
    yield "s.tar", header("x", b"x", 2**30) + bytes(512)
    yield "s.tar", header("x", b"g", 2**33)
    yield "s.tar", (header("x", b"L", 2) + b"ab" + bytes(510)) * 20_000
    yield "s.tar", header("a.png", b"0", 2**62)
    yield "s.tar", b"".join(header(f"{n % 7}.png", b"0", 0) for n in range(20_000))
    yield "s.tar", bytes(2**20)


def files(count: int) -> Iterator[tuple[str, bytes]]:
    """So many (name, content)."""
    random, made = np.random.default_rng(3), 0
    for name, data in by_hand():
        made += 1
        yield name, data
    for number in range(count - made):
        name = list(WHOLE)[number % len(WHOLE)]
        yield name, mutated(WHOLE[name], random)


def read_all(folder: Path, count: int) -> tuple[int, int, list[str]]:
    """(samples used, sentences, what took too long) of so many files beside four pictures."""
    for number in range(4):
        (folder / f"{number}.png").write_bytes(encode(number))
    used = said = 0
    slow: list[str] = []
    for number, (name, data) in enumerate(files(count)):
        path = folder / name
        path.write_bytes(data)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / "s.tar.index.json")
        begin = time.process_time()
        try:
            for split in ("train", "all"):
                source = open_source(f"shards:{path}" if name.endswith(".tar") else str(path), split=split)
                for notice in notices_of(source):
                    notice.encode("utf-8")
                for index in range(min(len(source), 50)):
                    try:
                        sample = source[index]
                        "".join([sample.key, sample.caption, sample.label, *sample.names]).encode("utf-8")
                        used += 1
                    except RizbinError as error:
                        _check(error)
                        said += 1
        except RizbinError as error:
            _check(error)
            said += 1
        if (took := time.process_time() - begin) > SECONDS:
            slow.append(f"{number} {name} {took:.1f} s: {data[:60]!r}")
        path.unlink()
    return used, said, slow


def _check(error: RizbinError) -> None:
    sentence = str(error)
    sentence.encode("utf-8")
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 2000, sentence


def test_four_hundred_malformed_files_are_read_or_one_sentence(tmp_path: Path) -> None:
    """In a process of its own: there the memory is theirs alone, and no annotation is checked at every call."""
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom tests.data.test_malformed import read_all\n"
        "found = read_all(Path(sys.argv[1]), 400)\n"
        # Not getrusage's: there the peak of the process that started this one counts, which ran other tests before.
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "memory = int(peak.split()[1]) * 1024\n"
        "print(json.dumps([*found, memory]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used, said, slow, memory = json.loads(done.stdout)
    assert not slow and used > 100 and said > 100 and memory < MEMORY


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json", "s.tar", "metadata.jsonl", "caption.txt"])
@pytest.mark.parametrize("kind", ["pipe", "device", "gigabytes", "folder", "circle"])
def test_files_that_are_none_are_one_sentence(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    (tmp_path / "caption.png").write_bytes(encode(1))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(2**34)
    spec = f"shards:{path}" if name.endswith(".tar") else str(tmp_path) if name[0] in "mc" else str(path)
    begin = time.process_time()
    try:
        source = open_source(spec, split="all")
        for index in range(len(source)):
            source[index]
        assert name in ("metadata.jsonl", "caption.txt"), "a picture without a caption is still a picture"
    except RizbinError as error:
        _check(error)
    assert time.process_time() - begin < 1
