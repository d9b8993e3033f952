"""What small crops are good for: LoGo's repulsion between them, and DINO's multi-crop.

Papers: LoGo, arXiv 2203.17205 (its tables could not be read; no number of it stands here); DINO, arXiv 2104.14294,
table 8 (ImageNet, ViT-S/16, 100 epochs, k-NN).
"""

from statistics import mean

from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number
from rizbin.studies.encoders import curves, grid, laboratory, measure_encoder
from rizbin.studies.lab import Results, Study, Variant, beyond_chance

LEARNED, COSINE, NONE = "LoGo, learned affinity", "LoGo, cosine", "LoGo, no repulsion"
UNDRAWN = "LoGo, small crops not drawn to large ones"
SIMSIAM, BYOL = "LoGo on SimSiam", "LoGo on BYOL"
DINOS = {0: "DINO, no small crops", 2: "DINO, 2 small crops", 6: "DINO, 6 small crops"}


DELIVERED = 0.02
"""By how much repulsion has to lower the cosine of two small crops of an image, less that of two images, to count as
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


def answer(results: Results) -> list[str]:
    """The verdict in sentences, each from the numbers."""
    gained = results.gaps(LEARNED, NONE, "knn")
    if not beyond_chance(gained):
        verdict = "The repulsion between small crops made no difference that these seeds can tell"
    else:
        verdict = f"The learned repulsion {'helps' if mean(gained) > 0 else 'harms'}"
    alike = {name: results.curve(name, "local_local")[1][-1] for name in (LEARNED, COSINE, NONE)}
    apart = {name: alike[name] - results.curve(name, "local_other")[1][-1] for name in (LEARNED, COSINE, NONE)}
    if apart[NONE] - apart[LEARNED] < DELIVERED:
        # The treatment before its outcome: what did not push crops apart cannot show what pushing them apart is worth.
        verdict = (
            f"Not delivered: with the learned repulsion the cosine of two small crops of an image ends as far above "
            f"that of two images ({apart[LEARNED]:.3f}) as without ({apart[NONE]:.3f}), so nothing can be concluded "
            "about repelling them"
        )
    right = results.curve(LEARNED, "affinity/right")[1]
    crops = [results.mean(name, "knn") for name in DINOS.values()]
    drawn = results.mean(NONE, "knn") - results.mean(UNDRAWN, "knn")
    return [
        f"{verdict}: k-NN {results.shown(LEARNED, 'knn')} percent with it, {results.shown(COSINE, 'knn')} where the "
        f"cosine repels, {results.shown(NONE, 'knn')} without.",
        f"What it does to the embeddings: at the end the two small crops of an image have a cosine of "
        f"{alike[LEARNED]:.3f} with the learned affinity, {alike[COSINE]:.3f} with the cosine and {alike[NONE]:.3f} "
        f"without repulsion; this is {apart[LEARNED]:.3f}, {apart[COSINE]:.3f} and {apart[NONE]:.3f} above that of "
        f"small crops of two images. The affinity tells pairs of one image from pairs of two in "
        f"{100 * right[-1]:.0f} percent (50 is chance).",
        f"Drawing small crops to the large ones is worth {drawn:+.1f} points by itself.",
        f"DINO's multi-crop: {crops[0]:.1f} percent without small crops, {crops[1]:.1f} with two, {crops[2]:.1f} with "
        "six; the paper has 67.8, 71.5 and 73.8.",
    ]


def show(page: Page, results: Results) -> None:
    grid(page, variants(), results, unit="Paper, k-NN")
    rows: list[list[Cell]] = []
    for name in (LEARNED, COSINE, NONE, UNDRAWN, SIMSIAM, BYOL):
        ends = [results.curve(name, record)[1] for record in ("global_global", "local_global", "local_local")]
        rows.append([name, *(Number(f"{end[-1]:.3f}", end[-1]) for end in ends)])
    page.table(
        ["", "large with large", "small with large", "small with small"],
        [("", rows)],
        caption="Mean cosine of an image's crops at the end of training",
    )
    three = [LEARNED, COSINE, NONE]
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
