"""Reconstruction of what the evaluation hides, the same patches for every method, and of detail lost by shrinking.

`frequency.py` measures what a method hides by its own rule, which may be ground alone. Here a random half of the blocks
is hidden by a fixed seed; objects and ground are counted apart, beside simple rules that need no network.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int16, UInt8
from torch import Tensor
from torch.nn import functional as F

from rizbin.core import random
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement
from rizbin.data.resolution import lowered
from rizbin.data.views import MEAN, STD, normalize
from rizbin.evaluation.frequency import smooth_fill
from rizbin.evaluation.segmentation import boundary_band

PLAIN = 1 / 255
"""A patch none of whose colors deviates by this from its mean (values 0 to 1) is plain: there is nothing to predict."""
STRONG = 0.1
"""A true gradient of this much a pixel (root mean square over colors, values 0 to 1) is an edge, also inside objects:
a tenth of the range stands far above the noise of a JPEG file (1 or 2 percent)."""


@runtime_checkable
class Reconstructor(Protocol):
    """Predicts pixels of given hidden patches; `rizbin.training.method.Method.reconstruct` is one."""

    def __call__(
        self,
        images: Float[Tensor, "batch 3 height width"],
        removed: Bool[Tensor, "batch rows columns"],
        low_resolution: int = 1,
    ) -> Float[Tensor, "batch 3 height width"] | None: ...


def random_half(images: int, grid: tuple[int, int], block: int, seed: int) -> Bool[Tensor, "images rows columns"]:
    """Half (rounded down) of each image's squares of `block` x `block` patches, at random; the same for every method.

    The first images have the same patches however many follow.
    """
    down, across = grid[0] // block, grid[1] // block
    scores = torch.rand(images, down * across, generator=random.torch_generator(seed, "hidden blocks"))
    chosen = scores.argsort(dim=1)[:, : down * across // 2]
    blocks = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True).unflatten(1, (down, across))
    return blocks.repeat_interleave(block, 1).repeat_interleave(block, 2)


def patch_errors(
    predicted: Float[Tensor, "images 3 height width"],
    truth: Float[Tensor, "images 3 height width"],
    grid: tuple[int, int],
) -> Float[Tensor, "images rows columns"]:
    """Each patch's squared error divided by the truth's squared deviation from the patch's mean; float64.

    Both patches lose their own mean first (over pixels and colors, as MAE normalizes, arXiv 2111.06377): methods that
    predict normalized patches are handed the truth's, so that a wrong one must not count for others. A flat patch is at
    1, a perfect one at 0. nan where the truth is plain (`PLAIN`).
    """
    wrong = _centered(predicted, grid) - _centered(truth, grid)
    true = _centered(truth, grid)
    within = _cut(truth, grid).flatten(4)
    spread = within.std(dim=4, correction=0) * torch.tensor(STD, dtype=torch.double, device=truth.device)
    plain = spread.amax(dim=3) < PLAIN
    errors = wrong.square().sum(dim=3) / true.square().sum(dim=3).clamp_min(1e-30)
    return errors.masked_fill(plain, torch.nan)


def _cut(
    images: Float[Tensor, "images 3 height width"], grid: tuple[int, int]
) -> Float[Tensor, "images rows columns 3 side across"]:
    rows, columns = grid
    return images.double().unflatten(3, (columns, -1)).unflatten(2, (rows, -1)).permute(0, 2, 4, 1, 3, 5)


def _centered(
    images: Float[Tensor, "images 3 height width"], grid: tuple[int, int]
) -> Float[Tensor, "images rows columns values"]:
    values = _cut(images, grid).flatten(3)
    return values - values.mean(dim=3, keepdim=True)


def unit_values(images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
    """Normalized pixels as values cut to 0 to 1; float64, not rounded."""
    mean, std = (torch.tensor(part, dtype=torch.double, device=images.device)[:, None, None] for part in (MEAN, STD))
    return (images.double() * std + mean).clamp(0, 1)


def gradient_energy(values: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images height width"]:
    """Squared gradient magnitude of each pixel, mean over colors, by differences with the pixels right and below."""
    right = F.pad(values[..., :, 1:] - values[..., :, :-1], (0, 1))
    below = F.pad(values[..., 1:, :] - values[..., :-1, :], (0, 0, 0, 1))
    return (right.square() + below.square()).mean(dim=1)


def true_edges(
    values: Float[Tensor, "images 3 height width"], labels: Int16[Tensor, "images height width"]
) -> Bool[Tensor, "images height width"]:
    """Pixels within 1 of a boundary between objects or object and ground, and those of a strong gradient (`STRONG`)."""
    return boundary_band(labels, 1, frame=False) | (gradient_energy(values) >= STRONG**2)


@dataclass
class _Sum:
    """A running mean."""

    total: float = 0.0
    count: int = 0
    images: int = 0
    """Images that contributed to the sum."""

    def add(self, values: Tensor, chosen: Tensor) -> None:
        """Takes the chosen values that are numbers."""
        chosen = chosen & ~values.isnan()
        self.total += values[chosen].sum().item()
        self.count += int(chosen.sum())
        self.images += int(chosen.flatten(1).any(dim=1).sum())

    @property
    def mean(self) -> float:
        return self.total / self.count


def measure(
    reconstruct: Reconstructor,
    pixels: UInt8[Tensor, "images size size 3"],
    labels: Int16[Tensor, "images size size"],
    grid: tuple[int, int],
    *,
    block: int,
    seed: int,
    factors: tuple[int, ...],
    batch: int,
    device: torch.device,
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Hidden patches of objects and ground, and shrunken images, reconstructed; second what was left out, and why.

    `labels` are 0 on background. Raises RizbinError when a reconstruction is not finite.
    """
    measurements: list[Measurement] = []
    left_out: list[tuple[str, str]] = []

    def batches() -> Iterator[tuple[Tensor, Tensor, slice]]:
        for start in range(0, len(pixels), batch):
            part = slice(start, start + batch)
            yield normalize(pixels[part].to(device)), labels[part], part

    if grid[0] % block or grid[1] % block:
        reason = f"A grid of {grid[0]}x{grid[1]} patches does not divide into blocks of {block}x{block}."
        left_out.append(("reconstruction/hidden", reason))
    else:
        hidden = random_half(len(pixels), grid, block, seed)
        parts = _hidden(reconstruct, batches(), hidden, grid, block)
        measurements += parts or []
        if not parts:
            plain = "No hidden patch of objects or ground has anything to predict."
            cannot = "The method does not reconstruct patches that others hide."
            left_out.append(("reconstruction/hidden", cannot if parts is None else plain))
    for factor in factors:
        name = f"reconstruction/low_resolution_{factor}"
        if pixels.shape[1] % factor:
            left_out.append((name, f"{pixels.shape[1]} pixels do not divide by {factor}."))
            continue
        parts = _low_resolution(reconstruct, batches(), grid, factor)
        measurements += parts or []
        if not parts:
            plain = "The images have nothing to predict."
            cannot = "The method does not reconstruct images of a lower resolution."
            left_out.append((name, cannot if parts is None else plain))
    return measurements, left_out


