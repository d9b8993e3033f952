"""The contract between a method and the trainer.

A method's `step` is a generator: each `yield Minimize(loss)` is the paper's line "update", and what follows it runs
once that update has been made. So the order of events stands on the page, and no hooks are needed.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rizbin.core import parallel, random
from rizbin.data.sample import Named
from rizbin.data.tokens import Tokenizer
from rizbin.data.views import ViewSpec
from rizbin.nets.lora import with_adapters
from rizbin.nets.momentum import Teacher
from rizbin.nets.tuning import rates
from rizbin.nets.weights import check_fit, shapes_of
from rizbin.training.settings import Presets


@dataclass(frozen=True)
class Batch:
    """One step's batch as a method gets it: this process's part, on the device."""

    views: list[Float[Tensor, "batch 3 _ _"]]
    """One tensor [batch 3 size size] a view of the method's `views`, each of its own size, normalized."""
    crops: Float[Tensor, "views batch 4"]
    """Where each view was cut from its image: left, top, right, bottom as fractions of the image."""
    flips: Bool[Tensor, "views batch"]
    """Whether the view was mirrored after the cut."""
    texts: Int[Tensor, "batch length"] | None
    """Caption tokens up to the batch's last end token; None for methods without text."""
    objects: list[tuple[Named, ...]] = field(default_factory=list)
    """The objects of each whole image, for methods that learn where objects are; `crops` and `flips` say where in a
    view they lie."""
    phrases: Int[Tensor, "batch most words"] | None = None
    """Tokens of each caption's noun phrases, rows of zeros where it has fewer than `Method.most_phrases`; a caption
    without any is one phrase. None for methods that ask for none."""


@dataclass(frozen=True)
class Progress:
    """Where in the run a step stands.

    All schedules and all randomness of a method come from here, so a step can be replayed.
    """

    step: int
    """0 for the first step."""
    steps: int
    """Steps of the whole run."""
    seed: int = 0

    @property
    def fraction(self) -> float:
        """0 at the first step, approaching 1 at the end."""
        return self.step / max(self.steps, 1)

    def cosine(self, start: float, end: float) -> float:
        """From `start` to `end` along half a cosine."""
        return end + (start - end) * (1 + math.cos(math.pi * self.fraction)) / 2

    def linear(self, start: float, end: float, *, over: float) -> float:
        """From `start` to `end` over the first `over` (a fraction) of the run, then `end`."""
        return end if over <= 0 or self.fraction >= over else start + (end - start) * self.fraction / over

    def uniform(self, name: str, rows: int, columns: int, device: torch.device) -> Float[Tensor, "rows columns"]:
        """Random numbers in [0, 1), the same for a given (seed, step, name) however many processes share the batch.

        `rows` is this process's share; each process gets its own rows of the batch's numbers.
        """
        generator = torch.Generator().manual_seed(random.key(self.seed, self.step, name))
        numbers = torch.rand(parallel.world_size() * rows, columns, generator=generator)
        return numbers[parallel.rank() * rows : (parallel.rank() + 1) * rows].to(device)

    def uniform_of_views(
        self, name: str, views: int, rows: int, columns: int, device: torch.device
    ) -> Float[Tensor, "images columns"]:
        """The same for each of several views of a batch, the first view's rows first: each image keeps its own."""
        return torch.cat(self.uniform(name, rows, views * columns, device).chunk(views, dim=1))


@dataclass(frozen=True)
class Minimize:
    """A request of a method to the trainer: make one update that lowers `loss`."""

    loss: Float[Tensor, ""]
    by: str = "main"
    """Which of the method's optimizers makes the update."""
    records: Mapping[str, Tensor | float] = field(default_factory=dict)
    """Numbers to log beside the loss: its parts, temperatures, health."""
    rate: float = 1.0
    """Factor on the schedule's learning rate, for example for a second network."""
    bounded: Float[Tensor, ""] | None = None
    """A second loss, whose gradient is shortened to `bound` times the norm of the first one's before it is added."""
    bound: float = 0.0
    """See `bounded`."""


@dataclass(frozen=True)
class MethodView:
    """What a method shows of images: its teacher's attention, the removed patches and the reconstruction."""

    attention: Float[Tensor, "batch rows columns"]
    removed: Bool[Tensor, "batch rows columns"]
    reconstruction: Float[Tensor, "batch 3 height width"] | None
    """Normalized pixels: predicted on removed patches, the image's own elsewhere; None when the method has no pixel
    term."""

    @classmethod
    def of(
        cls, attention: Float[Tensor, "batch patches"], removed: Int[Tensor, "batch removed"], grid: tuple[int, int]
    ) -> "MethodView":
        """From the attention of all patches and the places of the removed ones, in row order of the grid."""
        mask = torch.zeros_like(attention, dtype=torch.bool).scatter_(1, removed, True)
        return cls(attention.unflatten(1, grid), mask.unflatten(1, grid), None)


@dataclass(frozen=True)
class Work:
    """How large a run is, for a method to say whether its settings suit that."""

    images: int
    """Different images that it will see at most."""
    batch: int
    steps: int


