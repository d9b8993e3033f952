"""How much SimCLR and BYOL depend on each augmentation, and what colors have to do with it.

Paper: BYOL, arXiv 2006.07733, figure 3b and table 17 (ImageNet, ResNet-50, 300 epochs, linear top-1). Its figure 3a is
`batches`.
"""

from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch.nn import functional as F

from rizbin.data.loader import Loader
from rizbin.data.open import open_source
from rizbin.data.views import AUGMENTATIONS, normalize
from rizbin.evaluation.collapse import color_nearness, partners_found
from rizbin.nets.image import ImageEncoder
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number
from rizbin.studies.encoder_images import show_neighbors, show_views
from rizbin.studies.encoders import gain, grid, laboratory, measure_encoder
from rizbin.studies.lab import Numbers, Results, Study, Variant, beyond_chance, judged
from rizbin.studies.verdict import NOT_TESTABLE, REFUTED, SHOWN, StudyVerdict
from rizbin.workflows.runs import load_run

METHODS = {"simclr": "SimCLR", "byol": "BYOL"}
STEPS = 1600
"""After 400 BYOL stood 1.3 points above raw pixels, and had nothing to lose; after 1,600 it stands 7 above them."""
REMOVED: dict[str, tuple[str, ...]] = {
    "no flip": ("flip",),
    "no blur": ("blur",),
    "no grayscale": ("grayscale",),
    "no jitter": ("jitter",),
    "no color": ("jitter", "grayscale", "solarize"),
    "crop only": ("flip", "jitter", "grayscale", "blur", "solarize"),
}
PAPER_REMOVED = {
    "simclr": {
        "no flip": 67.3,
        "no blur": 65.2,
        "no grayscale": 61.9,
        "no jitter": 63.7,
        "no color": 45.7,
        "crop only": 40.3,
    },
    "byol": {
        "no flip": 71.9,
        "no blur": 71.2,
        "no grayscale": 70.3,
        "no jitter": 71.8,
        "no color": 63.4,
        "crop only": 59.4,
    },
}
PAPER_ALL = {"simclr": 67.9, "byol": 72.5}


def name_of(method: str, what: str = "") -> str:
    """A row's name."""
    return METHODS[method] + (f", {what}" if what else "")


def _training(method: str, augmentations: tuple[str, ...] = AUGMENTATIONS) -> Any:
    training = laboratory(method, augmentations=augmentations)
    # Where colors name nothing, as on photographs; on `scenes:single` a drawing's colors are its name.
    return replace(training, data="scenes:tinted", steps=STEPS)


def variants() -> list[Variant]:
    """Both methods, with all augmentations and with some removed."""
    rows = [
        Variant(
            name=name_of(method),
            training=_training(method),
            group="All augmentations",
            paper=PAPER_ALL[method],
        )
        for method in METHODS
    ]
    rows += [
        Variant(
            name=name_of(method, what),
            training=_training(method, tuple(name for name in AUGMENTATIONS if name not in gone)),
            group="Augmentations",
            paper=PAPER_REMOVED[method][what],
        )
        for what, gone in REMOVED.items()
        for method in METHODS
    ]
    return rows


BATCHES = 16
"""Batches of test images whose views are paired: 2,048 views of 64 images a batch, a standard error of 1.1 points."""


def measure(folder: Path) -> Numbers:
    """What `measure_encoder` gives, and how well the task of the run's own views is solved: by color, by the network.

    partners_color, partners_network: percent of views nearer to their image's other view than to any other view of the
    batch, by color histogram, which needs no training, and by the encoder's pooled features.
    """
    run = load_run(folder)
    encoder = run.encoder
    assert isinstance(encoder, ImageEncoder)  # as in `measure_encoder`
    test = open_source(run.training.data, split="test", size=encoder.image_size)
    by_color, by_network = [], []
    for batch in Loader(test, run.method.views, None, seed=0, batch=run.training.batch, steps=BATCHES):
        pixels = torch.cat(batch.views)
        with torch.no_grad():
            features = F.normalize(encoder.pooled(normalize(pixels)), dim=1)
        by_color.append(partners_found(color_nearness(pixels)))
        by_network.append(partners_found(features @ features.T))
    return {
        **measure_encoder(folder),
        "partners_color": 100 * mean(by_color),
        "partners_network": 100 * mean(by_network),
    }


LEARNED = 5.0
"""Points of k-NN above what needs no training under which a method has not learned enough to lose anything."""
WORTH = 2.0
"""Points of k-NN by which SimCLR would have to lose more than BYOL to be called less robust; the papers' are 14."""


