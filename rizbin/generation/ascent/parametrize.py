"""Parametrizations of the image in gradient ascent: the same gradient gives other images in other coordinates.

Every one is a module that is built from start images and gives images: `made()` is [images, 3, height, width],
0 to 1, and before the first step the start (latents: as the autoencoder gives it back; strokes: to some percent). Plain
pixels take whatever pattern fools the encoder; coordinates in which coarse things are cheap draw coarse things first
(by plain descent; of Adam see `MultiResolution`).

Source: several resolutions, Direct Ascent Synthesis (arXiv 2502.07753); Fourier with decorrelated colors, Lucid
(distill.pub/2017/feature-visualization); strokes, CLIPDraw (arXiv 2106.14843).
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError

Starts = Float[Tensor, "images 3 height width"]
"""Images that are started from, 0 to 1."""
Made = Starts
"""Images as they stand, 0 to 1."""
Resolutions = Literal["all", "powers"] | Sequence[int]
Parametrization = Literal["resolutions", "fourier", "pixels", "latent", "strokes"]

_EDGE = 1e-3
"""Distance that a start keeps from black and white, where tanh has no slope left."""


def squashed(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Any number into 0 to 1: (tanh + 1) / 2."""
    return (values.tanh() + 1) / 2


def unsquashed(images: Starts) -> Float[Tensor, "images 3 height width"]:
    """What `squashed` makes these images of; black and white come back a thousandth off."""
    return torch.atanh(images.clamp(_EDGE, 1 - _EDGE) * 2 - 1)


class Pixels(nn.Module):
    """Each pixel for itself: the adversary, against which the others are measured."""

    def __init__(self, start: Starts) -> None:
        super().__init__()
        self.values = nn.Parameter(unsquashed(start))

    def forward(self) -> Made:
        return squashed(self.values)


