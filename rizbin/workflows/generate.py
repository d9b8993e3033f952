"""Pictures drawn into a folder, and drawn until all that they name is there: what the commands generate and edit do."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rizbin import zoo
from rizbin.core import outputs
from rizbin.core.progress import Bar
from rizbin.data.gate import read_image
from rizbin.generation.diffusion import drawing
from rizbin.generation.diffusion import repair as room
from rizbin.generation.diffusion.cure import SCALE, resolution_of, steering
from rizbin.generation.diffusion.painter import Painter, Sampling, fingerprint
from rizbin.generation.film import sheet, write_png
from rizbin.reports.film import write_film
from rizbin.workflows.known_words import unknown_in
from rizbin.workflows.load import load_painter
from rizbin.workflows.verifier import judge_by

REPAIRED = "repaired.json"
"""Tells how pictures were drawn and repaired: all that makes them again."""


def generate(
    prompts: str | Sequence[str],
    *,
    model: str | Path = "diffusion-mini",
    to: str | Path = "drawn",
    sampling: Any = None,
    count: int = 1,
    start: str | Path = "",
    film: bool = False,
    grid: bool = False,
    cure: Any = "none",
    scale: float = SCALE,
    objects: Sequence[str] = (),
    device: str = "cpu",
    half: bool = False,
    offload: Any = "none",
    quiet: bool = False,
) -> list[Any]:
    """Draws pictures into the folder `to`; returns a `rizbin.generation.diffusion.drawing.Drawn` for each.

    model: of the zoo, a run, a pipeline folder of diffusers or a name on Hugging Face.
    sampling: a `rizbin.generation.diffusion.painter.Sampling`.
    start: a picture to redraw; empty: from words alone. grid: also grid.png of strengths and guidances of that picture.
    film: strips, GIFs and film.html beside the pictures.
    cure: guidance for objects that are forgotten (`rizbin.generation.diffusion.cure.CURES`), with updates of `scale`;
        objects: words of the prompt that it looks after; empty: those it finds.
    In the folder: drawn.json, from which `rizbin.workflows.replay.replay` makes the pictures again.
    """
    picture = read_image(start) if start else None
    painter = load_painter(model, device=device, half=half, offload=offload)
    sampling, folder = sampling or Sampling(), Path(to)
    wanted = [prompts] if isinstance(prompts, str) else list(prompts)
    about: dict[str, object] = {
        **_about(model, device, half, offload),
        "cure": cure,
        "cure_scale": scale,
        "objects": list(objects),
        "film": film,
    }
    if picture is not None:
        about |= {"start": str(Path(start).absolute()), "start_pixels": fingerprint(picture)}

    def bar(total: int, label: str) -> Bar:
        return Bar(total, label, quiet=quiet)

    def guide(prompt: str) -> tuple[Any, list[str]]:
        steers, said = steering(painter, prompt, cure, objects=objects, scale=scale)
        return steers, [*unknown_in(prompt, model), *said]

    with outputs.reading([start] if start else []):
        made = drawing.draw(
            painter,
            wanted,
            folder,
            sampling=sampling,
            count=count,
            start=picture,
            guide=guide,
            film=film,
            attend=attended(painter, film),
            about=about,
            bar=bar,
        )
        if grid and picture is not None:
            write_png(drawing.grid(painter, wanted[0], picture, sampling, bar=bar), folder / "grid.png")
        if film:
            write_film(painter, made, picture, folder / "film.html", about=about)
    return made


def repair(
    prompts: str | Sequence[str],
    *,
    model: str | Path = "diffusion-mini",
    judge: str | Path = "detector-mini",
    to: str | Path = "drawn",
    sampling: Any = None,
    ladder: Any = None,
    objects: Sequence[str] = (),
    among: Sequence[str] = (),
    film: bool = False,
    device: str = "cpu",
    half: bool = False,
    offload: Any = "none",
    quiet: bool = False,
) -> list[Any]:
    """Draws each prompt until all its objects are verified; a `rizbin.generation.diffusion.repair.Repaired` for each.

    judge: a detector, as for `detect`. ladder: a `rizbin.generation.diffusion.repair.Ladder`; one without rungs
    verifies only. objects: what shall be there; empty: what the prompt names. among: what else might be drawn, for
    the judge. film: a strip and a GIF of each picture that is kept, and film.html.
    In the folder `to`: the best pictures, all attempts on one sheet each, and repaired.json with what they cost, from
    which `rizbin.workflows.replay.replay` makes them again.
    """
    painter = load_painter(model, device=device, half=half, offload=offload)
    verifier = judge_by(judge, among=among, device=device)
    sampling, ladder = sampling or Sampling(), ladder or room.Ladder()
    made, told, filmed = [], [], []
    about = {
        **_about(model, device, half, offload),
        "judge": _named(judge),
        "among": list(among),
        "ladder": asdict(ladder),
        "sampling": asdict(sampling),
        "film": film,
    }
    for number, prompt in enumerate([prompts] if isinstance(prompts, str) else prompts):
        repaired = room.repair(
            painter,
            prompt,
            verifier,
            sampling=sampling,
            ladder=ladder,
            objects=objects,
            attend=attended(painter, film),
            bar=lambda total, label: Bar(total, label, quiet=quiet),
        )
        repaired.notes[:0] = unknown_in(prompt, model)
        file = write_png(repaired.best.image, Path(to) / f"{number:04d}.png")
        repaired = replace(repaired, file=file)
        if len(repaired.attempts) > 1:
            tried = [(one.image, f"{one.how}, {one.there(ladder.threshold)} there") for one in repaired.attempts]
            write_png(sheet([tried]), file.with_name(f"{file.stem}-tried.png"))
        best = repaired.best
        if film:
            filmed.append(drawing.Drawn(file, prompt, best.sampling, best.painted))
            drawing.write_strip(painter, filmed[-1])
        made.append(repaired)
        told.append(
            {
                "file": file.name,
                "prompt": prompt,
                **about,
                "objects": list(objects),
                "looked_for": list(repaired.objects),
                "size": [best.image.shape[1], best.image.shape[0]],
                "whole": repaired.whole,
                "notes": repaired.notes,
                "pixels": fingerprint(best.image),
                "tried": repaired.record(ladder.threshold),
            }
        )
        outputs.write(Path(to) / REPAIRED, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    if film:
        write_film(painter, filmed, None, Path(to) / "film.html", about=about)
    return made


def attended(painter: Painter, film: bool) -> int:
    """Cells along a side of the attention maps that a film shows; 0 where there are none to see."""
    return resolution_of(painter) if film and painter.unet is not None else 0


def _about(model: str | Path, device: str, half: bool, offload: Any) -> dict[str, object]:
    """What a record tells of the model and of what ran it."""
    return {"model": _named(model), "device": device, "half": half, "offload": offload, "versions": versions()}


def _named(model: str | Path) -> str:
    """A name as it was given; a folder by its whole path, so that the record may be replayed from anywhere."""
    inside = str(model) in zoo.names() or not Path(model).exists()
    return str(model) if inside else str(Path(model).absolute())


def versions() -> dict[str, str]:
    """Of what computes the pixels."""
    found = {}
    for name in ("rizbin", "torch", "diffusers", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
