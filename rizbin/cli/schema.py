"""The flags of every command as plain data: shipped as `schema.json`, so that help and refusals need no torch.

`make docs` writes the file again from the settings classes; a test says when it is stale. A training
method whose file is not the one that the shipped flags were made from (a new or a changed one) is asked itself.
"""

import ast
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rizbin.cli.table import COMMANDS, STUDIES, loaded
from rizbin.core.commands import Command, Flag, flags_of

SHIPPED = Path(__file__).with_name("schema.json")
_ROOMS = Path(__file__).parent.parent
EVALUATIONS = {
    "encoder": "rizbin.workflows.evaluate_model:EvaluateEncoder",
    "detector": "rizbin.workflows.evaluate_model:EvaluateDetector",
    "text-to-image": "rizbin.workflows.evaluate_model:EvaluateDiffusion",
}
"""The settings of `rizbin evaluate`, by the kind of the model."""
RENDER = "rizbin.workflows.render:render"


@cache
def shipped() -> Mapping[str, Any]:
    """The shipped flags; empty where there are none, and then all are made from the settings."""
    try:
        return json.loads(SHIPPED.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"commands": {}, "train": {}, "lists": {}}


def command(name: str) -> Command:
    """The command of that name ("detect", "study collapse"), its flags shipped or made from its settings."""
    record = shipped()["commands"].get(name)
    return _command(name, record) if record else made(name)


def members(family: str) -> dict[str, str]:
    """Name -> one line about it, of the members of a family: methods, visualizations, studies."""
    if family == "train":
        return methods()
    return dict(shipped()["lists"].get(family) or _members(family))


def methods() -> dict[str, str]:
    """Method -> what it is in one sentence: the first line of its file, read without importing it."""
    files = {path.stem: path for folder in _method_folders() for path in folder.glob("[a-z]*.py")}
    files["detector"] = _ROOMS / "detection" / "train.py"
    files["diffusion"] = _ROOMS / "generation" / "diffusion" / "train.py"
    sentences: dict[str, str] = {}
    for name, path in sorted(files.items()):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        sentences[name] = text.split("\n", 1)[0]
    return sentences


def training(method: str, preset: str = "") -> tuple[Command, tuple[str, ...]]:
    """The command `train METHOD` with a preset's defaults (empty: the first one's), and the names of its presets."""
    record = shipped()["train"].get(method)
    if record is None or record["source"] != _fingerprint(method):
        record = _training(method)
    presets = tuple(record["presets"])
    changed = record["presets"].get(preset or presets[0], {})
    flags = [Flag.from_dict(flag) for flag in record["flags"]]
    flags = [dataclasses.replace(flag, default=changed[flag.name]) if flag.name in changed else flag for flag in flags]
    about = (
        f"Train {method}: {methods().get(method, '')} A run that was stopped goes on when the same command is given."
    )
    return Command(name=f"train {method}", about=about, flags=tuple(flags)), presets


def made(name: str) -> Command:
    """The command, its flags made from its settings class: imports what the job needs."""
    first, _, rest = name.partition(" ")
    if first == "visualize":
        from rizbin.workflows.visualize import settings_of

        settings: Any = settings_of(rest)
    elif first == "study" and rest not in STUDIES:
        from rizbin.studies import questions
        from rizbin.studies.study import StudySettings

        return _described(name, StudySettings, about=questions.find(rest).question)
    elif first == "study":
        settings = loaded(STUDIES[rest]).settings
    elif first == "evaluate":
        settings = loaded(EVALUATIONS[rest or "encoder"])
    elif first == "data":
        settings = loaded(RENDER).settings
    else:
        settings = loaded(COMMANDS[first].job).settings
    return _described(name, settings)


def _described(name: str, settings: Any, *, about: str = "") -> Command:
    entry = COMMANDS[name.partition(" ")[0]]
    text = about or " ".join((settings.__doc__ or "").split())
    example = entry.example if not entry.family else ""
    return Command(name=name, about=text, flags=tuple(flags_of(settings)), example=example)


def _members(family: str) -> dict[str, str]:
    if family == "visualize":
        from rizbin.workflows import visualize

        return {name: visualize.about(name) for name in visualize.names()}
    if family == "study":
        from rizbin.studies import questions

        explanations = {name: questions.find(name).question for name in questions.names()}
        return explanations | {
            name: " ".join((loaded(job).settings.__doc__ or "").split()) for name, job in STUDIES.items()
        }
    if family == "data":
        return {"render": " ".join((loaded(RENDER).settings.__doc__ or "").split())}
    return {}


def _training(method: str) -> dict[str, Any]:
    from rizbin.workflows import presets
    from rizbin.workflows.train import flags

    names = presets.names(method)
    first = flags(method, names[0])
    base = {flag.name: flag.default for flag in first}
    changed: dict[str, dict[str, Any]] = {}
    for name in names:
        defaults = {flag.name: flag.default for flag in flags(method, name)}
        changed[name] = {field: value for field, value in defaults.items() if value != base[field]}
    plain = [flag.to_dict() for flag in first]
    return {"source": _fingerprint(method), "flags": plain, "presets": changed}


def _fingerprint(method: str) -> str:
    """Hash of the file that defines the method; empty where it lies elsewhere."""
    files = [folder / f"{method}.py" for folder in _method_folders()]
    return "".join(hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files if file.is_file())


def _method_folders() -> list[Path]:
    """Where methods lie: the package's folder, and others that its path was extended by."""
    package = find_spec("rizbin.methods")
    assert package is not None and package.submodule_search_locations is not None  # it is a folder of this package
    return [Path(folder) for folder in package.submodule_search_locations]


def _command(name: str, record: Mapping[str, Any]) -> Command:
    flags = tuple(Flag.from_dict(flag) for flag in record["flags"])
    return Command(name=name, about=record["about"], flags=flags, example=record.get("example", ""))


def everything() -> dict[str, Any]:
    """What is shipped, made from the settings classes."""
    names = [name for name, entry in COMMANDS.items() if entry.job and name != "evaluate"]
    names += ["evaluate", "evaluate detector", "evaluate text-to-image"]
    lists = {family: _members(family) for family in ("visualize", "study", "data")}
    names += [f"{family} {member}" for family, known in lists.items() for member in known]
    commands = {}
    for name in sorted(names):
        whole = made(name)
        commands[name] = {"about": whole.about, "flags": [flag.to_dict() for flag in whole.flags]}
        commands[name] |= {"example": whole.example} if whole.example else {}
    return {"commands": commands, "lists": lists, "train": {name: _training(name) for name in methods()}}


def text() -> str:
    """The file's text: a line for each flag, so that changes can be read."""
    return json.dumps(everything(), indent=1, ensure_ascii=False, sort_keys=False) + "\n"


def write() -> None:
    """Writes the shipped file again."""
    SHIPPED.write_text(text(), encoding="utf-8")
    shipped.cache_clear()
