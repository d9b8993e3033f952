"""Why SimCLR needs negatives, and why BYOL does not: the grid of BYOL's table 19, and what keeps DINO apart.

Papers: BYOL, arXiv 2006.07733, tables 5a and 19 (ImageNet, ResNet-50, 300 epochs, linear top-1); DINO, arXiv
2104.14294, section 5.3; SimSiam, arXiv 2011.10566; DirectPred, arXiv 2102.06810.
"""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from rizbin.pages.page import Page
from rizbin.studies.encoder_images import show_neighbors
from rizbin.studies.encoders import curves, gain, grid, laboratory, measure_encoder
from rizbin.studies.lab import Results, Study, Variant, beyond_chance
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, Kind, StudyVerdict

BYOL, SIMCLR, DINO = "BYOL", "SimCLR", "DINO"
NO_NEGATIVES = "SimCLR without negatives"
NORMED = "the same, its head ending in batch norm"
"""SimCLR's own file; the rows above and below it have BYOL's head, which ends without."""
LINEAR = "BYOL with a linear predictor"
FIXED = "BYOL, target: a random network"
GUARDS = ("BYOL without predictor", "BYOL without stop-gradient")
CODES = ("DINO without centering", "DINO without sharpening")
LEARNED = 5.0
"""Points of k-NN over raw pixels and random weights under which a row has too little that it could lose."""


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
        row(FIXED, 18.8, False, target="fixed"),
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


def answer(results: Results) -> StudyVerdict:
    """One verdict over the claims whose rows were trained: about negatives, about BYOL's guards, about DINO's code."""
    claims = [
        claim(results, *rows)
        for claim, rows in (
            (_of_negatives, (SIMCLR, (NO_NEGATIVES,))),
            (_of_guards, (BYOL, GUARDS)),
            (_of_codes, (DINO, CODES)),
        )
        if results.trained(rows[0], *rows[1])
    ]
    kinds = [kind for kind, _ in claims]
    kind: Kind = NOT_TESTABLE if NOT_TESTABLE in kinds else REFUTED if REFUTED in kinds else SHOWN
    # The sentence of the claim that decides comes first.
    reason = next(sentence for claimed, sentence in claims if claimed == kind)
    others = [sentence for _, sentence in claims if sentence != reason]
    return StudyVerdict(kind, reason, _delivered(results), (*others, *_more(results)))


def _stands(results: Results, name: str) -> bool:
    return results.flagged(name) <= results.seeds / 2 and gain(results, name) > 0


def _falls(results: Results, name: str) -> bool:
    return results.flagged(name) > results.seeds / 2


def _claimed(results: Results, healthy: str, without: Sequence[str]) -> Kind:
    """Whether what was taken away held the network apart: it stands with it and falls without."""
    if gain(results, healthy) < LEARNED and not _falls(results, healthy):
        return NOT_TESTABLE
    return SHOWN if _stands(results, healthy) and all(_falls(results, name) for name in without) else REFUTED


def _too_little(results: Results, healthy: str) -> str:
    return (
        f"Too little was learned to say what holds {healthy}: it names {gain(results, healthy):+z.1f} points beside "
        f"the better of raw pixels and random weights, and {LEARNED:g} are the least that could be lost."
    )


def _of_negatives(results: Results, healthy: str, without: Sequence[str]) -> tuple[Kind, str]:
    kind = _claimed(results, healthy, without)
    if kind == NOT_TESTABLE:
        return kind, _too_little(results, healthy)
    needs = "needs" if kind == SHOWN else "was not shown to need"
    return kind, (
        f"SimCLR {needs} its negatives: with them {results.shown(SIMCLR, 'knn')} percent of the images are named "
        f"rightly by their nearest neighbors, without them {results.shown(NO_NEGATIVES, 'knn')}; the spread of the "
        f"projections is then {results.shown(NO_NEGATIVES, 'projection_std', 2)} (1 is even, 0 constant), and the "
        f"alarm stood in {results.flagged(NO_NEGATIVES)} of {results.seeds} seeds."
    )


