"""Tars in object storage: fetched once, again when they changed, never half, and refused in one sentence."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from rizbin.core.errors import RizbinError
from rizbin.data import remote
from rizbin.data.open import open_source
from rizbin.data.shards import Shards
from tests.data.test_shards import pairs, tar


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two tars in fsspec's storage in memory, and a cache of their own."""
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    for shard in range(2):
        files.pipe(f"/bucket/{shard:05d}.tar", tar(tmp_path / f"{shard:05d}.tar", pairs(10 * shard, 4)).read_bytes())
    yield files
    files.rm("/bucket", recursive=True)


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".lock")


@pytest.mark.parametrize("pattern", ["{00000..00001}.tar", "*.tar", "{00000,00001}.tar"])
def test_samples_are_those_of_the_same_tars_on_the_disk(bucket: Any, tmp_path: Path, pattern: str) -> None:
    local = Shards(str(tmp_path / "*.tar"), split="all")
    source = open_source(f"shards:memory://bucket/{pattern}", split="all")
    assert len(source) == len(local) == 8 and source.fingerprint == local.fingerprint
    for number in range(8):
        assert (source[number].key, source[number].caption) == (local[number].key, local[number].caption)
        assert (source[number].image == local[number].image).all()
    assert cached(tmp_path) == ["00000.tar", "00000.tar.index.json", "00001.tar", "00001.tar.index.json"]


def test_a_tar_is_fetched_once_and_again_when_it_changed(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    fetch = remote._fetch
    monkeypatch.setattr(remote, "_fetch", lambda files, name, *more: fetched.append(name) or fetch(files, name, *more))
    Shards("memory://bucket/*.tar", split="all")
    Shards("memory://bucket/*.tar", split="all")
    assert sorted(fetched) == ["/bucket/00000.tar", "/bucket/00001.tar"]
    bucket.pipe("/bucket/00001.tar", tar(tmp_path / "new.tar", pairs(50, 4)).read_bytes())  # of the same size
    source = Shards("memory://bucket/*.tar", split="all")
    assert fetched[2:] == ["/bucket/00001.tar"] and source[4].caption == "number 50"


def test_files_by_their_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "cache"))
    tar(tmp_path / "there/a.tar", pairs(0, 2))
    source = Shards(f"file://{tmp_path}/there/a.tar", split="all")
    assert len(source) == 2 and source[1].key == "a.tar/000000001"
    assert os.listdir(tmp_path / "there") == ["a.tar"], "nothing is written beside the original"


def test_what_is_cut_short_does_not_count(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = bucket.info
    monkeypatch.setattr(bucket, "info", lambda name, **more: info(name, **more) | {"size": 999_999})
    with pytest.raises(RizbinError, match=r"came with \d+ of 999999 bytes; start the same command again"):
        Shards("memory://bucket/00000.tar", split="all")
    assert cached(tmp_path) == []
    monkeypatch.undo()
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "cache"))
    # What a kill left is written over.
    facts = bucket.info("/bucket/00000.tar")
    place = remote._place(bucket, "/bucket/00000.tar", facts)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.with_name(".00000.tar.draft").write_bytes(b"half")
    assert len(Shards("memory://bucket/00000.tar", split="all")) == 4
    assert cached(tmp_path) == ["00000.tar", "00000.tar.index.json"]


def test_processes_that_want_the_same_tar_fetch_it_once(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    fetch = remote._fetch
    monkeypatch.setattr(remote, "_fetch", lambda files, name, *more: fetched.append(name) or fetch(files, name, *more))
    place = tmp_path / "cache/shards/x/00000.tar"
    threads = [threading.Thread(target=remote._keep, args=(bucket, "/bucket/00000.tar", None, place)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == ["/bucket/00000.tar"] and place.read_bytes() == bucket.cat("/bucket/00000.tar")


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("memory://bucket/gone.tar", "gone.tar cannot be fetched (FileNotFoundError"),
        ("memory://bucket/gone-*.tar", "no .tar file is named by memory://bucket/gone-*.tar"),
        ("memory://bucket", "no .tar file is named by"),
        ("pipe:curl x", "not from pipe:curl x"),
        ("simplecache::memory://bucket/00000.tar", "not from simplecache::memory"),
        ("zip://a.tar::memory://bucket/00000.zip", "not from zip://"),
        ("reference://bucket/a.tar", "not from reference://"),
        ("memory:bucket/00000.tar", "not from memory:bucket"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(bucket: Any, tmp_path: Path, pattern: str, says: str) -> None:
    with pytest.raises(RizbinError) as error:
        open_source(f"shards:{pattern}", split="all")
    assert says in str(error.value) and "\n" not in str(error.value) and cached(tmp_path) == []


def test_a_missing_driver_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(RizbinError, match=r"s3:// needs a driver .*s3fs.*'rizbin\[remote\]'"):
        Shards("s3://bucket/{0..9}.tar", split="all")


def test_a_full_disk_is_said_before_anything_is_fetched(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 2**20}))
    with pytest.raises(RizbinError, match=r"2 shards are to be fetched, .* name another folder with RIZBIN_CACHE"):
        Shards("memory://bucket/*.tar", split="all")
    assert cached(tmp_path) == []


def test_a_cache_that_cannot_be_made_is_one_sentence(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "file"))
    with pytest.raises(RizbinError, match=r"cannot be made .*RIZBIN_CACHE"):
        Shards("memory://bucket/*.tar", split="all")


def test_paths_of_this_machine_are_not_remote() -> None:
    assert not any(map(remote.is_remote, ("data/*.tar", "/a/b.tar", "C:\\a\\b.tar", "C:/a.tar")))
    assert all(map(remote.is_remote, ("s3://a/b.tar", "file:///a/b.tar", "pipe:curl", "C:b.tar")))
