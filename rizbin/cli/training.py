"""Commands that train: one run from start to report."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rizbin.cli import checks, schema
from rizbin.cli.parsing import WHOLE_HELP, help_text, near, parse, wants_help
from rizbin.core.commands import Command, build
from rizbin.core.errors import RizbinError

STOPPED = 75  # sysexits.h, EX_TEMPFAIL: nothing is lost, try again


def train(words: list[str]) -> int:
    """`rizbin train METHOD ...`."""
    methods = schema.methods()
    if not words or words[0] in ("-h", "--help"):
        print("usage: rizbin train METHOD [--data D] [--steps N | --minutes M] [--batch B] [--seed S] [--run DIR] ...")
        print("", *(f"  {name:<12}{text}" for name, text in methods.items()), sep="\n")
        print("\n`rizbin train METHOD --help` lists the settings. The same command again goes on where a run stopped.")
        return 0
    name = method_in(words)
    command = _checked(name, words)
    if wants_help(words):
        print(help_text(command, whole=WHOLE_HELP in words))
        return 0
    given = parse(command, words[1:])
    checks.check(command, {field: value for field, value in given.items() if field != "data" or "images" not in given})
    from rizbin.workflows.train import from_flags, run_options

    settings, options = from_flags(name, given)
    return finish(
        lambda: Path(run_options(settings, options)), ["train", *words], report=options.report, quiet=options.quiet
    )


def check_training(words: list[str]) -> int:
    """The batch of `train METHOD ...`, whose words are parsed and refused as when it runs; what they name is not
    looked for, for it may lie elsewhere."""
    name = method_in(words[1:])
    command = _checked(name, words[1:])
    given = parse(command, words[2:])
    return int(given.get("batch") or next(flag.default for flag in command.flags if flag.name == "batch"))


def _checked(name: str, words: list[str]) -> Command:
    """The command of a method with the defaults of the preset that the words name."""
    given_words = {word.split("=", 1)[0] for word in words}
    lengths = [flag for flag in ("--steps", "--minutes", "--epochs") if flag in given_words]
    if len(lengths) > 1:
        raise RizbinError(f"Both {' and '.join(lengths)} were given; a run has one length, so keep one of them.")
    for short, long in (("--learning-rate", "--trainer.learning-rate"), ("--lr", "--trainer.learning-rate")):
        if {short, long} <= given_words:
            raise RizbinError(f"{short} and {long} are the same; keep one of them.")
    preset = _value_of("--preset", words)
    command, presets = schema.training(name, preset)
    if preset and preset not in presets:
        raise RizbinError(f"{name} has no preset {preset!r}; {near(preset, list(presets))}")
    return command


def method_in(words: list[str]) -> str:
    """The method, which is the first word. Raises RizbinError for one that is none."""
    methods, name = schema.methods(), words[0] if words else ""
    if not name or name.startswith("-"):
        raise RizbinError(f"The method comes first: rizbin train METHOD {name} ...; there are {', '.join(methods)}.")
    if name not in methods:
        raise RizbinError(f"There is no method {name!r}; {near(name, list(methods))}")
    return name


def _value_of(flag: str, words: list[str]) -> str:
    """The value of a flag that has to be known before all flags are; empty when it was not given."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == flag or word.startswith(f"{flag}="):
            return following if word == flag else word.split("=", 1)[1]
    return ""


def finish(start: Callable[[], Path], words: list[str], *, report: bool, quiet: bool, whole: bool = False) -> int:
    """Trains by `start`, then measures and writes the report; the exit status says whether it was stopped before."""
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
        from rizbin.workflows.report import report as write

        _say(f"The report: {write(run, all_parts=whole, quiet=quiet, on_numbers=tell)}")
    return 0


def tell(numbers: Any) -> None:
    """Prints what was measured on, and the most important numbers."""
    _say(numbers.on() if numbers.measurements else "No numbers: " + "; ".join(why for _, why in numbers.left_out))
    if headlines := numbers.headlines():
        _say(headlines)


def _first() -> bool:
    """Whether this is the process that prints: the only one, or torchrun's first."""
    return os.environ.get("RANK", "0") == "0"


def _say(text: str) -> None:
    """Prints once, however many processes there are."""
    if _first():
        print(text)


def again(words: list[str]) -> str:
    """The command that resumes a run: the same one again, under torchrun where that started it."""
    command = shlex.join(words)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        processes, machines = os.environ.get("LOCAL_WORLD_SIZE", "1"), os.environ.get("GROUP_WORLD_SIZE", "1")
        several = "" if machines == "1" else f"--nnodes {machines} (and the other flags as before) "
        return f"torchrun {several}--nproc-per-node {processes} -m rizbin -- {command}"
    return f"rizbin {command}"


def demo(words: list[str]) -> int:
    """`rizbin demo`."""
    command = schema.command("demo")
    if wants_help(words):
        print(help_text(command))
        return 0
    given = parse(command, words)
    from rizbin.workflows.demo import Demo
    from rizbin.workflows.demo import demo as job

    settings = build(Demo, given)
    return finish(lambda: job.run(settings), ["demo", *words], report=True, quiet=settings.quiet, whole=True)


def zoo(words: list[str]) -> int:
    """`rizbin zoo [NAME] [--build DIR]`."""
    command = schema.command("zoo")
    if wants_help(words):
        print(help_text(command))
        return 0
    given = parse(command, words)
    from rizbin.workflows.zoo import Zoo
    from rizbin.workflows.zoo import zoo as job

    settings = build(Zoo, given)
    if settings.build is None:
        print(job.run(settings))
        return 0
    return finish(lambda: Path(job.run(settings)), ["zoo", *words], report=False, quiet=False)
