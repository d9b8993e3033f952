"""From settings to a run folder and back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rizbin.core.errors import RizbinError
from rizbin.core.settings import from_dict, to_dict
from rizbin.data.open import open_source
from rizbin.methods.clip import CLIP
from rizbin.nets.export import load_pair
from rizbin.training.trainer import Trainer
from rizbin.workflows import presets, runs
from rizbin.workflows.presets import Training
from tests.toys import tiny


def small(**changes: object) -> Training[CLIP.Settings]:
    made = Training(
        method="clip",
        data="scenes:easy,categories=8",
        steps=3,
        batch=4,
        checkpoint_every=2,
        trainer=Trainer.Settings(log_every=1),
        settings=tiny("clip"),
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return runs.train(small(), tmp_path_factory.mktemp("runs") / "run", quiet=True)


def test_a_run_is_trained_exported_opened_and_not_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs.train(small(), tmp_path / "run", quiet=True)
    opened = runs.load_run(folder)
    assert opened.step == 3 and opened.training == small() and not opened.method.training
    exported = load_pair(folder / "model")
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(exported.encode_images(image), opened.pair.encode_images(image))
    before = (folder / "metrics.jsonl").read_text()
    left = folder / "checkpoints/.tmp-old-step_000000001"  # by a kill inside the last removal
    left.mkdir()
    runs.train(small(), folder, quiet=False)
    assert not left.exists()
    assert "is finished: 3 steps" in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_text() == before


def test_what_a_kill_left_is_swept_when_the_run_goes_on(tmp_path: Path) -> None:
    folder = runs.train(small(), tmp_path / "run", quiet=True)
    (folder / "finished.json").unlink()
    for left in ("checkpoints/.tmp-old-step_000000001", "failures/.tmp-step_000000002"):
        (folder / left).mkdir(parents=True)
    runs.train(small(), folder, quiet=True)
    assert not list(folder.rglob(".tmp-*"))


@pytest.mark.parametrize(
    "change",
    [
        {"embedding": 10**12},
        {"embedding": -5},
        {"vision": {"name": "local-dir:../elsewhere"}},
        {"vision": {"image_size": 10**12}},
        {"text": {"layers": 10**12}},
        {"text": {"width": 36}},
    ],
    ids=str,
)
def test_absurd_settings_of_a_run_are_said(trained: Path, change: dict[str, Any]) -> None:
    path = trained / "settings.json"
    whole = path.read_text()
    kept = json.loads(whole)
    pair = kept["settings"]["pair"]
    for name, value in change.items():
        pair[name] = {**pair[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(kept))
    try:
        with pytest.raises(RizbinError) as caught:
            runs.load_run(trained)
    finally:
        path.write_text(whole)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    runs.train(small(), tmp_path / "run", quiet=True)
    with pytest.raises(RizbinError, match=r"seed: 0 -> 1"):
        runs.train(small(seed=1), tmp_path / "run", quiet=True)
    with pytest.raises(RizbinError, match=r"steps: 3 -> 9"):
        runs.train(small(steps=9), tmp_path / "run", quiet=True)


def test_a_run_of_an_older_version_goes_on(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its settings lack what came later, which then meant the default; anything else that differs still counts."""
    path = trained / "settings.json"
    now = path.read_text()
    old = json.loads(now)
    del old["settings"]["pair"]["tuning"], old["settings"]["pair"]["published"]
    path.write_text(json.dumps(old))
    assert runs.train(small(), trained) == trained and "is finished: 3 steps" in capsys.readouterr().out
    old["settings"]["phrase"] = 1.0  # of no version
    path.write_text(json.dumps(old))
    with pytest.raises(RizbinError, match="other settings"):
        runs.train(small(), trained)
    path.write_text(now)


def test_a_budget_becomes_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "place_costs", lambda *_, **__: [0.5])
    folder = runs.train(small(), tmp_path / "run", minutes=0.05, quiet=True)
    steps = json.loads((folder / "settings.json").read_text())["steps"]
    assert 1 <= steps <= 6, "three seconds at half a second a step, less what building took"
    monkeypatch.setattr(Trainer, "place_costs", lambda *_, **__: pytest.fail("timed again"))
    runs.train(small(), folder, minutes=0.05, quiet=True)
    with pytest.raises(RizbinError, match="positive"):
        runs.train(small(), tmp_path / "other", minutes=0.0, quiet=True)


def test_timing_spreads_over_the_run_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = Trainer.step

    def noted(self: Trainer, method: object, optimizers: object, batch: object, step: int, *rest: object) -> object:
        asked.append(step)
        return real(self, method, optimizers, batch, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "step", noted)
    engine = Trainer(Trainer.Settings(), batch=4, steps=100, checkpoint_every=0, seed=0)
    engine.device = torch.device("cpu")
    source = open_source("scenes:easy,categories=8", split="train", size=32, seed=0)
    assert engine.time_steps(runs.build(small()), source, warm=1, places=4) > 0
    assert asked == [12, 12, 37, 62, 87, 12, 37, 62, 87]


def test_settings_come_back_from_json() -> None:
    for name in ("small", "paper"):
        made = presets.preset("detailclip", name)
        kept = json.loads(json.dumps(to_dict(made)))
        assert runs.training_from(kept) == made
    kept["settings"]["keep_ration"] = 0.5
    with pytest.raises(RizbinError, match="keep_ration"):
        from_dict(Training[type(made.settings)], kept)


def test_impossible_runs_get_a_sentence(tmp_path: Path) -> None:
    for change, words in (
        ({"steps": 0}, "steps is 0"),
        ({"batch": 1}, "batch is 1"),
        ({"method": "clop"}, "choose one of"),
    ):
        with pytest.raises(RizbinError, match=words):
            runs.train(small(**change), tmp_path / "run", quiet=True)
    with pytest.raises(RizbinError, match="choose one of small"):
        presets.preset("clip", "huge")
    with pytest.raises(RizbinError, match=r"no good checkpoint|no run"):
        runs.load_run(tmp_path)


def test_a_costly_last_part_of_the_run_counts_and_a_hiccup_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that the steps move: 1 second each, 5 in the last fifth of the run, and 100 once, by the machine."""
    now, made = [0.0], [0]

    def step(_: Trainer, method: object, optimizers: object, batch: object, at: int) -> dict[str, float]:
        made[0] += 1
        now[0] += 100.0 if made[0] == 8 else 5.0 if at >= 80 else 1.0
        return {"loss": 0.0}

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr("rizbin.training.trainer.time.perf_counter", lambda: now[0])
    engine = Trainer(Trainer.Settings(), batch=2, steps=100, checkpoint_every=0, seed=0)
    source = open_source("scenes:easy,categories=8", split="train", size=32)
    assert engine.time_steps(runs.build(small()), source, warm=2, places=10) == pytest.approx(0.8 + 0.2 * 5)
