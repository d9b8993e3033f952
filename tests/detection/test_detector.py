"""The detector with a small untrained network: frames, names and passes, beside transformers' own processing."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GroundingDinoImageProcessor

from rizbin.core.errors import RizbinError
from rizbin.data.sample import Refused
from rizbin.detection.detector import Detector, Preparation, into_image, places
from rizbin.detection.presence import Calibration
from rizbin.workflows.load import calibration_of
from tests.detection.toys import tiny, tokenizer

SMALL = Preparation(shorter=64, longer=128)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(tiny(), tokenizer(), SMALL)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def test_it_gives_what_transformers_gives(detector: Detector) -> None:
    """Same network, same boxes; and for each phrase the mean over its own tokens."""
    one = picture(64, 100)  # its own size: an untrained network's order of boxes turns on rounded gray values
    processor = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    pixels = processor(images=[Image.fromarray(one)], return_tensors="pt")["pixel_values"]
    ids = torch.tensor([tokenizer().encode("cat. a red disc. bird.")])
    with torch.no_grad():
        outputs = detector.model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
    (found,) = detector.detect([one], ["cat", "a red disc", "bird"])
    center, side = outputs.pred_boxes[0].split(2, dim=1)
    corners = torch.cat([center - side / 2, center + side / 2], dim=1) * torch.tensor([100, 64, 100, 64])
    expected = corners.clamp(min=0).minimum(torch.tensor([100, 64, 100, 64]))
    assert np.abs(found.boxes - expected.numpy()).max() < 1e-3
    probabilities = outputs.logits[0].sigmoid()
    # Tokens of "a red disc" without the article: articles never decide.
    means = torch.stack([probabilities[:, 1], probabilities[:, 4:6].mean(1), probabilities[:, 7]], dim=1)
    assert np.abs(found.scores - means.numpy()).max() < 1e-5
    assert (found.width, found.height) == (100, 64) and found.names == ("cat", "a red disc", "bird")


def test_pictures_are_resized_as_transformers_does() -> None:
    processor = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    for height, width in ((100, 170), (170, 100), (90, 300), (40, 50)):
        one = picture(height, width)
        theirs = processor(images=[Image.fromarray(one)], return_tensors="pt")["pixel_values"][0]
        ours = SMALL(one, SMALL.size(height, width))
        # Theirs reckons in whole gray values.
        assert ours.shape == theirs.shape and (ours - theirs).abs().max() < 1.1 / 255 / 0.224


def test_one_image_is_the_same_through_every_door(detector: Detector, tmp_path: Path) -> None:
    """As a path, from Pillow (turned by EXIF, with transparency) and as arrays in any order of memory."""
    one = picture(64, 100)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.rot90(one)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.dstack([one, np.full((64, 100), 255, np.uint8)])).save(tmp_path / "alpha.png")
    doors = [
        one,
        one[..., ::-1][..., ::-1],
        np.asfortranarray(one),
        np.dstack([one, np.full((64, 100), 255, np.uint8)]),
        (one / 255).astype(np.float32),
        one.astype(np.uint16) * 257,
        tmp_path / "turned.png",
        str(tmp_path / "alpha.png"),
        Image.open(tmp_path / "turned.png"),
        Image.open(tmp_path / "alpha.png"),
    ]
    first, *others = detector.detect(doors, ["cat"])
    for other in others:
        np.testing.assert_allclose(other.scores, first.scores, atol=1e-5)
        np.testing.assert_allclose(other.boxes, first.boxes, atol=1e-3)
    assert len(detector.detect([one[..., 0]], ["cat"])[0].scores) == len(first.scores)
    for bad in (one.astype(np.float32), np.dstack([one, one[..., 0]]), one.transpose(2, 0, 1), "nowhere.png"):
        with pytest.raises(Refused, match=r"give RGB pixels, 0 to 255|cannot be opened"):
            detector.detect([bad], ["cat"])


def test_pictures_of_many_sizes_are_what_each_is_alone(detector: Detector) -> None:
    many = [picture(64, 64, 1), picture(90, 64, 2), picture(64, 64, 3), picture(200, 30, 4)]
    told: list[int] = []
    together = detector.detect(many, ["cat", "dog"], batch=2, advance=told.append)
    assert sum(told) == 4
    for one, found in zip(many, together, strict=True):
        (alone,) = detector.detect([one], ["cat", "dog"])
        assert np.abs(found.boxes - alone.boxes).max() < 1e-2
        assert np.abs(found.scores - alone.scores).max() < 1e-4
        assert found.boxes.min() >= 0 and (found.boxes[:, 2:] <= [found.width, found.height]).all()


def test_more_phrases_than_a_text_holds_are_all_asked_for(detector: Detector) -> None:
    names = [f"a red disc {'a ' * number}cat" for number in range(12)]
    (found,) = detector.detect([picture(64, 64)], names)
    assert found.scores.shape[1] == 12 and "passes" in found.notes[0]
    assert not np.isnan(found.scores).all(axis=0).any()
    assert np.isnan(found.scores).any(), "a box of one pass has no score for another's phrases"
    (alone,) = detector.detect([picture(64, 64)], ["cat", "dog"], separate=True)
    (cat,) = detector.detect([picture(64, 64)], ["cat"])
    assert np.allclose(alone.scores[: len(cat.scores), 0], cat.scores[:, 0], atol=1e-5)


def test_tiles_cover_the_picture_and_cut_boxes_are_left_out(detector: Detector) -> None:
    for height, width in ((100, 100), (150, 230), (64, 300), (20, 20)):
        covered = np.zeros((height, width), int)
        cut_into = places(height, width, 64, 0.25)
        assert cut_into[0] == (0, 0, width, height)
        for left, top, right, bottom in cut_into[1:]:
            assert right - left <= 64 and bottom - top <= 64
            covered[top:bottom, left:right] += 1
        assert covered.min() >= 1 or len(cut_into) == 1
    boxes = np.array([[0.25, 0.25, 0.75, 0.75], [0.0, 0.25, 0.5, 0.5], [0.5, 0.5, 1.0, 0.9]], np.float32)
    moved, whole = into_image(boxes, (100, 0, 164, 64), (64, 164))
    np.testing.assert_allclose(moved[0], [116, 16, 148, 48])
    assert whole.tolist() == [True, False, True], "the right border of the tile is the picture's own"
    whole_only = detector.detect([picture(64, 200)], ["cat"])[0]
    tiled = detector.detect([picture(64, 200)], ["cat"], tile=64)[0]
    assert len(tiled.boxes) > len(whole_only.boxes)
    assert np.abs(tiled.boxes[: len(whole_only.boxes)] - whole_only.boxes).max() < 1e-2


def test_smaller_pictures_are_quicker_and_shapes_are_kept() -> None:
    assert Preparation().size(480, 640) == (800, 1066)
    assert Preparation().size(640, 480) == (1066, 800)
    assert Preparation().size(100, 1000) == (133, 1333)
    assert Preparation().size(480, 640, 0.6) == (480, 640)
    assert Preparation().size(480, 640, 0.4) == (320, 426)


def test_it_is_kept_in_a_folder_that_transformers_reads(detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "kept")
    again = Detector.from_pretrained(tmp_path / "kept")
    assert again.preparation == SMALL
    (one,), (other,) = (each.detect([picture(64, 80)], ["cat", "a blue square"]) for each in (detector, again))
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-4)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
    from transformers import AutoModelForZeroShotObjectDetection

    assert AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path / "kept").config.num_queries == 10


@pytest.mark.parametrize("change", [{"size": {"shortest_edge": 10**12}}, {"image_std": [1, 0, 1]}, {"size": [3]}, [1]])
def test_a_preparation_that_cannot_be_is_said(detector: Detector, tmp_path: Path, change: object) -> None:
    detector.save(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(change))
    with pytest.raises(RizbinError, match="what cannot be"):
        Detector.from_pretrained(tmp_path)


def test_bad_input_gets_a_sentence(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(Refused, match=r"broken\.png"):
        detector.detect([broken], ["cat"])
    with pytest.raises(RizbinError, match="scale is 9"):
        detector.detect([picture(64, 64)], ["cat"], scale=9.0)
    with pytest.raises(RizbinError, match="Tiles of 64 pixels that repeat 1"):
        detector.detect([picture(64, 64)], ["cat"], tile=64, tile_overlap=1.0)
    with pytest.raises(RizbinError, match="nothing to look for"):
        detector.detect([picture(64, 64)], [])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RizbinError, match="could not be loaded"):
        Detector.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RizbinError, match="is a bert, not a Grounding DINO"):
        Detector.from_pretrained(tmp_path / "bert")


def test_words_that_nobody_taught_are_named(detector: Detector) -> None:
    (found,) = detector.detect([picture(64, 64)], ["zeppelin", "cat"])
    assert any("knows no word" in note and "zeppelin" in note for note in found.notes)
    assert found.names == ("zeppelin", "cat") and found.unasked == (0,)
    assert (
        np.isnan(found.scores[:, 0]).all()
        and len(found.choose(0.0).labels)
        and "zeppelin" not in found.choose(0.0).labels
    )
    (nothing,) = detector.detect([picture(64, 64)], ["zeppelin"])
    assert len(nothing.choose(0.0)) == 0 and detector.expected_seconds((64, 64), ["zeppelin"]) == 0
    (whole,), (partly,) = (detector.detect([picture(64, 64)], [one]) for one in ("cat", "a brave cat"))
    assert np.allclose(whole.scores[:, 0], partly.scores[:, 0], atol=0.2) and "brave" in partly.notes[0]


@pytest.mark.parametrize("batch", [0, -1])
def test_a_pass_of_no_pictures_is_refused(detector: Detector, batch: int) -> None:
    with pytest.raises(RizbinError, match=f"batch is {batch}; give 1 or more"):
        detector.detect([picture(64, 64)], ["cat"], batch=batch)


def test_without_transformers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RizbinError, match=r"pip install 'rizbin\[detect\]'"):
        Detector.from_pretrained("anything")


def test_the_time_told_beforehand_counts_tiles_and_texts(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("rizbin.detection.detector.time.perf_counter", lambda: float(next(clock)))  # a look takes 1
    assert detector.expected_seconds((64, 64), ["cat", "dog"]) == 1
    assert detector.expected_seconds((64, 64), ["cat", "dog"], separate=True) == 2
    # The whole at 64 x 128, as the look was, and two tiles of half its pixels each.
    assert detector.expected_seconds((64, 128), ["cat"], tile=64, tile_overlap=0.0) == 2
    large = Detector(detector.model, detector.tokenizer, Preparation(shorter=256, longer=512))
    assert large.expected_seconds((256, 256), ["cat"]) == 4, "a look at half the sides"


def test_what_lies_beside_the_weights_is_looked_for_there_alone(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is for messages: a folder that happens to be called so is not the detector's."""
    detector.save(tmp_path / "model")
    Calibration(threshold=0.25).save(tmp_path / "model/calibration.json")
    loaded = Detector.from_pretrained(tmp_path / "model")
    assert loaded.folder == tmp_path / "model"
    assert calibration_of(loaded) == Calibration(threshold=0.25)
    loaded.name = "another name"
    assert calibration_of(loaded) == Calibration(threshold=0.25)
    monkeypatch.chdir(tmp_path)
    named = Detector(detector.model, detector.tokenizer, detector.preparation, name="model")
    assert named.folder is None and calibration_of(named) is None