class Fourier(nn.Module):
    """Waves, the slow ones stronger, in colors as they vary in photographs.

    decay: a wave of frequency f is scaled by f ** -decay; 1 gives the spectrum of photographs at equal coefficients.
    """

    base: Tensor
    scale: Tensor
    colors: Tensor

    def __init__(self, start: Starts, *, decay: float = 1.0) -> None:
        super().__init__()
        images, _, height, width = start.shape
        down, across = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
        frequency = (down[:, None] ** 2 + across[None] ** 2).sqrt().to(start)
        scale = frequency.clamp(min=1 / max(height, width)) ** -decay
        # At equal coefficients a pixel's deviation does not depend on the size of the canvas.
        self.register_buffer("scale", scale * (height * width) ** 0.5 / scale.square().mean().sqrt())
        self.register_buffer("colors", _COLORS.to(start))
        self.register_buffer("base", unsquashed(start))
        self.waves = nn.Parameter(start.new_zeros(images, 3, height, width // 2 + 1, 2))

    def forward(self) -> Made:
        waves = torch.view_as_complex(self.waves * self.scale[..., None])
        values = torch.fft.irfft2(waves, s=self.base.shape[-2:])
        return squashed(self.base + torch.einsum("phyx,ch->pcyx", values, self.colors))


def _decorrelated() -> Tensor:
    """Lucid's square root of the covariance of colors over ImageNet, its longest column of length 1."""
    root = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    return root / root.norm(dim=0).max()


_COLORS = _decorrelated()


class MultiResolution(nn.Module):
    """A sum of images of many sizes, each enlarged to the canvas (1x1: one color; others bicubic).

    One coarse value gathers the gradient of all pixels below it, so that plain gradient descent moves coarse things
    most: the prior of the paper. resolutions: sides; "all" from 1 to the canvas's longer side, "powers" of two up to it
    and itself. decay: the component of side r counts (r / finest) ** -decay: a prior for optimizers such as Adam, whose
    steps do not know how large a gradient is; 0 is the paper's, below 0 the coarse ones count less. apart: each
    component loses what the next coarser one could show, and colors vary as in photographs: under Adam the coarse
    things would otherwise be moved once for every finer component too, and run into saturation.
    """

    base: Tensor
    colors: Tensor

    def __init__(
        self, start: Starts, *, resolutions: Resolutions = "powers", decay: float = 0.0, apart: bool = False
    ) -> None:
        super().__init__()
        self.decay, self.apart = decay, apart
        self.register_buffer("colors", _COLORS.to(start))
        self.sides = sides_of(resolutions, max(start.shape[-2:]))
        self.register_buffer("base", unsquashed(start))
        self.levels = nn.ParameterList(
            [nn.Parameter(start.new_zeros(len(start), 3, side, side)) for side in self.sides]
        )

    def forward(self) -> Made:
        height, width = self.base.shape[-2:]
        values = torch.zeros_like(self.base.transpose(2, 3))
        for coarser, side, level in zip((0, *self.sides[:-1]), self.sides, self.levels, strict=True):
            shown = level
            if self.apart and coarser:
                known = coarser_part(coarser, side).to(level)
                shown = level - known @ level @ known
            down, across = enlarging(side, height).to(level), enlarging(side, width).to(level)
            # Matrices stand on the right, where torch makes no copy of them for every color.
            wide = (shown @ across.T).transpose(2, 3) @ down.T
            # In place: hundreds of sums of all sizes, kept apart, would make the process grow by a gigabyte.
            values = values.add_(wide, alpha=(side / self.sides[-1]) ** -self.decay)
        if self.apart:
            values = torch.einsum("phxy,ch->pcxy", values, self.colors)
        return squashed(self.base + values.transpose(2, 3))


def sides_of(resolutions: Resolutions, longest: int) -> tuple[int, ...]:
    """The sides of the components, rising. Raises RizbinError for one that is none."""
    if resolutions == "all":
        return tuple(range(1, longest + 1))
    if resolutions == "powers":
        return (*(2**power for power in range(math.ceil(math.log2(max(longest, 2))))), longest)
    assert not isinstance(resolutions, str)  # what else a Literal may be, the checker of types knows
    for side in resolutions:
        if not 1 <= side <= longest:
            raise RizbinError(f"A resolution of {side} does not fit a canvas of {longest} pixels; give 1 to {longest}.")
    if not resolutions:
        raise RizbinError("No resolution is none to draw at; give some, or all, or powers.")
    return tuple(sorted(set(resolutions)))


@cache
def enlarging(side: int, size: int) -> Float[Tensor, "size side"]:
    """The matrix that enlarges `side` values to `size` as torch's bicubic interpolation does; of one value, copies.

    Interpolation is linear, and a matrix is several times as fast as torch's own, backwards above all.
    """
    if side == 1:
        return torch.ones(size, 1)
    eye = torch.eye(side, dtype=torch.float64)[None, None]
    wide = F.interpolate(eye, size=(side, size), mode="bicubic", align_corners=False)
    return wide[0, 0].T.contiguous().float() if side != size else torch.eye(size)


@cache
def coarser_part(coarser: int, side: int) -> Float[Tensor, "side side"]:
    """The symmetric matrix that leaves of `side` values what `coarser` ones, enlarged, can show of them."""
    basis = torch.linalg.qr(enlarging(coarser, side).double()).Q
    return (basis @ basis.T).float()


class Latent(nn.Module):
    """The latent of a diffusion model's autoencoder (AutoencoderKL, AutoencoderTiny): what it cannot decode is not
    drawn."""

    def __init__(self, start: Starts, *, autoencoder: Any) -> None:
        super().__init__()
        self.shape = start.shape[-2:]
        self._decode: Callable[[Tensor], Any] = autoencoder.decode
        autoencoder.requires_grad_(False)
        with torch.no_grad():
            encoded = autoencoder.encode(start * 2 - 1)
            latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        self.latents = nn.Parameter(latents.clone())

    def forward(self) -> Made:
        decoded = self._decode(self.latents).sample
        if decoded.shape[-2:] != self.shape:
            raise RizbinError(
                f"The autoencoder gives {_by(decoded.shape[-2:])} pixels for a canvas of {_by(self.shape)}; choose a "
                "size that it can divide."
            )
        return ((decoded + 1) / 2).clamp(0, 1)


class Strokes(nn.Module):
    """Soft strokes on the start image: quadratic Bezier curves with a width, a color and an opacity each.

    A pixel is covered by sigmoid((half the width - its distance to the curve) / a third of a pixel's diagonal), and
    the strokes lie over each other in their order. The curve is taken as `pieces` straight pieces. At the start all
    strokes are faint.
    """

    start: Tensor
    centers: Tensor

    def __init__(
        self, start: Starts, *, strokes: int = 48, pieces: int = 8, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        images, _, height, width = start.shape
        self.pieces = pieces
        self.register_buffer("start", start.clone())
        down, across = torch.arange(height).to(start) + 0.5, torch.arange(width).to(start) + 0.5
        unit = max(height, width)
        self.soft = 1.5 / unit
        self.register_buffer("centers", torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1) / unit)

        def drawn(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator).to(start)

        # The same strokes for all images: what is drawn of one does not depend on how many there are beside it.
        middle = drawn(1, strokes, 1, 2) * torch.tensor([width / unit, height / unit]).to(start)
        points = (middle + (drawn(1, strokes, 3, 2) - 0.5) * 0.4).repeat(images, 1, 1, 1)
        self.points = nn.Parameter(points)
        """[images, strokes, 3, 2], x and y in shares of the longer side."""
        self.widths = nn.Parameter((0.02 + 0.06 * drawn(1, strokes)).log().repeat(images, 1))
        self.colors = nn.Parameter(((drawn(1, strokes, 3) - 0.5) * 2).repeat(images, 1, 1))
        self.opacity = nn.Parameter(start.new_full((images, strokes), -3.0))

    def forward(self) -> Made:
        time = torch.linspace(0, 1, self.pieces + 1).to(self.points)[:, None]
        first, second, third = self.points.unsqueeze(-3).unbind(-2)
        curve = (1 - time) ** 2 * first + 2 * time * (1 - time) * second + time**2 * third
        image = self.start
        colors, opacity = squashed(self.colors), self.opacity.sigmoid()
        for number in range(self.points.shape[1]):
            near = distances(self.centers, curve[:, number])
            half = self.widths[:, number].exp()[:, None, None] / 2
            cover = torch.sigmoid((half - near) / (self.soft / 3)) * opacity[:, number, None, None]
            cover = cover[:, None]
            image = image * (1 - cover) + colors[:, number, :, None, None] * cover
        return image


def distances(
    places: Float[Tensor, "height width 2"], curves: Float[Tensor, "images points 2"]
) -> Float[Tensor, "images height width"]:
    """How far each place is from the nearest of the straight pieces between a curve's points."""
    from_, to = curves[:, :-1, None, None], curves[:, 1:, None, None]
    along = to - from_
    length = along.square().sum(-1).clamp(min=1e-12)
    share = (((places - from_) * along).sum(-1) / length).clamp(0, 1)
    gap = places - (from_ + share[..., None] * along)
    # The root has no slope at 0, which a pixel on the curve would meet.
    return (gap.square().sum(-1).amin(dim=1) + 1e-12).sqrt()


def parametrized(
    name: Parametrization,
    start: Starts,
    *,
    resolutions: Resolutions = "powers",
    decay: float = 0.0,
    apart: bool = False,
    strokes: int = 48,
    autoencoder: Any = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """The parametrization of that name. Raises RizbinError for one that cannot be built."""
    if name == "latent":
        if autoencoder is None:
            raise RizbinError("Latents need an autoencoder; name the folder of a diffusion model that has one.")
        return Latent(start, autoencoder=autoencoder)
    makers: dict[str, Callable[[], nn.Module]] = {
        "resolutions": lambda: MultiResolution(start, resolutions=resolutions, decay=decay, apart=apart),
        "fourier": lambda: Fourier(start),
        "pixels": lambda: Pixels(start),
        "strokes": lambda: Strokes(start, strokes=strokes, generator=generator),
    }
    if name not in makers:
        raise RizbinError(f"There is no parametrization {name!r}; choose one of {', '.join(makers)} or latent.")
    return makers[name]()


def bounded(
    images: Made,
    start: Starts,
    *,
    change: float = 1.0,
    mask: Float[Tensor, "1 height width"] | None = None,
) -> Made:
    """The images where the mask is 1, the start where it is 0; nowhere further from the start than `change`.

    The bound is soft (change * tanh(difference / change)), so that no pixel loses its gradient on it; from 1 on there
    is none.
    """
    if change >= 1 and mask is None:
        return images
    difference = images - start
    if change < 1:
        difference = change * torch.tanh(difference / change)
    if mask is not None:
        difference = difference * mask
    return start + difference


def _by(shape: Sequence[int]) -> str:
    """Height and width as people write them: width first."""
    return f"{shape[1]}x{shape[0]}"
