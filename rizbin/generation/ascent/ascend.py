"""Gradient ascent: augmented copies of an image are scored by encoders, and the image follows the gradient.

Several independent images are optimized at once. Only a chunk of copies is in memory at a time; the gradient with
respect to the images is summed over chunks and then carried into what the images are made of.

Source: Direct Ascent Synthesis, arXiv 2502.07753.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rizbin.core import checkpoint
from rizbin.core.errors import RizbinError
from rizbin.core.progress import MakeBar
from rizbin.core.random import torch_generator
from rizbin.data.image_io import as_rgb
from rizbin.generation.ascent.augment import draw
from rizbin.generation.ascent.parametrize import bounded, parametrized
from rizbin.generation.ascent.settings import AscentSettings
from rizbin.generation.ascent.targets import Bound, Wish, check
from rizbin.generation.film import Pixels
from rizbin.models.protocol import Embedder

Images = Float[Tensor, "images 3 height width"]


@dataclass(frozen=True)
class AscentFrame:
    """State of the ascent after a step."""

    step: int
    """Number of steps made."""
    steps: int
    images: list[Pixels]
    score: float
    """Of the first targets, mean of copies, encoders and images: what was climbed, without what grain costs; not how
    good it is."""


@dataclass
class Ascended:
    """The images of an ascent, and the steps on the way."""

    images: list[Pixels]
    scores: list[list[float]]
    """[steps][images]: score of the first target at each step, mean of copies and encoders."""
    frames: list[AscentFrame]
    """Some of the steps, more of the first than of the last."""
    seconds: float
    steps: int
    """Number of steps made."""
    exact: Images = field(repr=False, default_factory=lambda: torch.zeros(0, 3, 1, 1))
    """The images as floats."""


class AscentDiverged(RizbinError):
    """The score was infinite or not a number; `last_good` holds the images before that step."""

    def __init__(self, sentence: str, last_good: Ascended) -> None:
        super().__init__(sentence)
        self.last_good = last_good


def ascend(
    encoders: Sequence[Embedder],
    wishes: Sequence[Wish],
    *,
    settings: AscentSettings = AscentSettings(),
    start: Images | None = None,
    mask: Float[Tensor, "1 _ _"] | None = None,
    autoencoder: Any = None,
    folder: Path | None = None,
    watch: Callable[[AscentFrame], object] | None = None,
    say: Callable[[str], object] | None = None,
    bar: MakeBar | None = None,
    stop_after: int = 0,
) -> Ascended:
    """Draws one image for each wish by gradient ascent; all together, and independently of each other.

    encoders: the score is the mean of theirs. start: images to begin with, one for all or one for each; None: gray.
    mask: 1 where the image may change. autoencoder: one of diffusers, for latents.
    folder: keeps the state; the same call goes on there and ends with the same bits.
    watch: called after every step. say: called once with the expected duration.
    stop_after: number of steps after which it stops and keeps its state; 0: at the end of `settings.steps`.
    Raises RizbinError for what cannot be optimized, and AscentDiverged with the last good images.
    """
    check(wishes)
    if not encoders:
        raise RizbinError("No encoder is named; --model detailclip-mini is bundled.")
    start = _started(start, mask, encoders, len(wishes), settings)
    bounds = [Bound(encoder, wishes, start.shape[-2:]) for encoder in encoders]
    canvas = parametrized(
        settings.parametrization,
        start,
        resolutions=settings.resolutions,
        decay=settings.decay,
        apart=settings.apart,
        strokes=settings.strokes,
        autoencoder=autoencoder,
        generator=torch_generator("strokes", settings.seed),
    )
    optimizer = _optimizer(canvas, settings)
    state = _State(folder, canvas, optimizer, _fingerprint(settings, wishes, encoders, start, mask))
    run = _Run(canvas, start, mask, bounds, settings, optimizer, state, time.monotonic())
    made, last = state.load(), min(stop_after or settings.steps, settings.steps)
    with bar(settings.steps, "ascending") if bar is not None else _Silent() as shown:
        for step in range(made, last):
            frame = run.step(step, with_images=watch is not None)
            if watch is not None:
                watch(frame)
            if shown is not None:
                shown.update(step + 1, score=frame.score)
            if step == made and say is not None:
                say(_foretold(time.monotonic() - run.began, settings.steps - made))
            state.save(step + 1, end=step + 1 == last)
    with torch.no_grad():
        return state.ended(run.images(), run.began)


@dataclass(frozen=True)
class _Run:
    """One ascent: the canvas, the targets as each encoder sees them, the optimizer and the state that is saved."""

    canvas: nn.Module
    start: Images
    mask: Float[Tensor, "1 _ _"] | None
    bounds: Sequence[Bound]
    settings: AscentSettings
    optimizer: torch.optim.Optimizer
    state: "_State"
    began: float
    """When it began, on the monotonic clock."""

    def images(self) -> Images:
        """The images of the canvas, within the bounds of change and mask."""
        return bounded(self.canvas(), self.start, change=self.settings.change, mask=self.mask)

    def step(self, step: int, *, with_images: bool) -> AscentFrame:
        """Makes one update and returns the frame after it; `with_images` also where it is not for the filmstrip.

        Raises AscentDiverged where the score or its gradient is not finite.
        """
        settings, state = self.settings, self.state
        # Computed twice: the graph of the canvas would otherwise stay in memory while the encoders, which need most
        # memory, run.
        with torch.no_grad():
            images = self.images()
        gradient, scores = _gradient(images, self.start, self.bounds, settings, step)
        if not (torch.isfinite(gradient).all() and torch.isfinite(scores).all()):
            raise AscentDiverged(
                f"The score was not finite at step {step + 1}, so the ascent stopped; the image of step {step} is "
                "kept. Lower the learning rate, or take another optimizer.",
                state.ended(state.good, self.began),
            )
        state.good = images
        for group in self.optimizer.param_groups:
            group["lr"] = _rate(settings, step)
        self.optimizer.zero_grad()
        self.images().backward(gradient)
        if settings.optimizer == "sign":
            for value in self.canvas.parameters():
                assert value.grad is not None
                value.grad.sign_()
        self.optimizer.step()
        state.scores.append(scores.tolist())
        frame = AscentFrame(step + 1, settings.steps, [], float(scores.mean()))
        for_filmstrip = step + 1 in _filmstrip_steps(settings.steps)
        if for_filmstrip or with_images:
            with torch.no_grad():
                frame = replace(frame, images=as_pixels(self.images()))
        if for_filmstrip:
            state.frames.append(frame)
        return frame


def _gradient(
    images: Images, start: Images, bounds: Sequence[Bound], settings: AscentSettings, step: int
) -> tuple[Images, Float[Tensor, " images"]]:
    """Where the images fall fastest (the score negated, and what grain costs), and each image's first score.

    A mean over copies and encoders, and a sum over images: each climbs as if it were alone.
    """
    leaf = images.detach().requires_grad_(True)
    scores = leaf.new_zeros(len(leaf))
    share = 1 / (settings.copies * len(bounds))
    block = min(len(leaf), settings.chunk)
    together = max(settings.chunk // block, 1)
    for bound in bounds:
        side = bound.encoder.image_size
        draws = [draw(settings.augment, leaf.shape[-2:], side, settings.seed, step, n) for n in range(settings.copies)]
        for first in range(0, len(leaf), block):
            part = slice(first, min(first + block, len(leaf)))
            for number in range(0, settings.copies, together):
                chosen = draws[number : number + together]
                views = torch.cat([augmentation.apply(leaf[part]) for augmentation in chosen])
                total, main = bound.scores(
                    views, part, lambda shown, used=chosen: torch.cat([d.placed(shown) for d in used])
                )
                (-share * total.sum()).backward()
                scores[part] += share * main.detach().unflatten(0, (len(chosen), -1)).sum(0)
    if settings.smooth:
        (settings.smooth * variation(leaf - start).sum()).backward()
    assert leaf.grad is not None
    return leaf.grad, scores.detach()


def variation(images: Images) -> Float[Tensor, " images"]:
    """The mean difference of neighboring pixels, 0 to 1, down and across: grain has much, edges little.

    Each is the root of the square and 1e-4: below steps of 0.01, some two of 255, it is flat, so that its slope does
    not jump where two pixels are equal. Source: total variation, arXiv 1412.0035. Differs: a mean in place of a sum, so
    that it does not depend on the canvas; down and across apart.
    """
    down, across = (
        (steps.square() + 1e-4).sqrt().mean(dim=(1, 2, 3)) for steps in (images.diff(dim=2), images.diff(dim=3))
    )
    return (down + across) / 2


def as_pixels(images: Images) -> list[Pixels]:
    """0 to 255, rounded."""
    table = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [np.ascontiguousarray(pixels) for pixels in table]


def as_floats(image: Pixels) -> Float[Tensor, "3 _ _"]:
    """0 to 1, channels first."""
    return torch.tensor(as_rgb(image, name="the image")).permute(2, 0, 1).float() / 255


def _started(
    start: Images | None,
    mask: Float[Tensor, "1 _ _"] | None,
    encoders: Sequence[Embedder],
    count: int,
    settings: AscentSettings,
) -> Float[Tensor, "count 3 _ _"]:
    """The start of each image. Raises RizbinError for a mask or a count that does not fit."""
    device = getattr(encoders[0], "device", torch.device("cpu"))
    if start is None:
        beyond = 2 * settings.augment.shift if settings.room else 0
        side = settings.size or max(encoder.image_size + round(beyond * encoder.image_size) for encoder in encoders)
        start = torch.full((1, 3, side, side), 0.5)
    if mask is not None:
        check_mask(mask.shape[-2:], start.shape[-2:])
    if len(start) not in (1, count):
        raise RizbinError(f"{len(start)} start images do not fit {count} wishes; give one, or one for each.")
    if min(start.shape[-2:]) < 2:
        raise RizbinError(f"A canvas of {start.shape[-1]}x{start.shape[-2]} pixels shows nothing; give 2 or more.")
    return start.to(device).expand(count, -1, -1, -1).contiguous()


def check_mask(mask: Sequence[int], image: Sequence[int]) -> None:
    """Raises RizbinError where the sides of the two (height, width) differ."""
    if tuple(mask) != tuple(image):
        raise RizbinError(
            f"The mask has {mask[1]}x{mask[0]} pixels and the image {image[1]}x{image[0]}; give one of the same size."
        )


def _optimizer(canvas: nn.Module, settings: AscentSettings) -> torch.optim.Optimizer:
    """Adam, or plain descent, which with signs for gradients makes steps of one length."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(canvas.parameters(), lr=settings.learning_rate)
    return torch.optim.SGD(canvas.parameters(), lr=settings.learning_rate)