def _of_guards(results: Results, healthy: str, without: Sequence[str]) -> tuple[Kind, str]:
    kind = _claimed(results, healthy, without)
    if kind == NOT_TESTABLE:
        return kind, _too_little(results, healthy)
    fallen = [name for name in without if _falls(results, name)]
    standing = [name for name in without if name not in fallen]
    return kind, (
        f"BYOL {'does without negatives' if _stands(results, BYOL) else 'did not do without negatives'}: "
        f"{results.shown(BYOL, 'knn')} percent, spread {results.shown(BYOL, 'projection_std', 2)}"
        + (f"; {' and '.join(fallen)} collapsed, by the alarm" if fallen else "")
        + (f"; {' and '.join(standing)} did not collapse within the run, unlike in the paper" if standing else "")
        + "."
    )


def _of_codes(results: Results, healthy: str, without: Sequence[str]) -> tuple[Kind, str]:
    kind = _claimed(results, healthy, without)
    if kind == NOT_TESTABLE:
        return kind, _too_little(results, healthy)
    alarms = ", ".join(f"{name} in {results.flagged(name)}" for name in without)
    return kind, (
        f"DINO names {results.shown(DINO, 'knn')} percent with centering and sharpening, and the alarm stood in "
        f"{results.flagged(DINO)} of {results.seeds} seeds; of the same number of seeds it stood for {alarms}."
    )


def _delivered(results: Results) -> str:
    """What was taken away is there in the healthy row: it learned, and its projections are spread."""
    rows = [name for name in (SIMCLR, BYOL, DINO) if results.trained(name)]
    lines = "; ".join(
        f"{name} names {gain(results, name):+z.1f} points beside the better of raw pixels and random weights, its "
        f"projections have a spread of {results.mean(name, 'projection_std'):.2f}"
        for name in rows
    )
    arrived = all(gain(results, name) >= LEARNED for name in rows)
    return f"{'Delivered' if arrived else 'Not delivered'}: what something is taken away from has learned: {lines}."


def _more(results: Results) -> list[str]:
    """What else the rows say, each only where its rows were trained."""
    sentences = []
    if results.trained(BYOL, FIXED):
        gaps = results.gaps(BYOL, FIXED, "knn")
        place = "lies beyond" if beyond_chance(gaps) else "lies within"
        sentences.append(
            "That BYOL does not collapse says nothing of how good its features are: against a target that is a random "
            f"network and never moves ({results.shown(FIXED, 'knn')} percent), BYOL has {mean(gaps):+z.1f} points, "
            f"which {place} the spread of the seeds."
        )
    x, y = results.curve(LINEAR, "eigen_alignment")
    if x:
        sentences.append(
            f"A linear predictor comes to share its eigenvectors with the correlation of the projections (alignment "
            f"{y[0]:.2f} at step {x[0]:.0f}, {y[-1]:.2f} at the end; 1 is equal), as DirectPred says; the alarm stood "
            f"for that run in {results.flagged(LINEAR)} of {results.seeds} seeds"
            + (", so this does not show that it is what holds BYOL." if _falls(results, LINEAR) else ".")
        )
    flagged = [
        variant.name for variant in variants() if results.trained(variant.name) and _falls(results, variant.name)
    ]
    if flagged:
        best = max(flagged, key=lambda name: results.mean(name, "knn"))
        sentences.append(
            f"Neighbors alone do not tell of a collapse: {best}, though flagged, names {results.shown(best, 'knn')} "
            f"percent (random weights {results.shown(best, 'knn_random')}, raw pixels "
            f"{results.shown(best, 'knn_pixels')}). Watch the projections."
        )
    judged = [variant for variant in variants() if results.trained(variant.name) and variant.collapses is not None]
    wrong = [variant.name for variant in judged if variant.collapses is not _falls(results, variant.name)]
    sentences.append(
        f"{len(judged) - len(wrong)} of {len(judged)} rows agree with the papers about collapse"
        + (f"; otherwise at this scale: {', '.join(wrong).replace('the same,', f'{NO_NEGATIVES},')}." if wrong else ".")
    )
    return sentences


def show(page: Page, results: Results) -> None:
    grid(page, variants(), results, unit="Paper, top-1")
    page.note(
        "The papers' numbers are linear top-1 on "
        "ImageNet after other lengths, and stand beside ours for what collapses, not for size or order."
    )
    shown = [BYOL, *GUARDS, SIMCLR, NO_NEGATIVES]
    codes = [DINO, *CODES]
    show_neighbors(page, results, [*shown, *codes])
    curves(page, results, "k-NN over the run, percent", "knn", shown)
    curves(page, results, "Spread of the projections", "projection_std", shown)
    curves(page, results, "A linear predictor's eigenspace and the projections'", "eigen_alignment", [LINEAR])
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