class Method(nn.Module, ABC):
    """Images (and captions) in, an encoder out. One file a method; `rizbin.methods` is discovered."""

    name: ClassVar[str]
    """What the command line calls it: its file's name, unless the class gives another."""
    arxiv: ClassVar[str] = ""
    """arXiv number of its paper."""
    Settings: ClassVar[type[Any]]
    """Frozen, keyword-only; in `rizbin.methods` derived from `rizbin.training.settings.ImageSettings` or
    `ImageTextSettings`."""
    views: ViewSpec
    """The crops that the method needs of every image."""
    tokenizer: Tokenizer | None = None
    """Set by methods that read captions."""
    least_batch: ClassVar[int] = 2
    """Images that a step needs at least: methods that tell the images of a batch apart, or norm over them, need two."""
    most_phrases: int = 0
    """Most noun phrases of a caption that the method needs in addition; 0 for none."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "name" not in vars(cls):
            cls.name = cls.__module__.rpartition(".")[2]

    @classmethod
    def presets(cls) -> Presets:
        """Complete settings by name, for each size of work that the method is prepared for; the first is the default.

        `rizbin.training.presets` holds what several methods share.
        """
        return {}

    @property
    @abstractmethod
    def encoder(self) -> nn.Module:
        """What is kept after training."""

    def optimizers(self) -> dict[str, list[nn.Module]]:
        """Which parts each optimizer moves.

        Parts named nowhere are moved by the method itself (teachers) or not at all.
        """
        return {"main": [self]}

    def rates(self) -> list[tuple[nn.Module, float]]:
        """Parts whose learning rate is a share of the schedule's, with that share; of a part named twice the last.

        Of an encoder whose settings have them, those by layer (`rizbin.nets.tuning`).
        """
        encoder: Any = self.encoder
        tuning = getattr(getattr(encoder, "settings", None), "tuning", None)
        return [] if tuning is None else rates(encoder, tuning)

    @abstractmethod
    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        """Yields each update that the method wants for this batch, in order."""

    @classmethod
    def completed(cls, settings: Any, categories: Sequence[str]) -> Any:
        """The settings with what only the data can say: their categories, for methods that learn names."""
        return settings

    def begin_with(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Puts the weights of another encoder of the same settings into this one, before training.

        `source` names it in messages. A method that keeps copies of its encoder brings them along. Raises RizbinError
        when the weights do not fit.
        """
        weights = with_adapters(weights, self.encoder.state_dict())
        own = shapes_of(self.encoder.state_dict())
        check_fit(own, shapes_of(weights), source, "give the settings that they were trained with", to="this encoder")
        self.encoder.load_state_dict(dict(weights))
        teacher = getattr(self, "teacher", None)
        if isinstance(teacher, Teacher):
            teacher.follow(self.taught(), 0.0)

    def taught(self) -> dict[str, nn.Module]:
        """The student's parts that its teacher follows; empty for methods without one."""
        return {}

    def save(self, folder: Path) -> None:
        """Writes what was trained for other software, where it is of a kind that only the method knows."""

    def look(self, images: Float[Tensor, "batch 3 height width"]) -> MethodView | None:
        """Attention, removed patches and reconstruction of normalized images, for reports; None when the method has
        none."""
        return None

    def reconstruct(
        self,
        images: Float[Tensor, "batch 3 height width"],
        removed: Bool[Tensor, "batch rows columns"],
        low_resolution: int = 1,
    ) -> Float[Tensor, "batch 3 height width"] | None:
        """Normalized pixels predicted from a given part of normalized images; None when the method cannot.

        Unlike in `look`, the caller says what is hidden, so that methods can be compared on the same patches.

        Args:
            images: The truth.
            removed: Patches that the network must not see, as many in each image; there may be none.
            low_resolution: The network sees the images shrunk by this factor and brought back to their size
                (`rizbin.data.resolution.lowered`); 1 is full resolution.

        The prediction fills the removed patches, and with `low_resolution` above 1 all patches; elsewhere it is not
        read. On removed patches the truth's mean and deviation of a patch may be put back, as MAE does (arXiv
        2111.06377): what measures them takes the mean off again. Nothing else of the truth may enter: where the input
        was only shrunk, mean and deviation must be those of the shrunken patch, for bicubic enlargement, which the
        result is compared with, has no others either.
        """
        return None

    def project(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch _"] | None:
        """What the loss sees of the encoder's features; None when the method has no projection of its own."""
        return None

    def inspect(self, features: Float[Tensor, "batch dim"]) -> dict[str, float]:
        """Numbers about the method's own parts, from features of held-out images on the CPU."""
        return {}

    def cautions(self, work: Work) -> list[str]:
        """What to change before such a run begins, each in a sentence; said once, nothing is refused."""
        return []

    def alarms(self, records: Mapping[str, float]) -> list[str]:
        """What is wrong with a run whose last records are these, each in a sentence that says what to set."""
        return []
