"""The command line: parse, call one function of one room, show what it gave.

Flags are derived from the settings classes and never written down here. Exit status: 0 done; 2 the input was wrong, in
one sentence; 75 stopped on request with everything saved; 130 interrupted; 1 a fault of ours, with its traceback.
"""

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rizbin.cli import climb, data, draw, find, lab, training
from rizbin.cli.parsing import near, parse
from rizbin.core.errors import RizbinError
from rizbin.core.outputs import overwriting


class Command(NamedTuple):
    """One word after `rizbin`."""

    run: Callable[[list[str]], int]
    does: str
    example: str


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    trace = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    overwrite = OVERWRITE in words and words[0] in WRITING
    words = [word for word in words if word != OVERWRITE] if overwrite else words
    if words[:1] == ["--"]:  # some Pythons hand on the mark that keeps torchrun from reading our flags as its own
        words = words[1:]
    try:
        with overwriting(overwrite):
            return _dispatch(words)
    except SystemExit as end:  # tyro's way of saying that it has shown the help
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:  # the reader of a pipe has gone; point stdout elsewhere or Python complains at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("rizbin: interrupted", file=sys.stderr)
        return 130
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
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        from rizbin import __version__

        print(f"rizbin {__version__}")
        return 0
    if words[0] not in COMMANDS:
        raise RizbinError(f"There is no command {words[0]!r}; {near(words[0], list(COMMANDS))}")
    return COMMANDS[words[0]].run(words[1:])


def _help() -> str:
    """The first page that anybody sees. Made without importing torch: it has to be there at once."""
    lines = ["rizbin trains, measures and inspects vision-language models that keep the detail.", ""]
    lines += ["usage: rizbin COMMAND [options]", ""]
    for name, command in COMMANDS.items():
        lines += [f"  {name:<10}{command.does}", f"            $ {command.example}"]
    lines += ["", *textwrap.wrap(f"methods: {', '.join(training.descriptions())}", 100, subsequent_indent=" " * 9)]
    lines += ["data: scenes (drawn on the fly, no download), a folder of pictures, a table of paths and captions, ..."]
    lines += ["", "`rizbin COMMAND --help` explains a command, `rizbin train METHOD --help` every setting of a method."]
    lines += ["Anywhere: --version, and --traceback to see where an error came from."]
    lines += ["Commands that write keep files that they did not make and take new names; --overwrite replaces them."]
    return "\n".join(lines)


# --- commands ---------------------------------------------------------------------------------------------------------


def _evaluate(words: list[str]) -> int:
    from typing import Annotated, Literal

    import tyro

    from rizbin import api

    # Detectors and what draws are measured otherwise than encoders, so they have flags of their own.
    kind = api.settings_of(words[0]) if words and not words[0].startswith("-") else api.Evaluation.Settings()

    def evaluate(
        what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FOLDER|NAME")],
        data: str = "",
        split: Literal["test", "train", "all"] = "test",
        validation_data: str = "",
        json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        settings: Any = kind,
    ) -> tuple[str, dict[str, Any], bool, Any]:
        """Measures a model, and a randomly initialized one beside it.

        Args:
            what: A run folder, a folder that export wrote, or the name of a model that comes with Rizbin. A detector
                or a model that draws, named first, has flags of its own: `rizbin evaluate DETECTOR --help`.
            data: Pictures to measure on, as for train; empty: what the run was trained with. instances.json@DIR for a
                COCO file whose pictures are in DIR.
            split: The part of the data that is measured on: test (one image of twenty, which no run has seen), train,
                or all; of these two nothing is left for neighbors and probes to learn from.
            validation_data: Images to measure on instead, all of them. Empty: those that the run was given, if any.
            json: Print the numbers with their protocols as JSON.
            settings: How it is measured.
        """
        return what, {"data": data, "split": split, "validation_data": validation_data}, json, settings

    evaluate.__annotations__["settings"] = Annotated[type(kind), tyro.conf.OmitArgPrefixes]
    what, where, as_json, settings = parse(evaluate, words, "evaluate")
    found = api.measure(what, **where, settings=settings, quiet=as_json)
    print(found.to_json() if as_json else found.table())
    return 0


def _export(words: list[str]) -> int:
    from typing import Annotated

    import tyro

    def export(
        run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
        to: tuple[str, str],
        half: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    ) -> tuple[str, tuple[str, str], bool]:
        """Writes a trained model in a form that other software loads, and prints the lines that load it.

        Args:
            run: A run folder, or the name of a model that comes with Rizbin (`rizbin zoo`).
            to: The form and a new folder. open_clip DIR, for open_clip.create_model_and_transforms("local-dir:DIR");
                timm DIR, for timm.create_model("local-dir:DIR") of an encoder without text; rizbin DIR, with teacher
                and decoder for reports and pictures, always in 16 bits. Of a detector: transformers DIR, or onnx DIR
                for onnxruntime, which `rizbin detect --model DIR` runs too. Of what draws: diffusers DIR.
            half: Store the weights in 16 bits.
        """
        return run, to, half

    run, (form, folder), half = parse(export, words, "export")
    from rizbin import api

    made = api.export(run, folder, form=form, half=half)
    print(made)
    print(api.loading_lines(made))
    return 0


