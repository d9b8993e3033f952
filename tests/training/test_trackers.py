"""Trackers get what metrics.jsonl gets, and whatever they do, training ends as without them."""

import csv
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest

import rizbin
from rizbin import cli
from rizbin.core.runs import RunFolder
from rizbin.training import trackers
from rizbin.training.trackers import Trackers
from rizbin.workflows import train as train_job


def folder_of(path: Path) -> RunFolder:
    run = RunFolder(path)
    run.create_or_resume({"method": "stub", "steps": 4})
    return run


def record(run: RunFolder, tracked: Trackers, step: int, **numbers: Any) -> None:
    row = {"step": step, "seconds": 0.5, "loss": 1 / step, **numbers}
    run.metrics.append(row)
    tracked.log(step, row)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


class Fake(types.ModuleType):
    """What W&B and trackio offer."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.given: dict[str, Any] = {}
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **given: Any) -> None:
        self.given = given

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.rows.append((step, numbers))

    def finish(self) -> None:
        self.finished += 1


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_modules_get_the_numbers_and_the_settings(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(name)
    monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setenv(f"{name.upper()}_PROJECT", "mine")
    run, said = folder_of(tmp_path / "run"), []
    with Trackers((name, name), run, 0, said.append) as tracked:
        record(run, tracked, 1)
        record(run, tracked, 2, alarm="all alike")
    assert fake.rows == [(1, {"seconds": 0.5, "loss": 1.0}), (2, {"seconds": 0.5, "loss": 0.5})]
    assert fake.finished == 1 and not said
    assert (fake.given["project"], fake.given["name"], fake.given["resume"]) == ("mine", "run", "allow")
    assert fake.given["config"]["method"] == "stub"
    assert ("id" in fake.given) == (name == "wandb")


def test_csv_has_a_column_for_each_number(tmp_path: Path) -> None:
    """Also for one that comes late; a run that goes on has each step once."""
    run, said = folder_of(tmp_path / "run"), []
    with Trackers(("csv",), run, 0, said.append) as tracked:
        record(run, tracked, 1)
        record(run, tracked, 2, rank=3.5)
        record(run, tracked, 3)
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"] and [row["rank"] for row in rows] == ["", "3.5", ""]
    with Trackers(("csv",), run, 2, said.append) as tracked:
        record(run, tracked, 4)
    with (tmp_path / "run/metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "4"]
    assert not said


def test_tensorboard_hides_what_comes_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run, said = folder_of(tmp_path / "run"), []
    with Trackers(("tensorboard",), run, 0, said.append) as tracked:
        for step in (1, 2, 3):
            record(run, tracked, step)
    assert scalars(tmp_path / "run/tensorboard")["loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    time.sleep(1.1)  # its files are named by the second, and read in the order of their names
    with Trackers(("tensorboard",), run, 2, said.append) as tracked:
        record(run, tracked, 3, loss=7.0)
    assert scalars(tmp_path / "run/tensorboard")["loss"] == [(1, 1.0), (2, 0.5), (3, 7.0)]
    assert not said


@pytest.mark.parametrize("where", ["init", "log", "finish"])
@pytest.mark.parametrize("error", [ValueError("no\nserver"), SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_whatever_it_raises_is_one_warning(
    where: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake("wandb")

    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(fake, where, fails)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run, said = folder_of(tmp_path / "run"), []
    with Trackers(("wandb", "csv"), run, 0, said.append) as tracked:
        for step in range(1, 5):
            record(run, tracked, step)
    (sentence,) = said
    assert sentence.startswith(f"The tracker wandb is off for the rest of this run: {type(error).__name__}")
    assert "\n" not in sentence
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == 5


def test_a_server_that_does_not_answer_costs_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, forever = Fake("wandb"), threading.Event()
    monkeypatch.setattr(fake, "init", lambda **_: forever.wait(30))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(trackers, "PATIENCE", 0.2)
    monkeypatch.setattr(trackers, "MOST_WAITING", 3)
    run, said = folder_of(tmp_path / "run"), []
    began = time.perf_counter()
    with Trackers(("wandb",), run, 0, said.append) as tracked:
        for step in range(1, 10):
            record(run, tracked, step)
    assert time.perf_counter() - began < 5
    assert len(said) == 1 and "3 records wait for it" in said[0]
    with Trackers(("wandb",), run, 0, said.append) as tracked:
        record(run, tracked, 10)
    assert len(said) == 2 and "did not end within 0 seconds" in said[1]
    forever.set()


def test_what_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    said: list[str] = []
    with Trackers(("trackio",), folder_of(tmp_path / "run"), 0, said.append) as tracked:
        tracked.log(1, {"loss": 1.0})
    assert len(said) == 1 and "is not installed" in said[0]


def test_a_training_is_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The numbers are those of metrics.jsonl, and a tracker that fails changes no bit of the model."""
    pytest.importorskip("tensorboard")
    fake = Fake("wandb")
    monkeypatch.setattr(fake, "log", lambda *_, **__: 1 / 0)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    quick = {"steps": 3, "batch": 4, "trainer": {"log_every": 1}, "quiet": True}
    names: Any = ("tensorboard", "csv", "wandb")
    tracked = rizbin.train("simclr", preset="nano", run=tmp_path / "a", track=names, **quick)
    assert capsys.readouterr().err.count("The tracker wandb is off") == 1
    plain = rizbin.train("simclr", preset="nano", run=tmp_path / "b", **quick)
    losses = [row["loss"] for row in tracked.metrics]
    assert losses == [row["loss"] for row in plain.metrics] and len(losses) == 3
    assert [value for _, value in scalars(tmp_path / "a/tensorboard")["loss"]] == pytest.approx(losses)
    assert not (tmp_path / "b/metrics.csv").exists() and not (tmp_path / "b/tensorboard").exists()


def test_the_flag_reaches_the_training(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(train_job, "run_training", lambda *_, **options: given.update(options) or Path("runs/a"))
    monkeypatch.setattr(
        train_job,
        "RunFolder",
        lambda folder: types.SimpleNamespace(finished_steps=lambda: 1, metrics=types.SimpleNamespace(read=list)),
    )
    options = ["--track", "csv", "--track", "tensorboard", "--no-report", "--run", "runs/a"]
    assert cli.main(["train", "simclr", *options]) == 0
    assert given["track"] == ("csv", "tensorboard")