def _fall(results: Results, method: str, what: str) -> float:
    """Points lost against the same method with everything."""
    return results.mean(name_of(method), "knn") - results.mean(name_of(method, what), "knn")


def answer(results: Results) -> StudyVerdict:
    """The verdict and its sentences, each from the numbers; the claim is that SimCLR loses more than BYOL."""
    crop = {method: _fall(results, method, "crop only") for method in METHODS}
    falls = (results.gaps(name_of(method), name_of(method, "crop only"), "knn") for method in ("simclr", "byol"))
    apart = [simclr - byol for simclr, byol in zip(*falls, strict=True)]
    above = {method: gain(results, name_of(method)) for method in METHODS}
    # What has learned nothing has nothing to lose.
    arrived = min(above.values()) >= LEARNED
    if not arrived:
        kind = NOT_TESTABLE
        verdict = (
            f"Too little was learned to say what augmentations are worth: with all of them SimCLR stands "
            f"{above['simclr']:.1f} points of k-NN above the better of raw pixels and random weights and BYOL "
            f"{above['byol']:.1f}"
        )
    elif max(crop.values()) < 0:
        kind = REFUTED
        verdict = "Unlike in the paper, both gain when crops alone are left, on drawings whose colors name nothing"
    else:
        kind = judged(apart, delivered=True, least=WORTH)
        verdict = {
            SHOWN: "SimCLR depends more on its augmentations",
            REFUTED: "BYOL depends more on its augmentations"
            if beyond_chance(apart)
            else "The two lose alike when augmentations go",
            NOT_TESTABLE: "These seeds cannot tell which of the two loses more when augmentations go",
        }[kind]
    reason = (
        f"{verdict}: SimCLR {_changes(results, 'simclr', 'crop only')} of k-NN and BYOL "
        f"{_changes(results, 'byol', 'crop only')} with crops alone; in the paper SimCLR loses 27.6 points and BYOL "
        "13.1."
    )
    delivered = (
        f"{'Delivered' if arrived else 'Not delivered'}: to lose something, a method has to have learned it; with all "
        f"augmentations SimCLR stands {above['simclr']:+z.1f} points from the better of raw pixels and random "
        f"weights, BYOL {above['byol']:+z.1f}; at least {LEARNED:g} are required."
    )
    return StudyVerdict(kind, reason, delivered, (*_tasks(results), *_shortcuts(results)))


def _tasks(results: Results) -> list[str]:
    """What each task left to learn: with all augmentations, and with crops alone."""
    rows = [("with all augmentations", ""), ("with crops alone", "crop only")]
    if not results.trained(*(name_of(method, what) for method in METHODS for _, what in rows)):
        return []

    def both(number: str, what: str) -> str:
        return " and ".join(f"{results.mean(name_of(method, what), number):.0f}" for method in METHODS)

    parts = [
        f"{words} color alone, untrained, picks {both('partners_color', what)} percent of partners rightly in SimCLR's "
        f"and BYOL's views, their features {both('partners_network', what)}"
        for words, what in rows
    ]
    # SimCLR's task is SimCLR's loss; BYOL never compares images, and is asked the same for comparison.
    left = 100 - results.mean(name_of("simclr"), "partners_network")
    rest = 100 - results.mean(name_of("simclr", "crop only"), "partners_color")
    return [
        f"What the views leave to learn is to pick an image's other view out of a batch: {'; '.join(parts)}. After "
        f"{results.steps:,} steps SimCLR's task with all augmentations is {left:.0f} percent unsolved, and with crops "
        f"alone colors leave {rest:.0f} percent of it to other cues. Where colors suffice, as on photographs, views "
        "have to disturb them (SimCLR, arXiv 2002.05709, section 3.1)."
    ]


def _removed(results: Results) -> list[str]:
    return [what for what in REMOVED if results.trained(*(name_of(method, what) for method in METHODS))]


