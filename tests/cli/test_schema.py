"""Help and refusals: at once, without torch, and from flags that are those of the settings."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rizbin import cli
from rizbin.cli import completion, schema
from rizbin.cli.parsing import parse
from rizbin.core.errors import RizbinError

AT_ONCE = 0.6
"""CPU seconds of the whole process."""
HELP = [f"{name} --help" for name in cli.COMMANDS]
HELP += [
    "train detailclip --help",
    "visualize attention --help",
    "study collapse --help",
    "study missing-objects --help",
]
HELP += ["data render --help", "train detailclip --help", "train clip --preset paper --help"]
REFUSED = {
    "detekt": "'detect'",
    "train detialclip": "'detailclip'",
    "train clip --preset smal": "'small'",
    "train clip --method.par.pool mean": "--method.pair.pool",
    "train clip --batch many": "not a whole number",
    "train clip --data nowhere": "neither a file nor a folder",
    "detect nowhere.png --find cat": "neither a file nor a folder",
    "detect . --treshold 0.2": "--threshold",
    "verify nowhere.png cat": "is not there",
    "evaluate nothing-there": "neither a folder nothing-there",
    "report detailclip-mni": "'detailclip-mini'",
    "generate zebra --scheduler": "--scheduler needs a value",
    "generate zebra --guidance iuo": "'iou'",
    "generate zebra and frog": 'in quotes: rizbin generate "zebra and frog"',
    "edit nowhere.png zebra": "is not there",
    "ascend zebra --style nowhere.png": "is not there",
    "visualize atention dino-mini .": "'attention'",
    "study colapse": "'collapse'",
    "export clip-mini": "--output is missing",
    "completion tcsh": "bash",
}


@pytest.mark.parametrize("words", [*HELP, *REFUSED])
def test_it_is_there_at_once(words: str, empty_folder: Path) -> None:
    """The real command, in a process of its own: CPU seconds with the interpreter's start, and no torch within."""
    code = "import sys; from rizbin.cli import main; status = main(sys.argv[1:]); "
    code += "heavy = {'torch', 'numpy', 'PIL', 'cv2'} & set(sys.modules); print(heavy) if heavy else None; "
    code += "sys.exit(99 if heavy else status)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, *words.split()], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == (2 if words in REFUSED else 0), done.stdout + done.stderr
    assert seconds < AT_ONCE
    if words in REFUSED:
        assert REFUSED[words] in done.stderr and done.stderr.count("\n") == 1
    else:
        assert done.stdout.strip() and not done.stderr


def test_the_shipped_flags_are_those_of_the_settings() -> None:
    assert schema.SHIPPED.read_text(encoding="utf-8") == schema.text(), "stale: make docs writes rizbin/cli/schema.json"


def test_every_flag_of_every_command_is_explained() -> None:
    kept = schema.shipped()
    commands = {name: command["flags"] for name, command in kept["commands"].items()}
    commands |= {f"train {name}": command["flags"] for name, command in kept["train"].items()}
    assert len(commands) > 30
    for name, flags in commands.items():
        for flag in flags:
            assert len(flag.get("help", "")) > 3, f"rizbin {name}: {flag['flag']} has no text under it"


def test_a_method_that_is_changed_is_asked_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    own = schema._training

    def training(method: str) -> dict:
        asked.append(method)
        return own(method)

    monkeypatch.setattr(schema, "_training", training)
    schema.training("clip")
    assert asked == []
    monkeypatch.setattr(schema, "_fingerprint", lambda method: "another")
    assert schema.training("clip")[1] == tuple(schema.shipped()["train"]["clip"]["presets"]) and asked == ["clip"]


def test_flags_stand_before_between_and_after_words() -> None:
    command = schema.command("detect")
    given = {"images": ["a.png", "b.png"], "find": ["a cat", "a dog"], "threshold": 0.2}
    for words in (
        ["a.png", "b.png", "--find", "a cat", "--find", "a dog", "--threshold", ".2"],
        ["--find", "a cat", "a.png", "--threshold=.2", "b.png", "--find=a dog"],
    ):
        assert parse(command, words) == given


def test_values_of_all_kinds() -> None:
    train, _ = schema.training("byol")
    words = [
        "--no-report",
        "--seed",
        "3",
        "--method.view-2.crop-area",
        ".2",
        ".9",
        "--method.augmentations",
        "crop",
        "flip",
        "--epochs",
        "none",
    ]
    given = parse(train, words)
    assert given["report"] is False and given["seed"] == 3 and given["epochs"] is None
    assert given["settings.view_2.crop_area"] == [0.2, 0.9] and given["settings.augmentations"] == ["crop", "flip"]
    with pytest.raises(RizbinError, match="one word too many"):
        parse(train, ["surplus"])


def test_completion_knows_commands_flags_and_values() -> None:
    assert completion.candidates(["tra"]) == ["train"]
    assert "detailclip" in completion.candidates(["train", "det"])
    assert completion.candidates(["train", "clip", "--trainer.prec"]) == ["--trainer.precision"]
    assert completion.candidates(["train", "clip", "--trainer.precision", "b"]) == ["bf16"]
    assert completion.candidates(["detect", "--format", "c"]) == ["coco", "csv"]
    assert "detailclip-mini" in completion.candidates(["evaluate", "det"])
    assert completion.candidates(["study", "coll"]) == ["collapse"]
    assert completion.candidates(["detect", "some/fil"]) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    assert "rizbin completion words" in capsys.readouterr().out


def test_bash_completes(tmp_path: Path) -> None:
    """The script in a real bash, with a stand-in for the command."""
    program = tmp_path / "rizbin"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rizbin "$@"\n')
    program.chmod(0o755)
    asked = 'eval "$(rizbin completion bash)"; COMP_WORDS=(rizbin visualize att); COMP_CWORD=2; _rizbin; '
    asked += 'echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", asked], capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert done.stdout.strip() == "attention", done.stderr


def test_json_schema_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert cli.main(["schema", "detect"]) == 0
    detect = json.loads(capsys.readouterr().out)
    assert detect["properties"]["nms_iou"]["default"] == 0.7 and detect["required"] == ["images"]
    assert cli.main(["schema", "train", "clip"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["trainer"]["properties"]["precision"]["enum"]
    assert cli.main(["schema", "detekt"]) == 2
