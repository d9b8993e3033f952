"""What is written never replaces what Rizbin did not make, and never goes through a link."""

import os
from pathlib import Path

import pytest

from rizbin.core import outputs
from rizbin.core.errors import RizbinError
from rizbin.core.outputs import (
    RECORD,
    claim_folder,
    free_name,
    overwriting,
    reading,
    refuse_taken,
    remove_folder,
    write,
)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != RECORD)


def test_ours_is_replaced_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "new/found.json"
    for text in ("first", "second", "third", "first"):
        assert write(path, text) == path and path.read_text() == text
    assert visible(path.parent) == ["found.json"]


def test_what_somebody_made_stays_and_a_new_name_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = [tmp_path / "0000.png", tmp_path / "0001.png"]
    for path in mine:
        path.write_text("mine")
    with overwriting(False):
        assert [write(path, b"ours").name for path in mine] == ["0000-2.png", "0001-2.png"]
        assert write(mine[0], b"ours again").name == "0000-2.png", "the new name is ours"
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "0000-2.png" in said and "--overwrite" in said


def test_ours_that_was_changed_since_is_somebody_s(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.txt", "0 0.5 0.5 1 1\n")
    path.write_text("0 0.5 0.5 1 2\n")  # of the same length
    assert write(path, "anew").name == "labels-2.txt" and path.read_text() == "0 0.5 0.5 1 2\n"


@pytest.mark.parametrize("exists", [True, False])
def test_links_are_never_written_through(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "elsewhere.txt"
    if exists:
        target.write_text("mine")
    link = tmp_path / "out.txt"
    link.symlink_to(target)
    assert write(link, "ours").name == "out-2.txt"
    with overwriting():
        assert write(link, "ours") == link
    assert not link.is_symlink() and link.read_text() == "ours"
    assert target.exists() == exists and (not exists or target.read_text() == "mine")


def test_a_draft_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".a.txt.{os.getpid()}").symlink_to(tmp_path / "mine")
    write(tmp_path / "a.txt", "ours")
    assert (tmp_path / "mine").read_text() == "mine" and (tmp_path / "a.txt").read_text() == "ours"


def test_what_a_command_reads_is_not_replaced_even_when_all_else_may_be(tmp_path: Path) -> None:
    path = write(tmp_path / "0000.png", b"ours")
    with overwriting(), reading([path, tmp_path / "nowhere", "scenes:easy"]):
        assert write(path, b"new").name == "0000-2.png"
        with pytest.raises(RizbinError, match="is what this command reads"):
            refuse_taken(path)
    assert path.read_bytes() == b"ours"


def test_a_name_that_was_given_is_refused_in_time(tmp_path: Path) -> None:
    refuse_taken(tmp_path / "new.json")
    refuse_taken(write(tmp_path / "ours.json", "{}"))
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(RizbinError, match=r"mine-2\.json, or give --overwrite"):
        refuse_taken(tmp_path / "mine.json")
    with overwriting():
        refuse_taken(tmp_path / "mine.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(RizbinError, match="is a folder"):
        refuse_taken(tmp_path / "folder.json")
    with pytest.raises(RizbinError, match="choose another place"):
        refuse_taken(tmp_path / "mine.json" / "under.json")


@pytest.mark.parametrize("kind", ["text", "link", "folder", "pipe"])
def test_a_record_that_is_none_of_ours_is_left_alone(tmp_path: Path, kind: str) -> None:
    """Then nothing counts as ours: new names, no file lost."""
    record, other = tmp_path / RECORD, tmp_path / "other"
    if kind == "text":
        record.write_text("my own notes\n")
    elif kind == "link":
        other.write_text("mine")
        record.symlink_to(other)
    elif kind == "folder":
        record.mkdir()
    else:
        os.mkfifo(record)
    assert write(tmp_path / "a.txt", "1").name == "a.txt"
    assert write(tmp_path / "a.txt", "2").name == "a-2.txt"
    assert kind != "text" or record.read_text() == "my own notes\n"
    assert kind != "link" or other.read_text() == "mine"


def test_a_record_torn_by_a_kill_still_serves(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "1")
    with (tmp_path / RECORD).open("a") as file:
        file.write('{"file": "b.t')
    outputs._KNOWN.clear()
    write(tmp_path / "c.txt", "1")
    outputs._KNOWN.clear()
    assert [write(tmp_path / name, "2").name for name in ("a.txt", "c.txt")] == ["a.txt", "c.txt"]


def test_folders_of_ours_are_used_again_and_removed_and_others_never(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/mine").touch()
    (tmp_path / "state-2").symlink_to(tmp_path / "state")
    ours = claim_folder(tmp_path / "state")
    assert ours.name == "state-3" and claim_folder(tmp_path / "state") == ours
    (ours / "step").touch()
    for path in (tmp_path / "state", tmp_path / "state-2", ours):
        remove_folder(path)
    assert not ours.exists() and (tmp_path / "state/mine").exists() and (tmp_path / "state-2").is_symlink()


def test_what_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RizbinError, match="could not be written"):
        write(tmp_path / "file/a.txt", "1")
    (tmp_path / "taken").mkdir()
    assert free_name(tmp_path / "taken").name == "taken-2"


def test_thousands_of_files_are_written_in_no_more_than_their_time(tmp_path: Path) -> None:
    """The record is read once and then only what is new in it."""
    for number in range(2000):
        write(tmp_path / f"{number}.txt", "1")
    (_, known) = outputs._KNOWN[((tmp_path / RECORD).stat().st_dev, (tmp_path / RECORD).stat().st_ino)]
    assert len(known) >= 1999
