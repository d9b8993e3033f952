"""Webdataset tars: read in place, members that must not be read passed over, the index only a shortcut."""

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from rizbin.core.errors import RizbinError
from rizbin.data import tars
from rizbin.data.sample import Refused, Source
from rizbin.data.shards import Shards, find_shards
from tests.data.pictures import encode

Members = list[tuple[str, bytes]]


def tar(path: Path, members: Members, *odd: tarfile.TarInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for info in odd:
            file.addfile(info)
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, BytesIO(content))
    return path


def pairs(first: int, count: int) -> Members:
    found: Members = []
    for number in range(first, first + count):
        found += [(f"{number:09d}.png", encode(number)), (f"{number:09d}.txt", f"number {number}".encode())]
    return found


def everything(path: Path) -> Shards:
    return Shards(str(path), split="all")


def test_samples_of_all_shards_in_order(tmp_path: Path) -> None:
    for shard in range(3):
        tar(tmp_path / f"{shard:05d}.tar", pairs(10 * shard, 4))
    source = Shards(str(tmp_path / "{00000..00001}.tar"), split="all")
    assert isinstance(source, Source) and len(source) == 8
    assert [(s.key, s.caption, int(s.image[0, 0, 0])) for s in (source[0], source[5])] == [
        ("00000.tar/000000000", "number 0", 0),
        ("00001.tar/000000011", "number 11", 11),
    ]
    train, test = (Shards(str(tmp_path / "*.tar"), split=split) for split in ("train", "test"))
    assert len(train) + len(test) == 12 and len(test) >= 1


@pytest.mark.parametrize(
    ("members", "caption", "label"),
    [
        ([("a.json", b'{"caption": "from json", "url": "x"}')], "from json", ""),
        ([("a.json", b'{"caption": "no"}'), ("a.txt", b"from text")], "from text", ""),
        ([("a.cls", b"cat")], "cat", "cat"),
        ([("a.cls", b"cat"), ("a.txt", b"a red cat")], "a red cat", "cat"),
        ([("a.txt", b"first"), ("a.txt", b"second")], "first", ""),
    ],
)
def test_where_captions_come_from(tmp_path: Path, members: Members, caption: str, label: str) -> None:
    sample = everything(tar(tmp_path / "a.tar", [("a.jpg", encode(1, "JPEG")), *members]))[0]
    assert (sample.caption, sample.label) == (caption, label)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a.png", encode(1))], "caption of a.tar/a is empty"),
        ([("a.txt", b"alone")], "has no image"),
        ([("a.png", b"<html>"), ("a.txt", b"x")], "web page"),
        ([("a.png", encode(1)), ("a.txt", b"\xff\xfe\xff")], "not UTF-8"),
        ([("a.png", encode(1)), ("a.json", b"{")], "JSON of a.tar/a is broken"),
        ([("a.png", encode(1)), ("a.txt", b"x" * 2_000_000)], "keep it under"),
    ],
)
def test_unusable_samples_are_refused_one_by_one(tmp_path: Path, members: Members, words: str) -> None:
    source = everything(tar(tmp_path / "a.tar", [*members, ("z.png", encode(9)), ("z.txt", b"fine")]))
    with pytest.raises(Refused, match=words):
        source[0]
    assert source[1].caption == "fine"


def test_links_and_ways_out_are_passed_over(tmp_path: Path) -> None:
    odd = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
        info = tarfile.TarInfo(f"odd{kind.decode()}.png")
        info.type, info.linkname = kind, "/etc/passwd"
        odd.append(info)
    ways = [(name, encode(1)) for name in ("/abs.png", "../up.png", "in/../../up.png", "win\\up.png", ".hidden.png")]
    source = everything(tar(tmp_path / "a.tar", ways + pairs(1, 1), *odd))
    assert len(source) == 1 and source[0].caption == "number 1"


def test_the_index_is_a_shortcut_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar(tmp_path / "a.tar", pairs(0, 3))
    before = everything(path).fingerprint
    sidecar = tmp_path / "a.tar.index.json"
    with monkeypatch.context() as patched:
        patched.setattr(tars, "members", None)  # not needed a second time
        assert everything(path).fingerprint == before
    for spoiled in (
        "",
        "[]",
        json.dumps({"tar": json.loads(sidecar.read_text())["tar"], "samples": {"a": {".png": [0, 9**9]}}}),
    ):
        sidecar.write_text(spoiled)
        assert everything(path).fingerprint == before
    tar(path, pairs(5, 2))
    assert len(everything(path)) == 2 and everything(path).fingerprint != before


def test_a_folder_that_may_not_be_written_needs_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar(tmp_path / "a.tar", pairs(0, 2))

    opened = Path.open

    def full(path: Path, mode: str = "r", **more: Any) -> Any:
        if mode == "x":
            raise OSError(28, "No space left on device")
        return opened(path, mode, **more)

    monkeypatch.setattr(Path, "open", full)
    assert len(everything(path)) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar"]


def test_repeated_members_are_counted(tmp_path: Path) -> None:
    source = everything(tar(tmp_path / "a.tar", [*pairs(0, 1), *pairs(0, 1), ("000000000.jpg", encode(5, "JPEG"))]))
    assert len(source) == 1 and source[0].caption == "number 0"
    assert source.notices == (
        "a.tar: 2 members are left out, for names stand in it twice, and the first of a name counts, such as "
        "000000000.png, 000000000.txt.",
        "a.tar: 1 member is left out, for names have an image in another format, which is taken, such as "
        "000000000.png.",
    )
    assert everything(tmp_path / "a.tar").notices == source.notices, "from the index"


