"""Pictures drawn into a folder, and drawn until all that they name is there: what the commands generate and edit do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rizbin.core.progress import Bar
from rizbin.data.gate import read_image
from rizbin.generate.diffusion import drawing
from rizbin.generate.diffusion import repair as room
from rizbin.generate.diffusion.cure import SCALE, resolution_of, steering
from rizbin.generate.diffusion.painter import Sampling
from rizbin.generate.film import sheet, write_png
from rizbin.recipes.judge import judge_by
from rizbin.recipes.opened import load_painter
from rizbin.studies.film import write_film


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
    """Draws pictures into the folder `to`; returns a `rizbin.generate.diffusion.drawing.Drawn` for each.

    model: of the zoo, a run, a pipeline folder of diffusers or a name on Hugging Face.
    sampling: a `rizbin.generate.diffusion.painter.Sampling`.
    start: a picture to redraw; empty: from words alone. grid: also grid.png of strengths and guidances of that picture.
    film: strips, GIFs and film.html beside the pictures.
    cure: guidance for objects that are forgotten (`rizbin.generate.diffusion.cure.CURES`), with updates of `scale`;
        objects: words of the prompt that it looks after; empty: those it finds.
    """
    picture = read_image(start) if start else None
    painter = load_painter(model, device=device, half=half, offload=offload)
    sampling, folder = sampling or Sampling(), Path(to)
    wanted = [prompts] if isinstance(prompts, str) else list(prompts)

    def bar(total: int, label: str) -> Bar:
        return Bar(total, label, quiet=quiet)

    made = drawing.draw(
        painter,
        wanted,
        folder,
        sampling=sampling,
        count=count,
        start=picture,
        guide=lambda prompt: steering(painter, prompt, cure, objects=objects, scale=scale),
        film=film,
        attend=resolution_of(painter) if film and painter.unet is not None else 0,
        bar=bar,
    )
    if grid and picture is not None:
        write_png(drawing.grid(painter, wanted[0], picture, sampling, bar=bar), folder / "grid.png")
    if film:
        write_film(painter, made, picture, folder / "film.html")
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
    device: str = "cpu",
    quiet: bool = False,
) -> list[Any]:
    """Draws each prompt until all its objects are verified; a `rizbin.generate.diffusion.repair.Repaired` for each.

    judge: a detector, as for `detect`. ladder: a `rizbin.generate.diffusion.repair.Ladder`; one without rungs verifies
    only. objects: what shall be there; empty: what the prompt names. among: what else might be drawn, for the judge.
    In the folder `to`: the best pictures, all attempts on one sheet each, and repaired.json with what they cost.
    """
    painter = load_painter(model, device=device)
    verifier = judge_by(judge, among=among, device=device)
    ladder, made, told = ladder or room.Ladder(), [], []
    for number, prompt in enumerate([prompts] if isinstance(prompts, str) else prompts):
        repaired = room.repair(
            painter,
            prompt,
            verifier,
            sampling=sampling,
            ladder=ladder,
            objects=objects,
            bar=lambda total, label: Bar(total, label, quiet=quiet),
        )
        file = write_png(repaired.best.image, Path(to) / f"{number:04d}.png")
        if len(repaired.attempts) > 1:
            tried = [(one.image, f"{one.how}, {one.there(ladder.threshold)} there") for one in repaired.attempts]
            write_png(sheet([tried]), Path(to) / f"{number:04d}-tried.png")
        made.append(repaired)
        told.append(
            {"file": file.name, "prompt": prompt, "whole": repaired.whole, "tried": repaired.record(ladder.threshold)}
        )
        (Path(to) / "repaired.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return made
