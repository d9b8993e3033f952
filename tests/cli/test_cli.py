"""The command line: what it says, what it refuses, how it ends."""

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from rizbin import cli
from rizbin.cli import training
from rizbin.core.errors import RizbinError
from rizbin.doctor import doctor


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one command."""
    status = cli.main(list(words))
    said = capsys.readouterr()
    return status, said.out, said.err


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence with which a command refuses its input."""
    status, out, err = call(capsys, *words)
    assert status == 2
    assert out == ""
    assert err.startswith("rizbin: ") and err.count("\n") == 1, err
    assert not re.search("[╭│─]|Traceback", err)
    return err


def test_help_names_every_command_and_method(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "--help")
    assert status == 0
    for name, command in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +\S", out, re.MULTILINE) and command.example in out
    methods = [path.stem for path in Path(training.__file__).parents[1].glob("methods/[a-z]*.py")]
    assert len(methods) > 5
    assert all(re.search(rf"\b{name}\b", out) for name in (*methods, "detector"))
    assert max(map(len, out.splitlines())) <= 110
    assert call(capsys)[1] == out


def test_help_is_there_at_once() -> None:
    """CPU seconds of the whole process, the interpreter's own start included; no torch within."""
    command = [sys.executable, "-m", "rizbin", "--help"]
    subprocess.run(command, check=True, capture_output=True)  # writes the byte code, fills the file cache
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
    code = "import sys, rizbin, rizbin.cli; sys.exit(bool({'torch', 'tyro', 'numpy', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_its_own_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, command, "--help")
    assert (status, err) == (0, "")
    assert f"rizbin {command}" in out


def test_the_page_of_a_training_names_all_settings_and_explains_the_common_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "102")
    status, short, _ = call(capsys, "train", "detailclip", "--help")
    _, whole, _ = call(capsys, "train", "detailclip", "--help-all")
    assert status == 0 and len(short.splitlines()) < 100 < len(whole.splitlines())
    assert "--help-all` explains these" in short and max(map(len, short.splitlines())) <= 100
    command, _ = cli.schema.training("detailclip")
    assert len(command.flags) > 90
    for flag in command.flags:
        group, _, name = flag.flag.rpartition(".")
        assert f"--{flag.flag}" in whole
        named = re.search(rf"^--{re.escape(group)}\.NAME \((\d+)\):\n((?:  .*\n)+)", short, re.MULTILINE)
        assert f"--{name}" in short if not group else named and name in re.split(r"[,\s]+", named[2])
    assert call(capsys, "detect", "--help")[1] == call(capsys, "detect", "--help-all")[1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import rizbin

    assert call(capsys, "--version")[:2] == (0, f"rizbin {rizbin.__version__}\n")


def test_typing_mistakes_get_the_nearest_right_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'train'" in refusal(capsys, "trian")
    assert "'detailclip'" in refusal(capsys, "train", "detialclip")
    assert "--steps" in refusal(capsys, "train", "clip", "--stpes", "5")
    assert "--json" in refusal(capsys, "doctor", "--jsn")


def test_nothing_near_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(name in refusal(capsys, "zzzz") for name in cli.COMMANDS)
    assert "clip" in refusal(capsys, "train", "zzzz")
    assert "clip" in refusal(capsys, "train", "--steps", "5")
    assert "MODEL is missing" in refusal(capsys, "evaluate")
    assert "--output is missing" in refusal(capsys, "export", "runs/a")


def test_wrong_values_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"--steps.*'five' is not a whole number", refusal(capsys, "train", "clip", "--steps", "five"))
    assert "preset" in refusal(capsys, "train", "clip", "--preset", "zzzz")
    assert "--minutes" in refusal(capsys, "train", "clip", "--steps", "5", "--minutes", "1")
    assert "-3" in refusal(capsys, "train", "clip", "--minutes", "-3")
    assert "zzzz" in refusal(capsys, "export", "detailclip-mini", "--format", "zzzz", "--output", "out")


def test_what_is_not_there_is_said(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere" in refusal(capsys, "evaluate", "nowhere")
    assert "nowhere" in refusal(capsys, "export", "nowhere", "--format", "open_clip", "--output", "out")
    assert "nowhere" in refusal(capsys, "train", "clip", "--data", "nowhere", "--steps", "2", "--run", "r")
    assert not (empty_folder / "out").exists()


def test_a_fault_of_the_input_can_show_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RizbinError):
        cli.main(["trian", "--traceback"])


def test_ends_of_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def ending(error: BaseException) -> tuple[int, str]:
        def run(settings: object) -> None:
            raise error

        monkeypatch.setattr(doctor, "run", run)
        status, _, err = call(capsys, "doctor")
        return status, err

    assert ending(KeyboardInterrupt()) == (130, "rizbin: interrupted\n")
    assert ending(RizbinError("This\nis so.")) == (2, "rizbin: This is so.\n")
    assert ending(PermissionError(13, "Permission denied", "runs/a")) == (2, "rizbin: runs/a: Permission denied.\n")
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        ending(ZeroDivisionError())


def test_the_command_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "clip", "--data", "my images"]
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert training.again(words) == "rizbin train clip --data 'my images'"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert training.again(words) == "torchrun --nproc-per-node 2 -m rizbin -- train clip --data 'my images'"


def test_the_doctor_finds_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "doctor", "--json")
    report = json.loads(out)
    assert status == 0
    assert report["packages"]["numpy"] == numpy.__version__
    assert report["machine"]["cores"] >= 1
    assert report["speed"]["scenes per second"] > 0 and report["speed"]["matrix products GFLOP/s"] > 0
    assert call(capsys, "doctor")[1].count("\n") > sum(map(len, report.values()))


def test_the_doctor_says_what_is_missing_and_what_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from rizbin import doctor

    monkeypatch.setattr(doctor, "_version", lambda name: "" if name in ("torch", "ruff") else "1.0")
    packages = doctor._packages()
    assert packages["torch"] == "missing: needed by every command"
    assert packages["ruff"] == "missing: needed by make check, make format only"
    rows = {name: well for _, name, _, well in doctor.lines({"packages": packages})}
    assert not rows["torch"] and rows["ruff"] and rows["numpy"]


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{shlex.quote(sys.executable)} -m rizbin methods | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert done.stderr == ""
