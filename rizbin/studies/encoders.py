"""What the studies of methods without captions measure, and how they show it."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from rizbin.data.open import open_source
from rizbin.data.views import View, normalize
from rizbin.evaluation.collapse import color_shortcut
from rizbin.nets.image import ImageEncoder
from rizbin.pages.charts import Series
from rizbin.pages.page import Page
from rizbin.pages.pieces import BarCell, Cell, Number
from rizbin.studies.lab import Numbers, Results, Variant
from rizbin.workflows.diagnostics import MEMORY as WATCHED
from rizbin.workflows.diagnostics import CollapseDiagnostics
from rizbin.workflows.presets import Training, preset
from rizbin.workflows.runs import build, load_run

MEMORY, QUERIES = 2000, 1000
"""Images of the final measurement: a standard error of 1.6 points or less."""


def laboratory(method: str, **changes: Any) -> Training[Any]:
    """The preset nano with the papers' changes of color, which it leaves out, and what else a variant changes."""
    training = preset(method, "nano")
    colors = {"grayscale": 0.2, "hue": 0.1}
    for field in fields(training.settings):
        view = getattr(training.settings, field.name)
        if isinstance(view, View.Settings):
            second = {"solarize": 0.1} if field.name.endswith("view_2") else {}
            changes = {field.name: replace(view, **colors, **second), **changes}
    return replace(training, settings=replace(training.settings, **changes))


def measure_encoder(folder: Path) -> Numbers:
    """Nearest neighbors beside random weights and raw pixels, spread and rank, and the color shortcut of a run."""
    run = load_run(folder)
    encoder = run.encoder
    assert isinstance(encoder, ImageEncoder)  # these studies train nothing else
    train, test = (open_source(run.training.data, split=part, size=encoder.image_size) for part in ("train", "test"))
    watching = CollapseDiagnostics(build(run.training), train, test, memory=MEMORY, queries=QUERIES)
    numbers = dict(watching(run.step, run.method, {}).numbers)
    with torch.no_grad():
        pixels = watching.queries.pixels
        features = torch.cat([encoder.pooled(normalize(some)) for some in pixels.split(250)])
    shortcut = color_shortcut(pixels, features)
    return {**numbers, "color_shortcut": 100 * shortcut.share, "color_chance": 100 * shortcut.chance}


def grid(page: Page, variants: Sequence[Variant], results: Results, *, unit: str = "paper") -> None:
    """The table of all variants: k-NN with its spread, health of the projection, alarms, the paper's number."""
    variants = [variant for variant in variants if results.trained(variant.name)]
    groups: dict[str, list[list[Cell]]] = {}
    with_paper = any(variant.paper is not None for variant in variants)
    for variant in variants:
        knn, random = results.mean(variant.name, "knn"), results.mean(variant.name, "knn_random")
        row: list[Cell] = [
            variant.name,
            Number(results.shown(variant.name, "knn"), knn),
            BarCell(
                value=knn,
                ticks=(("random weights", random), ("pixels", results.mean(variant.name, "knn_pixels"))),
                high=100,
            ),
            Number(results.shown(variant.name, "projection_std", 2), results.mean(variant.name, "projection_std")),
            Number(results.shown(variant.name, "projection_rank"), results.mean(variant.name, "projection_rank")),
            Number(f"{results.flagged(variant.name)} of {results.seeds}", results.flagged(variant.name)),
        ]
        if with_paper:
            row.append(Number("" if variant.paper is None else f"{variant.paper:g}", variant.paper))
        groups.setdefault(variant.group, []).append(row)
    page.table(
        [
            *("Variant", "k-NN, percent", "beside random weights and pixels", "Spread", "Rank", "Alarm"),
            *([unit] if with_paper else []),
        ],
        list(groups.items()),
        legend=("the same network with random weights", "raw pixels"),
        caption=f"Mean ± standard deviation over {results.seeds} seeds" if results.seeds > 1 else "One seed",
    )
    page.note(
        "Spread is the standard deviation of unit-length projections, 1 when even in all directions and 0 when "
        "constant; rank is RankMe, the effective number of their directions; the alarm counts seeds that ended as "
        "collapsed."
    )


def curves(page: Page, results: Results, title: str, record: str, variants: Sequence[str]) -> None:
    """A chart of one record over the run, a line a variant, mean over seeds."""
    if record == "knn":  # by fewer images than the table's, so that looking costs little; the level is lower
        title += f", {WATCHED} images in memory"
    lines = [Series(name=name, x=x, y=y) for name in variants for x, y in [results.curve(name, record)] if x]
    if lines:
        page.curves(title, lines)


def gain(results: Results, name: str) -> float:
    """Points of k-NN over the better of random weights and raw pixels."""
    return results.mean(name, "knn") - max(results.mean(name, "knn_random"), results.mean(name, "knn_pixels"))
