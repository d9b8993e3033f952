"""A detector as ONNX: the text's mask is transformers' own, the file answers as the network, faults are sentences."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rizbin
from rizbin.core.errors import RizbinError
from rizbin.detection import onnx as room
from rizbin.detection.detector import Detector, Preparation
from rizbin.detection.explain import explain
from rizbin.detection.onnx import OnnxDetector, export_onnx, text_mask
from rizbin.workflows.load import load_detector
from tests.detection.toys import Shapes, text_of, tiny, tokenizer

NAMES = ["red disc", "cat", "blue square"]


@pytest.mark.parametrize("names", [["cat"], ["cat", "red disc"], ["a red disc", "a dog", "tree", "a bird"]])
def test_the_mask_is_that_of_transformers(names: list[str]) -> None:
    stock: Any = importlib.import_module("transformers.models.mm_grounding_dino.modeling_mm_grounding_dino")
    ids = torch.tensor(text_of(*names).ids)
    special = tiny().model.special_tokens
    mask, positions = stock.generate_masks_with_special_tokens_and_transfer_map(ids[None], special)
    mine, places = text_mask(ids)
    assert torch.equal(mine, mask[0].bool()) and torch.equal(places, positions[0])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path, float]:
    detector = Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128))
    folder = tmp_path_factory.mktemp("onnx")
    return detector, folder, export_onnx(detector, folder)


def test_the_file_answers_as_the_network_for_texts_of_any_length(exported: tuple[Detector, Path, float]) -> None:
    detector, folder, apart = exported
    assert apart < 1e-4
    pictures = [Shapes(size=64)[index].image for index in range(3)]
    for names in (NAMES[:1], NAMES, [*NAMES, "dog", "a bird", "tree"]):
        mine, theirs = (one.detect(pictures, names) for one in (detector, OnnxDetector(folder, threads=1)))
        for a, b in zip(mine, theirs, strict=True):
            assert np.abs(a.boxes - b.boxes).max() < 1e-2 and np.abs(a.scores - b.scores).max() < 1e-4


def test_any_picture_is_brought_to_the_size_of_the_export(exported: tuple[Detector, Path, float]) -> None:
    detector = load_detector(exported[1])
    assert isinstance(detector, OnnxDetector) and detector.longest_text == 64
    (found,) = detector.detect([np.zeros((50, 200, 3), np.uint8)], NAMES)
    assert (found.width, found.height) == (200, 50) and found.boxes[:, 2].max() <= 200
    assert detector.expected_seconds((50, 200), NAMES) > 0
    with pytest.raises(RizbinError, match="shows no insides"):
        explain(detector, np.zeros((64, 64, 3), np.uint8), NAMES)
    with pytest.raises(RizbinError, match="at one size"):
        detector.detect([np.zeros((64, 64, 3), np.uint8)], NAMES, scale="fast")


def test_a_file_that_answers_otherwise_is_refused(
    exported: tuple[Detector, Path, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_single_precision", lambda path: None)
    monkeypatch.setattr(room, "_apart", lambda *_: float("nan"))
    monkeypatch.setattr(room, "OnnxDetector", lambda folder: None)
    with pytest.raises(RizbinError, match="answers otherwise"):
        export_onnx(exported[0], tmp_path / "bad")


def test_what_needs_the_network_itself_says_so(exported: tuple[Detector, Path, float]) -> None:
    with pytest.raises(RizbinError, match="exported for use"):
        rizbin.evaluate(exported[1], quiet=True)


def test_a_folder_without_an_export_is_said(exported: tuple[Detector, Path, float], tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="no exported detector"):
        OnnxDetector(tmp_path)
    for name in ("detector.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((exported[1] / name).read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(RizbinError, match="cannot be run"):
        OnnxDetector(tmp_path)
