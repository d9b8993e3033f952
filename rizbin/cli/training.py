"""Commands that train: flags derived from a method's settings, one run from start to report."""

import ast
import dataclasses
import os
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rizbin.cli.parsing import near, parse
from rizbin.core.errors import RizbinError

if TYPE_CHECKING:  # torch and its company load in seconds; the commands that need them import them when called
    from rizbin.workflows.presets import Training
    from rizbin.workflows.replay import Replayed

STOPPED = 75  # sysexits.h, EX_TEMPFAIL: nothing is lost, try again


def descriptions() -> dict[str, str]:
    """Method -> what it is in one sentence: the first line of its file, read without importing it."""
    rooms = Path(__file__).parent.parent
    package = find_spec("rizbin.methods")
    assert package is not None and package.submodule_search_locations is not None  # it is a folder of this package
    folders = [Path(folder) for folder in package.submodule_search_locations]
    files = {path.stem: path for folder in folders for path in folder.glob("[a-z]*.py")}
    files["detector"] = rooms / "detection" / "teach.py"
    files["diffusion"] = rooms / "generation" / "diffusion" / "learn.py"
    found = {}
    for name, path in sorted(files.items()):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[name] = text.split("\n", 1)[0]
    return found


def train(words: list[str]) -> int:
    methods = descriptions()
    if not words or words[0] in ("-h", "--help"):
        print("usage: rizbin train METHOD [--data D] [--steps N | --minutes M] [--batch B] [--seed S] [--run DIR] ...")
        print("", *(f"  {name:<12}{text}" for name, text in methods.items()), sep="\n")
        print("\n`rizbin train METHOD --help` lists every setting. The same command again goes on where a run stopped.")
        return 0
    name = words[0]
    if name.startswith("-"):
        raise RizbinError(f"The method comes first: rizbin train METHOD {name} ...; there are {', '.join(methods)}.")
    if name not in methods:
        raise RizbinError(f"There is no method {name!r}; {near(name, list(methods))}")
    from rizbin.workflows import presets

    given = {word.split("=", 1)[0] for word in words}
    lengths = [flag for flag in ("--steps", "--minutes", "--epochs") if flag in given]
    if len(lengths) > 1:
        raise RizbinError(f"Both {' and '.join(lengths)} were given; a run has one length, so keep one of them.")
    for short, long in (("--learning-rate", "--trainer.learning-rate"), ("--lr", "--trainer.learning-rate")):
        if {short, long} <= given:
            raise RizbinError(f"{short} and {long} are the same; keep one of them.")
    known = presets.names(name)
    preset = _value_of("--preset", words) or known[0]
    if preset not in known:
        raise RizbinError(f"{name} has no preset {preset!r}; {near(preset, list(known))}")
    default = presets.preset(name, preset)
    flags = parse(_train_flags(default, Around(preset=preset), known), words[1:], f"train {name}")
    return _trained(default, flags, words)


def _value_of(flag: str, words: list[str]) -> str:
    """The value of a flag that has to be known before all flags are; empty when it was not given."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == flag or word.startswith(f"{flag}="):
            return following if word == flag else word.split("=", 1)[1]
    return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Around:
    """What a training is told besides its settings: these change how it goes, not what it is."""

    epochs: float = 0.0
    """Passes over the data instead of --steps. 0: by --steps."""
    minutes: float = 0.0
    """A budget of time instead of --steps; measured once and turned into a number of steps. 0: by --steps."""
    learning_rate: float = 0.0
    """Peak of the learning rate, short for --trainer.learning-rate. 0: the preset's."""
    device: str = "best"
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    validation_data: str = ""
    """Images that the model is measured on, as for --data; all of --data is then trained on. Empty: one image of twenty
    is kept apart for that."""
    tolerate: float = 0.05
    """Share of the images, 0 to 1, that may be unusable before the run stops; 20 always may, up to half of all."""
    images: str = ""
    """Folder of the pictures that a COCO or ODVG file in --data names. Empty: beside the file."""
    run: str = ""
    """Folder of the run. Empty: a name under runs/ made from the settings."""
    preset: str = "small"
    """Settings to start from; other flags change them."""
    report: bool = True
    """Measure the model at the end and write report.html."""
    quiet: bool = False
    """No progress bar."""


def _train_flags(default: "Training[Any]", around: Around, presets: tuple[str, ...]) -> type:
    """The flags of one training as a class for tyro: short ones in front, then every setting by its dotted name."""
    from typing import Annotated

    import tyro

    from rizbin.core.settings import explained

    text = explained(type(default)) | explained(Around)
    text["method"] = text["settings"]
    text["preset"] += f" One of {', '.join(presets)}."
    values = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    del values["method"]  # the word after `train`
    values["method"] = values.pop("settings")  # --method.keep-ratio is what one looks for
    groups = {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}
    short = {name: value for name, value in values.items() if name not in groups}
    aliases = {"learning_rate": ["--lr"]}
    flags = [
        (
            name,
            Annotated[type(value), tyro.conf.arg(help=text.get(name), aliases=aliases.get(name))],
            dataclasses.field(default=value),
        )
        for name, value in (short | vars(around) | groups).items()
    ]
    made = dataclasses.make_dataclass("Flags", flags, frozen=True, kw_only=True)
    made.__doc__ = f"Trains {default.method}. A run that was stopped goes on when the same command is given again."
    return made


