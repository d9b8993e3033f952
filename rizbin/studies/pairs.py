"""What the studies of DetailCLIP measure, and how they show it."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from rizbin.core.pages import Page
from rizbin.core.pieces import Cell, Number
from rizbin.data.open import open_source
from rizbin.evaluate.suite import Evaluation, evaluate
from rizbin.nets.dual import ImageTextPair
from rizbin.recipes.training import load_run
from rizbin.studies.lab import Numbers, Results, Variant, beyond_chance

WORLD = "scenes:easy,seed=2"
"""Scenes of a world by whose numbers no recipe was chosen."""
SMALL = "scenes:hard,seed=2"
"""Small and crowded: for objects by size. Nothing was trained on its like."""
COLUMNS = {
    "zero_shot/top1": "zero-shot top-1",
    "retrieval/image_to_text/r1": "captions found, R@1",
    "segmentation/zero_shot/miou": "zero-shot mIoU",
    "segmentation/zero_shot/patch_accuracy_present": "patch accuracy among the names in the image",
    "grounding/zero_shot/pair_objects": "two objects, own word first (chance 50)",
    "grounding/zero_shot/pair_both": "two objects, both right (chance 25)",
    "segmentation/linear/miou": "linear mIoU",
    "small/sizes/small/localized": "small objects localized",
    "tokens/object_pixels_kept": "object pixels kept by attention",
    "tokens/object_pixels_hidden": "object pixels hidden from the student",
    "milliseconds": "ms of one core a step",
}
"""What stands in the table."""


def measure_pair(folder: Path) -> Numbers:
    """The usual numbers on new scenes, objects by size on hard ones, and what a step cost."""
    run = load_run(folder)
    pair = run.encoder
    assert isinstance(pair, ImageTextPair)  # these studies train nothing else
    settings = Evaluation.Settings(baseline=False)
    train, test = (open_source(WORLD, split=part, size=pair.image_size) for part in ("train", "test"))
    method = run.method
    found = evaluate(
        pair, test, train_source=train, settings=settings, look=method.look, reconstruct=method.reconstruct
    )
    numbers = {one.name: one.value for one in found.measurements}
    hard = open_source(SMALL, split="test", size=pair.image_size)
    of_hard = evaluate(pair, hard, settings=settings)
    numbers |= {f"small/{one.name}": one.value for one in of_hard.measurements}
    return numbers


def table(page: Page, variants: Sequence[Variant], results: Results) -> None:
    """All variants with their numbers, mean and spread."""
    columns = [
        name
        for name in COLUMNS
        if any(results.mean(one.name, name) == results.mean(one.name, name) for one in variants)
    ]
    groups: dict[str, list[list[Cell]]] = {}
    for one in variants:
        cells = [Number(results.shown(one.name, name), results.mean(one.name, name)) for name in columns]
        groups.setdefault(one.group, []).append([one.name, *cells])
    page.table(
        ["Variant", *(COLUMNS[name] for name in columns)],
        list(groups.items()),
        caption=f"Percent, mean ± standard deviation over {results.seeds} seeds",
    )


def apart(results: Results, one: str, other: str, name: str) -> str:
    """How `one` stands to `other` in a number, and whether the seeds can tell: "+3.1 (beyond the spread)"."""
    gaps = results.gaps(one, other, name)
    return f"{mean(gaps):+.1f} ({'beyond' if beyond_chance(gaps) else 'within'} the spread)" if gaps else "n/a"
