"""Measures whatever was opened, each kind in its own way: an encoder, a detector, a model that draws."""

from pathlib import Path
from typing import Any

from rizbin import zoo
from rizbin.core.bounded import read_json
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Report
from rizbin.core.progress import Bar, warn
from rizbin.data.open import notices_of, open_source
from rizbin.data.sample import Source
from rizbin.detect import measure as detection
from rizbin.detect.detector import Detector
from rizbin.evaluate.suite import Evaluation, evaluate
from rizbin.generate.diffusion.loading import is_pipeline
from rizbin.generate.diffusion.painter import Painter
from rizbin.nets.dual import ImageTextPair
from rizbin.recipes import drawn
from rizbin.recipes.judge import judge_by
from rizbin.recipes.opened import Opened, calibration_of, detector_of, model_of, painter_of
from rizbin.recipes.training import LoadedRun

Settings = Evaluation.Settings | detection.Settings | drawn.Settings
_KINDS: dict[str, tuple[type, str]] = {
    "an encoder": (Evaluation.Settings, "rizbin.evaluate.suite.Evaluation"),
    "a detector": (detection.Settings, "rizbin.detect.measure"),
    "a model that draws": (drawn.Settings, "rizbin.recipes.drawn"),
}


def settings_of(what: str | Path) -> Settings:
    """How `measure` measures this."""
    folder = zoo.folder_of(str(what)) if str(what) in zoo.names() else Path(what)
    if Detector.is_one(folder):
        return detection.Settings()
    if is_pipeline(folder):
        return drawn.Settings()
    try:
        kept = read_json(folder / "settings.json")
    except (OSError, ValueError):
        return Evaluation.Settings()
    own = {"detector": detection.Settings, "diffusion": drawn.Settings}
    return own.get(str(kept.get("method")) if isinstance(kept, dict) else "", Evaluation.Settings)()


def measured(
    found: Opened, data: str, settings: Settings | None, quiet: bool, *, size: int = 0
) -> tuple[Report, Source]:
    """The numbers, and the pictures that they were measured on.

    size: shorter side in pixels at which scenes are drawn for a detector; 0: its own.
    """
    if (detector := detector_of(found)) is not None:
        return _boxes(found, detector, data, _fitting(settings, "a detector"), quiet, size)
    if (painter := painter_of(found)) is not None:
        return _drawings(found, painter, data, _fitting(settings, "a model that draws"), quiet)
    model, run = model_of(found), found if isinstance(found, LoadedRun) else None
    alone = "scenes" if isinstance(model, ImageTextPair) else "scenes:single"
    spec = data or (run.training.data if run else alone)
    # Seed 0, as in training: which scenes there are belongs to the data, not to the run.
    source, taught = (open_source(spec, split=part, size=model.image_size, seed=0) for part in ("test", "train"))
    _notice(source)
    numbers = evaluate(
        model,
        source,
        train_source=taught,
        settings=_fitting(settings, "an encoder"),
        look=None if run is None else run.method.look,
        reconstruct=None if run is None else run.method.reconstruct,
        bar=lambda total, label: Bar(total, label, quiet=quiet),
    )
    return numbers, source


def _fitting(settings: Settings | None, kind: str) -> Any:
    """The settings, if they are of this kind; its own where there are none."""
    own, where = _KINDS[kind]
    if settings is None:
        return own()
    if not isinstance(settings, own):
        raise RizbinError(f"These settings are not for {kind}, which is measured by those of {where}.")
    return settings


def _boxes(
    found: Opened, detector: Detector, data: str, settings: Any, quiet: bool, size: int
) -> tuple[Report, Source]:
    run = found if isinstance(found, LoadedRun) else None
    # A detector's own size tells at what size scenes are to be drawn; pictures of files come as they are.
    source = open_source(
        data or (run.training.data if run else "scenes:several"),
        split="test",
        size=size or min(detector.preparation.shorter, 512),
    )
    _notice(source)
    numbers = detection.measure(
        detector,
        source,
        names=names_of(found, data),
        calibration=calibration_of(detector),
        settings=settings,
        bar=lambda total, label: Bar(total, label, quiet=quiet),
    )
    return numbers, source


def _drawings(found: Opened, painter: Painter, data: str, settings: Any, quiet: bool) -> tuple[Report, Source]:
    run = found if isinstance(found, LoadedRun) else None
    source = open_source(data or (run.training.data if run else drawn.DATA), split="test", size=painter.side, seed=0)
    numbers = drawn.measure(
        painter,
        source,
        judge_by(settings.judge),
        settings=settings,
        bar=lambda total, label: Bar(total, label, quiet=quiet),
    )
    return numbers, source


def names_of(found: Opened, data: str) -> tuple[str, ...]:
    """What a run was taught to name, where it is measured on its own data; empty: all that the data name."""
    return found.training.settings.names if isinstance(found, LoadedRun) and not data else ()


def _notice(source: Source) -> None:
    for notice in notices_of(source):
        warn(notice)
