"""Adaptation: a trained encoder made better on one's own images without losing what it knew.

The run trains `rizbin.methods.adapt`. Then weights between the start and each of its checkpoints are tried (WiSE-FT,
arXiv 2109.01903): the candidate that is best on the first half of the validation images, among those that lose no more
than `tolerance` points in the old world, is kept. The start itself is a candidate, so that nothing is made worse by
choice. What is reported is measured on the other half, and on other images of the old world.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rizbin.core import checkpoint
from rizbin.core.commands import Argument, Place, job
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.core.runs import RunFolder
from rizbin.data.open import open_source
from rizbin.data.sample import Refused, Sample, Source
from rizbin.evaluation.suite import Evaluation, evaluate
from rizbin.models.own import RizbinEncoder
from rizbin.models.published import can_give_back, is_published, save_published
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import can_export, save_open_clip
from rizbin.nets.tuning import TuningSettings
from rizbin.training.trainer import load_method
from rizbin.workflows.load import open_model
from rizbin.workflows.presets import Training, preset
from rizbin.workflows.runs import LoadedRun, load_run, train, validation_source
from rizbin.workflows.starts import begun, spelled
from rizbin.workflows.train import folder_of

RECORD, MODEL = "adapt.json", "adapted"
"""Names in the run's folder: the record of what was measured, and the chosen model in the form in which it came."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "zero-shot": ("zero_shot/top1",),
    "retrieval": ("retrieval/image_to_text/r1", "retrieval/text_to_image/r1"),
    "dense": ("segmentation/zero_shot/objects_miou", "grounding/zero_shot/pair_objects"),
    "small objects": ("sizes/small/classified", "sizes/small/localized"),
}
"""What is measured, by what it says; numbers that the images do not allow are left out."""


@dataclass(frozen=True)
class Adapt:
    """Make a trained encoder better on your own images without losing what it knew, and say what that gave and took."""

    model: Annotated[Place, Argument(positional=True, metavar="MODEL", check="model")]
    """The start: a run, a bundled or exported model, a published one (open_clip:NAME/WEIGHTS, hf:OWNER/NAME, a
    folder)."""
    data: Annotated[str, Argument(check="data")]
    """The images to adapt to, as for train; their captions are used where they have any."""
    _: KW_ONLY
    captions: Literal["with", "without"] = "with"
    """without: learn from the images alone, by the dense terms and the distillation."""
    run: Annotated[Place | None, Argument(short=("-o",))] = None
    """Folder of the run. None: a name under runs/ made from the settings."""
    steps: int = 1000
    """Batches of the training."""
    batch: int = 32
    """Images in a batch."""
    learning_rate: Annotated[float, Argument(short=("--lr",))] = 1e-4
    """Peak of the learning rate; a tenth of what a young network wants."""
    keep_weight: float = 1.0
    """Weight of the distillation from the start; 0: nothing holds the encoder."""
    layer_decay: float = 1.0
    """Learning rate of a block over that of the block behind it."""
    lora_rank: int = 0
    """Rank of low-rank adapters, which alone learn then; 0: all weights learn."""
    text_tower: Literal["learns", "locked"] = "learns"
    """locked: every word keeps its place."""
    mixtures: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Shares of the adapted weights that are tried beside the start's, over 0 to 1 (WiSE-FT); 1 alone: none."""
    checkpoints: int = 2
    """Checkpoints of the run that are tried, evenly spread; the last one is always among them."""
    tolerance: float = 1.0
    """Points that a candidate may lose in the old world, in the mean of what is measured there."""
    world: Annotated[str, Argument(check="data")] = "scenes:easy"
    """The old world: images on which what the start knew is measured."""
    validation_data: Annotated[str, Argument(check="data")] = ""
    """Images of the new domain to choose and measure on. Empty: one image of twenty of --data, not trained on."""
    images: int = 300
    """Images behind each number of the report; as many are chosen on."""
    seed: int = 0
    """Seed of weights, order and views."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""


@dataclass(frozen=True)
class Candidate:
    """Weights that were tried."""

    step: int
    """Step of the checkpoint; 0: the start."""
    mixture: float
    """Share of its weights beside the start's."""
    own: float
    """Mean of what was measured on images of one's own, of the half that is chosen on."""
    world: float
    """The same of the old world."""


