"""Files read within bounds: what would hang, fill the memory or break the parser is an error with a reason."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from rizbin.core.bounded import DEEPEST, parse_json, read_json, read_regular
from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder


def test_regular_files_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError) as caught:
        read_regular(path, 4)
    assert caught.value.strerror == "it has more than 0 KiB"


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError) as caught:
            read_regular(path, 100)
        assert "no regular file" in str(caught.value.strerror)


def test_gigabytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**36)
    tracemalloc.start()
    with pytest.raises(OSError):
        read_regular(path, 2**20)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_deep_json_is_no_json(tmp_path: Path) -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000, "nothing"):
        with pytest.raises(ValueError):
            parse_json(text)
    path = tmp_path / "a.json"
    path.write_text("[" * DEEPEST + "]" * DEEPEST)
    assert read_json(path)
    path.write_text("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))
    with pytest.raises(ValueError, match="deep"):
        read_json(path)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 900 + "1" + "}" * 900, "{", "3", "\ufeff\0", "Infinity"])
def test_broken_json_in_a_run_folder_is_one_sentence(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    for name in ("settings.json", "environment.json", "finished.json", "metrics.jsonl", "refused.jsonl"):
        (tmp_path / name).write_text(text)
    for read in (run.read_settings, run.finished_steps):
        with pytest.raises(RizbinError) as caught:
            read()
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert run.metrics.read() == [] or all(isinstance(one, dict) for one in run.metrics.read())
    assert isinstance(run.read_refused(), list)


def test_a_pipe_in_a_run_folder_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"steps": 3}))
    os.mkfifo(tmp_path / "finished.json")
    os.mkfifo(tmp_path / "environment.json")
    assert RunFolder(tmp_path).finished_steps() is None
    os.rename(tmp_path / "settings.json", tmp_path / "kept.json")
    assert not RunFolder(tmp_path).exists


def test_sentences_hold_no_bytes_that_a_terminal_obeys() -> None:
    sentence = str(RizbinError("caf\udce9\ud800 \x1b[2J\x9b is \u202fسیب\n."))
    assert sentence == "caf\\udce9\\ud800 \\x1b[2J\\x9b is \u202fسیب\n."
    sentence.encode("utf-8")
