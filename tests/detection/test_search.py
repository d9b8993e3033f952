"""Whole searches, from files to answers, and the two commands, with an untrained network in a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.detection.detector import Detector, Preparation
from rizbin.detection.presence import Calibration
from rizbin.detection.search import Search, save, search
from tests.detection.toys import Shapes, tiny, tokenizer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and four pictures, one of them broken."""
    folder = tmp_path_factory.mktemp("search")
    Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128)).save(folder / "model")
    (folder / "pictures/deep").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(Shapes()[number].image).save(folder / f"pictures/{number}.png")
    Image.fromarray(Shapes()[3].image[:, :70]).save(folder / "pictures/deep/3.png")
    (folder / "pictures/broken.png").write_bytes(b"no picture")
    return folder


LOOSE = Search(threshold=0.0, nms_iou=1.0)


def test_every_picture_is_looked_at_and_the_broken_one_is_named(place: Path, tmp_path: Path) -> None:
    said: list[str] = []
    detector = Detector.from_pretrained(place / "model")
    found = search(
        detector, [str(place / "pictures")], ["cat", "dog"], settings=LOOSE, draw=tmp_path / "d", say=said.append
    )
    assert [one.file for one in found.images] == ["0.png", "1.png", "2.png", "deep/3.png"]
    assert len(found.skipped) == 1 and "broken.png" in found.skipped[0]
    assert len(said) == 1 and "5 images, about" in said[0]
    assert all(len(one.answer) == 10 for one in found.images), "each query answers once"
    assert len(list((tmp_path / "d").glob("*.png"))) == 4
    (alone,) = detector.detect([Shapes()[0].image], ["cat", "dog"])
    np.testing.assert_allclose(found.images[0].answer.boxes, alone.choose(0.0, nms_iou=1.0).boxes, atol=1e-2)


def test_two_files_of_one_name_are_told_apart(place: Path, tmp_path: Path) -> None:
    detector = Detector.from_pretrained(place / "model")
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.fromarray(Shapes()[0].image).save(tmp_path / folder / "a.png")
    where = [str(tmp_path / name) for name in ("x/a.png", "y/a.png")]
    found = search(detector, where, ["cat"], settings=LOOSE)
    assert [one.file for one in found.images] == ["x/a.png", "y/a.png"]
    save(found, tmp_path / "o.json")
    source = open_source(str(tmp_path / "o.json"), split="all")
    assert [source[index].key for index in range(2)] == ["x/a.png", "y/a.png"]


def test_rivals_take_boxes_and_are_no_answers(place: Path) -> None:
    detector = Detector.from_pretrained(place / "model")
    where = [str(place / "pictures/0.png")]
    free = search(detector, where, ["cat"], settings=LOOSE).images[0].answer
    found = search(detector, where, ["cat"], rivals=["dog", "bird", "cat"], settings=LOOSE)
    assert found.names == ("cat",) and set(found.images[0].answer.labels) <= {"cat"}
    assert len(found.images[0].answer) < len(free)


def test_nothing_to_look_at_gets_a_sentence(place: Path) -> None:
    detector = Detector.from_pretrained(place / "model")
    with pytest.raises(RizbinError, match="no images to look at"):
        search(detector, [], ["cat"])
    with pytest.raises(RizbinError, match=r"The image cannot be used: .*broken"):
        search(detector, [str(place / "pictures/broken.png")], ["cat"])
    with pytest.raises(RizbinError, match="no images in"):
        search(detector, [str(place / "nothing*.png")], ["cat"])


def test_the_command_says_and_writes(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = f"detect {place}/pictures/*.png --model {place}/model --threshold 0 --nms-iou 1 --quiet".split()
    words += ["--find", "cat", "--find", "thing=red disc|a zeppelin", "--distractor", "dog", "--per-class", "cat=1.0"]
    assert cli.main([*words, "--output", str(tmp_path / "found.json"), "--draw", str(tmp_path / "drawn")]) == 0
    said = capsys.readouterr().out
    assert "0.png: thing 0." in said and "cat 0." not in said
    assert "broken.png" in said and 'knows no word of "zeppelin"' not in said, "it knows the a of it"
    kept = json.loads((tmp_path / "found.json").read_text())
    assert [one["name"] for one in kept["categories"]] == ["cat", "thing"]
    assert {one["category_id"] for one in kept["annotations"]} == {2}
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 3


def test_verify_ends_with_a_code_for_scripts(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["verify", f"{place}/pictures/0.png", "cat", "red disc", "--model", f"{place}/model"]
    assert cli.main(words) == 1
    assert capsys.readouterr().out.splitlines()[0].startswith("cat: absent (0.")
    for offset, code, state in ((30.0, 0, "present"), (3.5, 3, "unsure")):
        Calibration(slope=1.0, offset=offset, threshold=0.0).save(tmp_path / "calibration.json")
        assert cli.main([*words, "--calibration", str(tmp_path / "calibration.json")]) == code
        assert f"red disc: {state}" in capsys.readouterr().out
    Calibration(slope=1.0, offset=30.0).save(place / "model/calibration.json")
    try:
        assert cli.main(words) == 0, "beside the model it is found by itself"
    finally:
        (place / "model/calibration.json").unlink()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["detect"], "IMAGES is missing"),
        (["detect", "x.png"], "nothing to look for"),
        (["detect", "x.png", "--find", "..."], "no word"),
        (["detect", "x.png", "--find", "cat", "--per-class", "cat"], "no threshold of a name"),
        (["detect", "x.png", "--find", "cat", "--per-class", "cat=much"], "no threshold of a name"),
        (["detect", "y.png", "--find", "cat", "--model", "no/such/folder"], "y.png is neither a file"),
        (["verify", "x.png", "cat", "--model", "no/such/folder"], "neither a folder no/such/folder"),
        (["verify", "x.png"], "PHRASES is missing"),
    ],
)
def test_bad_words_get_a_sentence(
    words: list[str], said: str, empty_folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("x.png")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err


def test_the_same_from_python(place: Path) -> None:
    found = rizbin.detect(f"{place}/pictures/1.png", [{"shape": ["red disc"]}], model=place / "model", quiet=True)
    assert found.names == ("shape",)
    (verdict,) = rizbin.verify(place / "pictures/1.png", ["cat"], model=place / "model")
    assert verdict.state == "absent"
