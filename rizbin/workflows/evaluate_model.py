"""Evaluation: all numbers of a model, each beside those of the same network with random weights."""

from dataclasses import KW_ONLY, dataclass, fields
from typing import Annotated, Any, TypeVar

from rizbin.core.commands import HIDDEN, Argument, Place, job, part
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Report
from rizbin.data.listing import Split
from rizbin.detection import measure
from rizbin.evaluation.suite import Evaluation
from rizbin.models.readings import DenseReading
from rizbin.workflows import evaluate_diffusion
from rizbin.workflows.benchmark import BenchmarkName, run_benchmark
from rizbin.workflows.evaluate import Settings, measured, settings_of
from rizbin.workflows.load import open_model
from rizbin.workflows.report import readable

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class _What:
    """What is measured, and on what."""

    model: Annotated[Place, Argument(positional=True, metavar="MODEL", check="model")]
    """A run, a bundled model, the folder of a model of Rizbin, open_clip, timm, transformers or diffusers, or a name:
    open_clip:NAME/WEIGHTS, timm:NAME, OWNER/NAME on Hugging Face. A detector or a text-to-image model has flags of its
    own: `rizbin evaluate DETECTOR --help`."""
    _: KW_ONLY
    data: Annotated[str, Argument(check="data")] = ""
    """Images to measure on, as for train; empty: what the model was trained on. instances.json@DIR for a COCO file
    whose images are in DIR."""
    split: Split = "test"
    """The part of the data that is measured on: test (one image of twenty, which no run has seen), train, or all; of
    these two nothing is left for neighbors and probes to learn from."""
    validation_data: Annotated[str, Argument(check="data")] = ""
    """Images to measure on instead, all of them. Empty: those that the run was given, if any."""
    benchmark: BenchmarkName = ""
    """A published measurement in place of these, on the data in --root; `rizbin benchmarks` lists them with the layout
    that each expects. Empty: none."""
    root: Annotated[Place | None, Argument(check="path")] = None
    """Folder of the benchmark's data, as they are handed out."""
    limit: int | None = None
    """Only the first so many images of the benchmark, for a quick look. None: all."""
    settings: Annotated[Settings | None, HIDDEN] = None
    """Complete settings of the evaluation, in place of the flags."""
    json: bool = False
    """Print the numbers with their protocols as JSON."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""


@dataclass(frozen=True, kw_only=True)
class EvaluateEncoder(Evaluation.Settings, _What):
    """Measure a model, and a randomly initialized one beside it."""

    dense: DenseReading = "plain"
    """How patches are read to meet words, without training: plain, as the network was trained; maskclip, value-value,
    sclip, naclip: the last block's attention is replaced (`rizbin.models.readings` names the papers); proxyclip: it
    follows the features of --guide."""
    guide: Annotated[str, Argument(check="model")] = ""
    """The model whose patch features lead proxyclip, such as dino-mini or timm's DINO. Empty: none."""


@dataclass(frozen=True, kw_only=True)
class EvaluateDetector(measure.DetectionSettings, _What):
    """Measure a detector on images whose objects are known."""


@dataclass(frozen=True, kw_only=True)
class EvaluateDiffusion(evaluate_diffusion.DiffusionSettings, _What):
    """Measure a text-to-image model: a detector looks for the objects that its prompts name."""


@job(EvaluateEncoder)
def evaluate(settings: _What) -> Report:
    """All numbers of a model, each beside those of the same network with random weights.

    Of a detector or a text-to-image model only `images` and `seed` of the fields below count; give `settings` for more.
    Raises RizbinError for what is not there, and where there are too few images for numbers that say something.
    """
    if settings.benchmark:
        return _benchmark(settings)
    readable(settings.data, settings.validation_data)
    return measured(
        open_model(settings.model, device=str(choose(settings.device))),
        settings.data,
        settings.settings or _own(settings),
        settings.quiet or settings.json,
        split=settings.split,
        validation_data=settings.validation_data,
        dense=getattr(settings, "dense", "plain"),
        guide=getattr(settings, "guide", ""),
    )[0]


def _benchmark(settings: _What) -> Report:
    """A published benchmark in place of the evaluation."""
    if settings.data or settings.validation_data:
        raise RizbinError(f"{settings.benchmark} brings its own images; leave --data and --validation-data out.")
    return run_benchmark(
        settings.benchmark,
        open_model(settings.model, device=str(choose(settings.device))),
        settings.root,
        batch=getattr(settings, "batch", 16),
        limit=settings.limit,
        quiet=settings.quiet or settings.json,
    )


def _own(settings: _What) -> Settings | None:
    """The settings of the evaluation among those of the job, fitting the kind of the model."""
    kind: Any = type(settings_of(settings.model))
    if isinstance(settings, kind):
        return part(settings, kind)
    defaults = EvaluateEncoder(model=settings.model)
    own = {item.name for item in fields(_What)}
    changed = {
        item.name: getattr(settings, item.name)
        for item in fields(settings)
        if item.name not in own and getattr(settings, item.name) != getattr(defaults, item.name, None)
    }
    known = {item.name for item in fields(kind)}
    if strange := sorted(set(changed) - known):
        raise RizbinError(
            f"{settings.model} is measured otherwise, without {strange[0]}; it has {', '.join(sorted(known))}."
        )
    return kind(**changed) if changed else None
