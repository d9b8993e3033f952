"""Scenes written as tars come back as they were: pixels, captions, objects, masks; and nothing foreign is touched."""

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.data.render import Render
from rizbin.data.sample import LabeledObject, Refused, Sample
from rizbin.data.scenes import CREDIT, Scenes
from rizbin.data.shards import Shards
from tests.data.pictures import encode
from tests.data.test_shards import tar

SETTINGS = Render.Settings(data="scenes:detail,distractors=3,categories=40", count=25, size=64, shard=10)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIZBIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def assert_same(first: Sample, second: Sample, *, pixels: bool = True) -> None:
    assert (first.caption, first.label, first.relations) == (second.caption, second.label, second.relations)
    assert not pixels or np.array_equal(first.image, second.image)
    for ours, others in ((first.objects, second.objects), (first.distractors, second.distractors)):
        assert [(thing.name, thing.box) for thing in ours] == [(thing.name, thing.box) for thing in others]
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(ours, others, strict=True))


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_scenes_come_back_as_they_were(tmp_path: Path, form) -> None:
    rendered = Render(replace(SETTINGS, format=form)).write(tmp_path / "tars")
    assert rendered.written == 25 and rendered.present == 0 and not rendered.refused
    assert rendered.text().endswith(f"Read it by --data '{rendered.pattern}'.")
    scenes = Scenes(Scenes.Settings(preset="detail", distractors=3, categories=40, size=64))
    # Views of 8 pixels let large JPEGs be read at a part of their size; masks would then not fit.
    source = open_source(rendered.pattern, split="all", size=8)
    assert len(source) == 25 and source.categories == scenes.categories
    assert sum(len(source[index].distractors) for index in range(25)) > 30
    for index in range(25):
        assert_same(scenes[index], source[index], pixels=form == "png")
        difference = np.abs(scenes[index].image.astype(int) - source[index].image).mean()
        assert difference < (0.001 if form == "png" else 12)
    assert open_source(rendered.pattern, split="all").categories == scenes.categories, "from the index beside the tars"
    record = json.loads((tmp_path / "tars/render.json").read_text())
    assert record["credit"] == CREDIT and record["data"] == SETTINGS.data


def test_relations_and_labels_come_back(tmp_path: Path) -> None:
    rendered = Render(replace(SETTINGS, data="scenes:hard", start=100)).write(tmp_path / "tars")
    scenes, source = open_source("scenes:hard", size=64), open_source(rendered.pattern, split="all")
    assert sum(len(source[index].relations) for index in range(25)) > 10
    for index in range(25):
        assert_same(scenes[100 + index], source[index])


def test_stopped_and_started_again_it_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Render(SETTINGS).write(tmp_path / "straight")
    get = Scenes.__getitem__

    def stop(source: Scenes, index: int) -> Sample:
        if index == 14:
            raise KeyboardInterrupt
        return get(source, index)

    with monkeypatch.context() as patched:
        patched.setattr(Scenes, "__getitem__", stop)
        with pytest.raises(KeyboardInterrupt):
            Render(SETTINGS).write(tmp_path / "stopped")
    assert sorted(files(tmp_path / "stopped")) == ["000000000.tar", "render.json"], "no half shard, no draft"
    again = Render(SETTINGS).write(tmp_path / "stopped")
    assert (again.written, again.present) == (15, 10)
    assert files(tmp_path / "stopped") == files(tmp_path / "straight")
    third = Render(SETTINGS).write(tmp_path / "stopped")
    assert (third.written, third.present) == (0, 25)


def test_nothing_foreign_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, words in (("mine", "not rendered here"), ("file", "is a file")):
        with pytest.raises(RizbinError, match=words):
            Render(SETTINGS).write(tmp_path / name)
    assert files(tmp_path / "mine").keys() == {"notes.txt"} and (tmp_path / "file").read_text() == "mine"
    Render(SETTINGS).write(tmp_path / "tars")
    before = files(tmp_path / "tars")
    for change in ({"size": 48}, {"seed": 1}, {"count": 5}, {"format": "jpeg"}, {"data": "scenes:easy"}):
        with pytest.raises(RizbinError, match=f"another .*{next(iter(change))}"):
            Render(replace(SETTINGS, **change)).write(tmp_path / "tars")
    assert files(tmp_path / "tars") == before
    tar(tmp_path / "tars/000000010.tar", [("a.txt", b"mine")])
    before = files(tmp_path / "tars")
    with pytest.raises(RizbinError, match=r"000000010\.tar was not rendered here"):
        Render(SETTINGS).write(tmp_path / "tars")
    assert files(tmp_path / "tars") == before


def test_other_data_and_what_cannot_be_used(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / f"images/{number}.png").write_bytes(encode(number) if number != 2 else b"<html>")
        (tmp_path / f"images/{number}.txt").write_text(f"number {number}")
    settings = replace(SETTINGS, data=str(tmp_path / "images"), split="all", count=100)
    rendered = Render(settings).write(tmp_path / "tars")
    assert rendered.written == 5 and len(rendered.refused) == 1 and "could not be used" in rendered.text()
    source = open_source(rendered.pattern, split="all")
    assert [source[index].caption for index in range(5)] == [f"number {number}" for number in (0, 1, 3, 4, 5)]
    assert source[0].objects == ()
    with pytest.raises(RizbinError, match="none from 7 on"):
        Render(replace(settings, start=7)).write(tmp_path / "more")
    for change in ({"count": 0}, {"shard": 0}, {"start": -1}):
        with pytest.raises(RizbinError, match="1 or more"):
            Render(replace(settings, **change))


