"""Folders of pictures: where captions come from, what is refused, how train and test are told apart."""

import os
import shutil
from pathlib import Path

import pytest

from rizbin.core.errors import RizbinError
from rizbin.data.folders import open_folder
from rizbin.data.listing import Listing, choose
from rizbin.data.sample import Refused, Source
from tests.data.pictures import write


def everything(folder: Path) -> Listing:
    return open_folder(folder, split="all")


def refusal(source: Listing, index: int) -> str:
    with pytest.raises(Refused) as caught:
        source[index]
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_captions_beside_pictures(tmp_path: Path) -> None:
    write(tmp_path / "b.png", 2, "two\n")
    write(tmp_path / "deep/a.PNG", 1, "\ufeffone")
    write(tmp_path / ".hidden/c.png", 3, "three")
    (tmp_path / "notes.md").write_text("no picture")
    source = everything(tmp_path)
    assert isinstance(source, Source) and not source.endless and source.categories == ()
    assert [(s.key, s.caption, int(s.image[0, 0, 0])) for s in (source[0], source[1])] == [
        ("b.png", "two", 2),
        ("deep/a.PNG", "one", 1),
    ]
    assert len(source) == 2


def test_unusable_captions_are_refused_one_by_one(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 0, "fine " * 1000)
    write(tmp_path / "1.png", 1)
    write(tmp_path / "2.png", 2, " \n")
    write(tmp_path / "3.png", 3, b"caf\xe9")
    write(tmp_path / "4.png", 4, "fine").write_bytes(b"<html>")
    source = everything(tmp_path)
    assert len(source[0].caption.split()) == 1000
    for index, words in ((1, "has no caption"), (2, "is empty"), (3, "is not UTF-8"), (4, "web page")):
        sentence = refusal(source, index)
        assert words in sentence and f"{index}." in sentence


def test_a_caption_that_vanishes_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 0, "here")
    source = everything(tmp_path)
    (tmp_path / "0.txt").unlink()
    assert "cannot be read" in refusal(source, 0)


def test_subfolders_are_labels_when_there_are_no_captions(tmp_path: Path) -> None:
    for number, place in enumerate(("zebra/a.png", "fire_engine/old/b.png", "c.png")):
        write(tmp_path / place, number)
    source = everything(tmp_path)
    assert [(s.label, s.caption) for s in (source[i] for i in range(3))] == [
        ("", ""),
        ("fire engine", "fire engine"),
        ("zebra", "zebra"),
    ]
    assert source.categories == ("fire engine", "zebra") and source[2].names == {"zebra"}


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.csv"])
def test_a_table_inside_goes_first(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.png", 1, "beside")
    row = '{"file_name": "a.png", "text": "inside"}' if name.endswith("l") else "file_name,text\na.png,inside\n"
    (tmp_path / name).write_text(row)
    assert everything(tmp_path)[0].caption == "inside"


def test_nothing_to_open_is_said(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="holds no pictures"):
        everything(tmp_path)
    with pytest.raises(RizbinError, match="nowhere cannot be read"):
        everything(tmp_path / "nowhere")


def test_a_closed_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: object) -> None:  # the test may run as root, to whom no folder is closed
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(RizbinError, match=f"{tmp_path} cannot be read .Permission denied"):
        everything(tmp_path)


def test_train_and_test_share_nothing_and_stay_as_they_are(tmp_path: Path) -> None:
    for number in range(60):
        write(tmp_path / f"{number}.png", number)
    train, test = (open_folder(tmp_path, split=split) for split in ("train", "test"))
    names = [{source[i].key for i in range(len(source))} for source in (train, test)]
    assert len(train) + len(test) == 60 and not names[0] & names[1] and 1 <= len(test) <= 9
    write(tmp_path / "new.png", 77)
    later = open_folder(tmp_path, split="test")
    assert names[1] <= {later[i].key for i in range(len(later))} | {"new.png"}


def test_five_percent_are_for_testing_and_each_side_gets_one() -> None:
    keyed = [(str(number), number) for number in range(10_000)]
    test = choose(keyed, "test")
    assert 413 <= len(test) <= 587  # Binomial(10,000, 0.05), four deviations
    assert sorted(test + choose(keyed, "train")) == choose(keyed, "all") == list(range(10_000))
    for count in range(2, 20):
        assert choose(keyed[:count], "test") and choose(keyed[:count], "train")
    assert choose(keyed[:1], "train") + choose(keyed[:1], "test") == [0]


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    for number in range(4):
        write(folder / f"{number}.png", number, "a cat")
    before = everything(folder).fingerprint
    shutil.copytree(folder, tmp_path / "other")
    assert everything(tmp_path / "other").fingerprint == before
    assert open_folder(folder, split="train").fingerprint != before
    (folder / "0.txt").write_text("a mouse")
    assert everything(folder).fingerprint != before


def test_large_jpegs_are_decoded_no_larger_than_needed(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (1600, 1200)).save(tmp_path / "a.jpg")
    assert open_folder(tmp_path, split="all", size=64)[0].image.shape == (300, 400, 3)
    assert everything(tmp_path)[0].image.shape == (1200, 1600, 3)
