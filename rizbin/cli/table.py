"""The table of commands: which job each runs, and how its result is shown. Imports nothing heavy."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rizbin.cli import show

Given = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One word after `rizbin`."""

    job: str
    """module:name of a `rizbin.core.commands.Job`; empty for a family, whose members have settings of their own."""
    show: Callable[[Any, Any], int]
    """Prints what the job returned, knowing its settings; gives the exit code."""
    example: str
    about: str = ""
    """One line for the list of commands; empty: the first sentence of the settings' docstring."""
    check: Callable[[Given], None] = lambda given: None
    """Raises RizbinError for words that cannot be meant, before anything is imported."""
    interrupted: str = ""
    """What is said after Ctrl-C, with the settings filled in: "what was drawn is in {output}"."""
    writes: bool = False
    """Whether it takes --overwrite."""
    family: str = ""
    """What a member of the family is called in its usage: METHOD."""


def training_of_launch(given: Given) -> None:
    """Raises RizbinError for a training that would be refused on every machine: its flags are parsed here first."""
    from rizbin.cli.training import check_training
    from rizbin.core.commands import build
    from rizbin.workflows.launch import Launch, check_batch, training_words

    check_batch(check_training(training_words(given["command"])), build(Launch, given))


def loaded(where: str) -> Any:
    """What module:name names."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


COMMANDS: Mapping[str, Entry] = {
    "demo": Entry(job="rizbin.workflows.demo:demo", show=show.path, example="rizbin demo"),
    "train": Entry(
        job="",
        family="METHOD",
        about="Train a method on images, with or without captions.",
        show=show.path,
        example="rizbin train detailclip --data DIR --minutes 30 --run runs/mine",
    ),
    "launch": Entry(
        job="rizbin.workflows.launch:launch",
        show=show.path,
        example='rizbin launch slurm "train clip --run runs/big" --nodes 2 --processes 8 -o big.sbatch',
        check=training_of_launch,
        writes=True,
    ),
    "adapt": Entry(
        job="rizbin.workflows.adapt:adapt",
        show=show.text,
        example="rizbin adapt detailclip-mini --data photos --steps 500",
    ),
    "evaluate": Entry(
        job="rizbin.workflows.evaluate_model:evaluate",
        show=show.numbers,
        example="rizbin evaluate runs/mine --json",
    ),
    "benchmarks": Entry(
        job="rizbin.workflows.benchmark:benchmarks",
        show=show.text_or_json,
        example="rizbin benchmarks ade20k",
    ),
    "report": Entry(
        job="rizbin.workflows.report:report",
        show=show.path,
        example="rizbin report detailclip-mini --output page.html",
        writes=True,
    ),
    "export": Entry(
        job="rizbin.workflows.export:export",
        show=show.exported,
        example="rizbin export runs/mine --format open_clip --output mine-open-clip",
    ),
    "zoo": Entry(job="rizbin.workflows.zoo:zoo", show=show.text, example="rizbin zoo detailclip-mini"),
    "visualize": Entry(
        job="",
        family="WHAT",
        about="Show what a model attends to, groups or confuses.",
        show=show.path,
        example="rizbin visualize attention detailclip-mini scenes:easy",
        writes=True,
    ),
    "detect": Entry(
        job="rizbin.workflows.detect:detect",
        show=show.detections,
        example='rizbin detect drawings --find "a cat" --model detector-mini --draw seen',
        check=show.check_detect,
        writes=True,
    ),
    "verify": Entry(
        job="rizbin.workflows.verify:verify",
        show=show.verdicts,
        example='rizbin verify drawing.png "a cat" "a dog" --model detector-mini',
        check=show.check_verify,
    ),
    "embed": Entry(
        job="rizbin.workflows.embed:embed",
        show=show.embedded,
        example="rizbin embed photos --output vectors.npz --patches",
        interrupted="what was embedded is kept beside {output}, and the same command goes on",
        writes=True,
    ),
    "search": Entry(
        job="rizbin.workflows.search:search",
        show=show.hits,
        example='rizbin search "a cat" --in vectors.npz --patches --sheet cats.png',
        check=show.check_search,
        writes=True,
    ),
    "classify": Entry(
        job="rizbin.workflows.classify:classify",
        show=show.classified,
        example="rizbin classify photos --names cat,dog --output labels.csv",
        writes=True,
    ),
    "generate": Entry(
        job="rizbin.workflows.generate:generate",
        show=show.drawn,
        example='rizbin generate "a zebra and a frog" --film',
        check=show.check_prompts("generate"),
        interrupted="what was drawn is in {output}",
        writes=True,
    ),
    "repair": Entry(
        job="rizbin.workflows.generate:repair",
        show=show.repaired,
        example='rizbin repair "a zebra and a frog"',
        check=show.check_prompts("repair"),
        interrupted="what was drawn is in {output}",
        writes=True,
    ),
    "edit": Entry(
        job="rizbin.workflows.generate:edit",
        show=show.drawn,
        example='rizbin edit photo.png "a taxi" --grid',
        check=show.check_edit,
        interrupted="what was drawn is in {output}",
        writes=True,
    ),
    "ascend": Entry(
        job="rizbin.workflows.ascend:ascend",
        show=show.ascended,
        example='rizbin ascend "a strawberry and a zebra" --count 4',
        check=show.check_prompts("ascend"),
        interrupted="what was drawn is in {output}, and the same command goes on",
        writes=True,
    ),
    "study": Entry(
        job="",
        family="NAME",
        about="Answer by experiment why a method works.",
        show=show.path,
        example="rizbin study collapse --seeds 3 --budget 30",
        writes=True,
    ),
    "learn": Entry(job="rizbin.studies.learn:learn", show=show.text, example="rizbin learn byol-collapse --open"),
    "compare": Entry(
        job="rizbin.studies.compare:compare",
        show=show.path,
        example="rizbin compare simclr byol --seeds 3",
        writes=True,
    ),
    "data": Entry(
        job="",
        family="render",
        about="Write scenes or other data as webdataset tars, with masks, for fast loading.",
        show=show.text,
        example="rizbin data render scenes:detail --count 2000 --output DIR",
    ),
    "replay": Entry(
        job="rizbin.workflows.replay:replay",
        show=show.replayed,
        example="rizbin replay drawn/drawn.json",
        writes=True,
    ),
    "methods": Entry(job="", about="List the training methods.", show=show.path, example="rizbin methods"),
    "schema": Entry(
        job="",
        about="Print the flags of a command as JSON Schema.",
        show=show.path,
        example="rizbin schema detect",
    ),
    "studio": Entry(job="rizbin.studio.command:studio", show=show.text, example="rizbin studio"),
    "doctor": Entry(job="rizbin.doctor:doctor", show=show.doctor, example="rizbin doctor --json"),
    "completion": Entry(
        job="",
        about="Print a completion script for bash, zsh or fish.",
        show=show.path,
        example="rizbin completion bash",
    ),
}
STUDIES = {
    "grounding": "rizbin.studies.grounding:study_grounding",
    "missing-objects": "rizbin.studies.missing.job:study_missing_objects",
    "ascent": "rizbin.studies.ascent_job:study_ascent",
    "denoising": "rizbin.studies.denoising:study_denoising",
}
"""Studies with settings of their own; the others are the questions in `rizbin/studies/questions`."""