def _called(reconstruct: Reconstructor, images: Tensor, removed: Tensor, factor: int) -> Tensor | None:
    predicted = reconstruct(images, removed, factor)
    if predicted is not None and not torch.isfinite(predicted).all():
        raise RizbinError(
            "The method's reconstructions are not finite numbers, so nothing can be measured; "
            "go back to an earlier checkpoint of its run."
        )
    return None if predicted is None else predicted.float()


def _hidden(
    reconstruct: Reconstructor,
    batches: Iterator[tuple[Tensor, Tensor, slice]],
    hidden: Bool[Tensor, "images rows columns"],
    grid: tuple[int, int],
    block: int,
) -> list[Measurement] | None:
    """Normalized error on hidden patches of objects and of ground; None when the method cannot."""
    sums = {(where, how): _Sum() for where in ("object", "ground") for how in ("method", "neighbors")}
    for images, labels, part in batches:
        removed = hidden[part].to(images.device)
        predicted = _called(reconstruct, images, removed, 1)
        if predicted is None:
            return None
        share = F.adaptive_avg_pool2d((labels > 0).double(), grid)
        places = {"object": hidden[part] & (share > 0.5), "ground": hidden[part] & (share == 0)}
        for how, filled in (("method", predicted), ("neighbors", smooth_fill(images, removed))):
            errors = patch_errors(filled, images, grid).cpu()
            for where, chosen in places.items():
                sums[where, how].add(errors, chosen)
    squares = f"blocks of {block}x{block} patches" if block > 1 else "patches"
    says = {"object": "more than half object", "ground": "without any object"}
    measurements = []
    for where, which in says.items():
        own, neighbors = sums[where, "method"], sums[where, "neighbors"]
        if not own.count:
            continue
        measurements.append(
            Measurement(
                name=f"reconstruction/hidden/{where}_patches",
                value=own.mean,
                unit="relative",
                higher_is_better=False,
                chance=min(1.0, neighbors.mean),
                references=(("flat patch", 1.0), ("mean of visible neighbors", neighbors.mean)),
                protocol=f"Mean over {own.count} hidden patches {which} of the squared error divided by the truth's "
                "squared deviation from the patch's mean (patches of normalized pixels without their own means, since "
                "a method that predicts normalized patches is handed mean and deviation; plain patches, with nothing "
                f"to predict, are left out), when a random half of the {squares}, the same for all methods, is hidden; "
                "0 is perfect, 1 a patch of one gray; the mean of the visible pixels around under a Gaussian of half a "
                f"patch has {neighbors.mean:.3f}, and chance is the better of these two.",
                images=own.images,
                items=f"{own.count:,} patches",
            )
        )
    return measurements


