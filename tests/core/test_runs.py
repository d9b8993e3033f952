import errno
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rizbin.core import environment, runs
from rizbin.core.errors import RizbinError
from rizbin.core.runs import Records, RunFolder, time_spent
from tests.processes import run_in_processes

SETTINGS: dict[str, Any] = {"steps": 100, "method": {"keep_ratio": 0.5, "views": (64, 32)}, "data": "scenes"}


@pytest.fixture(autouse=True)
def locks_are_given_back():
    yield
    for descriptor in runs._HELD.values():
        os.close(descriptor)
    runs._HELD.clear()


def warnings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line]


# ---- begin, resume, refuse -------------------------------------------------------------------------------------


def test_begin_then_resume_then_finish(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = RunFolder(tmp_path / "runs" / "first")
    assert not run.exists and not run.is_finished and run.recorded_steps() is None and run.finished_steps() is None
    assert run.create_or_resume(SETTINGS) is False
    assert run.exists and run.recorded_steps() == 100
    assert run.read_settings() == json.loads(json.dumps(SETTINGS))
    assert RunFolder(run.path).create_or_resume(SETTINGS) is True
    run.mark_finished(100)
    assert run.is_finished and run.finished_steps() == 100
    assert (run.checkpoints, run.model, run.report) == (
        run.path / "checkpoints",
        run.path / "model",
        run.path / "report.html",
    )
    names = {path.name for path in run.path.iterdir()}
    assert names == {"settings.json", "environment.json", "lock", "finished.json"}
    assert warnings_of(capsys) == []


def test_settings_json_holds_no_path_of_the_machine(tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    run.create_or_resume(SETTINGS)
    for name in ("settings.json", "environment.json"):
        text = (run.path / name).read_text()
        assert str(tmp_path) not in text and str(Path.home()) not in text and os.uname().nodename not in text


def test_other_settings_are_refused_with_the_fields_old_and_new(tmp_path: Path):
    RunFolder(tmp_path).create_or_resume(SETTINGS)
    other = {"steps": 200, "method": {"keep_ratio": 0.25, "views": (64, 32)}, "data": "scenes"}
    with pytest.raises(
        RizbinError, match=r"other settings \(steps: 100 -> 200; method\.keep_ratio: 0\.5 -> 0\.25\); "
    ) as c:
        RunFolder(tmp_path).create_or_resume(other)
    assert "\n" not in str(c.value)
    assert RunFolder(tmp_path).read_settings()["steps"] == 100
    many = {f"field{number}": number for number in range(20)}
    with pytest.raises(RizbinError, match=r"and 15 more\); "):
        RunFolder(tmp_path).create_or_resume(many)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(RizbinError, match=r"holds no run but other things \(holiday\.jpg\)"):
        RunFolder(tmp_path).create_or_resume(SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    with pytest.raises(RizbinError, match="is a file; name a folder"):
        RunFolder(tmp_path / "holiday.jpg").create_or_resume(SETTINGS)


def test_a_begin_that_was_killed_half_way_begins_again(tmp_path: Path):
    for name in ("lock", "environment.json", ".tmp-settings.json"):
        (tmp_path / name).write_bytes(b"{")
    assert RunFolder(tmp_path).create_or_resume(SETTINGS) is False
    assert RunFolder(tmp_path).read_settings()["data"] == "scenes"


def test_no_run_and_damaged_files_are_sentences(tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(RizbinError, match=r"is no run folder \(there is no settings\.json in it\)"):
        run.read_settings()
    run.create_or_resume(SETTINGS)
    (run.path / "finished.json").write_text("{}")
    with pytest.raises(RizbinError, match=r"finished\.json is damaged"):
        run.finished_steps()
    for text, says in {"{": "cannot be read", "[]": "holds no group of names"}.items():
        (run.path / "settings.json").write_text(text)
        with pytest.raises(RizbinError, match=says):
            RunFolder(run.path).create_or_resume(SETTINGS)


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runs.os, "fsync", refuse)
    with pytest.raises(RizbinError, match=r"cannot be written \(No space left on device\)"):
        RunFolder(tmp_path / "run").create_or_resume(SETTINGS)
    assert not RunFolder(tmp_path / "run").exists


def test_other_conditions_at_resume_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = RunFolder(tmp_path)
    run.create_or_resume(SETTINGS)
    before = json.loads((tmp_path / "environment.json").read_text())
    (tmp_path / "environment.json").write_text(json.dumps({**before, "torch": "2.0"}))
    assert run.create_or_resume(SETTINGS) is True
    told = " ".join(warnings_of(capsys))
    assert f"torch: '2.0' -> '{before['torch']}'" in told and "may differ" in told
    assert "numpy" not in told
    (tmp_path / "environment.json").write_text(json.dumps({**before, "torch": "2.0"}))
    run.mark_finished(3)
    assert run.create_or_resume(SETTINGS) is True
    assert warnings_of(capsys) == [], "a finished run is only read"
    (tmp_path / "finished.json").unlink()
    (tmp_path / "environment.json").unlink()
    assert run.create_or_resume(SETTINGS) is True
    assert warnings_of(capsys) == []


# ---- one writer ------------------------------------------------------------------------------------------------


def begin(path: str) -> str:
    try:
        return str(RunFolder(Path(path)).create_or_resume(SETTINGS))
    except RizbinError as error:
        return str(error)


def begin_and_release(path: str) -> str:
    answer = begin(path)
    RunFolder(Path(path)).release()
    return answer


def begin_and_die(path: str) -> None:
    """Dies with the lock held, leaving a forked process that has inherited every descriptor of interest."""
    RunFolder(Path(path)).create_or_resume(SETTINGS)
    lock = set(runs._HELD.values())
    child = os.fork()
    if child == 0:
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in lock:
                try:
                    os.close(int(name))
                except OSError:
                    continue
        signal.pause()
    (Path(path).parent / "child").write_text(str(child))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_second_process_is_refused_and_named_the_first(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.create_or_resume(SETTINGS)
    sentence = run_in_processes(begin, 1, str(tmp_path))[0]
    assert f"is being written by another process ({os.getpid()})" in sentence and "\n" not in sentence
    assert RunFolder(tmp_path).create_or_resume(SETTINGS) is True, "the same process may open its own run again"
    run.release()
    run.release()
    assert run_in_processes(begin_and_release, 1, str(tmp_path)) == ["True"]
    assert run.create_or_resume(SETTINGS) is True


def test_a_killed_process_gives_the_lock_back_even_when_its_children_live(tmp_path: Path):
    path = tmp_path / "run"
    with pytest.raises(ChildProcessError):
        run_in_processes(begin_and_die, 1, str(path))
    child = int((tmp_path / "child").read_text())
    try:
        os.kill(child, 0)
        assert RunFolder(path).create_or_resume(SETTINGS) is True
    finally:
        os.kill(child, signal.SIGKILL)


def begin_together(path: str) -> list[str]:
    answers = [begin(path), begin(path)]
    changed = RunFolder(Path(path))
    try:
        changed.create_or_resume({**SETTINGS, "steps": 1})
    except RizbinError as error:
        answers.append(str(error))
    changed.warn("once")
    RunFolder(Path(path)).release()
    return answers


def test_several_processes_get_one_answer(tmp_path: Path):
    first, second = run_in_processes(begin_together, 2, str(tmp_path / "run"))
    assert first == second
    assert first[:2] == ["False", "True"] and "steps: 100 -> 1" in first[2]


# ---- records ---------------------------------------------------------------------------------------------------


def records(tmp_path: Path) -> tuple[Records, list[str]]:
    warnings: list[str] = []
    return Records(tmp_path / "metrics.jsonl", warnings.append), warnings


def test_records_there_and_back(tmp_path: Path):
    metrics, warnings = records(tmp_path)
    assert metrics.read() == []
    metrics.append({"step": 1, "loss": np.float32(0.5), "note": "ریز\n", "bad": float("nan"), "flag": True})
    metrics.append({"step": 2, "loss": float("inf")})
    assert metrics.read() == [
        {"step": 1, "loss": 0.5, "note": "ریز\n", "bad": None, "flag": True},
        {"step": 2, "loss": None},
    ]
    assert len(metrics.path.read_text().splitlines()) == 2 and warnings == []


def test_a_torn_line_costs_only_itself(tmp_path: Path):
    metrics, _ = records(tmp_path)
    metrics.append({"step": 1})
    for torn in (b'{"step": 2, "lo', b"\xff\xfe", b"[3]"):
        with metrics.path.open("ab") as file:
            file.write(torn)
        metrics.append({"step": 4})
    assert metrics.read() == [{"step": 1}, {"step": 4}, {"step": 4}, {"step": 4}]


def test_resuming_removes_the_records_of_later_steps(tmp_path: Path):
    metrics, _ = records(tmp_path)
    metrics.truncate_after(5)
    assert not metrics.path.exists()
    for step in range(1, 10):
        metrics.append({"step": step})
    metrics.append({"event": "no step"})
    with metrics.path.open("ab") as file:
        file.write(b'{"step": 3, ')
    metrics.truncate_after(5)
    assert metrics.read() == [*({"step": step} for step in range(1, 6)), {"event": "no step"}]
    metrics.append({"step": 6})
    assert metrics.path.read_bytes().endswith(b'{"event": "no step"}\n{"step": 6}\n')
    metrics.truncate_after(0)
    assert metrics.read() == [{"event": "no step"}]


def write_on_a_full_disk(folder: str) -> tuple[list[dict[str, Any]], list[str], bytes]:
    metrics, warnings = records(Path(folder))
    metrics.append({"step": 1, "text": "a" * 50})
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        metrics.append({"step": 2, "text": "b" * 50})
        metrics.append({"step": 3, "text": "c" * 50})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    left = metrics.path.read_bytes()
    metrics.append({"step": 4})
    return metrics.read(), warnings, left


def test_a_full_disk_warns_once_and_leaves_whole_lines(tmp_path: Path):
    read, warnings, left = run_in_processes(write_on_a_full_disk, 1, str(tmp_path))[0]
    assert [record["step"] for record in read] == [1, 4]
    assert len(warnings) == 1 and "metrics.jsonl cannot be written (File too large)" in warnings[0]
    assert left.endswith(b"a" * 50 + b'"}\n')


def test_a_disk_that_refuses_never_stops_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = RunFolder(tmp_path / "gone")
    run.metrics.append({"step": 1})
    run.note_refused([("a.jpg", "empty")])
    run.mark_finished(3)
    assert len(warnings_of(capsys)) == 3


def test_refused_samples_are_listed_once(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.note_refused([("a.jpg", "a.jpg is empty"), ("b.jpg", "b.jpg is cut off")])
    run.note_refused([("a.jpg", "a.jpg is empty")])
    RunFolder(tmp_path).note_refused([("b.jpg", "b.jpg is cut off"), ("c.jpg", "no")])
    assert run.read_refused() == [("a.jpg", "a.jpg is empty"), ("b.jpg", "b.jpg is cut off"), ("c.jpg", "no")]


# ---- environment -----------------------------------------------------------------------------------------------


def test_the_environment_is_described():
    found = environment.describe()
    assert found["numpy"] == np.__version__
    assert isinstance(found["threads"], int) and found["processes"] >= 1
    assert found["cpu"] != "unknown" and found["rizbin"] != "unknown"
    assert found == json.loads(json.dumps(found))


def test_describing_never_fails(monkeypatch: pytest.MonkeyPatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("planted")

    for place, name in [
        (environment.subprocess, "run"),
        (environment.metadata, "version"),
        (environment.Path, "read_text"),
        (environment.Path, "exists"),
        (environment.platform, "machine"),
        (environment.os, "cpu_count"),
    ]:
        monkeypatch.setattr(place, name, fail)
    monkeypatch.setenv("WORLD_SIZE", "many")
    found = environment.describe()
    assert found["torch"] == found["commit"] == found["cpu"] == found["processes"] == "unknown"


def test_the_clock_of_a_resumed_run_adds_up():
    history = [{"step": 1, "images": 8, "seconds": 5.0}, {"step": 2, "images": 16, "seconds": 9.0}, {"seconds": 1.5}]
    assert time_spent(history) == (2, 16, 10.5)
    assert time_spent([]) == (0, 0, 0.0)


def test_nothing_of_a_run_is_written_through_a_link(tmp_path: Path) -> None:
    run, mine = RunFolder(tmp_path / "run"), tmp_path / "mine"
    mine.mkdir()
    (mine / "metrics.jsonl").write_text("mine\n")
    run.create_or_resume({"steps": 1})
    run.release()
    (run.path / "metrics.jsonl").symlink_to(mine / "metrics.jsonl")
    (run.path / ".tmp-finished.json").symlink_to(mine / "metrics.jsonl")
    run.metrics.append({"step": 1})  # warns
    run.mark_finished(1)
    assert (mine / "metrics.jsonl").read_text() == "mine\n" and run.is_finished
    run.model.symlink_to(mine)
    with pytest.raises(RizbinError, match="is a link"):
        RunFolder(tmp_path / "run").create_or_resume({"steps": 1})
