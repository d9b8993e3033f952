"""What small crops are good for: LoGo's repulsion between them, and DINO's multi-crop.

Papers: LoGo, arXiv 2203.17205 (its tables could not be read; no number of it stands here); DINO, arXiv 2104.14294,
table 8 (ImageNet, ViT-S/16, 100 epochs, k-NN).
"""

from statistics import mean

from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number
from rizbin.studies.encoder_images import show_crops, show_neighbors
from rizbin.studies.encoders import curves, grid, laboratory, measure_encoder
from rizbin.studies.lab import Results, Study, Variant, beyond_chance, judged
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict

LEARNED, COSINE, NONE = "LoGo, learned affinity", "LoGo, cosine", "LoGo, no repulsion"
UNDRAWN = "LoGo, small crops not drawn to large ones"
SIMSIAM, BYOL = "LoGo on SimSiam", "LoGo on BYOL"
DINOS = {0: "DINO, no small crops", 2: "DINO, 2 small crops", 6: "DINO, 6 small crops"}


DELIVERED = 0.02
"""How far repulsion must lower the cosine of two small crops of an image, less that of two images, to count as
there: twice what seeds differ by."""


def variants() -> list[Variant]:
    """LoGo with its repulsion learned, by cosine and off, on three bases; DINO with more and fewer small crops."""
    logo, dino = "Two large and two small crops: what small ones do to each other", "Multi-crop"
    two = {"weighting": "weight"}
    return [
        Variant(name=LEARNED, training=laboratory("logo"), group=logo),
        Variant(name=COSINE, training=laboratory("logo", affinity="cosine"), group=logo),
        Variant(name=NONE, training=laboratory("logo", affinity="none"), group=logo),
        Variant(name=UNDRAWN, training=laboratory("logo", local_global=False, affinity="none"), group=logo),
        Variant(name=SIMSIAM, training=laboratory("logo", base="simsiam", **two), group=logo),
        Variant(name=BYOL, training=laboratory("logo", base="byol"), group=logo),
        *(
            Variant(name=name, training=laboratory("dino", local_crops=count), group=dino, paper=paper)
            for (count, name), paper in zip(DINOS.items(), (67.8, 71.5, 73.8), strict=True)
        ),
    ]


WORTH = 1.0
"""Points of k-NN under which a repulsion would be worth nothing."""


def answer(results: Results) -> StudyVerdict:
    """The verdict and its sentences, each from the numbers."""
    gained = results.gaps(LEARNED, NONE, "knn")
    rows = [name for name in (LEARNED, COSINE, NONE) if results.trained(name)]
    alike = {name: results.curve(name, "local_local")[1][-1] for name in rows}
    apart = {name: alike[name] - results.curve(name, "local_other")[1][-1] for name in rows}
    # The treatment before its outcome: what did not push crops apart cannot show what pushing them apart is worth.
    arrived = apart[NONE] - apart[LEARNED] >= DELIVERED
    kind = judged(gained, delivered=arrived, least=WORTH)
    verdict = {
        SHOWN: "The learned repulsion between small crops helps",
        REFUTED: "The learned repulsion between small crops harms"
        if beyond_chance(gained)
        else f"The learned repulsion between small crops is worth less than {WORTH:g} point",
        NOT_TESTABLE: "Whether small crops should repel each other cannot be told from these seeds"
        if arrived
        else "Nothing can be concluded about repelling small crops, since the repulsion did not push them apart",
    }[kind]
    right = results.curve(LEARNED, "affinity/right")[1]
    called = {LEARNED: "with the learned affinity", COSINE: "where the cosine repels", NONE: "without repulsion"}
    shares = ", ".join(f"{results.shown(name, 'knn')} {called[name]}" for name in rows)
    cosines = ", ".join(f"{alike[name]:.3f} {called[name]}" for name in rows)
    above = ", ".join(f"{apart[name]:.3f}" for name in rows)
    return StudyVerdict(
        kind,
        f"{verdict}: k-NN in percent is {shares}.",
        f"{'Delivered' if arrived else 'Not delivered'}: at the end the two small crops of an image have a cosine of "
        f"{cosines}; this is {above} above that of small crops of two images, and the repulsion counts as there from a "
        f"fall of {DELIVERED:g} on. The affinity tells pairs of one image from pairs of two in {100 * right[-1]:.0f} "
        "percent (50 is chance).",
        tuple(_beside(results)),
    )


def _beside(results: Results) -> list[str]:
    """What attraction and DINO's small crops are worth, where their rows were trained."""
    sentences = []
    if results.trained(NONE, UNDRAWN):
        drawn = results.gaps(NONE, UNDRAWN, "knn")
        certainty = "beyond the spread of the seeds" if beyond_chance(drawn) else "within the spread of the seeds"
        sentences.append(
            f"Drawing small crops to the large ones is worth {mean(drawn):+z.1f} points by itself ({certainty})."
        )
    if results.trained(*DINOS.values()):
        crops = [results.mean(name, "knn") for name in DINOS.values()]
        many = results.gaps(DINOS[6], DINOS[0], "knn")
        certainty = "beyond" if beyond_chance(many) else "within"
        sentences.append(
            f"DINO's multi-crop: {crops[0]:.1f} percent without small crops, {crops[1]:.1f} with two, {crops[2]:.1f} "
            f"with six ({mean(many):+z.1f} points, {certainty} the spread of the seeds); the paper has 67.8, 71.5 "
            "and 73.8."
        )
    return sentences


def show(page: Page, results: Results) -> None:
    grid(page, variants(), results, unit="Paper, k-NN")
    rows: list[list[Cell]] = []
    for name in (LEARNED, COSINE, NONE, UNDRAWN, SIMSIAM, BYOL):
        if not results.trained(name):
            continue
        ends = [results.curve(name, record)[1] for record in ("global_global", "local_global", "local_local")]
        rows.append([name, *(Number(f"{end[-1]:.3f}", end[-1]) for end in ends)])
    page.table(
        ["", "large with large", "small with large", "small with small"],
        [("", rows)],
        caption="Mean cosine of an image's crops at the end of training",
    )
    three = [LEARNED, COSINE, NONE]
    show_crops(page, results, three)
    show_neighbors(page, results, [*three, UNDRAWN, *DINOS.values()])
    curves(page, results, "Cosine of the two small crops", "local_local", three)
    curves(page, results, "Cosine of small and large crops", "local_global", three)
    curves(page, results, "How often the affinity is right", "affinity/right", [LEARNED, SIMSIAM, BYOL])
    curves(page, results, "k-NN over the run, percent", "knn", [*three, *DINOS.values()])


STUDY = Study(
    question="What are small crops good for, and should they repel each other?",
    design="The same small network (three convolutions, 32 pixels; small crops of 16) on the same single drawings, at "
    "equal images: LoGo with its affinity learned, replaced by the cosine, and off; without drawing small crops to "
    "large ones; on SimSiam and BYOL instead of MoCo; and DINO with more and fewer small crops. A step with more crops "
    "costs more: this compares equal images, not equal time.",
    variants=variants,
    measure=measure_encoder,
    answer=answer,
    show=show,
)
