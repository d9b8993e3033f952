"""The study of missing objects as a job: opens its models and data by name."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from rizbin.core import outputs
from rizbin.core.commands import HIDDEN, Argument, Place, job
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.data.open import open_source
from rizbin.generation.diffusion.attention_guidance import GUIDANCE_KINDS, GuidanceKind
from rizbin.generation.diffusion.repair import RepairStrategy, Stage
from rizbin.generation.diffusion.text_to_image import Sampling
from rizbin.nets.dual import ImageTextPair
from rizbin.studies.missing.prompts import prompts_named
from rizbin.studies.missing.study import write_study
from rizbin.studies.missing.ways import Plan
from rizbin.workflows.load import load_encoder, load_text_to_image
from rizbin.workflows.verifier import judge_by


@dataclass(frozen=True, kw_only=True)
class StudyMissingObjects:
    """Draw prompts of several objects plainly, with each attention guidance, from other seeds and with repair, and
    compare."""

    model: Annotated[Place, Argument(check="model")] = "diffusion-mini"
    """The text-to-image model, as for generate; it must have a UNet."""
    judge: Annotated[Place, Argument(check="model")] = "detector-mini"
    """A detector, which says what is there and steers the repair."""
    second_judge: tuple[str, ...] = ("detailclip-mini", "clip-mini")
    """Image-text encoders that are never asked while drawing and share a verdict; empty: none."""
    prompts: Place = "world"
    """world, geneval, tiam, colored (made of the names of --data), similar, attend-and-excite (its 276), or a file of
    prompts, one a line."""
    objects: int = 2
    """Objects in a prompt that is made of names."""
    data: Annotated[str | None, Argument(check="data")] = None
    """Images whose objects are known: their names, and scenes on which the judges are measured. None:
    scenes:drawn,categories=16, or scenes:several,categories=16 for more objects than two. Empty: none."""
    guidances: tuple[GuidanceKind, ...] = GUIDANCE_KINDS[1:]
    """Attention guidances to compare."""
    scales: tuple[str, ...] = ()
    """GUIDANCE=NUMBER, scale of the updates of guidances that need more than the papers' 20: choose them on another
    --seed. The repair takes that of its guidance."""
    tuning: int = 0
    """Cases of other prompts on which every guidance's scale is chosen first, of 5, 10, 20, 40 and 80; 0: --scales."""
    stages: tuple[Stage, ...] = RepairStrategy().stages
    """Stages of the repair, in order."""
    others: int = RepairStrategy().seeds
    """Most other seeds that the repair tries."""
    seeds: int = 200
    """Pairs of a prompt and a first noise in each run."""
    runs: int = 3
    """Number of runs, whose spread shows the influence of chance."""
    seed: int = 0
    """Seed of the order of prompts and of the noises."""
    steps: int = 15
    """Denoising steps of every image."""
    guidance_scale: float = 4.0
    """Scale of classifier-free guidance of every image."""
    scheduler: str = "dpm++"
    """Scheduler of every image."""
    threshold: float = 0.5
    """Probability from which an object counts as there."""
    plan: Annotated[Plan | None, HIDDEN] = None
    """The complete plan, in place of the flags above."""
    small: Annotated[str, HIDDEN] = ""
    """A sentence for the page that says how this is smaller than the whole study."""
    run: Annotated[Place, Argument()] = "runs/study-missing-objects"
    """Folder of the study; the same command goes on there."""
    output: Annotated[Place | None, Argument(short=("-o",))] = None
    """The page. None: study.html in that folder."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""


@job(StudyMissingObjects)
def study_missing_objects(settings: StudyMissingObjects) -> Path:
    """Draws prompts of several objects in every way, in the folder of the run or on there; a page of what helps."""
    if settings.output:
        outputs.refuse_taken(Path(settings.output))
    plan, model, judge, prompts = _plan(settings), settings.model, settings.judge, settings.prompts
    data = _world(settings.objects) if settings.data is None else settings.data
    if plan.seed < 0:
        raise RizbinError(f"The seed {plan.seed} draws no prompts; give 0 or more.")
    device, quiet = str(choose(settings.device)), settings.quiet
    text_to_image = load_text_to_image(model, device=device)
    source = open_source(data, split="test", size=64) if data else None
    chosen = prompts_named(str(prompts), source.categories if source is not None else (), settings.objects)
    known = source.categories if source is not None else ()
    among = tuple(dict.fromkeys((*known, *(name for prompt in chosen for name in prompt.queries))))
    pairs = [_reading(name) for name in settings.second_judge if name] if source is not None else []
    return write_study(
        text_to_image,
        judge_by(judge, among=among, device=device),
        chosen,
        Path(settings.run),
        plan,
        source=source,
        pairs=pairs,
        target=Path(settings.output) if settings.output else None,
        identity={"model": Path(model).name, "judge": Path(judge).name, "family": Path(prompts).name, "data": data},
        bar=lambda total, label: Bar(total, label, quiet=quiet),
        small=settings.small,
    )


def _world(objects: int) -> str:
    """Scenes of as many objects: a judge that never saw three at once would call true images of three incomplete."""
    return f"scenes:{'drawn' if objects <= 2 else 'several'},categories=16"


def _plan(settings: StudyMissingObjects) -> Plan:
    """The plan that the flags describe."""
    if settings.plan is not None:
        return settings.plan
    scales = tuple(_scale(text) for text in settings.scales)
    strategy = RepairStrategy(stages=settings.stages, seeds=settings.others, threshold=settings.threshold)
    return Plan(
        runs=settings.runs,
        seeds=settings.seeds,
        seed=settings.seed,
        guidances=settings.guidances,
        sampling=Sampling(steps=settings.steps, guidance_scale=settings.guidance_scale, scheduler=settings.scheduler),
        scales=scales,
        tuning=settings.tuning,
        strategy=replace(strategy, scale=dict(scales).get(strategy.guidance, strategy.scale)),
    )


def _scale(text: str) -> tuple[Any, float]:
    """A guidance and the scale of its updates, from GUIDANCE=NUMBER."""
    guidance, _, number = text.partition("=")
    try:
        if guidance in GUIDANCE_KINDS[1:]:
            return guidance, float(number)
    except ValueError:
        pass
    raise RizbinError(f"{text!r} is no scale of a guidance; write one such as center-distance=60.")


def _reading(name: Place) -> ImageTextPair:
    """The encoder of that name. Raises RizbinError for one without words."""
    pair = load_encoder(name).network
    if not isinstance(pair, ImageTextPair):
        raise RizbinError(f"{name} reads no words, so it cannot be the second judge; give an image-text encoder.")
    return pair
