"""Rows that are made part by part: none is lost or doubled, wherever a process is killed."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.core.outputs import RECORD
from rizbin.vectors.parts import ImageFile, Parts, Rows
from rizbin.vectors.table import Vectors, read_table, write_table

STUB = """
import sys
from pathlib import Path
import numpy as np
from rizbin.vectors.parts import ImageFile, Parts, Rows
from rizbin.vectors.table import write_table

assert "torch" not in sys.modules
target, count, part = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
files = [ImageFile(f"{number:06d}.png", f"images/{number:06d}.png", number, 0) for number in range(count)]
with Parts(target, files, "stub", part=part) as parts:
    print("missing", len(parts.missing), flush=True)
    for number in parts.missing:
        some = [file.size for file in parts.files_of(number)]
        usable = [place for place, value in enumerate(some) if value % 97]
        values = np.array([some[place] for place in usable])
        vectors = np.stack([np.cos(values), np.sin(values)], axis=1)
        unusable = tuple(f"{value} is a multiple of 97" for value in some if value % 97 == 0)
        parts.put(number, Rows(np.array(usable), vectors, np.stack([values, values], axis=1), unusable))
    write_table(parts, {"model": "stub"})
    parts.clear()
print("done", flush=True)
"""


def check_whole(table: Vectors, count: int) -> None:
    """Each usable file has one row, its own, in order."""
    numbers = np.array([number for number in range(count) if number % 97])
    assert list(table.files) == [f"{number:06d}.png" for number in numbers]
    assert np.array_equal(table.sizes[:, 0], numbers)
    assert np.array_equal(table.vectors, np.stack([np.cos(numbers), np.sin(numbers)], axis=1).astype(np.float32))
    assert len(table.unusable) == table.record["images"] - table.record["rows"] == count - len(numbers)


def kill_until_done(target: Path, count: int, part: int, kills: int, longest: float) -> int:
    """Starts the stub again and again, killing it at random moments; then once to its end. How often it was killed."""
    chance, killed = random.Random(7), 0
    command = [sys.executable, "-c", STUB, str(target), str(count), str(part)]
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        time.sleep(chance.uniform(0, longest))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("done\n")
    return killed


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_a_table_survives_kills(tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"vectors.{ending}"
    assert kill_until_done(target, 3000, 16, 4, 0.15) > 0
    check_whole(read_table(target), 3000)
    assert {path.name for path in tmp_path.iterdir()} == {target.name, RECORD}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_thousand_rows_survive_kills(tmp_path: Path) -> None:
    """Killed while parts are made, while they are joined, and after."""
    target = tmp_path / "vectors.npz"
    assert kill_until_done(target, 100_000, 256, 25, 3.0) > 10
    check_whole(read_table(target), 100_000)


def files_of(count: int) -> list[ImageFile]:
    return [ImageFile(str(number), str(number), number, 0) for number in range(count)]


def sizes_of(values: np.ndarray) -> np.ndarray:
    return np.stack([values, values], axis=1).astype(np.int32)


def rows_of(files: list[ImageFile]) -> Rows:
    values = np.array([file.size for file in files])
    return Rows(np.arange(len(files)), values[:, None].astype(np.float32), sizes_of(values))


def test_parts_of_other_files_or_another_network_are_not_taken_over(tmp_path: Path) -> None:
    with Parts(tmp_path / "v.npz", files_of(10), "a", part=4) as parts:
        for number in parts.missing:
            parts.put(number, rows_of(parts.files_of(number)))
    changed = files_of(10)
    changed[5] = ImageFile("5", "5", 55, 0)
    with Parts(tmp_path / "v.npz", changed, "a", part=4) as parts:
        assert parts.missing == [1]
        assert len(list(parts.folder.glob("*.npz"))) == 2
    with Parts(tmp_path / "v.npz", changed, "b", part=4) as parts:
        assert parts.missing == [0, 1, 2]


def test_a_damaged_part_is_said_and_made_again(tmp_path: Path) -> None:
    with Parts(tmp_path / "v.npz", files_of(8), "a", part=4) as parts:
        for number in parts.missing:
            parts.put(number, rows_of(parts.files_of(number)))
        path = parts.folder / parts.names[1]
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(RizbinError, match=r"damaged.*same command again"):
            write_table(parts, {})
        assert parts.missing == [1]


def test_two_processes_do_not_write_one_table(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys,time\nfrom pathlib import Path\nfrom rizbin.vectors.parts import Parts\n"
            "with Parts(Path(sys.argv[1]), [], 'a') as parts:\n    print('in', flush=True)\n    time.sleep(60)",
            str(tmp_path / "v.npz"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    try:
        with pytest.raises(RizbinError, match="another process"), Parts(tmp_path / "v.npz", [], "a"):
            pass
    finally:
        process.kill()
        process.communicate()
    with Parts(tmp_path / "v.npz", [], "a"):
        pass


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "v.npz.parts"
    other.mkdir()
    (other / "mine").write_text("mine")
    with Parts(tmp_path / "v.npz", files_of(3), "a") as parts:
        parts.put(0, rows_of(parts.files_of(0)))
        assert parts.folder != other
        write_table(parts, {"model": "m"})
        parts.clear()
    assert (other / "mine").read_text() == "mine" and len(read_table(tmp_path / "v.npz")) == 3


def test_groups_without_rows_are_joined() -> None:
    nothing = Rows(np.zeros(0, np.int64), np.zeros((0, 0), np.float32), np.zeros((0, 2), np.int32), ("a", "b"))
    joined = Rows.joined([nothing, rows_of(files_of(2)), nothing], [2, 2, 2])
    assert joined.positions.tolist() == [2, 3] and joined.unusable == ("a", "b", "a", "b")
    assert Rows.joined([nothing, nothing], [2, 2]).vectors.shape == (0, 0)


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_patches_are_read_as_they_were_written(tmp_path: Path, ending: str) -> None:
    files = [ImageFile(f"é{number}", f"a/{number}", number, 0) for number in range(7)]
    values = np.random.default_rng(0).normal(size=(7, 2, 3, 4)).astype(np.float16)
    with Parts(tmp_path / f"v.{ending}", files, "a", part=3) as parts:
        for number in parts.missing:
            some = parts.files_of(number)
            first = some[0].size
            vectors = np.eye(4, dtype=np.float32)[: len(some)]
            sizes = np.tile(np.array([[5, 6]], np.int32), (len(some), 1))
            parts.put(number, Rows(np.arange(len(some)), vectors, sizes, (), values[first : first + len(some)]))
        table = read_table(write_table(parts, {"model": "m"}))
    assert table.grid == (2, 3) and list(table.files) == [f"é{number}" for number in range(7)]
    assert np.array_equal(table.patches_of(5), values[5].astype(np.float32))
    chunks = list(table.patch_chunks(2))
    assert [start for start, _ in chunks] == np.cumsum([0, *(len(chunk) for _, chunk in chunks[:-1])]).tolist()
    assert np.array_equal(np.concatenate([chunk for _, chunk in chunks]), values.astype(np.float32))
    assert table.rows()[0]["file"] == "é0" and table.image_path(3) == tmp_path / "a/3"
    if ending == "npz":
        with np.load(tmp_path / "v.npz", allow_pickle=False) as data:
            assert data["patches"].shape == (7, 2, 3, 4) and data["files"][6] == "é6"
            assert json.loads(str(data["record"]))["rows"] == 7


@pytest.mark.parametrize("ending", ["npz", "parquet"])
@pytest.mark.parametrize("cut", [0, 10, 200, 5000, -1, -40])
def test_damaged_tables_are_one_sentence(tmp_path: Path, ending: str, cut: int) -> None:
    path = tmp_path / f"v.{ending}"
    with Parts(path, files_of(2000), "a") as parts:
        for number in parts.missing:
            parts.put(number, rows_of(parts.files_of(number)))
        write_table(parts, {"model": "m"})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(RizbinError, match="damaged"):
        read_table(path)


def test_what_is_no_table_is_one_sentence(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "other.npz", vectors=np.zeros((2, 2)))
    with pytest.raises(RizbinError, match="no table of vectors"):
        read_table(tmp_path / "other.npz")
    with pytest.raises(RizbinError, match=r"There is no .*missing.npz; rizbin embed"):
        read_table(tmp_path / "missing.npz")
    with pytest.raises(RizbinError, match=r"end in .npz or .parquet"):
        read_table(tmp_path / "a.txt")
    held = np.array([{"code": 1}], object)
    np.savez(tmp_path / "pickled.npz", files=held, paths=held, record=held)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RizbinError, match="no table of vectors"):
        read_table(tmp_path / "pickled.npz")