def _low_resolution(
    reconstruct: Reconstructor,
    batches: Iterator[tuple[Tensor, Tensor, slice]],
    grid: tuple[int, int],
    factor: int,
) -> list[Measurement] | None:
    """Object patches, PSNR and edges of images shrunk by the factor, nothing hidden, beside bicubic enlargement.

    None when the method cannot.
    """
    sums = _enlargement(reconstruct, batches, grid, factor)
    if sums is None:
        return None
    how = f"with images shrunk by {factor} (means of {factor}x{factor} pixels) and enlarged again by bicubic weights"
    room = f"reconstruction/low_resolution_{factor}"
    measurements: list[Measurement] = []
    if sums.errors["method"].count:
        own, bicubic = sums.errors["method"], sums.errors["bicubic"].mean
        measurements.append(
            Measurement(
                name=f"{room}/object_patches",
                value=own.mean,
                unit="relative",
                higher_is_better=False,
                chance=min(1.0, bicubic),
                references=(("flat patch", 1.0), ("bicubic enlargement", bicubic)),
                protocol=f"Mean over {own.count} patches more than half object of the squared error divided by the "
                f"truth's squared deviation from the patch's mean (patches without their own means), {how} as input "
                f"and nothing hidden; 0 is perfect, 1 a patch of one gray, the input itself has {bicubic:.3f}, and "
                "chance is the better of these two.",
                images=own.images,
                items=f"{own.count:,} patches",
            )
        )
    if sums.squares["method"].count:
        own, bicubic = (_decibel(sums.squares[guess].mean) for guess in _HOW)
        measurements.append(
            Measurement(
                name=f"{room}/psnr",
                value=own,
                unit="decibel",
                chance=bicubic,
                references=(("bicubic enlargement", bicubic),),
                protocol=f"Peak signal-to-noise ratio, -10 log10 of the mean squared error of values from 0 to 1, over "
                f"{sums.squares['method'].count} object pixels, {how} as input and nothing hidden; chance is that "
                "input itself.",
                images=sums.squares["method"].images,
                items=f"{sums.squares['method'].count:,} object pixels",
            )
        )
    return [*measurements, _edge_energy(sums, room, how)] if sums.true_energy > 0 else measurements


@dataclass
class _Enlargement:
    """Sums over images that were shrunk and enlarged again, by the method and by bicubic weights alone."""

    errors: dict[str, _Sum]
    """Relative squared errors of patches more than half object."""
    squares: dict[str, _Sum]
    """Squared errors of object pixels, values 0 to 1."""
    energy: dict[str, float]
    """Squared gradient magnitudes at the true edges; `true_energy` is that of the original images."""
    true_energy: float = 0.0
    edges: int = 0
    """Pixels at true edges."""
    images: int = 0


def _enlargement(
    reconstruct: Reconstructor,
    batches: Iterator[tuple[Tensor, Tensor, slice]],
    grid: tuple[int, int],
    factor: int,
) -> _Enlargement | None:
    """The sums that `_low_resolution` measures by; None when the method cannot enlarge."""
    sums = _Enlargement({how: _Sum() for how in _HOW}, {how: _Sum() for how in _HOW}, dict.fromkeys(_HOW, 0.0))
    for images, labels, _ in batches:
        nothing = torch.zeros(len(images), *grid, dtype=torch.bool, device=images.device)
        predicted = _called(reconstruct, images, nothing, factor)
        if predicted is None:
            return None
        true, on_object = unit_values(images).cpu(), labels > 0
        mostly_object = F.adaptive_avg_pool2d(on_object.double(), grid) > 0.5
        at_edge = true_edges(true, labels)
        sums.true_energy += gradient_energy(true)[at_edge].sum().item()
        sums.edges, sums.images = sums.edges + int(at_edge.sum()), sums.images + len(images)
        for how, guess in zip(_HOW, (predicted, lowered(images, factor)), strict=True):
            values = unit_values(guess).cpu()
            sums.errors[how].add(patch_errors(guess, images, grid).cpu(), mostly_object)
            sums.squares[how].add((values - true).square().mean(dim=1), on_object)
            sums.energy[how] += gradient_energy(values)[at_edge].sum().item()
    return sums


def _edge_energy(sums: _Enlargement, room: str, how: str) -> Measurement:
    own, bicubic = (sums.energy[guess] / sums.true_energy for guess in _HOW)
    return Measurement(
        name=f"{room}/edge_energy",
        value=own,
        unit="number",
        chance=bicubic,
        references=(("bicubic enlargement", bicubic),),
        protocol=f"Squared gradient magnitude of the reconstruction at true edges ({sums.edges} pixels within 1 of "
        f"a boundary between objects or object and ground, or with a true gradient of {STRONG:g} and more a "
        f"pixel, values 0 to 1), divided by the truth's, {how} as input and nothing hidden; 1 is as sharp as "
        "the truth, less is blurred, more is too sharp or noise; chance is that input itself.",
        images=sums.images,
        items=f"{sums.edges:,} edge pixels",
    )


_HOW = ("method", "bicubic")


def _decibel(error: float) -> float:
    """PSNR of a mean squared error; 100 at most, where 64-bit arithmetic and 8-bit pixels mean nothing more."""
    return min(100.0, -10 * math.log10(max(error, 1e-10)))
