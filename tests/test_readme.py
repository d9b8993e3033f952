"""The README is right: the real parsers read each command and block of Python, and the cheap ones are run."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from rizbin import cli

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
    from rizbin import api, doctor

    words = words[1:] if words[0] == "--" else words
    called: list[str] = []

    def stand_in(name: str, answer: object) -> Callable[..., object]:
        return lambda *_, **__: called.append(name) or answer

    numbers = SimpleNamespace(to_json=str, table=str)
    answers = {"fit": Path("r"), "measure": numbers, "export": Path("x"), "report": Path("r"), "visualize": Path("v")}
    answers |= {
        "detect": SimpleNamespace(pictures=(), notes=(), skipped=()),
        "verify": [],
    }
    drawn = SimpleNamespace(file=Path("0.png"), notes=[], best=SimpleNamespace(found={}), attempts=[], whole=True)
    answers |= {"generate": [], "repair": [drawn], "ascend": [], "render": SimpleNamespace(text=str)}
    for name, answer in answers.items():
        monkeypatch.setattr(api, name, stand_in(name, answer))
    monkeypatch.setattr(doctor, "examine", stand_in("doctor", {}))
    monkeypatch.setattr("rizbin.workflows.runs.replay", stand_in("replay", SimpleNamespace(text=str)))
    monkeypatch.setattr(api, "record_in", lambda path: path if path.suffix == ".json" else None)
    monkeypatch.setattr(api, "replay", stand_in("replay", []))
    monkeypatch.setattr("rizbin.studies.study.study", stand_in(words[0], Path("s.html")))
    monkeypatch.setattr(api, "loading_lines", str)
    recipe = SimpleNamespace(demo=stand_in("demo", Path("r")))
    monkeypatch.setitem(sys.modules, "rizbin.workflows.demo", recipe)  # pyright: ignore[reportArgumentType]
    assert cli.main(words) == 0
    expected = {"train": ["fit", "report"], "demo": ["demo", "report"], "evaluate": ["measure"], "edit": ["generate"]}
    expected["data"] = ["render"]
    shown = words[0] in ("methods", "zoo", "--help") or "--help" in words
    expected |= {"generate": ["repair"]} if "--repair" in words else {}
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
    from rizbin import api

    fit, measure = api.fit, api.measure
    monkeypatch.setattr(
        api, "fit", lambda method, **given: fit(method, **given | {"steps": 2, "batch": 4, "quiet": True})
    )
    monkeypatch.setattr(api, "measure", lambda run, **given: (measure, [run])[1])
    spoken: list[object] = []
    for block in blocks("python"):
        if "local-dir:exported" in block:  # what the line of the shell block above wrote
            api.export("runs/a", "exported", form="open_clip")
        exec(compile(block, "README.md", "exec"), {"print": spoken.append})
    assert spoken == [[Path("runs/a")]]
    assert (empty_folder / "runs/a/settings.json").exists()
    encoder = rizbin.load("runs/a")
    assert encoder.image_size > 0 and encoder.encode_text(["a fox"]).shape[0] == 1
    assert callable(rizbin.export)


def test_the_table_of_methods_is_the_folder() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert sorted(rows) == sorted(path.stem for path in (ROOT / "rizbin/methods").glob("[a-z]*.py"))


def test_every_command_of_the_command_line_is_shown() -> None:
    assert {words[0] for words in RIZBIN} >= set(cli.COMMANDS)
