"""Why BYOL does not collapse, and whether it bootstraps: each guard taken away, and a target that never moves.

Papers: BYOL, arXiv 2006.07733, tables 5a and 19 (ImageNet, ResNet-50, 300 epochs, linear top-1); DirectPred, arXiv
2102.06810, figure 2.
"""

from dataclasses import replace
from statistics import mean
from typing import Any

from rizbin.pages.page import Page
from rizbin.studies.encoders import curves, gain, grid, measure_encoder
from rizbin.studies.lab import Results, Study, Variant, beyond_chance
from rizbin.workflows.presets import preset

BYOL, RANDOM, COPY = "BYOL", "target: a random network that never moves", "target: the network itself"
BARE, OPEN = "no predictor", "no stop-gradient"
LINEAR, LINEAR_OPEN = "linear predictor", "linear predictor, no stop-gradient"
STEPS = 800
LEARNED = 8.0
"""Points over raw pixels and over the random target from which the target's own progress counts as shown."""


def variants() -> list[Variant]:
    """BYOL as the preset nano has it; what is taken away or exchanged is in the name."""

    def row(
        name: str, group: str, paper: float | None = None, collapses: bool | None = None, **changes: Any
    ) -> Variant:
        training = preset("byol", "nano")
        training = replace(training, steps=STEPS, settings=replace(training.settings, **changes))
        return Variant(name=name, training=training, group=group, paper=paper, collapses=collapses)

    targets, guards, linear = "What is predicted", "What holds it", "A predictor that can be looked into"
    return [
        row(BYOL, targets, 72.5, False),
        row(RANDOM, targets, 18.8, False, target="fixed"),
        row(COPY, targets, 5.5, None, target="copy"),
        row(BARE, guards, 0.2, True, predictor=False),
        row(OPEN, guards, 0.3, True, stop_gradient=False),
        row(LINEAR, linear, 61.9, False, predictor_layers=1),
        row(LINEAR_OPEN, linear, None, True, predictor_layers=1, stop_gradient=False),
    ]


def answer(results: Results) -> list[str]:
    """The verdict in sentences, each from the numbers."""
    lead = results.gaps(BYOL, RANDOM, "knn")
    above_pixels = results.mean(BYOL, "knn") - results.mean(BYOL, "knn_pixels")
    if above_pixels < LEARNED:
        verdict = (
            f"Too little was learned to say: BYOL stands {above_pixels:.1f} points above raw pixels, and less than "
            f"{LEARNED:g} leave nothing to explain"
        )
    elif beyond_chance(lead) and mean(lead) >= LEARNED:
        verdict = "BYOL bootstraps: a target that moves with what was learned teaches more than a random one"
    elif beyond_chance(lead) and mean(lead) > 0:
        verdict = "A target that moves teaches a little more than a random one"
    else:
        verdict = "A target that moves teaches no more here than a random one"
    fallen = [name for name in (BARE, OPEN) if results.flagged(name) > results.seeds / 2]
    standing = [name for name in (BARE, OPEN) if name not in fallen]
    sentences = [
        f"{verdict}: k-NN {results.shown(BYOL, 'knn')} percent, {results.shown(RANDOM, 'knn')} with a random network "
        f"as the target (raw pixels {results.shown(BYOL, 'knn_pixels')}, random weights "
        f"{results.shown(BYOL, 'knn_random')}).",
        "What holds it: the constant answer has the least loss in every row, but "
        + (
            f"only without a guard is it reached: {' and '.join(fallen)} ended as collapsed "
            f"(k-NN {', '.join(results.shown(name, 'knn') for name in fallen)}; spread of the projections "
            f"{', '.join(results.shown(name, 'projection_std', 2) for name in fallen)}, BYOL "
            f"{results.shown(BYOL, 'projection_std', 2)})."
            if fallen
            else "no row reached it within the run."
        )
        + (f" {' and '.join(standing)} did not collapse within the run." if standing else ""),
    ]
    ends = {name: results.curve(name, "eigen_alignment") for name in (LINEAR, LINEAR_OPEN)}
    if all(steps for steps, _ in ends.values()):
        (_, held), (_, opened) = ends[LINEAR], ends[LINEAR_OPEN]
        health = (
            "is not flagged"
            if results.flagged(LINEAR) <= results.seeds / 2
            else f"is flagged in {results.flagged(LINEAR)} of {results.seeds} seeds, so that this is no healthy run"
        )
        sentences.append(
            "Why a predictor can hold it (DirectPred): a linear one comes to share its eigenvectors with the "
            f"correlation of the projections (alignment {held[0]:.2f} at first, {held[-1]:.2f} at the end; "
            "1 is equal), so it stretches the directions that tell images apart and lets the others go. The control "
            f"without stop-gradient ends at {opened[-1]:.2f} with k-NN {results.shown(LINEAR_OPEN, 'knn')} (with it "
            f"{results.shown(LINEAR, 'knn')}). The row with the linear predictor {health}."
        )
    sentences.append(
        f"Stop-gradient without a moving average ({COPY}) has {results.shown(COPY, 'knn')}: the average is "
        f"{'worth ' + format(results.mean(BYOL, 'knn') - results.mean(COPY, 'knn'), '+.1f') + ' points'}, and not what "
        f"keeps it from collapsing (flagged in {results.flagged(COPY)} of {results.seeds} seeds)."
        if results.flagged(COPY) <= results.seeds / 2
        else f"Stop-gradient without a moving average ({COPY}) collapsed in {results.flagged(COPY)} of {results.seeds} "
        f"seeds (k-NN {results.shown(COPY, 'knn')})."
    )
    sentences.append(f"BYOL stands {gain(results, BYOL):.1f} points above the better of raw pixels and random weights.")
    return sentences


def show(page: Page, results: Results) -> None:
    grid(page, variants(), results, unit="Paper, top-1")
    page.note(
        "The papers' numbers are linear top-1 on ImageNet and are there for their order. Spread is the standard "
        "deviation of unit-length projections, 1 when even in all directions and 0 when constant."
    )
    curves(page, results, "k-NN over the run, percent", "knn", [BYOL, RANDOM, COPY, BARE, OPEN])
    curves(page, results, "Spread of the projections", "projection_std", [BYOL, RANDOM, COPY, BARE, OPEN])
    curves(page, results, "Directions in use (RankMe)", "projection_rank", [BYOL, RANDOM, COPY, BARE, OPEN])
    curves(page, results, "Predictor's eigenvectors and the projections'", "eigen_alignment", [LINEAR, LINEAR_OPEN])


STUDY = Study(
    question="Why does BYOL not collapse, and does it teach itself?",
    design=f"BYOL on the small network of the laboratory (three convolutions, 32 pixels) and single drawings on white, "
    f"{STEPS} steps, long enough that it stands well above raw pixels. What differs is what is predicted (a slowly "
    "following copy, a random network, the network itself) and which guard is taken away. A linear predictor, whose "
    "eigenvectors can be compared with those of the projections, has a control without stop-gradient. Measured on new "
    "images: nearest neighbors, and whether the projections are spread.",
    variants=variants,
    measure=measure_encoder,
    answer=answer,
    show=show,
)
