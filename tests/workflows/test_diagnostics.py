"""What is seen of a method without captions while it trains: numbers, alarms that wait, no trace in the training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rizbin
from rizbin.core.runs import RunFolder
from rizbin.data.scenes import Scenes
from rizbin.evaluation.alarms import collapse_alarms
from rizbin.evaluation.collapse import health
from rizbin.evaluation.suite import Evaluation
from rizbin.methods.simclr import SimCLR
from rizbin.nets import export
from rizbin.nets.image import ImageEncoder
from rizbin.workflows.diagnostics import CollapseDiagnostics
from rizbin.workflows.load import load_encoder
from rizbin.workflows.presets import preset
from rizbin.workflows.runs import load_run, train
from tests.toys import build, tiny


def world(split: Any) -> Scenes:
    return Scenes(Scenes.Settings(size=32, categories=8, preset="single", split=split))


def watching(**changes: Any) -> CollapseDiagnostics:
    given: dict[str, Any] = {"memory": 40, "queries": 30, "steps": 1000, **changes}
    return CollapseDiagnostics(build("simclr"), world("train"), world("test"), **given)


def test_the_numbers_are_those_of_the_networks() -> None:
    look = watching()(500, build("simclr"), {})
    assert {"knn", "projection_std", "feature_rank", "alignment", "uniformity", "lidar"} <= set(look.numbers)
    assert look.numbers["knn"] == look.numbers["knn_random"], "the same weights, the same number"
    assert 0 < look.numbers["knn_pixels"] <= 100


def test_an_alarm_waits_for_the_warmup_and_for_a_second_look() -> None:
    constant = build("simclr")
    assert isinstance(constant, SimCLR)
    with torch.no_grad():
        for parameter in constant.projector.parameters():
            parameter.zero_()
        last = constant.projector[-1]
        assert isinstance(last, torch.nn.BatchNorm1d)
        last.bias.fill_(1.0)
    watch = watching()
    assert watch(100, constant, {}).alarms == (), "every network starts out looking like this"
    assert watch(300, constant, {}).alarms == (), "one look may fall into a dip"
    (said,) = watch(350, constant, {}).alarms
    assert "nearly constant" in said and "lower the learning rate" in said
    assert watching(silent=True)(300, constant, {}).silent


def test_spread_projections_raise_no_alarm() -> None:
    rows = torch.randn(200, 16)
    assert collapse_alarms(health(rows)) == ()
    assert "very few directions" in collapse_alarms(health(rows[:, :1] * torch.randn(1, 16)))[0]
    assert "nearly constant" in collapse_alarms(health(1 + 1e-3 * rows))[0]
    few = rows[:, :5] @ torch.linalg.qr(torch.randn(16, 5))[0].T  # spread alike over five directions of sixteen
    assert health(few).std > 0.8 and "very few directions" in collapse_alarms(health(few))[0]


def test_looking_changes_no_bit_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = replace(preset("byol", "nano"), settings=tiny("byol"), batch=8, steps=6, checkpoint_every=6)
    train(training, tmp_path / "watched", quiet=True, silent=True)
    monkeypatch.setattr("rizbin.workflows.runs._watching", lambda *_: None)
    train(training, tmp_path / "alone", quiet=True, silent=True)
    a, b = (load_run(tmp_path / name).method.state_dict() for name in ("watched", "alone"))
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    looks = [line for line in RunFolder(tmp_path / "watched").metrics.read() if "knn" in line]
    assert looks and not [line for line in RunFolder(tmp_path / "alone").metrics.read() if "knn" in line]


def test_a_method_of_one_view_is_looked_at_too(tmp_path: Path) -> None:
    """The classifier trains on one view of each image; two are looked at."""
    training = replace(preset("supervised", "small"), settings=tiny("supervised"), batch=8, steps=4, checkpoint_every=4)
    run = train(training, tmp_path / "run", quiet=True, silent=True)
    assert [line for line in RunFolder(run).metrics.read() if "feature_rank" in line]


def test_a_run_without_captions_ends_in_numbers_a_page_and_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = replace(preset("dino", "small"), settings=tiny("dino"), batch=8, steps=4, checkpoint_every=4)
    training = replace(training, settings=replace(training.settings, momentum=0.999))
    run = train(training, tmp_path / "run", quiet=True)
    assert "leaves the teacher near its random start" in capsys.readouterr().err
    settings = Evaluation.Settings(images=40, train_images=60, probe_steps=5)
    found = rizbin.evaluate(run, settings=settings, quiet=True)
    assert {"knn/top1", "knn/pixels_top1", "probe/top1", "collapse/rank", "segmentation/linear/miou"} <= {
        one.name for one in found.measurements
    }
    assert ("zero_shot", "The network reads no text.") in found.left_out
    page = rizbin.report(run, quiet=True).read_text()
    assert "Attention and nearest neighbors" in page and "head 1" in page
    encoder, exported = load_encoder(run).network, export.load_encoder(run / "model")
    assert isinstance(encoder, ImageEncoder)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(encoder.pooled(images), exported.pooled(images))
    whole = rizbin.export(run, tmp_path / "whole", format="rizbin")
    again = load_encoder(whole).network
    assert isinstance(again, ImageEncoder)
    with torch.no_grad():  # 16 bits
        assert torch.allclose(again.pooled(images), encoder.pooled(images), atol=5e-2)
    plain = rizbin.export(run, tmp_path / "plain")
    assert isinstance(load_encoder(plain).network, ImageEncoder)