def _report(words: list[str]) -> int:
    from typing import Annotated, Literal

    import tyro

    def report(
        what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FOLDER|NAME")],
        data: str = "",
        split: Literal["test", "train", "all"] = "test",
        validation_data: str = "",
        to: str = "",
    ) -> tuple[str, dict[str, Any]]:
        """Writes a page of numbers and pictures about a model, one file that opens without network.

        Args:
            what: A run folder, a folder that export wrote, or the name of a model that comes with Rizbin.
            data: Pictures to measure on and to show, as for train; empty: what it was trained with.
            split: The part of the data: test, train or all, as for evaluate.
            validation_data: Images to measure on and to show instead, all of them.
            to: The file. Empty: report.html in the run folder, or NAME.html here.
        """
        return what, {"data": data, "split": split, "validation_data": validation_data, "to": to}

    what, given = parse(report, words, "report")
    from rizbin import api

    print(api.report(what, **given, told=training.tell))
    return 0


def _zoo(words: list[str]) -> int:
    from typing import Annotated

    import tyro

    def models(
        name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = "", build: str = ""
    ) -> tuple[str, str]:
        """Lists the trained models that come with Rizbin, shows a model's card, or makes a model again.

        Args:
            name: A model; empty: list them all.
            build: Train the model anew in this run folder, or go on there; it is then in DIR/published.
        """
        return name, build

    name, build = parse(models, words, "zoo")
    if build:
        from rizbin.workflows.bundled_models import rebuild

        return training.finish(lambda: rebuild(name, Path(build)), ["zoo", *words], report=False, quiet=False)
    from rizbin import zoo

    if not name:
        for one in zoo.names():
            print(f"{one:<18}{zoo.card_of(one).is_a}")
        return 0
    print(zoo.card_of(name).text())
    from rizbin.workflows.known_words import known_names

    if known := known_names(name):
        import textwrap

        print(textwrap.fill(f"knows      {', '.join(known)}", 100, subsequent_indent=" " * 11))
    return 0


def _doctor(words: list[str]) -> int:
    from typing import Annotated

    import tyro

    def doctor(json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False) -> bool:
        """Says what is installed and what this machine can do.

        Args:
            json: Print it as JSON, for a fault report.
        """
        return json

    as_json = parse(doctor, words, "doctor")
    from rizbin.doctor import examine, lines

    report = examine()
    if as_json:
        import json

        print(json.dumps(report, indent=2))
        return 0
    from rich.console import Console

    console, last = Console(highlight=False), ""
    for section, name, value, well in lines(report):
        if section != last:
            console.print(f"\n[bold]{section}[/bold]")
        mark = "[green]ok[/green] " if well else "[red]bad[/red]"
        console.print(f"  {mark} {name:<24} ", value, sep="", markup=True)
        last = section
    return 0


def _list_methods(words: list[str]) -> int:
    def methods() -> None:
        """Lists the methods that `rizbin train` knows, each with what it is."""

    if words:
        parse(methods, words, "methods")
    for name, text in training.descriptions().items():
        print(f"{name:<12}{text}")
    return 0


OVERWRITE = "--overwrite"
WRITING = ("report", "visualize", "detect", "generate", "edit", "ascend", "study", "compare", "replay")
"""Commands that take it; the others write into folders of their own only, and refuse any other."""
COMMANDS = {
    "demo": Command(training.demo, "train DetailCLIP on drawn scenes for some minutes, write a report", "rizbin demo"),
    "train": Command(
        training.train,
        "train a method on pictures with captions",
        "rizbin train detailclip --data DIR --minutes 30 --run runs/mine",
    ),
    "evaluate": Command(
        _evaluate, "measure a model, beside a randomly initialized one", "rizbin evaluate runs/mine --json"
    ),
    "export": Command(_export, "write a model for open_clip", "rizbin export runs/mine --to open_clip mine-open-clip"),
    "report": Command(
        _report, "write a page of numbers and pictures about a model", "rizbin report detailclip-mini --to page.html"
    ),
    "zoo": Command(_zoo, "list the trained models that come along, or make one again", "rizbin zoo detailclip-mini"),
    "visualize": Command(
        lab.visualize,
        "draw what a model looks at, or tells apart",
        "rizbin visualize attention detailclip-mini scenes:easy",
    ),
    "detect": Command(
        find.detect,
        "find things in pictures by words",
        'rizbin detect drawings --find "a cat" --model detector-mini --draw seen',
    ),
    "verify": Command(
        find.verify,
        "say whether things are in a picture",
        'rizbin verify drawing.png "a cat" "a dog" --model detector-mini',
    ),
    "generate": Command(
        draw.generate,
        "draw pictures from words, step by step",
        'rizbin generate "a zebra and a frog" --model DIR --film',
    ),
    "edit": Command(draw.edit, "redraw a picture by words", 'rizbin edit photo.png "a taxi" --model DIR --grid'),
    "ascend": Command(
        climb.ascend,
        "draw what an encoder sees in words, by climbing its gradient",
        'rizbin ascend "a strawberry and a zebra" --count 4',
    ),
    "study": Command(
        lab.study, "answer by experiment why a method works", "rizbin study collapse --seeds 3 --budget 30"
    ),
    "compare": Command(
        lab.compare, "train several methods alike and show them side by side", "rizbin compare simclr byol --seeds 3"
    ),
    "data": Command(
        data.data,
        "write scenes or other data as webdataset tars, with masks, for fast loading",
        "rizbin data render scenes:detail --count 2000 --output DIR",
    ),
    "replay": Command(
        training.replay, "make a step again that was not finite, or drawn pictures", "rizbin replay drawn/drawn.json"
    ),
    "methods": Command(_list_methods, "list the training methods", "rizbin methods"),
    "doctor": Command(_doctor, "say what is installed and what this machine can do", "rizbin doctor --json"),
}
