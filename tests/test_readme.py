"""The README is right: the real parsers read each command and block of Python, and the cheap ones are run."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rizbin import cli
from rizbin.cli import checks, table
from rizbin.core.commands import Job
from rizbin.studies import compare as compare  # before the names that it takes from `study` are replaced here
from rizbin.workflows.load import load_encoder

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every line of every shell block as words, comments taken off."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def rizbin_words(command: list[str]) -> list[str]:
    """What comes after `rizbin`, however it is started."""
    return command[command.index("rizbin") + 1 :]


RIZBIN = [rizbin_words(command) for command in commands() if "rizbin" in command]


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert set(re.findall(r"^```(\w+)$", README, re.MULTILINE)) == {"sh", "python"}
    assert {command[0] for command in commands()} == {"make", "rizbin", "torchrun"}


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "make"], ids=" ".join)
def test_make_knows_the_target(command: list[str]) -> None:
    done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", RIZBIN, ids=" ".join)
def test_the_parser_takes_the_command(words: list[str], monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    """Everything up to the call of the room is real; the rooms themselves are tested in their own folders."""
    words = words[1:] if words[0] == "--" else words
    called: list[str] = []
    drawn = SimpleNamespace(file=Path("0.png"), notes=[], best=SimpleNamespace(presences={}), attempts=[], whole=True)
    answers: dict[str, object] = {
        "evaluate": SimpleNamespace(to_json=str, table=str),
        "detect": SimpleNamespace(images=(), notes=(), skipped=()),
        "repair": [drawn],
        "embed": SimpleNamespace(
            path="vectors.npz", vectors=np.zeros((0, 2)), grid=None, record={"model": ""}, unusable=()
        ),
        "search": SimpleNamespace(hits=(), notes=()),
        "classify": SimpleNamespace(rows=list, unusable=()),
        "benchmarks": SimpleNamespace(rows=list, text=str),
        "render": SimpleNamespace(text=str),
        "doctor": {},
        **{name: [] for name in ("verify", "generate", "edit", "ascend", "replay")},
    }
    load, report = table.loaded, table.loaded("rizbin.workflows.report:report")

    def loaded(where: str) -> object:
        name = where.partition(":")[2]
        job = report if name == "report" else load(where)
        if not isinstance(job, Job):
            return job
        answer = answers.get(name, Path("p"))
        return SimpleNamespace(settings=job.settings, run=lambda settings: called.append(name) or answer)

    def stand_in(name: str) -> Callable[..., object]:
        return lambda *_, **__: called.append(name) or Path("p")

    monkeypatch.setattr(cli, "loaded", loaded)
    for place, name in {
        "workflows.train.run_options": "train",
        "workflows.report.report": "report",
        "workflows.visualize.draw": "visualize",
        "studies.study.answer": "study",
    }.items():
        monkeypatch.setattr(f"rizbin.{place}", stand_in(name))
    monkeypatch.setattr("rizbin.workflows.loading_lines.loading_lines", str)
    monkeypatch.setattr("rizbin.workflows.demo.demo", SimpleNamespace(run=stand_in("demo")))
    monkeypatch.setattr(checks, "check", lambda command, given: None)  # the README's files are not here
    assert cli.main(words) == 0
    expected = {"train": ["train", "report"], "demo": ["demo", "report"], "data": ["render"]}
    shown = words[0] in ("methods", "zoo", "--help", "schema", "completion") or "--help" in words
    assert called == ([] if shown else expected.get(words[0], [words[0]]))


def test_torchrun_takes_its_part() -> None:
    from torch.distributed.run import get_args_parser

    for command in commands():
        if command[0] == "torchrun":
            parsed = get_args_parser().parse_args(command[1:])
            assert parsed.module and parsed.training_script == "rizbin"
            assert parsed.training_script_args[-len(rizbin_words(command)) + 1 :] == rizbin_words(command)[1:]


def test_the_python_runs(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    """The block as it stands, the training itself cut short."""
    import rizbin

    train, evaluate = rizbin.train, rizbin.evaluate
    quick = {"steps": 2, "batch": 4, "quiet": True}
    monkeypatch.setattr(rizbin, "train", lambda method, **given: train(method, **given | quick), raising=False)
    monkeypatch.setattr(rizbin, "evaluate", lambda run, **given: (evaluate, [Path(run)])[1], raising=False)
    spoken: list[object] = []
    for block in blocks("python"):
        if "local-dir:exported" in block:  # what the line of the shell block above wrote
            rizbin.export("runs/a", "exported", format="open_clip")
        exec(compile(block, "README.md", "exec"), {"print": spoken.append})
    assert spoken == [[Path("runs/a")]]
    assert (empty_folder / "runs/a/settings.json").exists()
    encoder = load_encoder("runs/a")
    assert encoder.image_size > 0 and encoder.encode_text(["a fox"]).shape[0] == 1
    assert callable(rizbin.export)


def test_the_table_of_methods_is_the_folder() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert sorted(rows) == sorted(path.stem for path in (ROOT / "rizbin/methods").glob("[a-z]*.py"))


def test_every_command_of_the_command_line_is_shown() -> None:
    assert {words[0] for words in RIZBIN} >= set(cli.COMMANDS)
