"""--dense of evaluate and of visualize words: other numbers, a protocol that says so, a guide that is asked for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rizbin.core.errors import RizbinError
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip
from rizbin.workflows.evaluate_model import EvaluateEncoder, evaluate
from rizbin.workflows.visualize import draw, settings_of
from tests.models.small import save_dinov2
from tests.toys import NANO


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    save_open_clip(ImageTextPair(NANO).eval(), folder / "pair")
    save_dinov2(folder / "guide")
    return folder / "pair", folder / "guide"


def test_evaluate_reads_patches_so_and_says_so(models: tuple[Path, Path]) -> None:
    pair, guide = models
    few: dict[str, Any] = {
        "images": 12,
        "train_images": 12,
        "data": "scenes:easy,categories=6",
        "quiet": True,
        "device": "cpu",
    }
    plain = evaluate.run(EvaluateEncoder(model=str(pair), **few))
    ways: dict[Any, str] = {"naclip": "", "proxyclip": str(guide)}
    for dense, led in ways.items():
        report = evaluate.run(EvaluateEncoder(model=str(pair), dense=dense, guide=led, **few))
        name = "segmentation/zero_shot/patch_accuracy"
        assert "CLIP (arXiv 24" in report[name].protocol and "arXiv 24" not in plain[name].protocol
        # Whole images are read as before.
        assert report["zero_shot/top1"].value == plain["zero_shot/top1"].value
        assert report["zero_shot/top1"].protocol == plain["zero_shot/top1"].protocol
        assert report[name].baseline is not None  # random weights are read alike
    with pytest.raises(RizbinError, match="--guide"):
        evaluate.run(EvaluateEncoder(model=str(pair), dense="proxyclip", **few))


def test_words_are_shown_so(models: tuple[Path, Path], tmp_path: Path) -> None:
    pair, guide = models
    options: dict[str, Any] = {"limit": 1, "words": ("a cat",), "device": "cpu"}
    for place, more in (
        ("a", {"dense": "sclip", "dense_head": "windows"}),
        ("b", {"dense": "proxyclip", "guide": str(guide)}),
    ):
        kind: Any = settings_of("words")
        page = draw("words", kind(model=str(pair), images="scenes:easy", output=tmp_path / place, **options, **more))
        assert page.is_file()
