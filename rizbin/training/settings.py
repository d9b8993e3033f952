"""The complete settings of a run, and what the settings of every method have.

They stand below the methods, so that a method's file can hold its own presets
(`rizbin.training.method.Method.presets`).
"""

from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from rizbin.core.errors import RizbinError
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.image import ImageEncoder

MethodSettings = TypeVar("MethodSettings")


@runtime_checkable
class Sized(Protocol):
    """What the settings of every method provide."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the network learns from."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """What the settings of methods that read images alone derive from."""

    encoder: ImageEncoder.Settings = ImageEncoder.Settings()
    """The backbone, which is kept."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the encoder learns from."""
        return self.encoder.image_size


@dataclass(frozen=True, kw_only=True)
class ImageTextSettings:
    """What the settings of methods that read images with their captions derive from."""

    pair: ImageTextPair.Settings = ImageTextPair.Settings()
    """The two towers."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the image tower learns from."""
        return self.pair.vision.image_size


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Settings of `rizbin.training.trainer.Trainer`: optimizer, schedule, precision, processes."""

    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    """The optimizer: AdamW; SGD with momentum (MoCo, SimSiam); or LARS, SGD whose step of each tensor is
    scaled to the tensor's length (SimCLR, BYOL: batches of thousands; arXiv 1708.03888)."""
    learning_rate: float = 1e-3
    """Peak learning rate of the schedule."""
    final_learning_rate: float = 1e-5
    """Learning rate at the end of the run, reached by a cosine."""
    warmup: float = 0.05
    """Share of the run over which the learning rate rises."""
    warmup_start: float = 1e-5
    """Learning rate of the first step, from which the warm-up rises (DetailCLIP: 1e-6; DINO, SimCLR, BYOL: 0)."""
    weight_decay: float = 0.05
    """Weight decay of tensors of two and more dimensions."""
    weight_decay_growth: float = 1.0
    """Weight decay at the end of the run divided by that at its start, reached by a cosine (DINO: 10)."""
    momentum: float = 0.9
    """Momentum of SGD and LARS."""
    beta1: float = 0.9
    """AdamW's decay of the mean gradient."""
    beta2: float = 0.98
    """AdamW's decay of the squared gradient; 0.98 as in CLIP, steadier than 0.999 in short runs."""
    epsilon: float = 1e-8
    """AdamW's guard against division by zero."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the forward pass; weights stay fp32."""
    compile: bool = False
    """Compile the networks with torch.compile (in place; minutes at the start, faster after)."""
    sharding: Literal["replicated", "fsdp"] = "replicated"
    """How several processes share the weights: each holds everything, or transformer blocks are spread by FSDP2 for
    towers too large for one GPU."""
    workers: int = 0
    """Processes that prepare images; changes speed, never the images."""
    keep_checkpoints: int = 2
    """How many checkpoints stay on disk."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Training(Generic[MethodSettings]):
    """One complete run: together with the code, the data and the number of threads it fixes every bit of the result."""

    method: str
    """Name of the method: a file in rizbin/methods, or the detector."""
    data: str = "scenes:easy"
    """What to train on: scenes:easy, scenes:hard, cutouts:DIR, a folder, a .csv, .tsv, .jsonl or COCO .json file,
    shards:PATTERN."""
    steps: int = 2000
    """Batches in the whole run."""
    batch: int = 128
    """Images in a step, over all processes together."""
    seed: int = 0
    """Seed of the weights, the order of the data, the views and all other random numbers."""
    checkpoint_every: int = 200
    """Steps between checkpoints; one is always written at the end and on a signal."""
    start: str = ""
    """What training begins with: a run folder, an exported or a bundled model; a published model as
    open_clip:NAME/WEIGHTS, hf:OWNER/NAME, timm:NAME or the folder of one, whose towers and tokenizer then take the
    place of the settings' own. Empty: random weights."""
    trainer: TrainerSettings = TrainerSettings()
    """Optimizer, precision, processes."""
    settings: MethodSettings
    """Settings of the method."""


def check_between(
    settings: Any, low: float | int, high: float | int, *names: str, above: bool = False, below: bool = False
) -> None:
    """Raises RizbinError when one of these fields is not from `low` to `high`.

    above: `low` itself is not allowed; below: `high` is not.
    """
    for name in names:
        value = getattr(settings, name)
        if (value > low if above else value >= low) and (value < high if below else value <= high):
            continue
        words = {(True, True): "above {} and below {}", (True, False): "above {}, up to {}"}
        words |= {(False, True): "from {} to below {}", (False, False): "from {} to {}"}
        limits = words[above, below].format(f"{low:g}", f"{high:g}").removesuffix(", up to inf")
        raise RizbinError(f"{name} is {value:g}; choose a number {limits}.")


Presets = dict[str, Training[Any]]
"""Name -> complete settings; the first is the default."""
