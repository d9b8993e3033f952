"""Tar headers: the same members as Python's tarfile where that is safe, and bounds where it is not."""

import io
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest

from rizbin.data import tars

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def written(path: Path, form: int, names: list[str], **pax: str) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 300 * number
            info.pax_headers = pax if form == tarfile.PAX_FORMAT else {}
            tar.addfile(info, io.BytesIO(bytes([number % 250 + 1]) * info.size))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            odd = tarfile.TarInfo(f"odd{kind.decode()}")
            odd.type, odd.linkname = kind, "/etc/" + "far/" * (40 if form != tarfile.USTAR_FORMAT else 2) + "away"
            tar.addfile(odd)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_members_as_tarfile(tmp_path: Path, form: int) -> None:
    long = [f"{'deep/' * 30}{number}.jpg" for number in range(3)]
    names = ["a.jpg", "b.txt", *long, "empty", "sub/c.d.e"]
    if form != tarfile.USTAR_FORMAT:
        names += ["x" * 3000 + ".png", "عکس.jpg", "caf\udce9.txt"]
    path = written(tmp_path / "a.tar", form, names, comment="x" * 2000)
    with tarfile.open(path) as tar:
        expected = [(one.name, one.offset_data, one.size if one.isreg() else 0, one.isreg()) for one in tar]
    found = [(one.name.rstrip("/"), one.offset, one.size, one.kind == "file") for one in tars.members(path)]
    assert found == expected
    data = path.read_bytes()
    for number, one in enumerate(one for one in tars.members(path) if one.kind == "file"):
        assert data[one.offset : one.offset + one.size] == bytes([number % 250 + 1]) * (300 * number)


def test_tars_one_behind_the_other_are_read_on(tmp_path: Path) -> None:
    first, second = (written(tmp_path / name, tarfile.GNU_FORMAT, [f"{name}.jpg"]) for name in ("a", "b"))
    both = tmp_path / "both.tar"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    assert [one.name for one in tars.members(both) if one.kind == "file"] == ["a.jpg", "b.jpg"]


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


HOSTILE = {
    "pax of a gibibyte": header("x", b"x", 2**30) + bytes(1024),
    "pax for all of a gibibyte": header("x", b"g", 2**30) + bytes(1024),
    "a name of a gibibyte": header("x", b"L", 2**30) + bytes(1024),
    "chained names": (header("x", b"L", 2) + b"ab" + bytes(510)) * 20_000,
    "chained attributes": (header("x", b"x", 9) + b"9 a=bcde\n"[:9] + bytes(503)) * 20_000,
    "chained for all": (header("x", b"g", 8) + b"8 a=bcd\n" + bytes(504)) * 20_000,
    "an endless member": header("x", b"0", 2**62),
    "a folder with a size": header("x", b"5", 2**40) + bytes(1024),
    "sparse without end": (lambda one: one[:482] + b"\1" + one[483:])(header("x", b"S", 0)) + b"\1" * 512 * 3,
    "attributes of length 0": header("x", b"x", 5) + b"0 a=\n" + bytes(507),
    "attributes of length 10^9": header("x", b"x", 16) + b"1000000000 a=bc\n" + bytes(496),
    "a size that is none": header("x", b"x", 14) + b"14 size=-9999\n" + bytes(498) + header("y", b"0", 3),
    "nothing": b"",
    "a half header": header("x", b"0", 3)[:200],
    "letters": b"hello " * 300,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_end_at_once(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(HOSTILE[case])
    tracemalloc.start()
    begin = time.process_time()
    try:
        for _ in tars.members(path):
            pass
    except tars.Damaged as error:
        assert str(error)
    assert time.process_time() - begin < 1 and tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_gibibyte_of_zeros_is_the_end(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", tarfile.GNU_FORMAT, ["a.jpg"])
    with path.open("r+b") as file:
        file.truncate(2**34)
    begin = time.process_time()
    assert len(list(tars.members(path))) == 6 and time.process_time() - begin < 1
