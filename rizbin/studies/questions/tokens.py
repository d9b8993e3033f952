"""Which tokens to keep, and how many: by attention, by chance, all.

Papers: A-CLIP, arXiv 2212.08653; DetailCLIP, arXiv 2409.06809; FLIP, arXiv 2212.00794 (random removal).
"""

from dataclasses import replace
from typing import Any

from rizbin.core.charts import Series
from rizbin.core.pages import Page
from rizbin.recipes.presets import preset
from rizbin.studies.lab import Results, Study, Variant
from rizbin.studies.pairs import apart, measure_pair, table

RATIOS = (0.25, 0.5, 0.75)
ALL = "all tokens"
HOW = {"attention": "by attention", "random": "at random"}


def name_of(how: str, ratio: float) -> str:
    """A row's name."""
    return f"{HOW[how]}, {ratio:.0%} kept"


def variants() -> list[Variant]:
    """CLIP on what was kept of two views; nothing else of DetailCLIP, so that the choice of tokens speaks alone."""

    def row(name: str, group: str, **changes: Any) -> Variant:
        training = preset("detailclip", "small")
        bare = {"distillation": False, "reconstruction": False, "patches_contrast_weight": 0.0}
        settings = replace(training.settings, **{**bare, "contrast_view": "masked", "late_start": 0.0, **changes})
        return Variant(name=name, training=replace(training, steps=800, settings=settings), group=group)

    return [
        row(ALL, "Nothing removed", selection="none"),
        *(
            row(name_of(how, ratio), f"Kept {HOW[how]}", selection=how, keep_ratio=ratio)
            for how in HOW
            for ratio in RATIOS
        ),
    ]


def answer(results: Results) -> list[str]:
    """The verdict in sentences, each from the numbers."""
    half = name_of("attention", 0.5), name_of("random", 0.5)
    costs = {name: results.mean(name, "milliseconds") for name in (ALL, *half)}
    said = [
        f"Keeping half by attention instead of by chance: {apart(results, *half, 'zero_shot/top1')} zero-shot top-1, "
        f"{apart(results, *half, 'segmentation/zero_shot/miou')} zero-shot mIoU.",
        f"Against keeping all tokens: {apart(results, half[0], ALL, 'zero_shot/top1')} top-1 by attention and "
        f"{apart(results, half[1], ALL, 'zero_shot/top1')} by chance, at "
        f"{costs[half[0]] / max(costs[ALL], 1e-9):.2f} and {costs[half[1]] / max(costs[ALL], 1e-9):.2f} times the cost "
        "of a step (attention needs a teacher's pass).",
    ]
    kept = [name_of("attention", ratio) for ratio in RATIOS]
    best = max(kept, key=lambda name: results.mean(name, "zero_shot/top1"))
    said.append(
        f"Of these shares, {best} gave most top-1; half of the tokens by the trained attention hold "
        f"{results.shown(half[0], 'tokens/object_pixels_kept')} percent of the object pixels."
    )
    return said


def show(page: Page, results: Results) -> None:
    table(page, variants(), results)
    lines = []
    for how in HOW:
        values = [results.mean(name_of(how, ratio), "zero_shot/top1") for ratio in RATIOS]
        lines.append(Series(name=HOW[how], x=[100 * ratio for ratio in RATIOS], y=values))
    page.curves("Zero-shot top-1 by share of tokens kept, percent", lines, x_label="percent kept")


STUDY = Study(
    question="Which tokens should the student keep, and how many?",
    design="CLIP on what is kept of two views, with the small preset's towers, batch and pictures: all tokens, a share "
    "chosen by a slowly following teacher's attention, and a share chosen at random. Neither distillation nor "
    "reconstruction, so that the choice speaks alone. Measured on scenes of another world.",
    variants=variants,
    measure=measure_pair,
    answer=answer,
    show=show,
)
