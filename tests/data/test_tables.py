"""Tables of pictures: the column names people have, separators, and rows that cannot be used."""

import json
from pathlib import Path

import pytest

from rizbin.core.errors import RizbinError
from rizbin.data.sample import Refused
from rizbin.data.tables import open_table
from tests.data.pictures import write


def table(tmp_path: Path, content: str | bytes, name: str = "table.csv"):
    for number in range(4):
        write(tmp_path / f"images/{number}.png", number)
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_table(path, split="all")


@pytest.mark.parametrize("image", ["filepath", "image", "file_name", "path", "image_path", "Filename"])
@pytest.mark.parametrize("caption", ["caption", "text", "title", "DESCRIPTION"])
def test_usual_columns_are_found(tmp_path: Path, image: str, caption: str) -> None:
    source = table(tmp_path, f"id,{image},{caption}\n7,images/2.png,two\n8,images/1.png,one\n")
    assert [(s.key, s.caption, int(s.image[0, 0, 0])) for s in (source[0], source[1])] == [
        ("images/2.png", "two", 2),
        ("images/1.png", "one", 1),
    ]


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["table.csv", "table.tsv"])
def test_separators_and_quotes(tmp_path: Path, separator: str, start: str, name: str) -> None:
    rows = [("filepath", "title"), ("images/1.png", f'"one{separator} with ""quotes""\nand \u2028 lines"')]
    source = table(tmp_path, start + "\r\n".join(separator.join(row) for row in rows), name)
    assert source[0].caption == f'one{separator} with "quotes"\nand \u2028 lines' and len(source) == 1


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        {"file_name": "images/0.png", "text": "zero", "label": 3},
        {"file_name": "images/1.png", "text": ["one", "another"]},
    ]
    source = table(tmp_path, "\n".join(map(json.dumps, rows)) + "\n\n", "t.jsonl")
    assert source[0].label == "3" and source.categories == ("3",)
    assert source[1].caption == "one" and source[1].captions == ("one", "another")


def test_rows_about_one_picture_are_one_sample(tmp_path: Path) -> None:
    source = table(tmp_path, "image,caption\nimages/1.png,one\nimages/2.png,two\nimages/1.png,\nimages/1.png,uno\n")
    assert len(source) == 2 and source[0].captions == ("one", "uno")


def test_a_label_alone_is_the_caption(tmp_path: Path) -> None:
    source = table(tmp_path, "path,class\nimages/1.png,cat\n")
    assert (source[0].label, source[0].caption) == ("cat", "cat")


def test_absolute_paths_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "elsewhere/9.png", 9)
    assert table(tmp_path, f"path,text\n{path},nine\n")[0].caption == "nine"


def test_unusable_rows_are_refused_one_by_one(tmp_path: Path) -> None:
    rows = [b"images/0.png,", b"images/1.png,caf\xe9", b",nothing", b"http://x.org/a.png,far", b"images/none.png,gone"]
    source = table(tmp_path, b"\n".join([b"path,text", *rows, b"images/2.png", b"images/3.png,fine"]))
    words = ["is empty", "not UTF-8", "line 4 names no picture", "network address", "cannot be opened", "is empty"]
    for index, expected in enumerate(words):
        with pytest.raises(Refused, match=expected):
            source[index]
    assert source[6].caption == "fine" and len(source) == 7


def test_broken_json_lines_are_refused_one_by_one(tmp_path: Path) -> None:
    good = '{"image": "images/1.png", "text": "one"}'
    source = table(tmp_path, "\n".join([good, "{", "[1]", '{"image": 3, "text": "x"}', "[" * 100_000]), "t.jsonl")
    assert source[0].caption == "one" and len(source) == 5
    for index in range(1, 5):
        with pytest.raises(Refused, match=f"line {index + 1} names no picture"):
            source[index]


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("url,caption\nx,y\n", "t.csv", "has the columns url, caption; it needs one of filepath, image"),
        ("image,score\nx,1\n", "t.csv", "one of caption, text, title"),
        ("", "t.csv", "holds no rows"),
        ("image,caption\n", "t.csv", "holds no rows"),
        ("nothing\nhere", "t.jsonl", "no line with a JSON object"),
        ("", "t.jsonl", "holds no rows"),
        ("image,caption\nx,y".encode("utf-16"), "t.csv", "UTF-16"),
        (b"image,caption\nx," + b"y" * 3_000_000, "t.csv", "cannot be read as a table"),
    ],
)
def test_tables_without_use_are_explained(tmp_path: Path, content: str | bytes, name: str, words: str) -> None:
    with pytest.raises(RizbinError) as caught:
        table(tmp_path, content, name)
    assert words in str(caught.value) and str(caught.value).endswith(".") and not isinstance(caught.value, Refused)


def test_a_missing_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="cannot be read"):
        open_table(tmp_path / "none.csv", split="all")
