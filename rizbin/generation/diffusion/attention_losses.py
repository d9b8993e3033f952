"""How badly the attention maps of a prompt's objects are placed: losses for guidance, all of them better when lower.

`maps` has one map an object, the mean over its tokens, as the UNet gives it; losses of pairs look at where a map lies
and normalize each to sum 1. With that they cannot see that a map is faint everywhere: `intensity_floor` can be added.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError

Maps = Float[Tensor, "objects rows columns"]
Tokens = Sequence[tuple[int, ...]]
"""For each object the positions of its tokens."""

EPSILON = 1e-12
"""Added where a root or a quotient would have no gradient; its square still is a number in float32."""
KL_FLOOR = 1e-8
"""The least share of a cell in `kl`: the logarithm of an empty cell is bounded by -18.4."""
SHARPNESS = 100.0
"""What Attend-and-Excite multiplies the mean attention with before its second softmax."""
SIGMA = 0.5**0.5
"""Standard deviation of the smoothing, in cells."""
CELLS = 10.0
"""What the loss of distances is divided by, in cells."""


def maps_of(attention: Float[Tensor, "rows columns tokens"], tokens: Tokens) -> Maps:
    """One map an object: the mean over its tokens."""
    if not tokens:
        raise RizbinError("No object was given; give the tokens of one or more.")
    return torch.stack([attention[..., list(own)].mean(dim=-1) for own in tokens])


def peaks(
    attention: Float[Tensor, "rows columns tokens"], tokens: Tokens, end_of_text: int | None = None
) -> Float[Tensor, " objects"]:
    """The highest value of each object's sharpened and smoothed map, 0 to 1.

    max_p (G * softmax_tokens(100 A))[p, s]: the softmax leaves out the start token, and what stands from `end_of_text`
    on, or without one the last position alone; G is a Gaussian of 3x3 cells, reflected at the border.
    Source: Attend-and-Excite, arXiv 2301.13826, section 4, and its released code.
    Differs: the code names a sigma of 0.5 and computes exp(-(x / (2 sigma))^2), a Gaussian of sigma 0.707, which is
    what is used here; an object of several tokens has the mean of their sharpened maps; a first or last position that
    is an object's own token stays in.
    """
    used = [token for own in tokens for token in own]
    if not used:
        raise RizbinError("No object was given; give the tokens of one or more.")
    start = 0 if 0 in used else 1
    end = attention.shape[-1] - 1 if end_of_text is None else end_of_text
    sharp = (SHARPNESS * attention[..., start : max(end, max(used) + 1)]).softmax(dim=-1)
    return _smooth(maps_of(sharp, [tuple(token - start for token in own) for own in tokens])).flatten(1).amax(dim=1)


def _smooth(maps: Maps) -> Maps:
    """A Gaussian over 3x3 cells."""
    offsets = torch.arange(-1, 2, dtype=maps.dtype, device=maps.device)
    line = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    padded = F.pad(maps[:, None], (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, kernel[None, None])[:, 0]


def attend_and_excite(
    attention: Float[Tensor, "rows columns tokens"], tokens: Tokens, end_of_text: int | None = None
) -> Float[Tensor, ""]:
    """max_s (1 - peak_s), 0 to 1: how far the worst object is from being attended to somewhere.

    Source: Attend-and-Excite, arXiv 2301.13826, equation 1. `peaks` says what a peak is.
    """
    return (1 - peaks(attention, tokens, end_of_text)).clamp_min(0).amax()


def center_distance(maps: Maps) -> Float[Tensor, ""]:
    """-1/10 of the distance between the objects' centers of mass in cells, the mean over pairs.

    -mean_(i<j) |c_i - c_j| / 10, c_i = sum_p a_i(p) p. From -(diagonal / 10) to 0.
    Source: Attention Overlap Is Responsible for the Entity Missing Problem, arXiv 2410.20972 (CoM distance).
    Differs: three objects have the mean over their pairs as any number has, not the area of their triangle, whose
    root has no gradient when they stand in a line; the root of a zero distance is guarded.
    """
    return -_mean_of_pairs(_centers(_normalized(maps)), _distance) / CELLS


def iou(maps: Maps) -> Float[Tensor, ""]:
    """How much the objects' maps overlap, 0 (nowhere) to 0.5 (the same map), the mean over pairs.

    mean_(i<j) sum_p a_i a_j / (a_i + a_j). Source: arXiv 2410.20972 (IoU); A-STAR, arXiv 2306.14544 (segregation).
    """
    return _mean_of_pairs(_normalized(maps), lambda a, b: (a * b / (a + b).clamp_min(EPSILON)).sum())


def kl(maps: Maps) -> Float[Tensor, ""]:
    """Minus the symmetric Kullback-Leibler divergence, in nats, the mean over pairs; 0 for the same map.

    -mean_(i<j) 1/2 sum_p (a_i - a_j) (log a_i - log a_j). Source: arXiv 2410.20972 (KL).
    Differs: shares under 1e-8 count as that in the logarithm, so that disjoint maps have a finite loss.
    """

    def divergence(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).mul(a.clamp_min(KL_FLOOR).log() - b.clamp_min(KL_FLOOR).log()).sum() / 2

    return -_mean_of_pairs(_normalized(maps), divergence)


def total_variation(maps: Maps) -> Float[Tensor, ""]:
    """Minus the total variation distance of the objects' maps, -1 (disjoint) to 0 (the same), the mean over pairs.

    -mean_(i<j) 1/2 sum_p |a_i - a_j|. For two objects the clustering compactness of arXiv 2410.20972 is
    (1 + that distance) / cells.
    """
    return -_mean_of_pairs(_normalized(maps), lambda a, b: (a - b).abs().sum() / 2)


def contrastive(maps: Maps, previous: Maps, temperature: float = 0.5) -> Float[Tensor, ""]:
    """Each object's map must be like its own of the step before and unlike all others, by cosine.

    NT-Xent over the 2 * objects maps of step t and t - 1: the mean of -log softmax over the others of
    cos(a, b) / temperature, at the object's own other map. `previous` gets no gradient.
    Source: CONFORM, arXiv 2312.06059, equation 4, temperature 0.5.
    Differs: an object's adjectives have no maps of their own here.
    """
    count = len(_two_or_more(maps))
    both = F.normalize(torch.cat([maps.flatten(1), previous.detach().flatten(1)]), dim=1, eps=EPSILON)
    logits = both @ both.T / temperature
    logits = logits.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=maps.device), float("-inf"))
    own = torch.arange(2 * count, device=maps.device).roll(count)
    return F.cross_entropy(logits, own)


def intensity_floor(maps: Maps, floor: float) -> Float[Tensor, ""]:
    """mean_i max(0, floor - max_p A_i(p)): what the objects' highest attention (0 to 1) lacks to a floor."""
    return (floor - maps.flatten(1).amax(dim=1)).clamp_min(0).mean()