def _trained(default: "Training[Any]", flags: Any, words: list[str]) -> int:
    """Runs what the flags ask for."""
    from rizbin import api

    names = {field.name for field in dataclasses.fields(default)} - {"method", "settings"}
    changed = {name: getattr(flags, name) for name in names}
    if flags.images:
        changed["data"] = f"{changed['data']}@{flags.images}"
    if flags.learning_rate < 0:
        raise RizbinError(f"--learning-rate is {flags.learning_rate:g}; give a positive number.")
    if flags.learning_rate:
        changed["trainer"] = dataclasses.replace(changed["trainer"], learning_rate=flags.learning_rate)
    training = dataclasses.replace(default, settings=flags.method, **changed)
    if flags.minutes < 0:
        raise RizbinError(f"--minutes is {flags.minutes:g}; give a positive number of minutes.")
    around = {name: getattr(flags, name) for name in ("epochs", "device", "tolerate", "validation_data", "quiet")}

    def start() -> Path:
        return api.fit(training, run=flags.run, minutes=flags.minutes or None, **around)

    return finish(start, ["train", *words], report=flags.report, quiet=flags.quiet)


def finish(start: Callable[[], Path], words: list[str], *, report: bool, quiet: bool, rooms: bool = False) -> int:
    """Trains by `start`, then measures and writes the report; the exit status says whether it was stopped before."""
    from rizbin import api
    from rizbin.core import parallel
    from rizbin.training.trainer import Stopped

    try:
        run = start()
    except Stopped as stop:
        _say(f"{stop}\n  {again(words)}")
        return STOPPED
    finally:
        parallel.stop()
    _say(f"Trained: {run}")
    if report and _first():
        if not quiet:
            _say("Now it is measured for the report (--no-report leaves that out).")
        _say(f"The report: {api.report(run, rooms=rooms, quiet=quiet, told=tell)}")
    return 0


def tell(numbers: Any) -> None:
    """Says what was measured on, and the numbers that one looks at first."""
    _say(numbers.on() if numbers.measurements else "No numbers: " + "; ".join(why for _, why in numbers.left_out))
    if told := numbers.headlines():
        _say(told)


def _first() -> bool:
    """Whether this is the process that speaks for all: the only one, or torchrun's first."""
    return os.environ.get("RANK", "0") == "0"


def _say(text: str) -> None:
    """Prints once, however many processes there are."""
    if _first():
        print(text)


def again(words: list[str]) -> str:
    """The command that goes on with a run: the same again, under torchrun if it was started by it."""
    command = shlex.join(words)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        processes, machines = os.environ.get("LOCAL_WORLD_SIZE", "1"), os.environ.get("GROUP_WORLD_SIZE", "1")
        several = "" if machines == "1" else f"--nnodes {machines} (and the other flags as before) "
        return f"torchrun {several}--nproc-per-node {processes} -m rizbin -- {command}"
    return f"rizbin {command}"


def replay(words: list[str]) -> int:
    from typing import Annotated

    import tyro

    def replay(
        run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|RECORD")],
        out: str = "replayed",
        quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    ) -> tuple[str, str, bool]:
        """Makes again the step of a run whose loss or gradient was not finite, or the pictures of a record.

        Of a run it says where the first such number came from. Of a record it says of each picture whether it came out
        the same to the bit; exit code 1 when one did not.

        Args:
            run: The folder of the run that stopped; or the drawn.json or repaired.json of drawn pictures, or the folder
                that it lies in.
            out: Folder for the pictures.
            quiet: No progress bar.
        """
        return run, out, quiet

    run, out, quiet = parse(replay, words, "replay")
    if not (Path(run) / "settings.json").is_file():
        from rizbin import api

        if (record := api.record_in(Path(run))) is not None:
            return _drawn_again(api.replay(record, to=out, quiet=quiet))
    from rizbin.workflows.runs import replay as make_again

    print(make_again(Path(run)).text())
    return 0


def _drawn_again(made: "list[Replayed]") -> int:
    for one in made:
        print(f"{one.file}: {one.prompt} ({'the same to the bit' if one.same else f'not the same: {one.note}'})")
    return 0 if all(one.same for one in made) else 1


def demo(words: list[str]) -> int:
    def demo(run: str = "runs/demo") -> str:
        """Trains DetailCLIP on drawn scenes for some minutes and writes a report of what it learned.

        The report also shows the other rooms, with models that come along: a picture drawn, one mended, things found.

        Args:
            run: Folder of the run. A demo that was stopped goes on when it is started again.
        """
        return run

    run = Path(parse(demo, words, "demo"))
    from rizbin.workflows.demo import demo as train_it

    return finish(lambda: train_it(run), ["demo", *words], report=True, quiet=False, rooms=True)
