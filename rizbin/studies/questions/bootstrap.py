"""Why BYOL does not collapse, and whether it bootstraps: each guard taken away, and a target that never moves.

Papers: BYOL, arXiv 2006.07733, tables 5a and 19 (ImageNet, ResNet-50, 300 epochs, linear top-1); DirectPred, arXiv
2102.06810, figure 2.
"""

from dataclasses import replace
from statistics import mean
from typing import Any

from rizbin.pages.page import Page
from rizbin.studies.encoder_images import show_neighbors
from rizbin.studies.encoders import curves, grid, measure_encoder
from rizbin.studies.lab import Results, Study, Variant, beyond_chance, judged
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict
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


def answer(results: Results) -> StudyVerdict:
    """The verdict and its sentences, each from the numbers; the claim is that a moving target teaches more."""
    lead = results.gaps(BYOL, RANDOM, "knn")
    above_pixels = results.mean(BYOL, "knn") - results.mean(BYOL, "knn_pixels")
    arrived = above_pixels >= LEARNED
    kind = judged(lead, delivered=arrived, least=LEARNED)
    begins = {
        SHOWN: "BYOL teaches itself: a target that moves with what was learned teaches more than a random one",
        REFUTED: "A target that moves teaches no more here than a random one",
        NOT_TESTABLE: "These seeds cannot tell a target that moves from a random one"
        if arrived
        else "Too little was learned to say whether BYOL teaches itself",
    }[kind]
    reason = (
        f"{begins}: k-NN {results.shown(BYOL, 'knn')} percent, {results.shown(RANDOM, 'knn')} with a random network as "
        f"the target ({mean(lead):+z.1f} points; raw pixels {results.shown(BYOL, 'knn_pixels')}, random weights "
        f"{results.shown(BYOL, 'knn_random')})."
    )
    delivered = (
        f"{'Delivered' if arrived else 'Not delivered'}: BYOL stands {above_pixels:.1f} points above raw pixels; under "
        f"{LEARNED:g} there would be nothing to explain."
    )
    return StudyVerdict(kind, reason, delivered, (*_guards(results), *_eigenvectors(results), *_copied(results)))


def _guards(results: Results) -> list[str]:
    """Which guards hold it, where those rows were trained."""
    guards = [name for name in (BARE, OPEN) if results.trained(name)]
    if not guards:
        return []
    fallen = [name for name in guards if results.flagged(name) > results.seeds / 2]
    standing = [name for name in guards if name not in fallen]
    sentence = "What holds it: where the target follows the network, a constant answer has the least loss, "
    if fallen:
        sentence += (
            f"and the projections approach it where a guard is missing: {' and '.join(fallen)} ended as collapsed "
            f"(spread of the projections {', '.join(results.shown(name, 'projection_std', 2) for name in fallen)}, "
            f"BYOL {results.shown(BYOL, 'projection_std', 2)}; k-NN of the features "
            f"{', '.join(results.shown(name, 'knn') for name in fallen)})."
        )
    else:
        sentence += "but no row reached it within the run."
    return [sentence + (f" {' and '.join(standing)} did not collapse within the run." if fallen and standing else "")]


def _eigenvectors(results: Results) -> list[str]:
    """What a linear predictor comes to share with the projections, beside its control without stop-gradient."""
    if not results.trained(LINEAR, LINEAR_OPEN):
        return []
    ends = {name: results.curve(name, "eigen_alignment") for name in (LINEAR, LINEAR_OPEN)}
    if not all(steps for steps, _ in ends.values()):
        return []
    (_, held), (_, opened) = ends[LINEAR], ends[LINEAR_OPEN]
    flagged = results.flagged(LINEAR)
    health = (
        f"is flagged in {flagged} of {results.seeds} seeds"
        if flagged <= results.seeds / 2
        else f"is flagged in {flagged} of {results.seeds} seeds, so this does not show what holds a healthy run"
    )
    return [
        "A linear predictor comes to share its eigenvectors with the correlation of the projections, as DirectPred "
        f"says (alignment {held[0]:.2f} at first, {held[-1]:.2f} at the end; 1 is equal); the control without "
        f"stop-gradient ends at {opened[-1]:.2f}. k-NN is {results.shown(LINEAR, 'knn')} with stop-gradient and "
        f"{results.shown(LINEAR_OPEN, 'knn')} without; the row with it {health}."
    ]


def _copied(results: Results) -> list[str]:
    """What the moving average is worth beside stop-gradient alone."""
    if not results.trained(COPY):
        return []
    if results.flagged(COPY) > results.seeds / 2:
        return [
            f"Stop-gradient without a moving average ({COPY}) collapsed in {results.flagged(COPY)} of {results.seeds} "
            f"seeds (k-NN {results.shown(COPY, 'knn')})."
        ]
    worth = results.gaps(BYOL, COPY, "knn")
    certainty = "beyond" if beyond_chance(worth) else "within"
    return [
        f"Stop-gradient without a moving average ({COPY}) has {results.shown(COPY, 'knn')}: the average is worth "
        f"{mean(worth):+z.1f} points ({certainty} the spread of the seeds), and is not what keeps it from collapsing "
        f"(flagged in {results.flagged(COPY)} of {results.seeds} seeds)."
    ]


def show(page: Page, results: Results) -> None:
    grid(page, [variant for variant in variants() if results.trained(variant.name)], results, unit="Paper, top-1")
    page.note(
        "The papers' numbers are linear top-1 on ImageNet after other lengths; their order need not be that here."
    )
    show_neighbors(page, results, [BYOL, RANDOM, COPY, BARE, OPEN])
    curves(page, results, "k-NN over the run, percent", "knn", [BYOL, RANDOM, COPY, BARE, OPEN])
    curves(page, results, "Spread of the projections", "projection_std", [BYOL, RANDOM, COPY, BARE, OPEN])
    curves(page, results, "Directions in use (RankMe)", "projection_rank", [BYOL, RANDOM, COPY, BARE, OPEN])
    curves(page, results, "Predictor's eigenvectors and the projections'", "eigen_alignment", [LINEAR, LINEAR_OPEN])


STUDY = Study(
    question="Why does BYOL not collapse, and does it teach itself?",
    design="BYOL on the small network of the laboratory (three convolutions, 32 pixels) and single drawings on white, "
    "long enough that it stands well above raw pixels. What differs is what is predicted (a slowly "
    "following copy, a random network, the network itself) and which guard is taken away. A linear predictor, whose "
    "eigenvectors can be compared with those of the projections, has a control without stop-gradient. Measured on new "
    "images: nearest neighbors, and whether the projections are spread.",
    variants=variants,
    measure=measure_encoder,
    answer=answer,
    show=show,
)
