"""Folders of pictures: where captions come from, what is refused, how train and test are told apart."""

import json
import os
import shutil
import time
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


@pytest.mark.parametrize("part", ["train", "Train", "data"])
def test_tables_inside_subfolders_are_read(tmp_path: Path, part: str) -> None:
    for place in (f"{part}/0.png", f"{part}/sub/1.png", f"{part}/2.png", f"{part}/3.png", "other/4.png"):
        write(tmp_path / place, 1, "beside")
    rows = [
        {"file_name": "0.png", "text": "red"},
        {"file_name": "sub/1.png", "text": None},
        {"file_name": "2.png", "text": ["blue", "azure"], "label": 3.0},
    ]
    (tmp_path / part / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "other/metadata.csv").write_text("file_name,text\n4.png,green\n")
    source = everything(tmp_path)
    found = {source._entries[index].key: index for index in range(len(source))}
    assert set(found) == {f"{part}/0.png", f"{part}/sub/1.png", f"{part}/2.png", "other/4.png"}
    assert source[found[f"{part}/0.png"]].caption == "red" and source[found["other/4.png"]].caption == "green"
    assert source[found[f"{part}/2.png"]].captions == ("blue", "azure") and source[found[f"{part}/2.png"]].label == "3"
    assert "is empty" in refusal(source, found[f"{part}/sub/1.png"])
    assert any("1 image is left out, for no table of" in one and f"{part}/3.png" in one for one in source.notices)


def test_folders_called_train_and_val_are_splits(tmp_path: Path) -> None:
    for number, place in enumerate(("train/cat/0.png", "train/big_dog/1.png", "val/cat/2.png", "Test/cat/3.png")):
        write(tmp_path / place, number)
    source = everything(tmp_path)
    assert source.categories == ("big dog", "cat")
    assert {source[index].caption for index in range(4)} == {"big dog", "cat"}
    train, test = (open_folder(tmp_path, split=part) for part in ("train", "test"))
    assert [train[index].key for index in range(len(train))] == ["train/big_dog/1.png", "train/cat/0.png"]
    assert [test[index].key for index in range(len(test))] == ["Test/cat/3.png", "val/cat/2.png"]
    (notice,) = source.notices
    assert "taken for splits and not for labels: Test is measured on, train is trained on, val is measured on" in notice


def test_one_split_alone_is_split_by_name_and_is_no_label(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path / f"train/{number}.png", number)
    source = everything(tmp_path)
    assert source.categories == () and source[0].caption == ""
    assert "the folder train is taken for a split and not for a label" in source.notices[0]
    assert len(open_folder(tmp_path, split="train")) + len(open_folder(tmp_path, split="test")) == 40


def test_a_label_called_train_stays_one_beside_others(tmp_path: Path) -> None:
    for number, place in enumerate(("train/0.png", "bus/1.png")):
        write(tmp_path / place, number)
    source = everything(tmp_path)
    assert source.categories == ("bus", "train") and source.notices == ()


def test_captions_are_found_as_other_systems_name_them(tmp_path: Path) -> None:
    names = {"cafe\u0301.png": "caf\u00e9.txt", "photo.PNG": "photo.TXT", "v1.2.png": "v1.2.txt", "c.png": "c.png.txt"}
    for number, (picture, text) in enumerate(names.items()):
        write(tmp_path / picture, number)
        (tmp_path / text).write_text(picture)
    (tmp_path / "._c.png").write_bytes(b"AppleDouble")
    source = everything(tmp_path)
    assert {source[index].key: source[index].caption for index in range(len(source))} == {name: name for name in names}


def test_every_picture_is_used_or_refused_whatever_its_ending(tmp_path: Path) -> None:
    for number, ending in enumerate(("jpg", "jfif", "jpe", "JPG")):
        write(tmp_path / f"{number}.png", number, "x").rename(tmp_path / f"{number}.{ending}")
    heads = {"tif": b"II*\0", "avif": b"\0\0\0 ftypavif", "heic": b"\0\0\0 ftypheic", "jxl": b"\xff\x0a", "jp2": b"x"}
    for ending, head in heads.items():
        (tmp_path / f"{ending}.{ending}").write_bytes(head + bytes(40))
        (tmp_path / f"{ending}.txt").write_text("x")
    source = everything(tmp_path)
    assert len(source) == 4 + len(heads)
    words = {"tif": "a TIFF", "avif": "an AVIF", "heic": "a HEIC", "jxl": "a JPEG XL", "jp2": "no known"}
    for index in range(len(source)):
        ending = source._entries[index].path.suffix[1:]
        if ending in words:
            assert words[ending] in refusal(source, index) and "give JPEG, PNG" in refusal(source, index)
        else:
            assert source[index].caption == "x"


def test_raw_files_beside_pictures_are_counted_and_not_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1, "x")
    for name in ("a.CR2", "a.heic"):
        (tmp_path / name).write_bytes(b"x")
    source = everything(tmp_path)
    assert len(source) == 1 and source.notices[0].startswith("2 files are left out, for the same images lie beside")


def test_captions_that_are_no_files_are_refused_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name in ("pipe", "device", "large", "out", "fine", "in", "up"):
        write(folder / f"{name}.png", 1)
    (tmp_path / "secret.txt").write_text("root:x:0:0")
    os.mkfifo(folder / "pipe.txt")
    (folder / "device.txt").symlink_to("/dev/zero")
    with (folder / "large.txt").open("wb") as file:
        file.truncate(2**34)
    (folder / "out.txt").symlink_to("/etc/passwd")
    (folder / "up.txt").symlink_to("../secret.txt")
    (folder / "fine.txt").write_text("fine")
    (folder / "in.txt").symlink_to("fine.txt")
    source = everything(folder)
    begin = time.process_time()
    words = {
        "device": "leads out of",
        "large": "more than 1 MiB",
        "out": "leads out of",
        "pipe": "no regular file",
        "up": "leads out of",
    }
    for index in range(len(source)):
        name = source._entries[index].path.stem
        if name in words:
            assert words[name] in refusal(source, index) and "x:0:0" not in refusal(source, index)
        else:
            assert source[index].caption == "fine"
    assert time.process_time() - begin < 1


def test_a_data_folder_that_is_a_link_itself_is_read(tmp_path: Path) -> None:
    write(tmp_path / "real/a.png", 1, "fine")
    (tmp_path / "link").symlink_to("real")
    assert everything(tmp_path / "link")[0].caption == "fine"


def test_tables_that_lead_out_and_linked_folders_are_said(tmp_path: Path) -> None:
    write(tmp_path / "data/a.png", 1, "fine")
    write(tmp_path / "other/b.png", 1)
    (tmp_path / "data/more").symlink_to("../other")
    (notice,) = everything(tmp_path / "data").notices
    assert "1 folder is left out, for links to folders are not followed" in notice
    (tmp_path / "data/metadata.csv").symlink_to("/etc/passwd")
    with pytest.raises(RizbinError, match="is a link that leads out of") as caught:
        everything(tmp_path / "data")
    assert "x:0:0" not in str(caught.value)


def test_names_that_are_no_text_are_spelled_out(tmp_path: Path) -> None:
    write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9/a\xe9.png")), 1)
    sample = everything(tmp_path)[0]
    for text in (sample.key, sample.caption, sample.label):
        text.encode("utf-8")


def test_nothing_to_open_is_said(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="holds no images"):
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
