"""Adapters: they begin as nothing, they alone learn beside the heads, and they are gone from what is saved."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.detection.criterion import predictions
from rizbin.detection.detector import Detector
from rizbin.detection.fast import enable_fast_attention
from rizbin.detection.lora import ALPHA, HEADS, LowRank, adapt, merged
from rizbin.detection.phrases import PromptText, batch_of, build_prompts
from rizbin.detection.train import GroundingDINOTraining
from tests.detection.test_detector_training import SMALL, Shapes, folder, made, trainer
from tests.detection.toys import text_of, tiny

TEXTS = [text_of("cat", "a red disc"), text_of("dog")]
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def answers(model: nn.Module, texts: list[PromptText] = TEXTS) -> list[Tensor]:
    """Every layer's logits and boxes, without what padding leaves infinite."""
    ids, known = batch_of(texts)
    with torch.no_grad():
        layers = predictions(model, model(pixel_values=IMAGES, input_ids=ids, attention_mask=known.long()), known)
    return [value for one in layers for value in (one.logits.clamp(min=-50), one.boxes)]


def start(folder: Path) -> str:
    made(seed=3).detector().save(folder)
    return str(folder)


def adapted(path: Path, rank: int = 4, **changes: object) -> GroundingDINOTraining:
    return made(replace(SMALL, start=start(path), lora=rank, **changes))


def test_an_adapter_is_the_papers_formula() -> None:
    one = LowRank(5, 7, 2)
    weight = torch.randn(5, 7)
    assert torch.equal(one(weight), weight) and one.down.abs().sum() > 0
    nn.init.normal_(one.up)
    slow = weight.clone()
    for row in range(5):
        for column in range(7):
            slow[row, column] += sum(ALPHA / 2 * one.up[row, r].item() * one.down[r, column].item() for r in range(2))
    assert torch.allclose(one(weight), slow, atol=1e-5)


def test_at_the_start_nothing_has_changed() -> None:
    model = tiny().eval()
    before = answers(model)
    adapt(model, 4)
    for one, other in zip(answers(model), before, strict=True):
        assert torch.equal(one, other)


def test_the_faster_fusion_sees_adapters() -> None:
    model = tiny().eval()
    adapt(model, 4)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("_param"):
                value.fill_(1.0)  # fusion begins all but closed
    plain = answers(model)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "fusion_layer" in name and name.endswith(".0.up"):
                value.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    slow = answers(model)
    enable_fast_attention(model)
    fast = answers(model)
    assert torch.allclose(slow[0], fast[0], atol=1e-4) and (slow[0] - plain[0]).abs().max() > 1e-2


def is_head(name: str) -> bool:
    return bool(set(name.split(".")) & set(HEADS))


def test_adapters_and_heads_alone_learn(tmp_path: Path) -> None:
    method = adapted(tmp_path / "start")
    before = {name: value.clone() for name, value in method.named_parameters()}
    trainer(2).fit(method, Shapes(), folder(tmp_path / "run"), quiet=True)
    moved = {name for name, value in method.named_parameters() if not torch.equal(value, before[name])}
    assert all(is_head(name) or name.endswith((".0.up", ".0.down")) for name in moved)
    ups = {name for name in before if name.endswith(".0.up")}
    assert len(ups) > 40 and ups <= moved, "every adapter has moved"
    assert any(is_head(name) for name in moved)
    learning = sum(value.numel() for value in method.parameters() if value.requires_grad)
    assert learning < sum(value.numel() for value in method.parameters()) / 4


def test_frozen_parts_get_no_adapters(tmp_path: Path) -> None:
    method = adapted(tmp_path / "start", freeze=("text", "backbone"))
    names = [name for name, value in method.named_parameters() if value.requires_grad]
    assert any(name.endswith(".0.up") for name in names)
    assert not [name for name in names if ".text_backbone." in name or ".backbone." in name]


def test_what_is_saved_is_a_plain_network_that_answers_alike(tmp_path: Path) -> None:
    from transformers import AutoModelForZeroShotObjectDetection

    method = adapted(tmp_path / "start")
    trainer(2).fit(method, Shapes(), folder(tmp_path / "run"), quiet=True)
    method.eval()
    with torch.no_grad():  # two steps move little; what was added shall be seen
        for name, value in method.named_parameters():
            if name.endswith(".0.up"):
                value.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    texts = [
        build_prompts(phrases, method.text_tokenizer).texts[0] for phrases in (method.phrases[:3], method.phrases[5:])
    ]
    taught = answers(method.model, texts)
    method.save(tmp_path / "saved")
    loaded = AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path / "saved").eval()
    untaught = Detector.from_pretrained(tmp_path / "start").model
    assert set(loaded.state_dict()) == set(untaught.state_dict())
    for one, other in zip(answers(loaded, texts), taught, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert max((one - other).abs().max() for one, other in zip(answers(untaught, texts), taught, strict=True)) > 1e-2
    assert [name for name, _ in method.named_parameters() if name.endswith(".0.up")], "saving leaves the adapters there"


def test_merging_changes_a_copy() -> None:
    model = tiny().eval()
    adapt(model, 4)
    alone = merged(model)
    assert not [name for name in alone.state_dict() if "parametrizations" in name]
    with torch.no_grad():
        next(value for name, value in alone.named_parameters() if name.endswith("fc1.weight")).zero_()
    kept = [value for name, value in model.named_parameters() if name.endswith("fc1.parametrizations.weight.original")]
    assert kept and all(value.abs().sum() > 0 for value in kept)


def test_stopped_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight, again = (adapted(tmp_path / f"start{number}") for number in range(2))
    trainer(4).fit(straight, Shapes(), folder(tmp_path / "straight"), quiet=True)
    trainer(4).fit(adapted(tmp_path / "start2"), Shapes(), folder(tmp_path / "two"), quiet=True, until=3)
    trainer(4).fit(again, Shapes(), folder(tmp_path / "two"), quiet=True)
    for (name, one), other in zip(straight.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_a_network_from_nothing_wants_all_its_weights() -> None:
    with pytest.raises(RizbinError, match="adapters"):
        made(replace(SMALL, lora=4))
