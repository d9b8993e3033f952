"""Why SimCLR needs negatives, and why BYOL does not: the grid of BYOL's table 19, and what keeps DINO apart.

Papers: BYOL, arXiv 2006.07733, tables 5a and 19 (ImageNet, ResNet-50, 300 epochs, linear top-1); DINO, arXiv
2104.14294, section 5.3; SimSiam, arXiv 2011.10566; DirectPred, arXiv 2102.06810.
"""

from typing import Any

from rizbin.pages.page import Page
from rizbin.studies.encoders import curves, gain, grid, laboratory, measure_encoder
from rizbin.studies.lab import Results, Study, Variant

BYOL, SIMCLR, DINO = "BYOL", "SimCLR", "DINO"
NO_NEGATIVES = "SimCLR without negatives"
NORMED = "the same, its head ending in batch norm"
"""SimCLR's own file; the rows above and below it have BYOL's head, which ends without."""
LINEAR = "BYOL with a linear predictor"


def variants() -> list[Variant]:
    """The grid. One network, one recipe; what is taken away or added is in the name."""
    two = "Two views: predictor, target, stop-gradient, negatives"
    prototypes = "DINO: what keeps the code in use"
    bare = {"predictor": False, "stop_gradient": False}

    def row(name: str, paper: float | None, collapses: bool | None, **changes: Any) -> Variant:
        return Variant(name=name, training=laboratory("byol", **changes), group=two, paper=paper, collapses=collapses)

    def code(name: str, paper: float | None, collapses: bool | None, **changes: Any) -> Variant:
        return Variant(
            name=name, training=laboratory("dino", **changes), group=prototypes, paper=paper, collapses=collapses
        )

    return [
        row(BYOL, 72.5, False),
        row(LINEAR, None, None, predictor_layers=1),
        row("BYOL without predictor", 0.2, True, predictor=False),
        row("BYOL without stop-gradient", 0.3, True, stop_gradient=False),
        row("BYOL, target: the network itself", 5.5, None, target="copy"),
        row("BYOL, target: a random network", 18.8, False, target="fixed"),
        row("neither predictor nor momentum", 0.1, True, predictor=False, target="copy"),
        row(NO_NEGATIVES, 0.1, True, **bare),
        Variant(
            name=NORMED,
            training=laboratory("simclr", negatives=False),
            group=two,
            paper=0.1,
            collapses=True,
        ),
        row(SIMCLR, 69.4, False, negatives=True, **bare),
        row("SimCLR with a predictor", 69.1, False, negatives=True, stop_gradient=False),
        row("SimCLR with stop-gradient", 69.2, False, negatives=True, predictor=False, target="copy"),
        row("SimCLR with a momentum target", 70.7, False, negatives=True, predictor=False),
        row("BYOL with negatives", 70.9, False, negatives=True),
        code(DINO, 72.8, False),
        code("DINO without centering", None, True, centering=False),
        code("DINO without sharpening", None, True, sharpening=False),
        code("DINO, teacher: the student itself", 0.1, True, momentum=0.0, final_momentum=0.0),
    ]


def answer(results: Results) -> list[str]:
    """The verdict in sentences, each from the numbers."""
    half = results.seeds / 2

    def stands(name: str) -> bool:
        return results.flagged(name) <= half and gain(results, name) > 0

    def falls(name: str) -> bool:
        return results.flagged(name) > half

    sentences = []
    needs = stands(SIMCLR) and falls(NO_NEGATIVES)
    with_them, without = results.shown(SIMCLR, "knn"), results.shown(NO_NEGATIVES, "knn")
    sentences.append(
        f"SimCLR {'needs' if needs else 'was not shown to need'} its negatives: with them {with_them} percent of the "
        f"images are named rightly by their nearest neighbors, without them {without}; the spread of the projections "
        f"is then {results.shown(NO_NEGATIVES, 'projection_std', 2)} (1 is even, 0 constant), and the alarm stood in "
        f"{results.flagged(NO_NEGATIVES)} of {results.seeds} seeds."
    )
    guards = ("BYOL without predictor", "BYOL without stop-gradient")
    fallen = [name for name in guards if falls(name)]
    standing = [name for name in guards if not falls(name)]
    sentences.append(
        f"BYOL {'does without them' if stands(BYOL) else 'did not do without them'}: "
        f"{results.shown(BYOL, 'knn')} percent, spread {results.shown(BYOL, 'projection_std', 2)}."
        + (f" What holds it is taken away in {' and in '.join(fallen)}: flagged as collapsed." if fallen else "")
        + (
            f" At this scale {' and '.join(standing)} did not collapse within the run, as the paper reports."
            if standing
            else ""
        )
    )
    x, y = results.curve(LINEAR, "eigen_alignment")
    if x:
        sentences.append(
            f"Why a predictor can hold it: a linear one comes to share its eigenvectors with the correlation of the "
            f"projections (alignment {y[0]:.2f} at step {x[0]:.0f}, {y[-1]:.2f} at the end; 1 is equal), so that it "
            "stretches what the network already tells apart and leaves the rest (DirectPred)."
        )
    flagged = [variant.name for variant in variants() if falls(variant.name)]
    if flagged:
        best = max(flagged, key=lambda name: results.mean(name, "knn"))
        sentences.append(
            f"A collapse of the projections is not at once one of the features: {best}, though flagged, still names "
            f"{results.shown(best, 'knn')} percent (random weights {results.shown(best, 'knn_random')}, raw pixels "
            f"{results.shown(best, 'knn_pixels')}). Watch the projections; the neighbors tell late."
        )
    wrong = [
        variant.name
        for variant in variants()
        if (variant.collapses is True and not falls(variant.name))
        or (variant.collapses is False and falls(variant.name))
    ]
    agree = sum(variant.collapses is not None for variant in variants()) - len(wrong)
    sentences.append(
        f"{agree} of {agree + len(wrong)} rows agree with the papers about collapse"
        + (f"; otherwise at this scale: {', '.join(wrong)}." if wrong else ".")
    )
    return sentences


def show(page: Page, results: Results) -> None:
    grid(page, variants(), results, unit="Paper, top-1")
    page.note(
        "Spread is the standard deviation of unit-length projections, 1 when even in all directions and 0 when "
        "constant; rank is RankMe, the effective number of their directions. The papers' numbers are linear top-1 on "
        "ImageNet and are there for their order, not for their size."
    )
    shown = [BYOL, "BYOL without predictor", "BYOL without stop-gradient", SIMCLR, NO_NEGATIVES]
    curves(page, results, "k-NN over the run, percent", "knn", shown)
    curves(page, results, "Spread of the projections", "projection_std", shown)
    curves(page, results, "A linear predictor's eigenspace and the projections'", "eigen_alignment", [LINEAR])
    codes = [DINO, "DINO without centering", "DINO without sharpening"]
    curves(page, results, "DINO: entropy of the teacher's code", "teacher_entropy", codes)
    curves(page, results, "DINO: what the student does not yet say (KL)", "kl", codes)


STUDY = Study(
    question="Why does SimCLR need negatives, and why does BYOL not?",
    design="Every row is the same small network (three convolutions, 32 pixels) on the same images, single drawings "
    "on white, in the same order, by the same optimizer. What differs is whether there is a predictor, whose "
    "projection is predicted, whether gradient flows into it, and whether other images push away; for DINO, what "
    "keeps its code in use. Measured on new images: nearest neighbors, and whether the projections are spread.",
    variants=variants,
    measure=measure_encoder,
    answer=answer,
    show=show,
)
