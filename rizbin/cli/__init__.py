"""The command line: parse words by the flags of a settings class, run one job, show what it gave.

Flags are derived from the settings classes and never written down here. Exit status: 0 done; 2 the input was wrong, in
one sentence; 75 stopped on request with everything saved; 130 interrupted; 1 a fault of ours, with its traceback.
"""

import json
import os
import sys
import textwrap

from rizbin.cli import checks, completion, schema, training
from rizbin.cli.parsing import WHOLE_HELP, help_text, near, parse, wants_help
from rizbin.cli.table import COMMANDS, STUDIES, Entry, loaded
from rizbin.core.commands import Command, build, json_schema
from rizbin.core.errors import RizbinError

OVERWRITE, TRACEBACK = "--overwrite", "--traceback"
INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    trace = TRACEBACK in words
    words = [word for word in words if word != TRACEBACK]
    if words[:1] == ["--"]:  # some Pythons hand on the mark that keeps torchrun from reading our flags as its own
        words = words[1:]
    try:
        return _dispatch(words)
    except BrokenPipeError:  # the reader of a pipe has gone; point stdout elsewhere or Python complains at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("rizbin: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (RizbinError, OSError) as error:
        if trace:
            raise
        print(f"rizbin: {_spoken(error)}", file=sys.stderr)
        return 2