def test_hidden_objects_and_overlaps_of_other_data() -> None:
    """As COCO has them: the later object keeps shared pixels, a wholly hidden one is left out with its relations."""
    from rizbin.data.render import members

    masks = np.zeros((3, 8, 8), bool)
    masks[0, 2:4, 2:4] = masks[1, 1:5, 1:5] = masks[2, 4:8, 4:8] = True
    things = tuple(LabeledObject(name, (0, 0, 8, 8), mask) for name, mask in zip("abc", masks, strict=True))
    sample = Sample("x", np.zeros((8, 8, 3), np.uint8), "c", objects=things, relations=((0, "on", 1), (1, "by", 2)))
    written = dict(members(sample))
    record = json.loads(written[".json"])
    assert [row["name"] for row in record["objects"]] == ["b", "c"] and record["relations"] == [[0, "by", 1]]
    image = cv2.imdecode(np.frombuffer(written[".masks.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(image == 1, masks[1] & ~masks[2]) and np.array_equal(image == 2, masks[2])
    many = tuple(LabeledObject("a", (0, 0, 1, 1), np.arange(400).reshape(20, 20) == number) for number in range(300))
    with pytest.raises(Refused, match="300 objects"):
        list(members(Sample("x", np.zeros((20, 20, 3), np.uint8), "c", objects=many)))


def indices(*values: int, shape: tuple[int, int] = (8, 8)) -> bytes:
    """A gray PNG whose first pixels have these values."""
    image = np.zeros(shape, np.uint8)
    image.flat[: len(values)] = values
    return cv2.imencode(".png", image)[1].tobytes()


COLORS = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
IMAGE = COLORS
LOSSY = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes()
CAT = b'{"caption": "a cat", "objects": [{"name": "cat"}]}'


@pytest.mark.parametrize(
    ("masks", "record", "words"),
    [
        (indices(1, 2), CAT, "hold 2 objects, its JSON 1"),
        (indices(0), CAT, "no pixel"),
        (indices(1), b'{"objects": [{"name": ""}]}', "no name"),
        (indices(1), b'{"objects": ["cat"]}', "no name"),
        (indices(1, shape=(8, 9)), CAT, "in one size"),
        (COLORS, CAT, "mode RGB"),
        (LOSSY, CAT, "no PNG"),
        (b"<html>", CAT, "a web page"),
        (indices(1), b"{", "JSON of a.tar/a is broken"),
        (indices(1), CAT[:-1] + b', "relations": [[0, "by", 1]]}', "not there"),
        (indices(1), CAT[:-1] + b', "relations": 7}', "no list"),
    ],
)
def test_masks_that_do_not_fit_are_refused_in_a_sentence(
    tmp_path: Path, masks: bytes, record: bytes, words: str
) -> None:
    path = tar(tmp_path / "a.tar", [("a.png", IMAGE), ("a.txt", b"a cat"), ("a.json", record), ("a.masks.png", masks)])
    with pytest.raises(Refused, match=words):
        Shards(str(path), split="all")[0]


def test_masks_without_objects_are_another_softwares(tmp_path: Path) -> None:
    for record in (b'{"caption": "a cat"}', b"[]", b'{"objects": 3}'):
        path = tar(tmp_path / "a.tar", [("a.png", IMAGE), ("a.txt", b"x"), ("a.json", record), ("a.masks.png", b"?")])
        sample = Shards(str(path), split="all")[0]
        assert sample.objects == () and sample.caption == "x"


def test_names_come_from_the_objects_where_there_is_no_header(tmp_path: Path) -> None:
    record = b'{"objects": [{"name": "cat"}, {"name": "key", "distractor": true}]}'
    members = [("a.png", IMAGE), ("a.txt", b"x"), ("a.json", record), ("a.masks.png", indices(1, 2))]
    source = Shards(str(tar(tmp_path / "a.tar", members)), split="all")
    assert source.categories == ("cat",) and source[0].names == {"cat"}
    assert [thing.name for thing in source[0].distractors] == ["key"] and source[0].objects[0].box == (0, 0, 1, 1)
    sidecar = tmp_path / "a.tar.index.json"
    index = json.loads(sidecar.read_text())
    assert index["categories"] == ["cat"]
    index["tar"][0] = 1  # left by a version that passed masks over
    sidecar.write_text(json.dumps(index))
    assert Shards(str(tmp_path / "a.tar"), split="all")[0].names == {"cat"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "render", "scenes:easy", "--count", "4", "--size", "32", "-o", str(tmp_path / "tars")]
    assert cli.main(words) == 0
    assert "4 samples written" in capsys.readouterr().out
    assert cli.main(words) == 0
    assert "4 were there already" in capsys.readouterr().out
    with tarfile.open(tmp_path / "tars/000000000.tar") as file:
        assert file.getnames()[0] == ".rizbin.json"
    assert cli.main(["data", "rendr"]) == 2 and "'render'" in capsys.readouterr().err
    assert cli.main(["data", "render", "scenes:easy"]) == 2 and "--output is missing" in capsys.readouterr().err