@dataclass(frozen=True)
class Adapted:
    """What an adaptation gave: its path, and the numbers before and after."""

    folder: Path
    chosen: Candidate
    candidates: Sequence[Candidate] = field(repr=False)
    numbers: Mapping[str, Mapping[str, Mapping[str, float]]] = field(repr=False)
    """World -> measure -> before and after; besides the drift, the mean of 1 less the cosine of embeddings."""
    model: Path | None = None
    """The chosen weights in the form in which the model came; None where no library knows them."""

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """What was chosen, and a table of the numbers before and after."""
        chosen = self.chosen
        lines = [f"{self.folder}: step {chosen.step}, {chosen.mixture:g} of its weights beside the start's."]
        if chosen.step == 0:
            lines = [f"{self.folder}: the start is kept; nothing that was tried is better within the tolerance."]
        for world, figures in self.numbers.items():
            lines.append(f"{world:38}{'before':>9}{'after':>9}{'change':>9}")
            for name, pair in figures.items():
                change = pair["after"] - pair["before"]
                lines.append(f"  {name:36}{pair['before']:9.2f}{pair['after']:9.2f}{change:+9.2f}")
        if self.model is not None:
            lines.append(f"The model: {self.model}")
        return "\n".join(lines)


@job(Adapt)
def adapt(settings: Adapt) -> Adapted:
    """Trains, tries mixtures of weights, keeps the best, measures before and after.

    Raises RizbinError for a start that is no image-text encoder, and for data that cannot be used.
    """
    if not settings.mixtures or not all(0 < share <= 1 for share in settings.mixtures):
        raise RizbinError(f"mixtures are {settings.mixtures}; give shares above 0, up to 1.")
    training = training_of(settings)
    folder = Path(settings.run) if settings.run else folder_of(training, None)
    device = str(choose(settings.device))
    train(training, folder, device=settings.device, validation_data=settings.validation_data, quiet=settings.quiet)
    run = load_run(folder)
    run.method.to(device)
    images = images_of(settings, run.pair.image_size)
    start = {name: value.clone() for name, value in _start_of(run).items()}
    chosen, candidates = _choose(settings, run, start, images)
    _mix(run, start, chosen)
    after = {world: numbers_of(run.pair, halves[1], settings) for world, halves in images.items()}
    drift = _vectors(run.pair, images["old world"][1], settings)
    model = _write(run, folder)
    run.pair.load_state_dict(start)
    before = {world: numbers_of(run.pair, halves[1], settings) for world, halves in images.items()}
    numbers = {world: _beside(before[world], after[world]) for world in images}
    away = _distance(_vectors(run.pair, images["old world"][1], settings), drift)
    numbers["drift from the start, 1 - cosine"] = {name: {"before": 0.0, "after": each} for name, each in away.items()}
    made = Adapted(folder, chosen, candidates, numbers, model)
    record = {"chosen": asdict(chosen), "candidates": [asdict(each) for each in candidates], "numbers": numbers}
    for place in (folder, *([model] if model is not None else [])):
        (place / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return made


def training_of(settings: Adapt) -> Training[Any]:
    """The complete settings of the training that an adaptation runs."""
    training = preset("adapt")
    training = replace(
        training,
        data=settings.data,
        steps=settings.steps,
        batch=settings.batch,
        seed=settings.seed,
        checkpoint_every=max(settings.steps // max(settings.checkpoints, 1), 1),
        start=spelled(str(settings.model)),
        trainer=replace(
            training.trainer, learning_rate=settings.learning_rate, keep_checkpoints=settings.checkpoints + 1
        ),
        settings=replace(training.settings, captions=settings.captions == "with", keep_weight=settings.keep_weight),
    )
    tuning = TuningSettings(
        text_tower=settings.text_tower, layer_decay=settings.layer_decay, lora_rank=settings.lora_rank
    )
    training = begun(training)
    own = training.settings
    if not own.pair.published:
        network = open_model(settings.model).encoder.network
        if not isinstance(network, ImageTextPair):
            raise RizbinError(f"{settings.model} reads no text; adapt an image-text encoder such as detailclip-mini.")
        own = replace(own, pair=network.settings)
    pair = own.pair
    if pair.published and not _reads(pair.published):
        raise RizbinError(f"{settings.model} reads no text; adapt an image-text encoder such as detailclip-mini.")
    return replace(training, settings=replace(own, pair=replace(pair, tuning=tuning)))


def _reads(published: str) -> bool:
    from rizbin.models.origins import open_origin

    return open_origin(published, pretrained=False).reads_text


# ---- images ----------------------------------------------------------------------------------------------------------


class _Half:
    """Every second image of a source."""

    def __init__(self, source: Source, parity: int) -> None:
        self.source, self.parity = source, parity
        self.name, self.endless, self.categories = source.name, source.endless, source.categories
        self.fingerprint = f"{source.fingerprint}/{parity}"

    def __len__(self) -> int:
        return (len(self.source) + 1 - self.parity) // 2

    def __getitem__(self, index: int) -> Sample:
        return self.source[2 * index + self.parity]


def images_of(settings: Adapt, size: int) -> dict[str, tuple[Source, Source]]:
    """For each world the images that are chosen on, and those that are reported on."""
    if settings.validation_data:
        own = validation_source(settings.validation_data, size)
    else:
        own = open_source(settings.data, split="test", size=size, seed=0)
    old = open_source(settings.world, split="test", size=size, seed=0)
    return {
        "own images": (_Half(own, 0), _Half(own, 1)),
        "old world": (_Half(old, 0), _Half(old, 1)),
    }


# ---- candidates ------------------------------------------------------------------------------------------------------


def _start_of(run: LoadedRun) -> dict[str, Tensor]:
    """The start's weights, by the names of the pair's."""
    method: Any = run.method
    return method.teacher_start["pair"].state_dict()


def _choose(
    settings: Adapt, run: LoadedRun, start: Mapping[str, Tensor], images: Mapping[str, tuple[Source, Source]]
) -> tuple[Candidate, list[Candidate]]:
    """The best candidate within the tolerance, and all of them, the start first."""
    steps = RunFolder(run.folder).saved_steps()[::-1][: settings.checkpoints]
    tries = [(0, 1.0), *((step, share) for step in steps for share in sorted(settings.mixtures))]
    candidates: list[Candidate] = []
    with Bar(len(tries), "choosing", quiet=settings.quiet) as bar:
        for done, (step, share) in enumerate(tries, 1):
            _mix(run, start, Candidate(step, share, 0.0, 0.0))
            own, world = (_mean(numbers_of(run.pair, halves[0], settings)) for halves in images.values())
            candidates.append(Candidate(step, share, own, world))
            bar.update(done)
    least = candidates[0].world - settings.tolerance
    allowed = [each for each in candidates if each.world >= least]
    return max(allowed, key=lambda each: each.own), candidates


def _mix(run: LoadedRun, start: Mapping[str, Tensor], candidate: Candidate) -> None:
    """Puts the candidate's weights into the run's pair: share * checkpoint + (1 - share) * start."""
    if candidate.step == 0:
        run.pair.load_state_dict(dict(start))
        return
    saved = checkpoint.load(run.folder / "checkpoints", candidate.step)
    assert saved is not None  # a step that is asked for is there, or refused
    load_method(run.method, saved.tensors["method"])
    share, mixed = candidate.mixture, {}
    for name, value in run.pair.state_dict().items():
        begin = start[name].to(value.device)
        # Of an adapter, B A, one factor is mixed: with both the product would be mixed twice.
        whole = not value.is_floating_point() or (".parametrizations." in name and name.endswith(".down"))
        mixed[name] = value if whole else torch.lerp(begin, value, share)
    run.pair.load_state_dict(mixed)
    run.method.eval()


# ---- numbers ---------------------------------------------------------------------------------------------------------


def numbers_of(pair: ImageTextPair, source: Source, settings: Adapt) -> dict[str, float]:
    """What the images allow to be measured, in percent."""
    count = settings.images if source.endless else min(settings.images, len(source))
    how = Evaluation.Settings(images=count, baseline=False, dense_images=0, templates="scenes")
    report = evaluate(RizbinEncoder(pair.eval()), source, settings=how)
    names = [name for group in GROUPS.values() for name in group]
    return {name: report[name].value for name in names if name in report}


def _mean(numbers: Mapping[str, float]) -> float:
    """The mean over the groups that were measured of the mean of each."""
    groups = [[numbers[name] for name in names if name in numbers] for names in GROUPS.values()]
    means = [sum(group) / len(group) for group in groups if group]
    if not means:
        raise RizbinError(
            "Nothing can be measured on the validation images: they have neither captions that differ nor names nor "
            "masks; give --validation-data that has."
        )
    return sum(means) / len(means)


def _beside(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {name: {"before": before[name], "after": after[name]} for name in before if name in after}


@torch.no_grad()
def _vectors(pair: ImageTextPair, source: Source, settings: Adapt) -> dict[str, Tensor]:
    """Embeddings of some images of the old world and of their captions."""
    samples: list[Sample] = []
    for index in range(min(settings.images, 100) if source.endless else min(settings.images, 100, len(source))):
        try:
            samples.append(source[index])
        except Refused:
            continue
    encoder = RizbinEncoder(pair.eval())
    vectors = {"images": encoder.encode_image([sample.image for sample in samples])}
    captions = [sample.caption for sample in samples if sample.caption.strip()]
    return {**vectors, "texts": encoder.encode_text(captions)} if captions else vectors


def _distance(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean of 1 less the cosine, of images and of texts."""
    return {
        name: max(float((1 - F.cosine_similarity(before[name], after[name], dim=-1)).mean()), 0.0)
        for name in before
        if name in after
    }


def _write(run: LoadedRun, folder: Path) -> Path | None:
    """The chosen weights in the form in which the model came."""
    target = folder / MODEL
    if is_published(run.pair):
        if can_give_back(run.pair):
            return None
        save_published(run.pair, target)
    elif can_export(run.pair.settings):
        return None
    else:
        save_open_clip(run.pair, target)
    return target
