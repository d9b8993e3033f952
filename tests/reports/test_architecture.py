"""DetailCLIP drawn from the live model: shapes are those of the pass, and a batch is followed through it."""

from pathlib import Path

import pytest
import torch

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.methods.detailclip import DetailCLIP
from rizbin.pages.page import Page
from rizbin.reports.architecture import TERMS, diagram, show_architecture, trace
from rizbin.workflows.visualize import names
from tests.toys import build

CAPTIONS = ("a cat", "two dogs left of a bus")


def whole(**changes: object) -> tuple[DetailCLIP, torch.Tensor]:
    method = build("detailclip", {"hide": "random", "phrase_weight": 1.0, "late_start": 0.0, **changes})
    assert isinstance(method, DetailCLIP)
    size = method.pair.image_size
    return method, torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_shapes_are_those_of_the_pass_and_nothing_is_changed() -> None:
    method, images = whole()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    traced = trace(method, images, CAPTIONS)
    assert {"student", "text", "teacher vision", "decoder", "pixels"} <= set(traced.parts)
    patches = (method.pair.image_size // method.pair.patch_size) ** 2
    rows = 2 * method.settings.view_count
    assert traced.parts["teacher vision"].shape == f"{rows} x (1 + {patches}) x {method.pair.vision.dim}"
    assert traced.parts["student"].parameters == sum(one.numel() for one in method.pair.vision.parameters())
    assert {"contrast", "phrase", "cls", "patch", "pixels"} <= set(traced.terms) <= set(TERMS)
    for name, gradient in traced.gradients.items():
        assert gradient.shape == (2, *images.shape[-2:]) and gradient.sum() > 0, name
    assert not any(module._forward_hooks for module in method.modules()), "hooks are taken off"
    weights = {name for name, _ in method.named_parameters()}
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items() if name in weights)


def test_only_parts_that_ran_are_drawn() -> None:
    method, images = whole(distillation=False, reconstruction=False, selection="none")
    traced = trace(method, images, CAPTIONS)
    svg = diagram(method, traced, 2)
    assert "decoder" not in traced.parts and "teacher (EMA)" not in svg and ">pixels<" not in svg
    assert ">student<" in svg and ">text tower<" in svg and ">CLIP<" in svg
    full, images = whole()
    drawn = diagram(full, trace(full, images, CAPTIONS), 2)
    for words in ("teacher (EMA)", "decoder", "hidden patches", "pixels", "CLIP", "phrases"):
        assert f">{words}<" in drawn, words


def test_the_page_follows_each_image() -> None:
    method, images = whole()
    objects = torch.zeros(2, *images.shape[-2:], dtype=torch.bool)
    objects[:, : objects.shape[1] // 2] = True
    page = Page("x")
    traced = show_architecture(page, method, images, CAPTIONS, objects)
    text = page.html()
    assert text.count("the teacher&#x27;s attention") == 2 and text.count("hidden, to be predicted") == 2
    assert text.count("the pixels it paints there") == 2
    assert all(text.count(f"gradient of {TERMS[name][0]}<") == 2 for name in traced.terms)
    assert "n/a" not in text and "n/a" in _without_masks(method, images)


def _without_masks(method: DetailCLIP, images: torch.Tensor) -> str:
    page = Page("x")
    show_architecture(page, method, images, CAPTIONS)
    return page.html()


def test_the_bundled_model_is_drawn_with_new_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = rizbin.visualize("architecture", "detailclip-mini", "scenes:easy", output=tmp_path, limit=2)
    text = page.read_text()
    assert page == tmp_path / "index.html" and "heads and decoder are new" in text and "OpenMoji" in text
    assert "architecture" in names() and cli.main(["visualize", "architecture", "--help"]) == 0
    assert "DetailCLIP's parts and losses" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(RizbinError):
        rizbin.visualize("architecture", "dino-mini", "scenes:easy", output=tmp_path)
    with pytest.raises(RizbinError, match="has not two images with captions"):
        rizbin.visualize("architecture", "detailclip-mini", "scenes:easy", output=tmp_path, limit=1)