def _rate(settings: AscentSettings, step: int) -> float:
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (1 + float(np.cos(np.pi * step / settings.steps))) / 2


def _filmstrip_steps(steps: int) -> set[int]:
    """At most ten steps for the filmstrip: most of an image is decided in the first."""
    return {1 + round((steps - 1) * (number / 9) ** 2) for number in range(10)}


def _foretold(seconds: float, steps: int) -> str:
    whole = seconds * steps
    spoken = f"{whole:.0f} seconds" if whole < 100 else f"{whole / 60:.0f} minutes"
    return f"about {spoken}: {steps} steps of {seconds:.2g} s"


def _fingerprint(
    settings: AscentSettings,
    wishes: Sequence[Wish],
    encoders: Sequence[Embedder],
    start: Images,
    mask: Tensor | None,
) -> str:
    """Stands for all that decides the image: a state of another is not gone on with."""

    def spelled(value: Any) -> Any:
        if isinstance(value, Tensor):
            return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        return list(value) if isinstance(value, tuple) else value

    targets = [
        {name: spelled(value) for name, value in {**vars(target), "kind": type(target).__name__}.items()}
        for wish in wishes
        for target in wish
    ]
    decides = {name: value for name, value in asdict(settings).items() if name != "chunk"}
    everything = [decides, targets, [encoder.name for encoder in encoders], spelled(start), spelled(mask)]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