@torch.no_grad()
def statistics(maps: Maps) -> dict[str, float]:
    """Numbers about one prompt's maps that may tell whether an object will be missing.

    `intensity`: the least of the objects' mean attention, 0 to 1. `spread`: the mean squared distance of a map's mass
    from its center, in cells squared, mean over objects. For two objects and more also, means over pairs: `iou`
    (0 to 0.5), `distance` of the centers (cells), `kl` (nats), `total_variation` (0 to 1).
    Source: arXiv 2410.20972, section 3.
    """
    shares = _normalized(maps)
    squares = (_grid(maps) - _centers(shares)[:, None, None]).square().sum(dim=-1)
    values = {
        "intensity": float(maps.flatten(1).mean(dim=1).amin()),
        "spread": float((shares * squares).sum(dim=(1, 2)).mean()),
    }
    if len(maps) > 1:
        values["iou"] = float(iou(maps))
        values["distance"] = -CELLS * float(center_distance(maps))
        values["kl"] = -float(kl(maps))
        values["total_variation"] = -float(total_variation(maps))
    return values


def _normalized(maps: Maps) -> Maps:
    return maps / maps.sum(dim=(1, 2), keepdim=True).clamp_min(EPSILON)


def _grid(maps: Maps) -> Float[Tensor, "rows columns 2"]:
    """Row and column of each cell."""
    sides = (torch.arange(side, dtype=maps.dtype, device=maps.device) for side in maps.shape[1:])
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)


def _centers(shares: Maps) -> Float[Tensor, "objects 2"]:
    """Centers of mass, row and column in cells."""
    return torch.einsum("orc,rcd->od", shares, _grid(shares))


def _distance(a: Float[Tensor, " 2"], b: Float[Tensor, " 2"]) -> Float[Tensor, ""]:
    return ((a - b).square().sum() + EPSILON).sqrt()


def _mean_of_pairs(maps: Float[Tensor, "objects *shape"], value: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    pairs = combinations(_two_or_more(maps), 2)
    return torch.stack([value(a, b) for a, b in pairs]).mean()


def _two_or_more(maps: Float[Tensor, "objects *shape"]) -> Float[Tensor, "objects *shape"]:
    if len(maps) < 2:
        raise RizbinError(f"This loss compares objects and was given {len(maps)}; give the maps of two or more.")
    return maps
