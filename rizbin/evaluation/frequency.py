"""Reconstruction by frequency: low-frequency error is blur of shape, high-frequency error is lost detail."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.measurement import Measurement


@runtime_checkable
class Reconstructed(Protocol):
    """A method's reconstruction of a batch and the patches that it removed; `rizbin.training.method.MethodView` is
    one."""

    @property
    def attention(self) -> Tensor: ...
    @property
    def removed(self) -> Tensor:
        """Bool [batch rows columns]."""
        ...

    @property
    def reconstruction(self) -> Tensor | None:
        """Normalized pixels [batch 3 height width]; None without a pixel term."""
        ...


NAMES = ("low_frequency", "middle_frequency", "high_frequency")
"""Names of three bands; any other number of bands is numbered."""

Looker = Callable[[Float[Tensor, "batch 3 height width"]], Reconstructed | None]


def patches_of(
    images: Float[Tensor, "batch 3 height width"], chosen: Bool[Tensor, "batch rows columns"]
) -> Float[Tensor, "patches 3 side across"]:
    """The pixels of the chosen patches."""
    _, rows, columns = chosen.shape
    cut = images.unflatten(3, (columns, -1)).unflatten(2, (rows, -1)).permute(0, 2, 4, 1, 3, 5)
    return cut[chosen]


def band_energy(patches: Float[Tensor, "patches 3 side across"], edges: tuple[float, ...]) -> Float[Tensor, "bands"]:
    """The energy of what varies inside each patch, summed over patches and colors, by radial frequency.

    `edges` are shares of the Nyquist frequency (half a cycle a pixel): band i reaches up to edges[i], the last has no
    end. The bands sum to the patches' squared distance from their own mean (Parseval). float64.
    """
    side, across = patches.shape[-2:]
    spectrum = torch.fft.fft2(patches.double(), norm="ortho").abs().square().sum(dim=(0, 1))
    frequency = (
        torch.fft.fftfreq(side, dtype=torch.double).to(patches.device),
        torch.fft.fftfreq(across, dtype=torch.double).to(patches.device),
    )
    radius = torch.cartesian_prod(*frequency).square().sum(dim=1).sqrt() / 0.5
    spectrum = spectrum.flatten()
    spectrum[0] = 0
    band = torch.bucketize(radius, torch.tensor(edges, dtype=torch.double, device=patches.device))
    return torch.zeros(len(edges) + 1, dtype=torch.double, device=patches.device).scatter_add_(0, band, spectrum)


def smooth_fill(
    images: Float[Tensor, "batch 3 height width"], removed: Bool[Tensor, "batch rows columns"]
) -> Float[Tensor, "batch 3 height width"]:
    """The images with each removed pixel painted by the visible pixels around it: their mean under a Gaussian.

    Its standard deviation is half a patch; where nothing visible is near, the mean of all that is visible.
    """
    side = images.shape[-1] // removed.shape[-1]
    visible = (~removed).repeat_interleave(images.shape[-2] // removed.shape[-2], 1).repeat_interleave(side, 2)
    visible = visible[:, None].to(images.dtype)
    reach = 2 * side
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / (side / 2)) ** 2).to(images.dtype)
    bell = bell / bell.sum()

    def blurred(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1)[:, None]
        flat = F.conv2d(
            F.conv2d(flat, bell.view(1, 1, 1, -1), padding=(0, reach)), bell.view(1, 1, -1, 1), padding=(reach, 0)
        )
        return flat.view_as(values)

    weight, around = blurred(visible), blurred(images * visible)
    mean = (images * visible).sum(dim=(2, 3), keepdim=True) / visible.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    painted = torch.where(weight > 1e-4, around / weight.clamp_min(1e-4), mean)
    return images * visible + painted * (1 - visible)


def measure(
    shown: Iterable[tuple[Float[Tensor, "_ 3 height width"], Reconstructed | None]], edges: tuple[float, ...]
) -> list[Measurement]:
    """Relative error by band over all removed patches of all (images, look); empty without reconstructions."""
    truth = torch.zeros(len(edges) + 1, dtype=torch.double)
    wrong, wrong_by_filling = truth.clone(), truth.clone()
    patches = count = 0
    for images, looked in shown:
        if looked is None or looked.reconstruction is None:
            continue
        true = patches_of(images, looked.removed)
        patches += len(true)
        count += len(images)
        for total, guess in (
            (truth, torch.zeros_like(true)),
            (wrong, patches_of(looked.reconstruction.float(), looked.removed)),
            (wrong_by_filling, patches_of(smooth_fill(images, looked.removed), looked.removed)),
        ):
            total += band_energy(guess - true, edges).cpu()
    names = [f"up to {edges[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(edges)), f"above {edges[-1]:g}"]
    numbered = [f"band{band + 1}" for band in range(len(names))]
    return [
        Measurement(
            name=f"reconstruction/{(NAMES if len(names) == len(NAMES) else numbered)[band]}",
            value=(wrong[band] / truth[band]).item(),
            unit="relative",
            higher_is_better=False,
            chance=(wrong_by_filling[band] / truth[band]).item(),
            protocol=f"Energy of the error on {patches} removed patches divided by the energy of the truth, at {name} "
            "of the Nyquist frequency (radial, Fourier transform of each patch of normalized pixels without its mean, "
            "since a method that predicts normalized patches is handed mean and deviation); 1 is a flat patch, and "
            "chance paints each removed pixel with the visible ones around it under a Gaussian of half a patch.",
            images=count,
            items=f"{patches:,} patches",
        )
        for band, name in enumerate(names)
        if truth[band] > 0
    ]