class _State:
    """What is known so far, in memory and, where there is a folder, on disk."""

    EVERY = 10.0
    """Seconds between two states on disk."""

    def __init__(
        self, folder: Path | None, canvas: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
    ) -> None:
        # Each ascent has a folder of its own: a step of another one must not stand in its place.
        self.folder = None if folder is None else folder / fingerprint[:16]
        self.canvas, self.optimizer, self.fingerprint = canvas, optimizer, fingerprint
        self.scores: list[list[float]] = []
        self.frames: list[AscentFrame] = []
        with torch.no_grad():
            self.good: Images = canvas()
        self.saved = time.monotonic()

    def load(self) -> int:
        """Steps made before, of the same ascent; 0 where there was none."""
        saved = checkpoint.load(self.folder) if self.folder is not None else None
        if saved is None or saved.state["fingerprint"] != self.fingerprint:
            return 0
        self.canvas.load_state_dict(saved.tensors["canvas"])
        moments = {int(number): {} for number, _ in (name.split(".") for name in saved.tensors["optimizer"])}
        for name, value in saved.tensors["optimizer"].items():
            number, what = name.split(".")
            moments[int(number)][what] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.scores = saved.state["scores"]
        for number, (step, steps, score) in enumerate(saved.state["frames"]):
            images = [np.asarray(pixels) for pixels in saved.tensors["frames"][str(number)].numpy()]
            self.frames.append(AscentFrame(step, steps, images, score))
        return saved.step

    def save(self, step: int, *, end: bool) -> None:
        """Writes the state now and then, and at the end."""
        if self.folder is None or (time.monotonic() - self.saved < self.EVERY and not end):
            return
        moments = {
            f"{number}.{name}": torch.as_tensor(value)
            for number, parameter_state in self.optimizer.state_dict()["state"].items()
            for name, value in parameter_state.items()
            if value is not None
        }
        frames = {str(number): torch.from_numpy(np.stack(frame.images)) for number, frame in enumerate(self.frames)}
        checkpoint.save(
            self.folder,
            step,
            {"canvas": self.canvas.state_dict(), "optimizer": moments, "frames": frames},
            {
                "fingerprint": self.fingerprint,
                "scores": self.scores,
                "frames": [[frame.step, frame.steps, frame.score] for frame in self.frames],
            },
            keep=1,
        )
        self.saved = time.monotonic()

    def ended(self, images: Images, began: float) -> Ascended:
        """What there is to hand back."""
        seconds = time.monotonic() - began
        return Ascended(as_pixels(images), self.scores, self.frames, seconds, len(self.scores), images.detach())


class _Silent:
    """A bar that shows nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *details: object) -> None:
        return None