def _shortcuts(results: Results) -> list[str]:
    """What cost most, and how far colors stand in for names, where those rows were trained."""
    removed = _removed(results)
    if "no color" not in removed:
        return []
    most = {method: max(removed, key=lambda what: _fall(results, method, what)) for method in METHODS}
    falls = {method: _fall(results, method, most[method]) for method in METHODS}
    shortcut = {
        (method, what): results.mean(name_of(method, what), "color_shortcut")
        for method in METHODS
        for what in ("", "no color")
    }
    rises = all(shortcut[method, "no color"] > shortcut[method, ""] for method in METHODS)
    costly = {name: most[method] for method, name in METHODS.items() if falls[method] > 0}
    points = {name: falls[method] for method, name in METHODS.items()}
    clauses = [f'"{what}" costs {name} most ({points[name]:.1f})' for name, what in costly.items()]
    clauses += [f"none costs {name} anything" for name in METHODS.values() if name not in costly]
    if not costly:
        clauses = ["none costs either of them anything"]
    elif len(costly) == len(METHODS) and len(set(costly.values())) == 1:
        clauses = [f'"{most["byol"]}" costs both most']
    worst = " and ".join(clauses)
    return [
        f"Of the rows with something removed, {worst}; without color changes SimCLR "
        f"{_changes(results, 'simclr', 'no color')} and BYOL {_changes(results, 'byol', 'no color')}. Colors as a "
        f"shortcut: of an image's ten nearest, {shortcut['simclr', '']:.0f} percent are also nearest by color "
        f"histogram with SimCLR's features and {shortcut['byol', '']:.0f} with BYOL's; trained without color changes "
        f"{shortcut['simclr', 'no color']:.0f} and {shortcut['byol', 'no color']:.0f} (chance "
        f"{results.mean(name_of('simclr'), 'color_chance'):.0f}): the shortcut is {'' if rises else 'not '}taken more "
        "when nothing disturbs it."
    ]


def _changes(results: Results, method: str, what: str) -> str:
    """What removing this does to the method's k-NN, and whether the seeds can tell."""
    points = -_fall(results, method, what)
    falls = results.gaps(name_of(method), name_of(method, what), "knn")
    certainty = "beyond" if beyond_chance(falls) else "within"
    return f"{'gains' if points > 0 else 'loses'} {abs(points):.1f} points ({certainty} the spread)"


def show(page: Page, results: Results) -> None:
    grid(page, variants(), results, unit="Paper, top-1")
    rows: list[list[Cell]] = [
        [
            what,
            *(Number(f"{_fall(results, method, what):+z.1f}", _fall(results, method, what)) for method in METHODS),
            *(
                Number(
                    f"{PAPER_ALL[method] - PAPER_REMOVED[method][what]:+z.1f}",
                    PAPER_ALL[method] - PAPER_REMOVED[method][what],
                )
                for method in METHODS
            ),
            *(
                Number(
                    results.shown(name_of(method, what), "color_shortcut"),
                    results.mean(name_of(method, what), "color_shortcut"),
                )
                for method in METHODS
            ),
        ]
        for what in _removed(results)
    ]
    tasks: list[list[Cell]] = [
        [
            what or "nothing",
            *(
                Number(results.shown(name, number), results.mean(name, number))
                for name, number in (
                    (name_of("simclr", what), "partners_color"),
                    (name_of("simclr", what), "partners_network"),
                    (name_of("byol", what), "partners_network"),
                )
            ),
        ]
        for what in ("", *_removed(results))
    ]
    page.table(
        ["Removed", "SimCLR loses", "BYOL loses", "paper: SimCLR", "paper: BYOL", "color shortcut, SimCLR", "BYOL"],
        [("", rows)],
        caption="Points lost against all augmentations (BYOL's figure 3b), and how much colors alone decide",
    )
    page.table(
        ["Removed", "color histogram, untrained", "SimCLR's features", "BYOL's features"],
        [("", tasks)],
        caption="Views whose other view is the nearest of a batch, percent: the task that SimCLR's loss sets",
    )
    rows_shown = {variant.name: variant for variant in variants()}
    names = {what or "all": name_of("simclr", what) for what in ("", *_removed(results))}
    show_views(page, {what: rows_shown[name].training for what, name in names.items() if results.trained(name)})
    show_neighbors(page, results, [name_of(method, what) for what in ("", "crop only") for method in METHODS])
    page.note(
        "The paper's numbers are linear top-1 on ImageNet, ours k-NN on drawings. The color shortcut is the share of "
        "an image's ten nearest images, by the network's features, that are also "
        "among its ten nearest by color histogram."
    )


STUDY = Study(
    question="How much do SimCLR and BYOL depend on each augmentation?",
    design="Both methods on the same small network (three convolutions, 32 pixels) and the same single drawings, each "
    "in hues of its own, so that colors name nothing, at equal images: first with all augmentations, then with one "
    "kind or several removed. Measured on new images by nearest neighbors, and by how far colors alone decide which "
    "images are near.",
    variants=variants,
    measure=measure,
    answer=answer,
    show=show,
)