def _spoken(error: Exception) -> str:
    """An error as one sentence."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return " ".join(str(error).split())


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_first_page())
        return 0
    if words[0] in ("-V", "--version"):
        from rizbin import __version__

        print(f"rizbin {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise RizbinError(f"There is no command {name!r}; {near(name, list(COMMANDS))}")
    if name in _OWN:
        return _OWN[name](rest)
    entry = COMMANDS[name]
    if entry.family:
        return _member(name, entry, rest)
    command = schema.command(_kind_of_evaluation(rest) if name == "evaluate" else name)
    return _run(command, entry, entry.job, rest)


def _run(command: Command, entry: Entry, job: str, words: list[str]) -> int:
    """Parses, checks what can be checked early, runs the job and shows what it gave."""
    if _helped(command, entry, words):
        return 0
    overwrite = entry.writes and OVERWRITE in words
    given = parse(command, [word for word in words if word != OVERWRITE] if overwrite else words)
    entry.check(given)
    checks.check(command, given)
    from rizbin.core.outputs import overwriting

    made = loaded(job)
    kind = (
        loaded(schema.EVALUATIONS[command.name.partition(" ")[2] or "encoder"]) if job == _EVALUATE else made.settings
    )
    settings = build(kind, given)
    try:
        with overwriting(overwrite):
            result = made.run(settings)
    except KeyboardInterrupt:
        if not entry.interrupted:
            raise
        print(f"Interrupted; {entry.interrupted.format(**vars(settings))}.")
        return INTERRUPTED
    return entry.show(result, settings)


_EVALUATE = COMMANDS["evaluate"].job


def _helped(command: Command, entry: Entry, words: list[str]) -> bool:
    """Prints the help of a command where it was asked for, and says whether it was."""
    if not wants_help(words):
        return False
    print(help_text(command, whole=WHOLE_HELP in words))
    print(f"\nAnywhere: {TRACEBACK} shows where an error came from.")
    if entry.writes:
        print(f"Files that Rizbin did not make are kept and new names taken; {OVERWRITE} replaces them.")
    return True


def _kind_of_evaluation(words: list[str]) -> str:
    """evaluate, by the kind of the model: the word that names a detector or a text-to-image model, where one does."""
    kinds = [checks.kind_of(word) for word in words if not word.startswith("-")]
    return next((f"evaluate {kind}" for kind in kinds if kind != "encoder"), "evaluate")


def _member(family: str, entry: Entry, words: list[str]) -> int:
    """A command of two words: `rizbin visualize attention ...`."""
    known = schema.members(family)
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: rizbin {family} {entry.family} [options]", end="\n\n")
        width = max(len(name) for name in known) + 2
        for name, about in known.items():
            print(textwrap.fill(f"  {name:<{width}}{about}", 118, subsequent_indent=" " * (width + 2)))
        print(f"\n`rizbin {family} {entry.family} --help` lists the options of one.\nexample: {entry.example}")
        return 0
    name, rest = words[0], words[1:]
    if name not in known:
        what = {"study": "study", "visualize": "visualization", "data": "command of data"}[family]
        raise RizbinError(f"There is no {what} {name!r}; {near(name, list(known))}")
    command = schema.command(f"{family} {name}")
    if family == "study" and name in STUDIES:
        return _run(command, entry, STUDIES[name], rest)
    if family == "data":
        return _run(command, entry, schema.RENDER, rest)
    return _run_function(command, entry, family, name, rest)


def _run_function(command: Command, entry: Entry, family: str, name: str, words: list[str]) -> int:
    """A visualization or a question, whose settings are made when its name is known."""
    if _helped(command, entry, words):
        return 0
    overwrite = OVERWRITE in words
    given = parse(command, [word for word in words if word != OVERWRITE])
    if family == "visualize" and "model" in given and not given.get("images"):
        raise RizbinError(f"Say which images: rizbin visualize {name} {given['model']} FOLDER, or scenes:single.")
    checks.check(command, given)
    from rizbin.core.outputs import overwriting

    with overwriting(overwrite):
        if family == "visualize":
            from rizbin.workflows.visualize import draw, settings_of

            print(draw(name, build(settings_of(name), given)))
        else:
            from rizbin.studies import questions
            from rizbin.studies.study import StudySettings, answer

            print(answer(questions.find(name), build(StudySettings, given), folder=f"runs/study-{name}"))
    return 0


def _first_page() -> str:
    """The first page that anybody sees. Made without importing torch: it has to be there at once."""
    lines = ["rizbin trains, measures and inspects vision-language models that keep the detail.", ""]
    lines += ["usage: rizbin COMMAND [options]", ""]
    for name, entry in COMMANDS.items():
        about = entry.about or schema.command(name).about
        sentence = f"{about.split('. ')[0].rstrip('.')}."
        lines += textwrap.wrap(f"  {name:<12}{sentence}", 100, subsequent_indent=" " * 14)
        lines += [f"              $ {entry.example}"]
    lines += ["", *textwrap.wrap(f"methods: {', '.join(schema.methods())}", 100, subsequent_indent=" " * 9)]
    lines += ["data: scenes (drawn on the fly, no download), a folder of images, a table of paths and captions, ..."]
    lines += ["", "`rizbin COMMAND --help` explains a command, `rizbin train METHOD --help` the settings of a method."]
    lines += [f"Anywhere: --version, and {TRACEBACK} to see where an error came from."]
    lines += [f"Commands that write keep files that they did not make and take new names; {OVERWRITE} replaces them."]
    return "\n".join(lines)


def _methods(words: list[str]) -> int:
    if wants_help(words):
        print("usage: rizbin methods\n\nLists the training methods; `rizbin train METHOD --help` explains one.")
        return 0
    if words:
        raise RizbinError("`rizbin methods` takes no words; `rizbin train METHOD --help` explains one.")
    for name, text in schema.methods().items():
        print(f"{name:<12}{text}")
    return 0


def _schema(words: list[str]) -> int:
    if not words or wants_help(words):
        print(
            "usage: rizbin schema COMMAND...\n\nPrints the settings of a command as JSON Schema: rizbin schema detect,"
        )
        print("rizbin schema train detailclip, rizbin schema visualize attention.")
        return 0
    if words[0] == "train":
        command, _ = schema.training(training.method_in(words[1:]))
    else:
        whole = " ".join(words)
        if whole not in schema.shipped()["commands"]:
            raise RizbinError(f"There is no command {whole!r}; {near(whole, list(schema.shipped()['commands']))}")
        command = schema.command(whole)
    print(json.dumps(json_schema(command.flags, title=f"rizbin {command.name}"), indent=2, ensure_ascii=False))
    return 0


_OWN = {
    "train": training.train,
    "demo": training.demo,
    "zoo": training.zoo,
    "methods": _methods,
    "completion": completion.completion,
    "schema": _schema,
}
"""Commands that do more than run one job."""
