"""Large JSON files in pieces: the same as the parser of the whole gives, in bounded memory, whatever the pieces."""

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from rizbin.core.errors import RizbinError
from rizbin.data import records
from rizbin.data.coco_file import read_file
from rizbin.data.records import PackedRecords, read_lists

FIELDS = {"a": ("id", "deep", "text"), "b": ("id",)}
TRICKY = [
    {
        "info": {"x": [1, {"y": "]}"}]},
        "a": [{"id": 1}, {"id": 2.5e-3, "deep": [[1, -2], {"k": None}], "more": 1}],
        "b": [],
    },
    {"b": [{"id": True}], "n": 12, "a": [{"text": 'é \ud800 \\ " \n 😀', "id": None}, {}], "z": "end", "t": False},
    {"a": [], "b": [{"id": 10**30}, {"id": float("inf")}]},
]


def expected(content: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [{field: record[field] for field in FIELDS[name] if field in record} for record in value]
        for name, value in content.items()
        if name in FIELDS
    }


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 2**20])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_pieces_of_any_size_give_the_same(
    chunk: int, ascii_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "CHUNK", chunk)
    path = tmp_path / "t.json"
    for content in TRICKY:
        for indent in (None, 1):
            text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
            for mark in (b"", b"\xef\xbb\xbf"):
                path.write_bytes(mark + text.encode("utf-8", "surrogatepass") + b" \n")
                found = read_lists(path, FIELDS, 2**20)
                assert found is not None
                assert {name: list(value) for name, value in found.items()} == expected(json.loads(text))


@pytest.mark.parametrize("chunk", [3, 2**20])
def test_what_is_no_json_is_refused_as_the_parser_refuses_it(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "CHUNK", chunk)
    draw, path = random.Random(0), tmp_path / "t.json"
    whole = json.dumps(TRICKY[0])
    for _ in range(300):
        place = draw.randrange(len(whole))
        text = (
            whole[:place]
            + draw.choice(["", '"', "]", "}", ",", "1", "\\", "nul"])
            + whole[place + draw.choice([0, 1]) :]
        )
        path.write_text(text, encoding="utf-8")
        try:
            content = json.loads(text)
        except ValueError:
            with pytest.raises(ValueError):
                read_lists(path, FIELDS, 2**20)
            continue
        found = read_lists(path, FIELDS, 2**20)
        lists = [content.get(name) for name in FIELDS if name in content]
        if any(not isinstance(value, list) or not all(isinstance(one, dict) for one in value) for value in lists):
            assert found is None
        else:
            assert found is not None and {name: list(value) for name, value in found.items()} == expected(content)


def test_a_record_without_an_end_is_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_RECORD", 2**16)
    monkeypatch.setattr(records, "CHUNK", 2**10)
    path = tmp_path / "t.json"
    path.write_text('{"images": [], "annotations": [{"id": "' + "x" * 2**20)
    with pytest.raises(RizbinError, match=r"t\.json is no JSON \(a record in it has more than"):
        read_file(path)


def test_a_file_takes_about_its_size_in_memory(tmp_path: Path) -> None:
    """Python's objects for these annotations take five times the file."""
    draw = random.Random(0)
    annotations = [
        {
            "id": number,
            "image_id": number // 8,
            "category_id": draw.randrange(80),
            "bbox": [round(draw.uniform(0, 600), 2) for _ in range(4)],
            "segmentation": [[round(draw.uniform(0, 600), 2) for _ in range(40)]],
            "area": 12.5,
            "iscrowd": 0,
        }
        for number in range(6_000)
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"annotations": annotations, "images": [{"id": 0, "file_name": "0.png"}]}))
    size = path.stat().st_size
    tracemalloc.start()
    try:
        found = read_file(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.5 * size + 8 * records.CHUNK
    assert found.annotations[5]["segmentation"] == annotations[5]["segmentation"]
    assert [record["id"] for record in found.annotations.drained()] == list(range(6_000))
    assert len(found.annotations) == 0


def test_records_are_a_sequence() -> None:
    numbers = PackedRecords(("id",))
    for number in range(3):
        numbers.append({"id": number, "more": "x"})
    numbers.append({})
    assert list(numbers + numbers)[4:] == [{"id": 0}, {"id": 1}, {"id": 2}, {}]
    assert numbers[1:3] == [{"id": 1}, {"id": 2}] and numbers[-1] == {}