def test_dots_in_names_lose_nothing(tmp_path: Path) -> None:
    members = [
        *pairs(0, 1),
        ("img_1.5x.png", encode(1)),
        ("img_1.5x.txt", b"dotted"),
        ("001.left.png", encode(2)),
        ("001.txt", b"words"),
        ("002.jfif", encode(3, "JPEG")),
        ("002.txt", b"ending"),
        ("003.tif", b"II*\0"),
        ("003.txt", b"t"),
        ("000000000.depth.png", encode(4)),
        ("000000000.npy", b"x"),
    ]
    source = everything(tar(tmp_path / "a.tar", members))
    found = {}
    for index in range(len(source)):
        try:
            found[source[index].key] = source[index].caption
        except Refused as refusal:
            found[str(refusal)] = ""
    assert found == {
        "a.tar/000000000": "number 0",
        "a.tar/img_1.5x": "dotted",
        "a.tar/002": "ending",
        "a.tar/001 has no image among its members; leave it out of the shard.": "",
        "the caption of a.tar/001.left is empty; write one.": "",
        "a.tar/003 is a TIFF; give JPEG, PNG, WebP, BMP or GIF.": "",
    }
    assert source.notices == (
        "a.tar: 2 members are left out, for endings are not read, such as 000000000.npy, 000000000.depth.png.",
    )


def test_members_that_may_not_be_read_are_counted(tmp_path: Path) -> None:
    link = tarfile.TarInfo("a.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    source = everything(tar(tmp_path / "a.tar", [("../up.png", encode(1)), *pairs(0, 1)], link))
    assert len(source) == 1 and source.notices[0].startswith("a.tar: 2 members are left out, for links, devices")


def test_a_damaged_tar_says_so(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", pairs(0, 4))
    data = path.read_bytes()
    for spoiled in (data[:3000], data[:2048] + b"x" * 600 + data[2648:]):
        path.write_bytes(spoiled)
        source = everything(path)
        assert 0 < len(source) < 4 and "what follows its last whole member is left out" in source.notices[0]


@pytest.mark.parametrize(
    "spoiled",
    [
        '{"tar": STAMP, "samples": {"a": {".png": [Infinity, 1]}}, "categories": [], "notices": []}',
        '{"tar": STAMP, "samples": {"a": {".png": [-5, 1]}}, "categories": [], "notices": []}',
        '{"tar": STAMP, "samples": {"a": {".png": [0, NaN]}}, "categories": [], "notices": []}',
        '{"tar": STAMP, "samples": {"a": [1, 2]}, "categories": 3, "notices": 4}',
        '{"tar": STAMP}',
        "[1e999]",
        "[" * 100_000,
        '{"a":' * 50_000,
    ],
)
def test_hostile_indices_are_passed_over(tmp_path: Path, spoiled: str) -> None:
    path = tar(tmp_path / "a.tar", pairs(0, 3))
    before = everything(path).fingerprint
    sidecar = tmp_path / "a.tar.index.json"
    stamp = json.dumps(json.loads(sidecar.read_text())["tar"])
    sidecar.write_text(spoiled.replace("STAMP", stamp))
    assert everything(path).fingerprint == before


def test_an_index_is_not_written_over_a_file_of_somebodys(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", pairs(0, 3))
    mine = tmp_path / "a.tar.index.json"
    mine.write_text('{"my": "notes"}')
    assert len(everything(path)) == 3 and mine.read_text() == '{"my": "notes"}'
    mine.unlink()
    mine.symlink_to("elsewhere.json")
    assert len(everything(path)) == 3 and not (tmp_path / "elsewhere.json").exists()


def test_a_tar_cut_short_gives_what_is_whole(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", pairs(0, 4))
    data = path.read_bytes()
    path.write_bytes(data[:3000])
    source = everything(path)
    assert 0 < len(source) < 4 and source[0].caption == "number 0"


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    tar(tmp_path / "empty.tar", [("readme.md", b"x")])
    for pattern, words in (
        (str(tmp_path / "none*.tar"), "no .tar file is named"),
        (str(tmp_path / "bad.tar"), "no plain tar"),
        (str(tmp_path / "empty.tar"), "hold no images"),
        ("pipe:curl x", "from this machine's disk"),
        ("data:a.tar", "from this machine's disk"),
        ("{0..99999999}.tar", "over a million shards"),
    ):
        with pytest.raises(RizbinError) as caught:
            Shards(pattern, split="all")
        assert words in str(caught.value) and str(caught.value).endswith(".")


def test_braces(tmp_path: Path) -> None:
    for name in ("a08", "a09", "a10", "b"):
        tar(tmp_path / f"{name}.tar", pairs(0, 1))
    assert [path.stem for path in find_shards(f"{tmp_path}/{{a{{08..10}},b}}.tar")] == ["a08", "a09", "a10", "b"]
    assert [path.stem for path in find_shards(f"{tmp_path}/a{{09..10}}.tar")] == ["a09", "a10"]


@settings(deadline=None, max_examples=60)
@given(changes=some.lists(some.tuples(some.integers(0, 4000), some.integers(0, 255)), min_size=1, max_size=12))
def test_damaged_tars_never_crash(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]) -> None:
    path = tar(tmp_path_factory.mktemp("damaged") / "a.tar", pairs(0, 3))
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place] = value
    path.write_bytes(data)
    try:
        source = everything(path)
    except RizbinError:
        return
    for index in range(len(source)):
        try:
            source[index]
        except Refused:
            continue
