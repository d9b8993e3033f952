"""Opens what the study of missing objects is asked about, by name: what the command does."""

from collections.abc import Sequence
from pathlib import Path

from rizbin.core import outputs
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.data.open import open_source
from rizbin.nets.dual import ImageTextPair
from rizbin.studies.missing.prompts import prompts_named
from rizbin.studies.missing.study import write_study
from rizbin.studies.missing.ways import Plan
from rizbin.workflows.load import load, load_painter
from rizbin.workflows.verifier import judge_by


def study_missing_objects(
    model: str | Path = "diffusion-mini",
    *,
    judge: str | Path = "detector-mini",
    second_judge: str | Path | Sequence[str | Path] = ("detailclip-mini", "clip-mini"),
    prompts: str | Path = "world",
    objects: int = 2,
    data: str = "scenes:drawn,categories=16",
    plan: Plan | None = None,
    run: str | Path = "runs/study-missing-objects",
    to: str | Path = "",
    device: str = "cpu",
    quiet: bool = False,
) -> Path:
    """Draws prompts of several things in every way, in the folder `run` or on there, and writes a page of what helps.

    model: of the zoo, a run, a pipeline folder of diffusers or a name on Hugging Face.
    judge: a detector, as for `detect`; second_judge: image-text encoders that no way asks; empty: none.
    prompts: a family of `prompts.FAMILIES` or a file; objects: things in each, of families made
        of the names of `data`, whose scenes also tell how far the judges are to be believed; empty data: none do.
    plan: a `ways.Plan`. to: the page; empty: study.html in the folder.
    """
    if to:
        outputs.refuse_taken(to)
    if plan is not None and plan.seed < 0:
        raise RizbinError(f"The seed {plan.seed} draws no prompts; give 0 or more.")
    painter = load_painter(model, device=device)
    source = open_source(data, split="test", size=64) if data else None
    chosen = prompts_named(str(prompts), source.categories if source is not None else (), objects)
    known = source.categories if source is not None else ()
    among = tuple(dict.fromkeys((*known, *(name for one in chosen for name in one.asked))))
    seconds = [second_judge] if isinstance(second_judge, str | Path) else second_judge
    pairs = [_reading(one) for one in seconds if one] if source is not None else []
    return write_study(
        painter,
        judge_by(judge, among=among, device=device),
        chosen,
        Path(run),
        plan or Plan(),
        source=source,
        pairs=pairs,
        target=Path(to) if to else None,
        asked={"model": Path(model).name, "judge": Path(judge).name, "family": Path(prompts).name, "data": data},
        bar=lambda total, label: Bar(total, label, quiet=quiet),
    )


def _reading(name: str | Path) -> ImageTextPair:
    """The encoder of that name. Raises RizbinError for one without words."""
    pair = load(name).network
    if not isinstance(pair, ImageTextPair):
        raise RizbinError(f"{name} reads no words, so it cannot be the second judge; give an image-text encoder.")
    return pair
