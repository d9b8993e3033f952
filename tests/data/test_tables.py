"""Tables of pictures: the column names people have, separators, and rows that cannot be used."""

import json
import os
import time
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
    words = ["is empty", "not UTF-8", "line 4 names no image", "network address", "cannot be opened", "is empty"]
    for index, expected in enumerate(words):
        with pytest.raises(Refused, match=expected):
            source[index]
    assert source[6].caption == "fine" and len(source) == 7


def test_broken_json_lines_are_refused_one_by_one(tmp_path: Path) -> None:
    good = '{"image": "images/1.png", "text": "one"}'
    source = table(tmp_path, "\n".join([good, "{", "[1]", '{"image": 3, "text": "x"}', "[" * 100_000]), "t.jsonl")
    assert source[0].caption == "one" and len(source) == 5
    for index in range(1, 5):
        with pytest.raises(Refused, match=f"line {index + 1} names no image"):
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


def problem(source, index: int) -> str:
    with pytest.raises(Refused) as caught:
        source[index]
    return str(caught.value)


def test_a_caption_is_never_cut_at_a_comma(tmp_path: Path) -> None:
    rows = 'images/0.png,a red thing, big\nimages/1.png,fine,,\nimages/2.png,"red, big"\n'
    source = table(tmp_path, f"path,text\n{rows}")
    assert "line 2 (images/0.png) is left out: it has 3 fields under a header of 2" in problem(source, 0)
    assert [source[index].caption for index in (1, 2)] == ["fine", "red, big"], "empty fields at the end lose nothing"


@pytest.mark.parametrize(
    ("lines", "bad"),
    [
        (['images/0.png,"zero', "images/1.png,one", 'images/2.png,"two, tall"', "images/3.png,three"], [0]),
        (['images/0.png,"zero', "images/1.png,one", 'images/2.png,two"', "images/3.png,three"], [0]),
        (["images/0.png,zero", "images/1.png,one", 'images/2.png,"two', "images/3.png,three"], [2]),
        (['images/0.png,"zero" and', 'images/1.png,"one', 'images/2.png,"two', "images/3.png,three"], [0, 1, 2]),
        (['images/0.png,he said "no" to it', 'images/1.png,"one"', 'images/2.png,2 inches"', "images/3.png,three"], []),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_open_quote_swallows_no_rows(tmp_path: Path, lines: list[str], bad: list[int], end: str) -> None:
    source = table(tmp_path, end.join(["path,text", *lines]) + end)
    assert len(source) == 4
    for index in range(4):
        if index in bad:
            assert f"line {index + 2} (images/{index}.png) is left out: its quotes are not" in problem(source, index)
        else:
            assert source[index].key == f"images/{index}.png" and source[index].image[0, 0, 0] == index


def test_a_caption_of_several_lines_stays_whole(tmp_path: Path) -> None:
    source = table(tmp_path, 'path,text\nimages/0.png,"one, two\nthree, four\n\nfive"\nimages/1.png,six\n')
    assert source[0].caption == "one, two\nthree, four\n\nfive" and source[1].caption == "six"


def test_many_open_quotes_take_no_longer(tmp_path: Path) -> None:
    begin = time.process_time()
    source = table(tmp_path, "path,text\n" + 'images/1.png,"a\n' * 2_000 + 'x,a""b\n' * 2_000 + "images/2.png,two\n")
    assert time.process_time() - begin < 4 and source[len(source) - 1].caption == "two"


def test_a_column_that_stands_twice_is_said(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="has the column text twice"):
        table(tmp_path, "path,text,Text\nimages/0.png,a,b\n")


def test_rows_that_other_rows_make_up_for_are_counted(tmp_path: Path) -> None:
    rows = "images/1.png,one,cat\nimages/1.png,,cat\nimages/1.png,uno,dog\n"
    source = table(tmp_path, f"image,caption,label\n{rows}")
    assert source[0].captions == ("one", "uno") and source[0].label == "cat"
    first, second = source.notices
    assert "1 row is left out, as other rows have the same image" in first
    assert "1 row is about an image that has another category already" in second and "(cat, dog)" in second


@pytest.mark.parametrize("label", ["3.0", "3", '"3"'])
def test_labels_that_a_table_made_fractions_of_are_whole(tmp_path: Path, label: str) -> None:
    assert table(tmp_path, f'{{"image": "images/0.png", "text": "zero", "label": {label}}}', "t.jsonl")[0].label == "3"


def test_lone_surrogates_are_refused_and_never_break_anything(tmp_path: Path) -> None:
    rows = [
        '{"image": "images/0.png", "text": "half \\ud83d"}',
        '{"image": "images/1.png", "text": "one", "label": "\\ud83d"}',
        '{"image": "\\ud83d.png", "text": "two"}',
        '{"image": "images/3.png", "text": "\\ud83d\\ude00"}',
        '{"\\ud83d": 3, "image": "images/2.png", "text": "fine"}',
    ]
    source = table(tmp_path, "\n".join(rows), "t.jsonl")
    for index, words in enumerate(("not UTF-8", "not UTF-8", "cannot be opened")):
        assert words in problem(source, index)
        problem(source, index).encode("utf-8")
    assert source[3].caption == "\U0001f600" and source[4].caption == "fine" and source.fingerprint
    with pytest.raises(RizbinError) as caught:
        table(tmp_path, '{"\\ud83d": 3}', "t.jsonl")
    str(caught.value).encode("utf-8")


def test_paths_as_windows_writes_them(tmp_path: Path) -> None:
    source = table(tmp_path, "path,text\r\nimages\\1.png,one\r\nimages/1.png,uno\r\nC:\\data\\2.png,two\r\n")
    assert (source[0].key, source[0].captions) == ("images/1.png", ("one", "uno"))
    assert "cannot be opened" in problem(source, 1)


def test_names_with_accents_apart_are_found(tmp_path: Path) -> None:
    apart, whole = "cafe\u0301.png", "caf\u00e9.png"
    write(tmp_path / "images" / apart, 7)
    assert table(tmp_path, f"path,text\nimages/{whole},seven\n")[0].image[0, 0, 0] == 7
    (tmp_path / "images" / apart).rename(tmp_path / "images" / whole)
    assert table(tmp_path, f"path,text\nimages/{apart},seven\n")[0].image[0, 0, 0] == 7


def test_what_is_no_table_is_not_read_whole(tmp_path: Path) -> None:
    for name, words in (("pipe.csv", "no regular file"), ("zeros.csv", "zero bytes")):
        path = tmp_path / name
        if name.startswith("pipe"):
            os.mkfifo(path)
        else:
            with path.open("wb") as file:
                file.truncate(2**36)
        with pytest.raises(RizbinError, match=words):
            open_table(path, split="all")


def test_a_missing_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="cannot be read"):
        open_table(tmp_path / "none.csv", split="all")
