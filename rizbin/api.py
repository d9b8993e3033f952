"""What one does with Rizbin, as a few functions; the command line calls the same ones."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rizbin.core import outputs
from rizbin.core.checksums import write_sums
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Report
from rizbin.core.progress import Bar, MakeBar
from rizbin.core.runs import RunFolder
from rizbin.core.settings import from_dict, to_dict
from rizbin.data.gate import read_image
from rizbin.data.listing import Split
from rizbin.data.loader import MOST_REFUSED_SHARE
from rizbin.data.open import open_source
from rizbin.data.render import Render, Rendered
from rizbin.data.sample import Source
from rizbin.detection import measure as detection
from rizbin.detection.detector import Detector
from rizbin.detection.masks import DEFAULT as SAM
from rizbin.detection.masks import Segmenter
from rizbin.detection.presence import Calibration
from rizbin.evaluation.suite import Evaluation as Evaluation
from rizbin.evaluation.suite import TooFew
from rizbin.generation.diffusion.painter import Painter
from rizbin.models.encoder import Encoder
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip, save_timm
from rizbin.reports.detector import write_detector_report
from rizbin.reports.encoder import write_report
from rizbin.reports.explanations import write_explanations
from rizbin.reports.generator import write_drawing_report
from rizbin.studies.missing.asked import study_missing_objects as study_missing_objects
from rizbin.workflows import presets
from rizbin.workflows.ascend import ascend as ascend
from rizbin.workflows.bundle import publish
from rizbin.workflows.evaluate import Settings as Measuring
from rizbin.workflows.evaluate import measured, names_of
from rizbin.workflows.evaluate import settings_of as settings_of
from rizbin.workflows.generate import generate as generate
from rizbin.workflows.generate import repair as repair
from rizbin.workflows.load import Loaded, calibration_of, load_detector, load_encoder
from rizbin.workflows.load import load as opened
from rizbin.workflows.loading_lines import loading_lines as loading_lines
from rizbin.workflows.replay import record_in as record_in
from rizbin.workflows.replay import replay as replay
from rizbin.workflows.runs import train
from rizbin.workflows.tour import tour

Training = presets.Training
FORMS = ("open_clip", "timm", "rizbin")
"""What `export` writes of an encoder."""
DETECTOR_FORMS = ("transformers", "onnx")
"""And of a detector."""
PAINTER_FORM = "diffusers"
"""And of what draws: a pipeline folder."""


def fit(
    method: str | Training[Any],
    *,
    preset: str = "",
    run: str | Path = "",
    minutes: float | None = None,
    epochs: float = 0.0,
    device: str = "best",
    tolerate: float = MOST_REFUSED_SHARE,
    validation_data: str = "",
    quiet: bool = False,
    **changes: Any,
) -> Path:
    """Trains a method, or goes on with the run that lies in the folder; returns the folder of the run.

    method: a name ("detailclip") or complete settings, as `rizbin.workflows.presets.preset` gives them.
    preset: the settings that a name starts from; empty: the method's first.
    run: its folder; empty: `folder_of` the settings.
    minutes: a budget of time; once measured, it takes the place of `steps`. epochs: passes over the data, in the place
        of `steps`; 0: by steps.
    device: best (a GPU where there is one), cpu, cuda, cuda:1.
    tolerate: share of the images, 0 to 1, that may be unusable before the run stops; 20 always may, up to half of all.
    validation_data: what the run is measured on, so that all of its data are trained on; empty: their test part.
    changes: fields of the settings: data, steps, batch, seed, ...; a group takes a dict: settings={"keep_ratio": 0.3}.
    Raises RizbinError when something of this cannot be.
    """
    if isinstance(method, str):
        method = presets.preset(method, preset or presets.names(method)[0])
    training = _changed(method, changes)
    around: dict[str, Any] = {"epochs": epochs, "validation_data": validation_data}
    return train(
        training,
        Path(run) if run else folder_of(training, minutes, **{name: value for name, value in around.items() if value}),
        minutes=minutes,
        device=device,
        tolerate=tolerate,
        quiet=quiet,
        **around,
    )


def measure(
    what: str | Path,
    *,
    data: str = "",
    split: Split = "test",
    validation_data: str = "",
    settings: Measuring | None = None,
    quiet: bool = False,
) -> Report:
    """All numbers of a model, each beside those of the same network with random weights.

    what: the folder of a run or of an exported model, or the name of a model of the zoo: an encoder, a detector or what
        draws.
    data: what to measure on, as for training; empty: the test part of what the run was trained on, or else the scenes.
    split: the part of the data that is measured on: "test", "train" or "all".
    validation_data: measured on in place of a part of the data, all of it.
    settings: of `rizbin.evaluation.suite.Evaluation`, for a detector those of `rizbin.detection.measure`, for what
        draws those of `rizbin.workflows.evaluate_diffusion`.
    Raises RizbinError for what is not there, and where there are too few images for numbers that say something.
    """
    _readable(data, validation_data)
    return measured(opened(what), data, settings, quiet, split=split, validation_data=validation_data)[0]


def report(
    what: str | Path,
    *,
    data: str = "",
    split: Split = "test",
    validation_data: str = "",
    to: str | Path = "",
    rooms: bool = False,
    quiet: bool = False,
    told: Callable[[Report], None] | None = None,
) -> Path:
    """Measures a model and writes a report, numbers and pictures in one file; returns the file's path.

    what, data, split, validation_data: as for `measure`; of too few images the page shows pictures without numbers and
        says so.
    to: the file; empty: `report.html` in the folder of the run, or here, named after the model.
    rooms: of an encoder, also show what the other rooms do, with models of the zoo: as the demo does.
    told: is told the numbers before the page is made.
    """
    _readable(data, validation_data)
    if to:
        _writable(Path(to))
        outputs.refuse_taken(to)
    found = opened(what)
    try:
        numbers, source = measured(found, data, None, quiet, split=split, validation_data=validation_data)
    except TooFew as few:
        if few.source is None:
            raise
        numbers, source = _no_numbers(few), few.source
    if told is not None:
        told(numbers)
    folder, method = (found.run.folder, found.run.method) if found.run is not None else (Path(what), None)
    run = RunFolder(folder)
    own = folder / "checkpoints"
    target = Path(to) if to else (run.report if own.is_dir() else Path(f"{folder.name}.html"))
    if (painter := found.painter) is not None:
        return write_drawing_report(
            folder, target, painter=painter, source=source, evaluation=numbers, history=list(run.metrics.read())
        )
    if (detector := found.detector) is not None:
        return write_detector_report(
            folder,
            target,
            detector=detector,
            source=source,
            names=names_of(found, data) or source.categories,
            evaluation=numbers,
            history=list(run.metrics.read()),
            kept=_kept_of(found, detector, source),
        )
    return write_report(
        folder,
        target,
        pair=found.encoder,
        method=method,
        source=source,
        evaluation=numbers,
        history=run.metrics.read(),
        also=(lambda page: tour(page, bar=lambda total, label: Bar(total, label, quiet=quiet))) if rooms else None,
    )


def render(settings: Render.Settings, output: str | Path, *, bar: MakeBar | None = None) -> Rendered:
    """Writes samples of any data as webdataset tars into a folder, which `shards:` reads back with masks.

    The same call again goes on where it stopped; see `rizbin.data.render`. `bar` shows how far it is.
    """
    return Render(settings).write(output, bar=bar)


def visualize(
    drawing: str,
    what: str | Path,
    images: str | list[str],
    *,
    settings: Any = None,
    to: str | Path = "",
    size: int = 0,
    limit: int = 0,
    masks: str | Path = "",
) -> Path:
    """Draws what a model sees in pictures; returns the page, which lies in a folder with the pictures as PNG files.

    drawing: a name of `rizbin.visualization.pictures.DRAWINGS`; `settings` are its own.
    what: an encoder, as `load` takes it.
    to: the folder; empty: runs/visualize/DRAWING-MODEL.
    images: files, folders, or data as for training.
    size: shorter side in pixels at which pictures are looked at; 0: the model's own.
    limit: most pictures taken; 0: as many as the drawing shows.
    masks: folder with the true masks of picture files (`rizbin.visualization.inputs.read_pictures`).
    """
    from rizbin.visualization.album import write_album
    from rizbin.visualization.inputs import check_pictures, read_pictures
    from rizbin.visualization.pictures import DRAWINGS, does

    if drawing not in DRAWINGS:
        raise RizbinError(f"There is nothing called {drawing!r} to draw; there are {', '.join(DRAWINGS)}.")
    check_pictures(images, masks=masks)
    draws, encoder = DRAWINGS[drawing], load_encoder(what)
    found = read_pictures(images, encoder, size=size, limit=limit or draws.most, masks=masks)
    target = Path(to) if to else Path("runs") / "visualize" / f"{drawing}-{Path(str(what)).name}"
    sheets = draws(settings if settings is not None else draws.Settings())(encoder, found.shown)
    title = f"{does(draws).split(':')[0].rstrip('.')}: {what}"
    with outputs.reading(
        _named_files([*([images] if isinstance(images, str) else images), *([masks] if masks else [])])
    ):
        return write_album(sheets, target, title=title, notes=found.skipped, credit=found.credit)


def _named_files(places: Sequence[str | Path]) -> list[Path]:
    """The files among these words of a command, and those in its folders: what it reads."""
    files: list[Path] = []
    for place in map(Path, places):
        files += [one for one in place.rglob("*") if one.is_file()] if place.is_dir() else [place]
    return files


def detect(
    where: str | list[str],
    find: Sequence[Any],
    *,
    model: str | Path = "",
    rivals: Sequence[Any] = (),
    settings: Any = None,
    to: str | Path = "",
    form: str = "",
    draw: str | Path = "",
    explain: int = 0,
    masks: str | Path = "",
    device: str = "cpu",
    quiet: bool = False,
) -> Any:
    """Looks for things in pictures; returns a `rizbin.detection.search.Searched`.

    where: files, folders, patterns.
    find: phrases: "a cat", "remote=a remote control|tv remote", or {"remote": ["a remote control", "tv remote"]}.
    model: a Grounding DINO by name or folder, a run, or one of the zoo; empty:
        `rizbin.detection.detector.DEFAULT`, which needs a network once.
    rivals: phrases that may take a box away and are no answers themselves.
    settings: a `rizbin.detection.search.Search`.
    to, form: file or folder for the answers, and how (`rizbin.detection.write.FORMS`); empty: not written.
    draw: folder for the pictures with their answers drawn; empty: not drawn.
    masks: a SAM 2 by name or folder, or "sam2" for `rizbin.detection.masks.DEFAULT`, that makes a mask of each box.
    explain: boxes of each picture that explained.html, in that folder or here, explains.
    """
    from rizbin.detection import search as room
    from rizbin.detection.phrases import read_phrases
    from rizbin.detection.write import planned

    # What cannot be looked for, is not there or must not be written over is said before a model is loaded.
    read_phrases(find)
    places = [where] if isinstance(where, str) else list(where)
    files = room.files_of(places)
    with outputs.reading(files):
        if to:
            planned(list(files.values()), Path(to), form)
        found = room.search(
            load_detector(model, device=device),
            places,
            find,
            rivals=rivals,
            settings=settings or room.Search(),
            draw=Path(draw) if draw else None,
            explained=explain,
            segmenter=Segmenter.from_pretrained(SAM if masks == "sam2" else masks, device=device) if masks else None,
            bar=lambda total, label: Bar(total, label, quiet=quiet),
            say=lambda text: None if quiet else print(text, file=sys.stderr),
        )
        if to:
            room.save(found, Path(to), form)
        if explain:
            write_explanations(found.explained, Path(draw or ".") / "explained.html")
    return found


def verify(
    picture: str | Path,
    phrases: Sequence[Any],
    *,
    model: str | Path = "",
    rivals: Sequence[Any] = (),
    margin: float = 0.0,
    calibration: str | Path = "",
    device: str = "cpu",
) -> list[Any]:
    """Whether each phrase is in the picture: a `rizbin.detection.presence.Verdict` for each.

    calibration: file that `Calibration.save` wrote; empty: calibration.json in the model's folder where there is one,
    else scores are taken as probabilities.
    """
    from rizbin.detection import presence
    from rizbin.detection.phrases import read_phrases

    read_phrases(phrases)
    read_image(picture)  # one that cannot be used is said before a model is loaded
    detector = load_detector(model, device=device)
    made = Calibration.load(Path(calibration)) if calibration else calibration_of(detector) or Calibration()
    return presence.verify(detector, picture, phrases, rivals=rivals, margin=margin, calibration=made)


def study_grounding(
    model: str | Path = "detector-mini",
    *,
    data: str = "scenes:several",
    images: int = 200,
    seed: int = 0,
    to: str | Path = "grounding.html",
    quiet: bool = False,
) -> Path:
    """Asks a detector about pictures whose objects are known and writes a page of how it is best asked."""
    from rizbin.studies.grounding import write_study

    _readable(data)
    _writable(Path(to))
    if Path(to) != Path("grounding.html"):
        outputs.refuse_taken(to)
    detector = load_detector(model)
    source = open_source(data, split="test", size=min(detector.preparation.shorter, 512))
    return write_study(
        detector,
        source,
        Path(to),
        images=images,
        seed=seed,
        bar=lambda total, label: Bar(total, label, quiet=quiet),
    )


def study_ascent(
    model: str | Path = "tecoa-mini",
    *,
    judge: str | Path = "clip-mini",
    detector: str | Path = "detector-mini",
    rival: str | Path = "detailclip-mini",
    rebuild: Sequence[str | Path] = ("detailclip-mini", "clip-mini"),
    autoencoder: str | Path = "diffusion-mini",
    data: str = "scenes:easy,categories=0",
    prompts: int = 50,
    seeds: int = 3,
    few: int = 10,
    paper: int = 24,
    rebuilt: int = 8,
    run: str | Path = "runs/study-ascent",
    to: str | Path = "ascent.html",
    quiet: bool = False,
) -> Path:
    """Climbs one encoder and has others judge what comes out, on one page; what is in `run` is not drawn again.

    rival: an encoder that is climbed in the same way. rebuild: two encoders that draw pictures again from their
        embeddings. autoencoder: what draws, whose autoencoder's latents are climbed beside the other forms.
    prompts, seeds, few, paper, rebuilt: how much is drawn (`rizbin.studies.ascent.Size`).
    """
    from rizbin.studies.ascent import Size, write_study
    from rizbin.workflows.load import load_painter
    from rizbin.workflows.verifier import Judge

    _readable(data)
    _writable(Path(to))
    if Path(to) != Path("ascent.html"):
        outputs.refuse_taken(to)
    encoder, looks = load_encoder(model), load_detector(detector)
    return write_study(
        encoder,
        load_encoder(judge),
        Judge(looks, calibration_of(looks) or Calibration(), (), looks.preparation.shorter),
        open_source(data, split="test", size=encoder.image_size),
        Path(to),
        rival=load_encoder(rival),
        rebuild=[load_encoder(one) for one in rebuild],
        autoencoder=load_painter(autoencoder).pipeline.vae,
        blind=load_encoder("dino-mini"),
        run=Path(run),
        size=Size(prompts=prompts, seeds=seeds, few=few, paper=paper, rebuilt=rebuilt),
        quiet=quiet,
    )


def load(what: str | Path, *, device: str = "cpu") -> Encoder:
    """The encoder of a run, of a bundled name, of a folder or a name of open_clip, timm or transformers.

    It brings its preprocessing: `encode_image`, `encode_text`, `similarity` and `patch_features` take images and texts
    as they are; `network` is the network itself, in evaluation mode and without gradient for its weights.
    """
    return load_encoder(what, device=device)


def export(what: str | Path, folder: str | Path, *, form: str = "", half: bool = False) -> Path:
    """Writes a trained model into a new folder.

    form: "open_clip", which open_clip loads as "local-dir:FOLDER"; "timm", the same for an image encoder (half: weights
    in 16 bits); or "rizbin", with teacher, heads and decoder beside it, in 16 bits: all that reports and pictures of
    the method need. Empty: what the model is, open_clip or timm. Of a detector: "transformers", which transformers
    loads as well, or "onnx", for onnxruntime. Of what draws: "diffusers", a pipeline folder.
    """
    target = Path(folder)
    if form and form not in (*FORMS, *DETECTOR_FORMS, PAINTER_FORM):
        known = ", ".join((*FORMS, *DETECTOR_FORMS, PAINTER_FORM))
        raise RizbinError(f"There is no form {form!r} to export to; give one of {known}.")
    _empty(target)
    found = opened(what)
    if (detector := found.detector) is not None:
        return _export_detector(detector, target, form or DETECTOR_FORMS[0], half)
    if (painter := found.painter) is not None:
        return _export_painter(painter, target, form or PAINTER_FORM, half)
    model = found.network
    own = "open_clip" if isinstance(model, ImageTextPair) else "timm"
    form = form or own
    if form not in FORMS:
        raise RizbinError(f"There is no form {form!r} to export to; give one of {', '.join(FORMS)}.")
    if form not in (own, "rizbin"):
        kind = "reads text" if own == "open_clip" else "reads no text"
        raise RizbinError(f"{what} {kind}, so {form} cannot load it; export it to {own}.")
    _empty(target)
    if form == "rizbin":
        if found.run is None:
            raise RizbinError(f"{what} is a model without its method; export it to {own}, or export its run.")
        publish(found.run, target)
    elif isinstance(model, ImageTextPair):
        save_open_clip(model, target, half=half)
    else:
        save_timm(model, target, half=half)
    return target


def _export_detector(detector: Detector, target: Path, form: str, half: bool) -> Path:
    if form not in DETECTOR_FORMS:
        raise RizbinError(f"A detector is exported to {' or '.join(DETECTOR_FORMS)}, not to {form!r}.")
    _empty(target)
    if form == "onnx":
        from rizbin.detection.onnx import export_onnx

        export_onnx(detector, target)
    else:
        detector.save(target, half=half)
    if (calibration := calibration_of(detector)) is not None:
        calibration.save(target / "calibration.json")
    write_sums(target)
    return target


def _export_painter(painter: Painter, target: Path, form: str, half: bool) -> Path:
    if form != PAINTER_FORM:
        raise RizbinError(f"What draws is exported to {PAINTER_FORM}, not to {form!r}.")
    _empty(target)
    (painter.pipeline.to(torch.float16) if half else painter.pipeline).save_pretrained(target)
    write_sums(target)
    return target


def _readable(*data: str) -> None:
    """Raises RizbinError for data that are not there: before a model is loaded, and not after."""
    for spec in data:
        if spec:
            open_source(spec, split="all")


def _writable(file: Path) -> None:
    """Makes the folder of a page that is to be written. Raises RizbinError where that cannot be: before the work."""
    if file.is_dir():
        raise RizbinError(f"{file} is a folder; name a file for the page.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RizbinError(
            f"The folder {file.parent} for the page cannot be made ({error.strerror or error}); name another one."
        ) from error


def _no_numbers(few: TooFew) -> Report:
    """The report of what was not measured."""
    name = few.source.name if few.source is not None else ""
    return Report(measurements=(), left_out=(("all numbers", str(few)),), images=few.images, source=name)


def _empty(target: Path) -> None:
    if target.exists() and any(target.iterdir()):
        raise RizbinError(f"{target} is not empty; name a new folder to export to.")


def folder_of(training: Training[Any], minutes: float | None, **more: Any) -> Path:
    """runs/METHOD-HASH: the same settings find their run again, other settings get a folder of their own."""
    spelled = json.dumps([to_dict(training), minutes, *([more] if more else [])], sort_keys=True)
    return Path("runs") / f"{training.method}-{hashlib.sha256(spelled.encode()).hexdigest()[:8]}"


def _changed(training: Training[Any], changes: Mapping[str, Any]) -> Training[Any]:
    """The settings with some fields replaced, types and names checked."""
    if not changes:
        return training
    return from_dict(Training[type(training.settings)], _merged(to_dict(training), changes))


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new` laid over `old`, groups merged into groups."""
    both = {name: (old[name], value) for name, value in new.items() if isinstance(value, Mapping) and name in old}
    return {**old, **new, **{name: _merged(before, after) for name, (before, after) in both.items()}}


def _kept_of(found: Loaded, detector: Detector, source: Source) -> list[tuple[str, float, float]]:
    """What teaching gave and took, where it went on from a trained network and names were held out to tell by."""
    if found.run is None or not found.run.training.settings.start:
        return []
    settings = found.run.training.settings
    groups = {f"{len(settings.names)} taught": settings.names, f"{len(settings.held_out)} held out": settings.held_out}
    return detection.kept(load_detector(settings.start), detector, source, groups, detection.Settings())
