"""What each part of DetailCLIP is good for: each taken away, and each alone beside CLIP.

Paper: DetailCLIP, arXiv 2409.06809, whose ablations are of 25 epochs of 15 million pictures.
"""

from dataclasses import replace
from typing import Any

from rizbin.core.pages import Page
from rizbin.recipes.presets import preset
from rizbin.studies.lab import Results, Study, Variant
from rizbin.studies.pairs import COLUMNS, apart, measure_pair, table

FULL, CLIP = "DetailCLIP", "CLIP"
WITHOUT = {
    "token removal": "without token removal",
    "distillation": "without self-distillation",
    "reconstruction": "without reconstruction",
    "patches": "without patches meeting the caption",
}
ALONE = {
    "token removal": "token removal alone",
    "distillation": "self-distillation alone",
    "reconstruction": "reconstruction alone",
    "patches": "patches meeting the caption alone",
}
ADDED = {
    "token removal": "token removal",
    "distillation": "self-distillation",
    "reconstruction": "reconstruction",
    "patches": "letting patches meet the caption",
}
_OFF: dict[str, Any] = {
    "selection": "none",
    "distillation": False,
    "reconstruction": False,
    "patches_contrast_weight": 0.0,
}
LATE = 0.3
"""The preset starts the costly parts at 0.7, to save time; a part that rests that long could show little."""


def variants() -> list[Variant]:
    """The small preset, its parts at work from early on."""

    def row(name: str, group: str, **changes: Any) -> Variant:
        training = preset("detailclip", "small")
        settings = replace(training.settings, **{"late_start": LATE, **changes})
        return Variant(name=name, training=replace(training, steps=800, settings=settings), group=group)

    away, alone = "One part taken away", "One part alone beside CLIP"
    return [
        row(FULL, "Whole, and none"),
        row(CLIP, "Whole, and none", **_OFF),
        row(WITHOUT["token removal"], away, selection="none"),
        row(WITHOUT["distillation"], away, distillation=False),
        row(WITHOUT["reconstruction"], away, reconstruction=False),
        row(WITHOUT["patches"], away, patches_contrast_weight=0.0),
        # Alone, removal means that the caption meets what was kept.
        row(ALONE["token removal"], alone, **{**_OFF, "selection": "attention", "contrast_view": "masked"}),
        row(ALONE["distillation"], alone, **{**_OFF, "distillation": True}),
        # Pixels can only be predicted where something was removed.
        row(ALONE["reconstruction"], alone, **{**_OFF, "reconstruction": True, "selection": "random"}),
        row(ALONE["patches"], alone, **{**_OFF, "patches_contrast_weight": 0.5}),
    ]


def answer(results: Results) -> list[str]:
    """The verdict in sentences, each from the numbers."""
    said = [
        f"Against CLIP, DetailCLIP has {apart(results, FULL, CLIP, 'segmentation/zero_shot/miou')} zero-shot mIoU, "
        f"{apart(results, FULL, CLIP, 'small/sizes/small/localized')} small objects localized and "
        f"{apart(results, FULL, CLIP, 'zero_shot/top1')} top-1, at "
        f"{results.mean(FULL, 'milliseconds') / max(results.mean(CLIP, 'milliseconds'), 1e-9):.1f} times the cost of a "
        "step."
    ]
    for part, name in WITHOUT.items():
        measured = ("segmentation/zero_shot/miou", "small/sizes/small/localized", "zero_shot/top1")
        gaps = ", ".join(f"{apart(results, FULL, name, one)} {COLUMNS[one]}" for one in measured)
        said.append(f"What {ADDED[part]} adds to the rest: {gaps}.")
    return said


def show(page: Page, results: Results) -> None:
    table(page, variants(), results)


STUDY = Study(
    question="What is each part of DetailCLIP good for?",
    design=f"The small preset of DetailCLIP on the easy scenes, its parts at work from {LATE:.0%} of the run on: "
    "whole, with one part taken away, and with each part alone beside CLIP. Equal pictures, not equal time: the last "
    "column says what a step costs. Measured on scenes of another world, and on the hard preset for small objects.",
    variants=variants,
    measure=measure_pair,
    answer=answer,
    show=show,
)
